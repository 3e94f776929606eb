//! `LayerNorm` of this crate beside Burn's own (with fusion and autotune), beside the bare plan that this crate's kernels are of, and beside a
//! copy of the same bytes: all on one wgpu device, in turn, each timed from the call until the device is idle. Results are compared with
//! the f64 reference first.
//!
//! `--operations backward` times gradients, in two ways:
//!
//! * `backward`: the backward pass alone. The forward pass has run, with whatever it saves, and was waited for when the clock starts. (A
//!   graph of Burn's serves once, so each run has a forward pass of its own.)
//! * `training`: forward and backward pass, all that a training step has of a layer. The bare plans are recorded together; the layers run
//!   `forward` and `backward` on an autodiff device without a wait between them, so that Burn may fuse what it can. The copy moves the bytes
//!   of both.
//!
//! Either way the gradients of input, weight and bias are in memory at the end. Burn begins a backward pass with ones and takes no other
//! gradient, so the output of both layers is multiplied by the output's gradient at the end of the forward pass. That is a kernel in each
//! pass, which is no part of the bare plan.
//!
//!     cargo bench --bench beside_burn -- --help

#[path = "../../../benches/measure/mod.rs"]
mod measure;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use burn::nn;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor, TensorData};
use gpu_layer_norm::{GpuDevice, StorageType, reference, wgpu};
use gpu_layer_norm_burn::LayerNormConfig;
use measure::report::{Options, fail, header, print_head, row_of};
use measure::{Bench, Case, ExactGradients, Operation, Pool, Stopwatch, Work, largest, largest_difference, median};
use serde_json::{Value, json};

/// Beyond this error of x̂, or of a gradient as a share of what [`ExactGradients`] says, a result is wrong. (llvmpipe ends long
/// loops early; Burn's kernels do not see to that.)
const WRONG: f64 = 1e-3;

/// Who is timed, in this order.
const CONTESTANTS: [&str; 3] = ["gpu-layer-norm", "gpu-layer-norm-burn", "Burn 0.22"];

fn main() {
    let options = Options::from_command_line(&[Operation::Plain, Operation::Backward], &[Operation::Plain]);
    let (own, burn) = devices();
    let stopwatch = Stopwatch::by_the_clock(&own);
    println!("of each shape the bare plan, then this crate's layer, then Burn's");
    print_head();
    let elements = options.elements(&own);
    let mut pool = Pool::new(&own, elements);
    let mut bench = |case| Bench::new(&mut pool, case, false).unwrap_or_else(|error| fail(&error));
    let mut comparison = Comparison::new(&stopwatch, options.samples);
    for &operation in &options.operations {
        for (rows, width) in options.shapes(elements, true) {
            let case = Case { operation, storage: StorageType::F32, rows, width };
            if operation == Operation::Backward {
                let forward = bench(Case { operation: Operation::Plain, ..case });
                comparison.backward(&forward, &bench(case), &burn);
            } else {
                comparison.forward(&bench(case), &burn);
            }
        }
    }
    comparison.print_summary();
    let reports = CONTESTANTS.iter().zip(comparison.results).map(|(name, results)| {
        let mut report = header(name, &own, &stopwatch, options.samples);
        report["results"] = json!(results);
        report
    });
    options.write(&json!(reports.collect::<Vec<_>>()));
}

/// All of them, timed in turn.
struct Comparison<'a> {
    stopwatch: &'a Stopwatch<'a>,
    samples: usize,
    results: [Vec<Value>; 3],
    /// Of each kind of work, how many times as fast as Burn's layer the bare plan and this crate's layer were for the shapes that Burn computes
    /// right.
    faster: BTreeMap<&'static str, Vec<[f64; 2]>>,
}

/// What is timed against what.
struct Contest<'a> {
    /// As results name it.
    operation: &'static str,
    case: Case,
    bytes: u64,
    plan: &'a dyn Work,
    copy: &'a dyn Work,
    /// This crate's and Burn's.
    layers: [&'a dyn Fn() -> Duration; 2],
    errors: [f64; 3],
}

impl<'a> Comparison<'a> {
    fn new(stopwatch: &'a Stopwatch<'a>, samples: usize) -> Self {
        Self { stopwatch, samples, results: Default::default(), faster: BTreeMap::new() }
    }

