//! The time of layer normalization beside that of a copy of the same bytes, row by row width.

use std::cell::Cell;

use futures_channel::oneshot;
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, PreparedPlan, Region, StorageType,
    Tensor, wgpu,
};
use wasm_bindgen::prelude::*;

use super::comparison::Comparison;
use super::copies::CopyKernel;
use super::form::{Form, Refusal, Refusals};
use super::task::Task;
use super::values::{Distribution, Stream, about, drawn};

/// Samples of each, taken in turn, so that what else the machine does hits both.
const SAMPLES: usize = 9;
/// A sample is so many runs that it takes this long, in milliseconds: a browser's clock goes in steps of up to a tenth of one, and
/// handing work over takes some tenths too.
const SAMPLE_TIME: f64 = 15.0;
const MAX_RUNS: u32 = 1024;
/// Elements that are compared with the reference at once.
const COMPARED: usize = 1 << 18;
const MAX_WIDTHS: usize = 16;

const ELEMENTS: [(&str, usize); 5] =
    [("2^16", 1 << 16), ("2^18", 1 << 18), ("2^20", 1 << 20), ("2^22", 1 << 22), ("2^24", 1 << 24)];

/// What is timed: work recorded into a compute pass.
pub(super) trait Work {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>);
}

impl Work for PreparedPlan {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_pass(pass);
    }
}

/// A benchmark of several widths on the same values.
#[wasm_bindgen]
pub struct Benchmark {
    device: GpuDevice,
    widths: Vec<usize>,
    is_rms: bool,
    is_causal: bool,
    values: Tensor,
    input: GpuTensor,
    output: GpuTensor,
    is_cancelled: Cell<bool>,
}

/// Medians of a width.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone)]
pub struct Measurement {
    pub rows: u32,
    pub width: u32,
    /// Milliseconds of a run.
    pub milliseconds: f64,
    pub copy_milliseconds: f64,
    /// Bytes of input and output by time.
    pub gigabytes_per_second: f64,
    pub copy_gigabytes_per_second: f64,
    /// Time as a multiple of the copy's.
    pub multiple: f64,
    /// The largest |output − reference| of the result, which was checked before it was timed.
    pub largest_error: f64,
}

impl Benchmark {
    pub(super) fn read(device: &GpuDevice, form: &Form) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Refusals::default();
        let elements = refusals.gather(form.choice("elements", &ELEMENTS));
        let storages = [("f32", StorageType::F32), ("f16", StorageType::F16), ("bf16", StorageType::Bf16)];
        let storage = refusals.gather(form.choice("storage", &storages));
        let norms = [("layer", (false, false)), ("rms", (true, false)), ("causal", (false, true))];
        let norm = refusals.gather(form.choice("norm", &norms));
        let widths = refusals.gather(form.dimensions("widths"));
        let (Some(elements), Some(storage), Some((is_rms, is_causal)), Some(widths)) =
            (elements, storage, norm, widths)
        else {
            return Err(refusals.into_vec());
        };
        if widths.is_empty() || widths.len() > MAX_WIDTHS || widths.iter().any(|width| !(1..=elements).contains(width))
        {
            let message = format!("{widths:?} is not from 1 to {MAX_WIDTHS} widths of 1 to {elements} elements");
            return Err(vec![Refusal::at("widths", message)]);
        }
        let new = || {
            let values = drawn(Distribution::Normal, 0.0, 1.0, elements, 1, Stream::Input);
            let values = Tensor::from_f32([elements], values)?.to_storage(storage);
            let input = GpuTensor::upload(device, &values)?;
            let output = GpuTensor::zeros_as(device, [elements], storage)?;
            Ok::<_, Error>((values, input, output))
        };
        let (values, input, output) = new().map_err(|error| vec![Refusal::of(error)])?;
        let (device, is_cancelled) = (device.clone(), Cell::new(false));
        Ok(Self { device, widths, is_rms, is_causal, values, input, output, is_cancelled })
    }

    fn clock() -> f64 {
        web_sys::window().and_then(|window| window.performance()).map_or(0.0, |performance| performance.now())
    }

    /// Compares every row of the output with the reference.
    async fn check(&self, task: impl Fn(Tensor) -> Task, rows: usize, width: usize) -> Result<f64, Error> {
        let output = self.output.download_async().await?;
        let (input, output) = (self.values.values(), output.values());
        // A causal layer has one sequence here, which is compared whole.
        let rows_at_once = if self.is_causal { rows } else { (COMPARED / width).max(1) };
        let mut largest_error = 0.0;
        let part = rows_at_once * width;
        let end = rows * width;
        for (input, output) in input[..end].chunks(part).zip(output[..end].chunks(part)) {
            let shape = [input.len() / width, width];
            let tensor =
                |values: &[f32]| Ok::<_, Error>(Tensor::from_f32(shape, values)?.to_storage(self.values.storage()));
            let comparison = Comparison::new(&task(tensor(input)?), &tensor(output)?);
            largest_error = comparison.largest_error.max(largest_error);
            if comparison.share_of_bound > 1.0 {
                let reason = format!("it is wrong at width {width}, by up to {largest_error:e}, and is not timed");
                return Err(Error::Geometry { reason });
            }
        }
        Ok(largest_error)
    }

    /// Milliseconds of one of so many runs, from submission until the queue is done.
    async fn sample(&self, work: &dyn Work, runs: u32) -> f64 {
        let queue = self.device.queue();
        let mut encoder = self.device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            (0..runs).for_each(|_| work.record(&mut pass));
        }
        let commands = encoder.finish();
        let (sender, done) = oneshot::channel();
        let start = Self::clock();
        queue.submit([commands]);
        queue.on_submitted_work_done(move || {
            // Nobody listens any more if the benchmark was dropped.
            let _ = sender.send(());
        });
        // The callback is dropped with a device that is lost, and then there is no time to tell of.
        let _ = done.await;
        (Self::clock() - start) / f64::from(runs)
    }

    /// How many runs a sample is to have.
    async fn runs(&self, work: &dyn Work) -> u32 {
        let mut runs = 1;
        loop {
            let time = self.sample(work, runs).await * f64::from(runs);
            if time >= SAMPLE_TIME || runs >= MAX_RUNS || self.is_cancelled.get() {
                return runs;
            }
            runs *= if time < SAMPLE_TIME / 8.0 { 8 } else { 2 };
        }
    }

    /// The fastest way to copy so many bytes.
    async fn copy(&self, bytes: u64) -> CopyKernel {
        let mut fastest: Option<(f64, CopyKernel)> = None;
        for variant in CopyKernel::VARIANTS {
            let copy = CopyKernel::new(&self.device, self.input.buffer(), self.output.buffer(), bytes, variant);
            // The first run of a kernel compiles it.
            self.sample(&copy, 1).await;
            let time = self.sample(&copy, 4).await.min(self.sample(&copy, 4).await);
            if fastest.as_ref().is_none_or(|(best, _)| time < *best) {
                fastest = Some((time, copy));
            }
        }
        fastest.expect("there are variants").1
    }
}

