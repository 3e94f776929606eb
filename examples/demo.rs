//! The worked examples of layer normalization on the GPU, each beside the f64 reference, and one large tensor beside a copy.
//!
//!     cargo run --release --example demo -- [--adapter NAME] [--list]

#[path = "../benches/measure/mod.rs"]
mod measure;

use std::error::Error;

use gpu_layer_norm::{
    Affine, GpuDevice, GpuLayerNorm, LayerNormConfig, NormalizedShape, StorageType, Tensor, Variance, reference, wgpu,
};
use lexopt::prelude::*;
use measure::{Bench, Case, Operation, Pool, Stopwatch, gigabytes_per_second, largest_difference};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

const HELP: &str = "\
Layer normalization on the GPU: worked examples beside the f64 reference, then one large tensor beside a copy.

  --adapter NAME  use the adapter whose name or driver contains NAME
  --list          show every adapter and stop
  --help          show this and stop";

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::Builder::from_env(env_logger::Env::new().default_filter_or("off")).init();
    let mut adapter = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("adapter") => adapter = Some(parser.value()?.string()?),
            Long("list") => return list(),
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(());
            }
            _ => return Err(format!("{}\n\n{HELP}", argument.unexpected()).into()),
        }
    }
    let builder = GpuDevice::builder();
    let device = match adapter {
        Some(name) => builder.adapter_name(name),
        None => builder,
    }
    .build()?;
    let info = device.adapter_info();
    println!(
        "adapter: {} ({:?}, {:?}), driver {} {}",
        info.name, info.backend, info.device_type, info.driver, info.driver_info
    );

    first_source(&device)?;
    second_source(&device)?;
    large(&device)
}

fn list() -> Result<(), Box<dyn Error>> {
    let adapters = pollster::block_on(GpuDevice::builder().adapters());
    if adapters.is_empty() {
        println!("no adapter");
    }
    for adapter in adapters {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        println!("{}", info.name);
        println!("  backend    {:?}, {:?}", info.backend, info.device_type);
        println!("  driver     {} {}", info.driver, info.driver_info);
        if features.contains(wgpu::Features::SUBGROUP) {
            println!("  subgroups  {} to {}", info.subgroup_min_size, info.subgroup_max_size);
        } else {
            println!("  subgroups  none");
        }
        println!("  f16        {}", if features.contains(wgpu::Features::SHADER_F16) { "yes" } else { "no" });
        println!(
            "  limits     {} invocations and {} bytes a workgroup, {} workgroups a dimension, {} storage buffers of {} MiB, \
             buffers of {} MiB",
            limits.max_compute_invocations_per_workgroup,
            limits.max_compute_workgroup_storage_size,
            limits.max_compute_workgroups_per_dimension,
            limits.max_storage_buffers_per_shader_stage,
            limits.max_storage_buffer_binding_size >> 20,
            limits.max_buffer_size >> 20,
        );
    }
    Ok(())
}

/// Runs a layer without parameters and prints input, output, the reference and the largest difference.
fn show(
    device: &GpuDevice,
    input: &Tensor,
    normalized_shape: impl Into<NormalizedShape>,
) -> Result<(), Box<dyn Error>> {
    let config = LayerNormConfig::new(normalized_shape).affine(Affine::None);
    let width = config.normalized_shape().iter().product();
    println!("\nshape {:?} over {:?}", input.shape(), config.normalized_shape());
    let output = GpuLayerNorm::new(device, &config)?.run(device, input)?;
    let exact = reference::layer_norm(&input.values(), width, None, None, 1e-5, false);
    for (row, ((input, output), exact)) in
        input.values().chunks(width).zip(output.values().chunks(width)).zip(exact.chunks(width)).enumerate()
    {
        println!("  row {row}  input      {}", numbers(input.iter().map(|&x| x.into())));
        println!("         gpu        {}", numbers(output.iter().map(|&x| x.into())));
        println!("         reference  {}", numbers(exact.iter().copied()));
    }
    println!("  largest difference {:.1e}", largest_difference(&output.values(), &exact));
    Ok(())
}

