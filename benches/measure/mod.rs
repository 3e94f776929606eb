//! Timing on a device, beside a copy of the same bytes. Shared by the benchmarks and the demo.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

pub mod report;

use std::fmt;
use std::time::{Duration, Instant};

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::kernel::AdapterClass;
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, LayerNormConfig, Plan, PreparedPlan, Region, StorageType, Tensor,
    reference, wgpu,
};

/// What is timed: work recorded into a compute pass.
pub trait Work {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>);
}

impl Work for PreparedPlan {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_pass(pass);
    }
}

/// Times work on a device: by GPU timestamps where the device has them, else from submission until the device is idle. Where
/// the device is the processor, its timestamps are those of the thread that hands out the work, so they are not used.
pub struct Stopwatch<'a> {
    device: &'a GpuDevice,
    timestamps: Option<Timestamps>,
}

struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
}

impl<'a> Stopwatch<'a> {
    pub fn new(device: &'a GpuDevice) -> Self {
        let gpu = device.device();
        let usable = gpu.features().contains(wgpu::Features::TIMESTAMP_QUERY)
            && device.capabilities().class != AdapterClass::Cpu;
        let buffer = |usage| {
            gpu.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false })
        };
        let timestamps = usable.then(|| Timestamps {
            queries: gpu.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
        });
        Self { device, timestamps }
    }

    /// From submission until the device is idle, whatever the device offers: to compare with what can only be timed so.
    pub fn by_the_clock(device: &'a GpuDevice) -> Self {
        Self { device, timestamps: None }
    }

    /// How it measures, in words.
    pub fn method(&self) -> &'static str {
        if self.timestamps.is_some() { "GPU timestamps" } else { "submission to idle" }
    }

    /// Runs the work once.
    pub fn time(&self, work: &dyn Work) -> Result<Duration, Error> {
        let gpu = self.device.device();
        let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = self.timestamps.as_ref().map(|timestamps| wgpu::ComputePassTimestampWrites {
            query_set: &timestamps.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        {
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            work.record(&mut encoder.begin_compute_pass(&descriptor));
        }
        if let Some(timestamps) = &self.timestamps {
            encoder.resolve_query_set(&timestamps.queries, 0..2, &timestamps.resolved, 0);
            encoder.copy_buffer_to_buffer(&timestamps.resolved, 0, &timestamps.readable, 0, 16);
        }
        let commands = encoder.finish();
        let start = Instant::now();
        self.device.queue().submit([commands]);
        self.device.wait()?;
        let elapsed = start.elapsed();
        let Some(timestamps) = &self.timestamps else { return Ok(elapsed) };

        timestamps.readable.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.wait()?;
        let ticks = {
            let view = timestamps.readable.get_mapped_range(..).expect("mapped");
            let [begin, end]: [u64; 2] = bytemuck::pod_read_unaligned(&view);
            end.saturating_sub(begin)
        };
        timestamps.readable.unmap();
        Ok(Duration::from_nanos((ticks as f64 * f64::from(self.device.queue().get_timestamp_period())) as u64))
    }
}

/// A copy of the beginning of one buffer to another.
struct Copy {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: (u32, u32),
}

impl Copy {
    /// The ways to copy that are tried, invocations of a workgroup and vectors of an invocation; which is fastest differs by
    /// adapter.
    const VARIANTS: [(u32, u32); 5] = [(256, 1), (256, 4), (256, 16), (64, 1), (64, 4)];

    fn new(
        device: &GpuDevice,
        source: &wgpu::Buffer,
        target: &wgpu::Buffer,
        bytes: u64,
        (size, turns): (u32, u32),
    ) -> Self {
        let gpu = device.device();
        let count = bytes / 16;
        let workgroups = count.div_ceil(u64::from(size * turns)) as u32;
        let x = workgroups.clamp(1, device.capabilities().max_workgroups_per_dimension);
        let wgsl = format!(
            "const SIZE: u32 = {size}u;\nconst TURNS: u32 = {turns}u;\nconst COUNT: u32 = {count}u;\n\
             const WORKGROUPS_X: u32 = {x}u;\n{}",
            include_str!("copy.wgsl")
        );
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some("copy"), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        // Safety: no index reaches COUNT, and loops end. The kernels do without the checks too.
        let module = unsafe { gpu.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("copy"),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let part = |buffer| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: 0,
                size: wgpu::BufferSize::new(count.max(1) * 16),
            })
        };
        let bind_group = gpu.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("copy"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: part(source) },
                wgpu::BindGroupEntry { binding: 1, resource: part(target) },
            ],
        });
        Self { pipeline, bind_group, workgroups: (x, workgroups.div_ceil(x)) }
    }
}

