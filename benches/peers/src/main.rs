//! gpu-layer-norm beside Burn's `LayerNorm` (with fusion and autotune) and a copy of the same bytes, all on one wgpu device, in
//! turn, each timed from submission until the device is idle. Results are compared with the f64 reference first.
//!
//! `--operations backward` times gradients, in two ways:
//!
//! * `backward`: the backward pass alone. The forward pass has run, with whatever it saves, and was waited for when the clock
//!   starts. (Burn's graph serves once, so each of its runs has a forward pass of its own.)
//! * `training`: forward and backward pass, all that a training step has of a layer. Here both are recorded together, the forward
//!   pass with the statistics that the backward pass reads. Burn runs `forward` and `backward` on its autodiff device without a
//!   wait between them, so that it may fuse what it can. The copy moves the bytes of both.
//!
//! Either way the gradients of input, weight and bias are in memory at the end. Burn begins a backward pass with ones and takes no
//! other gradient, so its output is multiplied by the output's gradient at the end of its forward pass. Burn may fuse elementwise
//! work like this; what has to remain is one read of that gradient in each pass, as against one in the backward pass here.
//!
//!     cargo run --release --manifest-path benches/peers/Cargo.toml -- --help

#[path = "../../measure/mod.rs"]
mod measure;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor, TensorData};
use gpu_layer_norm::{GpuDevice, StorageType, reference, wgpu};
use measure::report::{Options, fail, header, print_head, row_of};
use measure::{Bench, Case, ExactGradients, Operation, Pool, Stopwatch, Work, largest, largest_difference, median};
use serde_json::{Value, json};

/// Beyond this error of x̂, or of a gradient as a share of what [`ExactGradients`] says, a result is wrong. (llvmpipe ends long
/// loops early; Burn's kernels do not see to that.)
const WRONG: f64 = 1e-3;

fn main() {
    let options = Options::from_command_line(&[Operation::Plain, Operation::Backward], &[Operation::Plain]);
    let (own, burn) = devices();
    let stopwatch = Stopwatch::by_the_clock(&own);
    let mut report = header("gpu-layer-norm", &own, &stopwatch, options.samples);
    let mut burn_report = report.clone();
    burn_report["implementation"] = json!("Burn 0.22");
    println!("the second line of each shape is Burn");
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
    report["results"] = json!(comparison.results);
    burn_report["results"] = json!(comparison.burn_results);
    options.write(&json!([report, burn_report]));
}

/// Both, timed in turn.
struct Comparison<'a> {
    stopwatch: &'a Stopwatch<'a>,
    samples: usize,
    results: Vec<Value>,
    burn_results: Vec<Value>,
    /// Of each kind of work, how many times faster than Burn it was for the shapes that Burn computes right.
    faster: BTreeMap<&'static str, Vec<f64>>,
}

/// What is timed against what.
struct Contest<'a> {
    /// As results name it.
    operation: &'static str,
    case: Case,
    bytes: u64,
    own: &'a dyn Work,
    copy: &'a dyn Work,
    burn: &'a dyn Fn() -> Duration,
    largest_error: f64,
    burn_error: f64,
}

impl<'a> Comparison<'a> {
    fn new(stopwatch: &'a Stopwatch<'a>, samples: usize) -> Self {
        Self { stopwatch, samples, results: Vec::new(), burn_results: Vec::new(), faster: BTreeMap::new() }
    }

    fn forward(&mut self, bench: &Bench, burn: &Device) {
        let peer = Peer::new(burn, &bench.case);
        self.run(&Contest {
            operation: bench.case.operation.name(),
            case: bench.case,
            bytes: bench.case.bytes(),
            own: &bench.plans[0],
            copy: &bench.copies,
            burn: &|| peer.time(),
            largest_error: bench.largest_error,
            burn_error: peer.largest_error(&bench.case),
        });
    }

    /// The backward pass alone, and after a forward pass, whose copies `forward` has.
    fn backward(&mut self, forward: &Bench, bench: &Bench, burn: &Device) {
        let peer = TrainedPeer::new(burn, &bench.case);
        let saving_statistics = bench.forward.as_ref().expect("a backward pass has a forward pass before it");
        let alone = Contest {
            operation: bench.case.operation.name(),
            case: bench.case,
            bytes: bench.case.bytes(),
            own: &bench.plans[0],
            copy: &bench.copies,
            burn: &|| peer.time_backward(),
            largest_error: bench.largest_error,
            burn_error: peer.largest_error(&bench.case),
        };
        let (own, copies) = (Both(saving_statistics, &bench.plans[0]), Both(&forward.copies, &bench.copies));
        let training = Contest {
            operation: "training",
            bytes: forward.case.bytes() + bench.case.bytes(),
            own: &own,
            copy: &copies,
            burn: &|| peer.time_training(),
            ..alone
        };
        self.run(&alone);
        self.run(&training);
    }