#[wasm_bindgen]
impl Benchmark {
    /// Number of widths.
    #[wasm_bindgen(getter)]
    pub fn count(&self) -> u32 {
        self.widths.len() as u32
    }

    /// Ends a measurement under way as soon as its next sample is taken, and every later one at once.
    pub fn cancel(&self) {
        self.is_cancelled.set(true);
    }

    /// Checks the result of a width, and then measures it. `progress` is called with what part of that is done, from 0 to 1. Gives
    /// nothing where it was cancelled. Throws where the result is wrong, or the device has failed.
    pub async fn measure(&self, which: u32, progress: js_sys::Function) -> Result<Option<Measurement>, JsError> {
        // What the callback returns or throws is its own concern.
        let tell = |part: f64| drop(progress.call1(&JsValue::NULL, &part.into()));
        let Some(&width) = self.widths.get(which as usize) else { return Ok(None) };
        let elements = self.values.shape()[0];
        let rows = elements / width;
        let config = if self.is_rms { LayerNormConfig::rms(width) } else { LayerNormConfig::new(width) };
        let affine = if self.is_rms { Affine::Weight } else { Affine::WeightAndBias };
        let config = config.affine(affine).causal(self.is_causal).expect_nothing();
        let parameter = |middle, stream| Tensor::from_f32([width], about(middle, width, 1, stream));
        let (weight, bias) = (parameter(1.0, Stream::Weight)?, parameter(0.0, Stream::Bias)?);
        let layer = GpuLayerNorm::new(&self.device, &config)?;
        layer.set_weight(&weight)?;
        if affine.has_bias() {
            layer.set_bias(&bias)?;
        }
        let region = |tensor: &GpuTensor| Region::new(tensor.buffer(), tensor.storage());
        let bindings = Bindings::new(rows as u64, region(&self.input), region(&self.output));
        layer.execute(&self.device, &bindings)?;
        let task = |input| Task {
            config: config.clone(),
            input,
            weight: Some(weight.clone()),
            bias: affine.has_bias().then(|| bias.clone()),
            condition: None,
        };
        let largest_error = self.check(task, rows, width).await?;
        tell(0.1);

        let norm = layer.prepare(&self.device, &bindings)?;
        let tensor_bytes = (rows * width) as u64 * self.values.storage().bytes();
        let copy = self.copy(tensor_bytes).await;
        tell(0.2);
        let runs = [self.runs(&norm).await, self.runs(&copy).await];
        let works: [&dyn Work; 2] = [&norm, &copy];
        let mut times = [Vec::new(), Vec::new()];
        for sample in 0..SAMPLES {
            for ((times, work), runs) in times.iter_mut().zip(works).zip(runs) {
                if self.is_cancelled.get() {
                    return Ok(None);
                }
                times.push(self.sample(work, runs).await);
            }
            tell(0.3 + 0.7 * (sample + 1) as f64 / SAMPLES as f64);
        }
        let [milliseconds, copy_milliseconds] = times.map(median);
        let speed = |milliseconds: f64| 2.0 * tensor_bytes as f64 / milliseconds.max(1e-6) / 1e6;
        Ok(Some(Measurement {
            rows: rows as u32,
            width: width as u32,
            milliseconds,
            copy_milliseconds,
            gigabytes_per_second: speed(milliseconds),
            copy_gigabytes_per_second: speed(copy_milliseconds),
            multiple: milliseconds / copy_milliseconds,
            largest_error,
        }))
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