/// The copies that move as many bytes as a case does.
pub struct Copies(Vec<Copy>);

impl Work for Copies {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        for copy in &self.0 {
            pass.set_pipeline(&copy.pipeline);
            pass.set_bind_group(0, &copy.bind_group, &[]);
            pass.dispatch_workgroups(copy.workgroups.0, copy.workgroups.1, 1);
        }
    }
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Layer normalization with weight and bias.
    Plain,
    /// The same of input + residual; the sum is written too.
    Residual,
    /// RMS normalization with weight.
    Rms,
}

impl Operation {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Residual, Self::Rms];
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "layer_norm",
            Self::Residual => "residual",
            Self::Rms => "rms_norm",
        })
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub operation: Operation,
    /// Of all tensors.
    pub storage: StorageType,
    pub rows: usize,
    pub width: usize,
}

impl Case {
    pub fn elements(&self) -> usize {
        self.rows * self.width
    }

    /// Bytes of one tensor.
    fn tensor_bytes(&self) -> u64 {
        self.elements() as u64 * self.storage.bytes()
    }

    /// Bytes that it has to move: each tensor once. Those of weight and bias are not counted.
    pub fn bytes(&self) -> u64 {
        self.tensor_bytes() * if self.operation == Operation::Residual { 4 } else { 2 }
    }

    fn config(&self) -> LayerNormConfig {
        let config = match self.operation {
            Operation::Plain | Operation::Residual => LayerNormConfig::new(self.width),
            Operation::Rms => LayerNormConfig::rms(self.width),
        };
        config.parameter_storage(self.storage).expect_nothing()
    }

    pub fn weight(&self) -> Vec<f32> {
        (0..self.width).map(|i| 1.0 + (i % 5) as f32 / 8.0).collect()
    }

    pub fn bias(&self) -> Vec<f32> {
        (0..self.width).map(|i| (i % 3) as f32 / 4.0 - 0.25).collect()
    }
}

/// The buffers of all cases up to a number of elements.
pub struct Pool {
    device: GpuDevice,
    input: wgpu::Buffer,
    residual: wgpu::Buffer,
    output: wgpu::Buffer,
    sum: wgpu::Buffer,
    elements: usize,
    // What input and residual hold.
    storage: Option<StorageType>,
}