    fn run(&mut self, contest: &Contest<'_>) {
        let &Contest { operation, case, bytes, own, copy, burn, largest_error, burn_error } = contest;
        // Until it has tuned itself.
        for _ in 0..10 {
            burn();
        }
        let time = |work| self.stopwatch.time(work).unwrap_or_else(|error| fail(&error));
        let (mut times, mut burn_times, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.samples {
            copies.push(time(copy));
            times.push(time(own));
            burn_times.push(burn());
        }
        let (time, burn_time, copy) = (median(times), median(burn_times), median(copies));
        let mut result = row_of(operation, &case, bytes, time, copy);
        result["largest_error"] = json!(largest_error);
        self.results.push(result);
        let mut result = row_of(operation, &case, bytes, burn_time, copy);
        result["largest_error"] = json!(burn_error);
        let wrong = burn_error.is_nan() || burn_error > WRONG;
        result["wrong"] = json!(wrong);
        self.burn_results.push(result);
        if wrong {
            println!("{:>58} Burn's result is wrong, {burn_error:.1e} off: its time does not count", "");
            return;
        }
        let faster = burn_time.as_secs_f64() / time.as_secs_f64();
        println!("{:>58} {faster:.2} times faster than Burn, whose largest error is {burn_error:.1e}", "");
        self.faster.entry(operation).or_default().push(faster);
    }

    fn print_summary(&self) {
        println!();
        for (operation, faster) in &self.faster {
            let shapes = faster.len();
            let mean = (faster.iter().map(|it| it.ln()).sum::<f64>() / shapes as f64).exp();
            let least = faster.iter().copied().fold(f64::INFINITY, f64::min);
            println!(
                "{operation}: faster than Burn {mean:.2} times by geometric mean of {shapes} shapes, {least:.2} times at \
                 least"
            );
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

/// One wgpu device for both.
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
        label: Some("peers"),
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

/// Burn's layer with its input on the device.
struct Peer {
    device: Device,
    layer: LayerNorm,
    input: Tensor<2>,
    values: Vec<f32>,
}

impl Peer {
    fn new(device: &Device, case: &Case) -> Self {
        let (values, input) = tensor(device, case, 0);
        Self { device: device.clone(), layer: LayerNormConfig::new(case.width).init(device), input, values }
    }

    fn time(&self) -> Duration {
        let input = self.input.clone();
        time(&self.device, || self.layer.forward(input))
    }

    /// With weight 1 and bias 0.
    fn largest_error(&self, case: &Case) -> f64 {
        let output = download(self.layer.forward(self.input.clone()));
        let exact = reference::layer_norm(&self.values, case.width, None, None, f64::from(1e-5_f32), false);
        largest_difference(&output, &exact)
    }
}

/// Burn's layer on its autodiff device, with its input and the gradient of its output.
struct TrainedPeer {
    device: Device,
    layer: LayerNorm,
    input: Tensor<2>,
    output_gradient: Tensor<2>,
    values: [Vec<f32>; 2],
}

impl TrainedPeer {
    fn new(device: &Device, case: &Case) -> Self {
        let device = device.clone().autodiff();
        let (input_values, input) = tensor(&device, case, 0);
        let (gradient_values, output_gradient) = tensor(&device, case, 1);
        Self {
            layer: LayerNormConfig::new(case.width).init(&device),
            device,
            input: input.require_grad(),
            output_gradient,
            values: [input_values, gradient_values],
        }
    }

    /// The layer's output times the gradient of it: that of the product, which Burn begins with, is 1.
    fn forward(&self) -> Tensor<2> {
        self.layer.forward(self.input.clone()) * self.output_gradient.clone()
    }

    fn time_training(&self) -> Duration {
        time(&self.device, || self.forward().backward())
    }

    fn time_backward(&self) -> Duration {
        let product = self.forward();
        time(&self.device, || product.backward())
    }

    /// Of all gradients, with weight 1 and bias 0.
    fn largest_error(&self, case: &Case) -> f64 {
        const HERE: &str = "it requires its gradient";
        let gradients = self.forward().backward();
        let input = download(self.input.grad(&gradients).expect(HERE));
        let weight = download(self.layer.gamma.grad(&gradients).expect(HERE));
        let bias = self.layer.beta.as_ref().expect("there is a bias");
        let bias = download(bias.grad(&gradients).expect(HERE));
        let [values, gradient_values] = &self.values;
        let exact = ExactGradients::new(values, gradient_values, case.width, None);
        largest([exact.input_error(&input, 0.0), exact.parameter_error(&weight, &bias)])
    }
}
