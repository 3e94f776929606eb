//! gpu-layer-norm beside Burn's `LayerNorm` (with fusion and autotune) and a copy of the same bytes, all on one wgpu device, in
//! turn, each timed from submission until the device is idle. Results are compared with the f64 reference first.
//!
//!     cargo run --release --manifest-path benches/peers/Cargo.toml -- --help

#[path = "../../measure/mod.rs"]
mod measure;

use std::time::{Duration, Instant};

use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor, TensorData};
use gpu_layer_norm::{GpuDevice, StorageType, reference, wgpu};
use measure::report::{Options, fail, header, print_head, row};
use measure::{Bench, Case, Operation, Pool, Stopwatch, largest_difference, median};
use serde_json::json;

/// Beyond this error of x̂ a result is wrong. (llvmpipe ends long loops early; Burn's kernels do not see to that.)
const WRONG: f64 = 1e-3;

fn main() {
    let options = Options::from_command_line();
    let (own, burn) = devices();
    let stopwatch = Stopwatch::by_the_clock(&own);
    let mut report = header("gpu-layer-norm", &own, &stopwatch, options.samples);
    let mut burn_report = report.clone();
    burn_report["implementation"] = json!("Burn 0.22");
    println!("the second line of each shape is Burn");
    print_head();
    let elements = options.elements(&own);
    let mut pool = Pool::new(&own, elements);
    let (mut results, mut burn_results) = (Vec::new(), Vec::new());
    let (mut logarithms, mut least, mut right) = (0.0, f64::INFINITY, 0_u32);
    for (rows, width) in options.shapes(elements, true) {
        let case = Case { operation: Operation::Plain, storage: StorageType::F32, rows, width };
        let bench = Bench::new(&mut pool, case, false).unwrap_or_else(|error| fail(&error));
        let peer = Peer::new(&burn, &case);
        let largest_error = peer.largest_error(&case);
        // Until it has tuned itself.
        for _ in 0..10 {
            peer.time();
        }
        let (mut times, mut burn_times, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.samples {
            copies.push(stopwatch.time(&bench.copies).unwrap_or_else(|error| fail(&error)));
            times.push(stopwatch.time(&bench.plans[0]).unwrap_or_else(|error| fail(&error)));
            burn_times.push(peer.time());
        }
        let (time, burn_time, copy) = (median(times), median(burn_times), median(copies));
        let mut result = row(&case, time, copy);
        result["largest_error"] = json!(bench.largest_error);
        results.push(result);
        let mut result = row(&case, burn_time, copy);
        result["largest_error"] = json!(largest_error);
        // Also where it is NaN.
        let wrong = !(largest_error <= WRONG);
        result["wrong"] = json!(wrong);
        burn_results.push(result);
        let faster = burn_time.as_secs_f64() / time.as_secs_f64();
        if wrong {
            println!("{:>58} Burn's result is wrong, {largest_error:.1e} off: its time does not count", "");
            continue;
        }
        right += 1;
        println!("{:>58} {faster:.2} times faster than Burn, whose largest error is {largest_error:.1e}", "");
        logarithms += faster.ln();
        least = least.min(faster);
    }
    let mean = (logarithms / f64::from(right.max(1))).exp();
    println!("\nfaster than Burn {mean:.2} times by geometric mean of {right} shapes, {least:.2} times at least");
    report["results"] = json!(results);
    burn_report["results"] = json!(burn_results);
    options.write(&json!([report, burn_report]));
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

/// Burn's layer with its input on the device.
struct Peer {
    device: Device,
    layer: LayerNorm,
    input: Tensor<2>,
    values: Vec<f32>,
}

impl Peer {
    fn new(device: &Device, case: &Case) -> Self {
        let values: Vec<f32> = (0..case.elements()).map(|i| Pool::value(StorageType::F32, 0, i)).collect();
        let data = TensorData::new(values.clone(), [case.rows, case.width]);
        let layer = LayerNormConfig::new(case.width).init(device);
        Self { device: device.clone(), layer, input: Tensor::from_data(data, device), values }
    }

    fn time(&self) -> Duration {
        let input = self.input.clone();
        self.device.sync().expect("the device is there");
        let start = Instant::now();
        let output = self.layer.forward(input);
        self.device.sync().expect("the device is there");
        let elapsed = start.elapsed();
        drop(output);
        elapsed
    }

    /// With weight 1 and bias 0.
    fn largest_error(&self, case: &Case) -> f64 {
        let output = self.layer.forward(self.input.clone()).into_data().try_to_vec::<f32>().expect("f32");
        let exact = reference::layer_norm(&self.values, case.width, None, None, f64::from(1e-5_f32), false);
        largest_difference(&output, &exact)
    }
}