impl Pool {
    pub fn new(device: &GpuDevice, elements: usize) -> Self {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let size = (elements as u64 * 4).next_multiple_of(16);
        let buffer = || {
            device.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("bench"),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let [input, residual, output, sum] = [(); 4].map(|()| buffer());
        Self { device: device.clone(), input, residual, output, sum, elements, storage: None }
    }

    /// As many elements as the device can bind, up to those wanted.
    pub fn elements(device: &GpuDevice, wanted: usize) -> usize {
        let capabilities = device.capabilities();
        let most = (capabilities.max_binding_bytes.min(capabilities.max_buffer_bytes) - 1024) / 4;
        wanted.min(most as usize)
    }

    /// Element `i` of the input (0) or the residual (1), as it is stored: a cheap sequence that no row repeats, from 0 to 1.
    pub fn value(storage: StorageType, which: u64, i: usize) -> f32 {
        let hash = (i as u64 * 2 + which).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value = (hash >> 40) as f32 / (1 << 24) as f32;
        match storage {
            StorageType::F32 => value,
            StorageType::F16 => f16::from_f32(value).to_f32(),
            StorageType::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    fn fill(&mut self, storage: StorageType) -> Result<(), Error> {
        const PART: usize = 1 << 22;
        if self.storage == Some(storage) {
            return Ok(());
        }
        let bytes = storage.bytes() as usize;
        for (which, buffer) in [(0, &self.input), (1, &self.residual)] {
            for first in (0..self.elements).step_by(PART) {
                let values = (first..self.elements.min(first + PART)).map(|i| Self::value(storage, which, i));
                let mut part: Vec<u8> = match storage {
                    StorageType::F32 => values.flat_map(f32::to_le_bytes).collect(),
                    StorageType::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                    StorageType::Bf16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
                };
                part.resize(part.len().next_multiple_of(4), 0);
                self.device.queue().write_buffer(buffer, (first * bytes) as u64, &part);
                self.device.queue().submit([]);
                self.device.wait()?;
            }
        }
        self.storage = Some(storage);
        Ok(())
    }

    /// Elements of a buffer.
    fn download(
        &self,
        buffer: &wgpu::Buffer,
        storage: StorageType,
        elements: std::ops::Range<usize>,
    ) -> Result<Vec<f32>, Error> {
        let bytes = storage.bytes();
        let (start, end) = (elements.start as u64 * bytes, elements.end as u64 * bytes);
        let from = start - start % 4;
        let size = end.next_multiple_of(4) - from;
        let gpu = self.device.device();
        let staging = gpu.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench staging"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, from, &staging, 0, size);
        self.device.queue().submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.wait()?;
        let view = staging.get_mapped_range(..).expect("mapped");
        let bytes = &view[(start - from) as usize..(end - from) as usize];
        let half = |bytes: &[u8]| [bytes[0], bytes[1]];
        Ok(match storage {
            StorageType::F32 => bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect(),
            StorageType::F16 => bytes.chunks_exact(2).map(|x| f16::from_le_bytes(half(x)).to_f32()).collect(),
            StorageType::Bf16 => bytes.chunks_exact(2).map(|x| bf16::from_le_bytes(half(x)).to_f32()).collect(),
        })
    }

    fn bindings(&self, case: &Case) -> Bindings {
        let region = |buffer| Region::new(buffer, case.storage);
        let bindings = Bindings::new(case.rows as u64, region(&self.input), region(&self.output));
        match case.operation {
            Operation::Plain | Operation::Rms => bindings,
            Operation::Residual => bindings.residual(region(&self.residual)).sum(region(&self.sum)),
        }
    }

    /// Compares what the last run of a case left with the f64 reference, in all rows, or in the first, middle and last of them
    /// where they are many. Returns the largest error, the rounding to storage taken off.
    ///
    /// # Panics
    /// If the result is wrong: a wrong result has no time.
    fn check(&self, case: &Case) -> Result<f64, Error> {
        const ALL: usize = 1 << 22;
        let &Case { operation, storage, rows, width } = case;
        let (block, firsts) = if case.elements() <= ALL {
            (rows, vec![0])
        } else {
            let some = (ALL / 4 / width).max(1);
            (some, vec![0, rows / 2, rows - some])
        };
        let (weight, bias) = (case.weight(), case.bias());
        // Half a unit in the last place.
        let rounding = match storage {
            StorageType::F32 => 0.0,
            StorageType::F16 => 2.0_f64.powi(-11),
            StorageType::Bf16 => 2.0_f64.powi(-8),
        };
        let mut largest = 0.0;
        for first in firsts {
            let elements = first * width..(first + block) * width;
            let source: Vec<f32> = elements
                .clone()
                .map(|i| match operation {
                    Operation::Plain | Operation::Rms => Self::value(storage, 0, i),
                    Operation::Residual => Self::value(storage, 0, i) + Self::value(storage, 1, i),
                })
                .collect();
            let expected = match operation {
                Operation::Rms => reference::rms_norm(&source, width, Some(&weight), None, f64::from(1e-5_f32)),
                _ => reference::layer_norm(&source, width, Some(&weight), Some(&bias), f64::from(1e-5_f32), false),
            };
            let output = self.download(&self.output, storage, elements.clone())?;
            for (y, exact) in output.iter().zip(expected) {
                let error = (f64::from(*y) - exact).abs() - exact.abs() * rounding;
                // f64::max would pass over a NaN.
                if error.is_nan() || error > largest {
                    largest = error;
                }
            }
            if operation == Operation::Residual {
                let sum = self.download(&self.sum, storage, elements)?;
                let wrong = sum.iter().zip(&source).any(|(sum, exact)| {
                    let error = f64::from((sum - exact).abs());
                    error.is_nan() || error > f64::from(exact.abs()) * rounding
                });
                assert!(!wrong, "{case:?}: a sum is wrong, not timed");
            }
        }
        assert!(largest <= 3e-6, "{case:?} is {largest:e} off the reference, not timed");
        Ok(largest)
    }
}

/// One case: plans for it, each checked, and the fastest copy of the same bytes.
pub struct Bench {
    pub case: Case,
    pub plans: Vec<PreparedPlan>,
    pub copies: Copies,
    /// |y − y_f64| at most, the rounding to storage taken off.
    pub largest_error: f64,
}

impl Bench {
    /// Prepares the planner's pick, or all its candidates, and compares their results with the f64 reference.
    ///
    /// # Panics
    /// If one of them is wrong.
    pub fn new(pool: &mut Pool, case: Case, all_candidates: bool) -> Result<Self, Error> {
        assert!(case.elements() <= pool.elements, "{case:?} is larger than its buffers");
        pool.fill(case.storage)?;
        let device = &pool.device;
        let stopwatch = Stopwatch::new(device);
        let layer = GpuLayerNorm::new(device, &case.config())?;
        let shaped = |values| Ok::<_, Error>(Tensor::from_f32([case.width], values)?.to_storage(case.storage));
        layer.set_weight(&shaped(case.weight())?)?;
        if layer.config().affine_kind() == Affine::WeightAndBias {
            layer.set_bias(&shaped(case.bias())?)?;
        }
        let bindings = pool.bindings(&case);
        let problem = layer.problem(device, &bindings)?;
        let candidates = if all_candidates {
            Plan::candidates(&problem, device.capabilities())?
        } else {
            vec![Plan::new(&problem, device.capabilities())?]
        };
        let mut largest_error = 0.0_f64;
        let mut plans = Vec::new();
        for plan in candidates {
            let prepared = layer.prepare_plan(device, plan, &bindings)?;
            let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.clear_buffer(&pool.output, 0, None);
            encoder.clear_buffer(&pool.sum, 0, None);
            prepared.encode(&mut encoder);
            device.queue().submit([encoder.finish()]);
            largest_error = largest_error.max(pool.check(&case)?);
            plans.push(prepared);
        }

        let mut copies: Vec<_> = Copy::VARIANTS
            .map(|variant| {
                let copy = |source, target| Copy::new(device, source, target, case.tensor_bytes(), variant);
                let mut copies = Copies(vec![copy(&pool.input, &pool.output)]);
                if case.operation == Operation::Residual {
                    copies.0.push(copy(&pool.residual, &pool.sum));
                }
                let times = (0..5).map(|_| stopwatch.time(&copies)).collect::<Result<Vec<_>, _>>();
                times.map(|times| (median(times), copies))
            })
            .into_iter()
            .collect::<Result<_, _>>()?;
        let few = 0..case.elements().min(1 << 16) / 16 * 16;
        let copied = pool.download(&pool.output, case.storage, few.clone())?;
        assert!(few.map(|i| Pool::value(case.storage, 0, i)).eq(copied), "the copy copies");
        copies.sort_by_key(|(time, _)| *time);
        let (_, copies) = copies.swap_remove(0);
        Ok(Self { case, plans, copies, largest_error })
    }

    /// The planner's pick.
    pub fn pick(&self) -> &Plan {
        self.plans[0].plan()
    }

    /// Median times of each plan and of the copy, taken in turn so that noise hits all.
    pub fn compare(&self, stopwatch: &Stopwatch<'_>, samples: usize) -> Result<(Vec<Duration>, Duration), Error> {
        let mut works: Vec<&dyn Work> = vec![&self.copies];
        works.extend(self.plans.iter().map(|plan| plan as &dyn Work));
        let mut times = medians(stopwatch, &works, samples)?;
        let copy = times.remove(0);
        Ok((times, copy))
    }
}

/// Median times of each, taken in turn.
pub fn medians(stopwatch: &Stopwatch<'_>, works: &[&dyn Work], samples: usize) -> Result<Vec<Duration>, Error> {
    let mut times = vec![Vec::with_capacity(samples); works.len()];
    for _ in 0..samples {
        for (work, times) in works.iter().zip(&mut times) {
            times.push(stopwatch.time(*work)?);
        }
    }
    Ok(times.into_iter().map(median).collect())
}

/// The largest |y − exact|; NaN if one of them is.
pub fn largest_difference(output: &[f32], exact: &[f64]) -> f64 {
    let differences = output.iter().zip(exact).map(|(&y, exact)| (f64::from(y) - exact).abs());
    // f64::max would pass over a NaN.
    differences.fold(0.0, |largest: f64, next| if largest.is_nan() || next <= largest { largest } else { next })
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

pub fn gigabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9) / 1e9
}