    fn forward(&mut self, bench: &Bench, device: &Device) {
        let [own, burns] = layers(device, &bench.case);
        self.run(&Contest {
            operation: bench.case.operation.name(),
            case: bench.case,
            bytes: bench.case.bytes(),
            plan: &bench.plans[0],
            copy: &bench.copies,
            layers: [&|| own.time_forward(), &|| burns.time_forward()],
            errors: [bench.largest_error, own.forward_error(&bench.case), burns.forward_error(&bench.case)],
        });
    }

    /// The backward pass alone, and after a forward pass, whose copies `forward` has.
    fn backward(&mut self, forward: &Bench, bench: &Bench, device: &Device) {
        let [own, burns] = layers(&device.clone().autodiff(), &bench.case);
        let saving_statistics = bench.forward.as_ref().expect("a backward pass has a forward pass before it");
        let errors = [bench.largest_error, own.backward_error(&bench.case), burns.backward_error(&bench.case)];
        let (plan, copy) = (Both(saving_statistics, &bench.plans[0]), Both(&forward.copies, &bench.copies));
        self.run(&Contest {
            operation: bench.case.operation.name(),
            case: bench.case,
            bytes: bench.case.bytes(),
            plan: &bench.plans[0],
            copy: &bench.copies,
            layers: [&|| own.time_backward(), &|| burns.time_backward()],
            errors,
        });
        self.run(&Contest {
            operation: "training",
            case: bench.case,
            bytes: forward.case.bytes() + bench.case.bytes(),
            plan: &plan,
            copy: &copy,
            layers: [&|| own.time_training(), &|| burns.time_training()],
            errors,
        });
    }

    fn run(&mut self, contest: &Contest<'_>) {
        let &Contest { operation, case, bytes, plan, copy, layers: [own, burns], errors } = contest;
        // Until they have tuned themselves.
        for _ in 0..10 {
            own();
            burns();
        }
        let time = |work| self.stopwatch.time(work).unwrap_or_else(|error| fail(&error));
        let mut times: [Vec<Duration>; 3] = Default::default();
        let mut copies = Vec::new();
        for _ in 0..self.samples {
            copies.push(time(copy));
            times[0].push(time(plan));
            times[1].push(own());
            times[2].push(burns());
        }
        let (times, copy) = (times.map(median), median(copies));
        let is_wrong = |error: f64| error.is_nan() || error > WRONG;
        for ((results, time), error) in self.results.iter_mut().zip(times).zip(errors) {
            let mut result = row_of(operation, &case, bytes, time, copy);
            result["largest_error"] = json!(error);
            result["wrong"] = json!(is_wrong(error));
            results.push(result);
        }
        let [plan_error, own_error, burns_error] = errors;
        if is_wrong(plan_error) || is_wrong(own_error) {
            eprintln!("{case:?}: wrong results, off by {plan_error:.1e} of the plan and {own_error:.1e} of the layer");
            std::process::exit(1);
        }
        if is_wrong(burns_error) {
            println!("{:>58} Burn's result is wrong, {burns_error:.1e} off: its time does not count", "");
            return;
        }
        let [plan, own, burns] = times.map(|time| time.as_secs_f64());
        let faster = [burns / plan, burns / own];
        println!("{:>58} the plan is {:.2} times as fast as Burn, the layer {:.2} times", "", faster[0], faster[1]);
        self.faster.entry(operation).or_default().push(faster);
    }

    fn print_summary(&self) {
        println!();
        for (operation, faster) in &self.faster {
            for (i, name) in ["plan", "layer"].into_iter().enumerate() {
                let of_it = faster.iter().map(|both| both[i]);
                let mean = (of_it.clone().map(f64::ln).sum::<f64>() / faster.len() as f64).exp();
                let (least, shapes) = (of_it.fold(f64::INFINITY, f64::min), faster.len());
                println!(
                    "{operation}: the {name} is {mean:.2} times as fast as Burn by geometric mean of {shapes} shapes, {least:.2} times at least"
                );
            }
        }
    }
}

/// One after the other.
struct Both<'a>(&'a dyn Work, &'a dyn Work);

impl Work for Both<'_> {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.0.record(pass);
        self.1.record(pass);
    }
}