fn first_source(device: &GpuDevice) -> Result<(), Box<dyn Error>> {
    let batch = Tensor::from_f32([2, 2, 3], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].repeat(2))?;
    show(device, &batch, [2, 3])?;
    show(device, &batch, 3)?;
    let rows = Tensor::from_f32([3, 4], [1.0, 2.0, 4.0, 1.0, 6.0, 3.0, 2.0, 4.0, 2.0, 4.0, 6.0, 1.0])?;
    show(device, &rows, 4)
}

fn second_source(device: &GpuDevice) -> Result<(), Box<dyn Error>> {
    let mut rng = StdRng::seed_from_u64(20);
    let values: Vec<f32> = (0..20 * 5 * 10).map(|_| rng.sample(StandardNormal)).collect();
    let input = Tensor::from_f32([20, 5, 10], values)?;
    println!("\nshape [20, 5, 10], standard normal, over [10]: the first 20 of 100 rows");
    print_statistics("before", &input.values());
    let config = LayerNormConfig::new(10).affine(Affine::None);
    let output = GpuLayerNorm::new(device, &config)?.run(device, &input)?;
    print_statistics("after", &output.values());
    println!(
        "  After, the biased variance is 1: layer normalization divides by the root of the mean of 10 squares. The unbiased\n  \
         variance (torch.var) divides the same sum by 9, so it prints 10/9 = 1.11."
    );
    let exact = reference::layer_norm(&input.values(), 10, None, None, 1e-5, false);
    println!("  largest difference from the reference {:.1e}", largest_difference(&output.values(), &exact));

    let config = config.variance(Variance::Unbiased).eps(1e-12);
    let output = GpuLayerNorm::new(device, &config)?.run(device, &input)?;
    println!("  normalized by the unbiased variance, eps 1e-12, as the second source's own code does:");
    print_statistics("after", &output.values());
    let exact = reference::layer_norm(&input.values(), 10, None, None, f64::from(1e-12_f32), true);
    println!("  largest difference from the reference {:.1e}", largest_difference(&output.values(), &exact));
    Ok(())
}

fn print_statistics(when: &str, values: &[f32]) {
    let statistics: Vec<(f64, f64)> = values.chunks(10).take(20).map(mean_and_squares).collect();
    println!("  {when:<6} mean               {}", two_digits(statistics.iter().map(|&(mean, _)| mean)));
    println!("  {when:<6} biased variance    {}", two_digits(statistics.iter().map(|&(_, squares)| squares / 10.0)));
    println!("  {when:<6} unbiased variance  {}", two_digits(statistics.iter().map(|&(_, squares)| squares / 9.0)));
}

/// The mean of a row and the sum of squared deviations from it.
fn mean_and_squares(row: &[f32]) -> (f64, f64) {
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
    (mean, row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum())
}

fn large(device: &GpuDevice) -> Result<(), Box<dyn Error>> {
    // 256 MiB on a GPU, 16 MiB on a processor, or what the device can bind.
    let wanted: u64 = if device.adapter_info().device_type == wgpu::DeviceType::Cpu { 16 << 20 } else { 256 << 20 };
    let rows = (wanted.min(device.capabilities().max_binding_bytes) / 4096) as usize;
    let case = Case { operation: Operation::Plain, storage: StorageType::F32, rows, width: 1024 };
    let bench = Bench::new(&mut Pool::new(device, case.elements()), case, false)?;
    let stopwatch = Stopwatch::new(device);
    let (times, copy) = bench.compare(&stopwatch, 21)?;
    let time = times[0];
    println!("\n{}", bench.pick());
    println!("  largest difference from the reference {:.1e}", bench.largest_error);
    for (what, time) in [("layer norm", time), ("copy", copy)] {
        let speed = gigabytes_per_second(case.bytes(), time);
        println!("  {what:<10}  {:>8.3} ms  {speed:>7.1} GB/s", time.as_secs_f64() * 1e3);
    }
    println!(
        "  {:.2} times the copy of the same bytes (medians of 21, {})",
        time.as_secs_f64() / copy.as_secs_f64(),
        stopwatch.method()
    );
    Ok(())
}

fn numbers(values: impl Iterator<Item = f64>) -> String {
    values.map(|x| format!("{x:9.6}")).collect::<Vec<_>>().join(" ")
}

fn two_digits(values: impl Iterator<Item = f64>) -> String {
    values.map(|x| format!("{x:5.2}")).collect::<Vec<_>>().join(" ")
}