/// One wgpu device for all.
fn devices() -> (GpuDevice, Device) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let name = std::env::var("GPU_LAYER_NORM_ADAPTER").unwrap_or_default();
    let adapters =
        pollster::block_on(GpuDevice::builder().backends(wgpu::Backends::PRIMARY).adapter_name(name).adapters());
    let Some(info) = adapters.first().map(wgpu::Adapter::get_info) else {
        eprintln!("there is no such adapter");
        std::process::exit(1);
    };
    let adapters = pollster::block_on(instance.enumerate_adapters(info.backend.into()));
    let same = |adapter: &wgpu::Adapter| adapter.get_info().name == info.name;
    let adapter = adapters.into_iter().find(same).expect("it was there a moment ago");
    // Burn's autotune needs timestamps.
    let left_out = wgpu::Features::all_experimental_mask() | wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("beside Burn"),
        required_features: adapter.features() - left_out,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let own = GpuDevice::from_wgpu(adapter.clone(), device.clone(), queue.clone()).unwrap_or_else(|error| fail(&error));
    let setup = WgpuSetup { instance, adapter, device, queue, backend: info.backend };
    (own, Device::wgpu_options().setup(setup).init().expect("Burn takes the device"))
}

/// The pool's input (0) or output gradient (1), as values and on Burn's device.
fn tensor(device: &Device, case: &Case, which: u64) -> (Vec<f32>, Tensor<2>) {
    let values: Vec<f32> = (0..case.elements()).map(|i| Pool::value(StorageType::F32, which, i)).collect();
    let data = TensorData::new(values.clone(), [case.rows, case.width]);
    (values, Tensor::from_data(data, device))
}

fn download<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().expect("f32")
}

/// The time of what `work` gives to the device, until it is idle again. What `work` returns lives as long.
fn time<T>(device: &Device, work: impl FnOnce() -> T) -> Duration {
    device.sync().expect("the device is there");
    let start = Instant::now();
    let result = work();
    device.sync().expect("the device is there");
    let elapsed = start.elapsed();
    drop(result);
    elapsed
}

/// A layer, whose weight is 1 and whose bias is 0, with its input and the gradient of its output on its device.
struct Layer {
    device: Device,
    forward: Box<dyn Fn(Tensor<2>) -> Tensor<2>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    input: Tensor<2>,
    output_gradient: Tensor<2>,
    values: [Vec<f32>; 2],
}

/// This crate's and Burn's.
fn layers(device: &Device, case: &Case) -> [Layer; 2] {
    const BIAS: &str = "there is a bias";
    let (input_values, input) = tensor(device, case, 0);
    let (gradient_values, output_gradient) = tensor(device, case, 1);
    let input = if device.is_autodiff() { input.require_grad() } else { input };
    let layer = |forward: Box<dyn Fn(Tensor<2>) -> Tensor<2>>, weight, bias| Layer {
        device: device.clone(),
        forward,
        weight,
        bias,
        input: input.clone(),
        output_gradient: output_gradient.clone(),
        values: [input_values.clone(), gradient_values.clone()],
    };
    let own = LayerNormConfig::new(case.width).init(device);
    let burns = nn::LayerNormConfig::new(case.width).init(device);
    let (own_weight, own_bias) = (own.gamma.val(), own.beta.as_ref().expect(BIAS).val());
    let (burns_weight, burns_bias) = (burns.gamma.val(), burns.beta.as_ref().expect(BIAS).val());
    [
        layer(Box::new(move |input| own.forward(input)), own_weight, own_bias),
        layer(Box::new(move |input| burns.forward(input)), burns_weight, burns_bias),
    ]
}

impl Layer {
    fn time_forward(&self) -> Duration {
        let input = self.input.clone();
        time(&self.device, || (self.forward)(input))
    }

    /// The output times the gradient of it: that of the product, which Burn begins with, is 1.
    fn product(&self) -> Tensor<2> {
        (self.forward)(self.input.clone()) * self.output_gradient.clone()
    }

    fn time_training(&self) -> Duration {
        time(&self.device, || self.product().backward())
    }

    fn time_backward(&self) -> Duration {
        let product = self.product();
        time(&self.device, || product.backward())
    }

    fn forward_error(&self, case: &Case) -> f64 {
        let output = download((self.forward)(self.input.clone()));
        let exact = reference::layer_norm(&self.values[0], case.width, None, None, f64::from(1e-5_f32), false);
        largest_difference(&output, &exact)
    }

    /// Of all gradients.
    fn backward_error(&self, case: &Case) -> f64 {
        const TRACKED: &str = "it requires its gradient";
        let gradients = self.product().backward();
        let input = download(self.input.grad(&gradients).expect(TRACKED));
        let weight = download(self.weight.grad(&gradients).expect(TRACKED));
        let bias = download(self.bias.grad(&gradients).expect(TRACKED));
        let [values, gradient_values] = &self.values;
        let exact = ExactGradients::new(values, gradient_values, case.width, None);
        largest([exact.input_error(&input, 0.0), exact.parameter_error(&weight, &bias)])
    }
}
