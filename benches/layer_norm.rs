//! Layer normalization beside a copy of the same bytes. Each shape is compared with the f64 reference before it is timed.
//!
//!     cargo bench                              criterion's report
//!     cargo bench -- --json FILE               medians, GB/s and the ratio to copy, as JSON
//!
//! `GPU_LAYER_NORM_ADAPTER=NAME` picks an adapter whose name or driver contains NAME; the best one otherwise.

mod measure;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use gpu_layer_norm::GpuDevice;
use measure::{Bench, Stopwatch, Work, gigabytes_per_second};
use serde_json::json;

const SHAPES: [(usize, usize); 7] =
    [(65_536, 64), (16_384, 256), (4_096, 768), (4_096, 1_024), (1_024, 4_096), (128, 65_536), (1, 1_048_576)];

fn main() {
    let device = match std::env::var("GPU_LAYER_NORM_ADAPTER") {
        Ok(name) => GpuDevice::builder().adapter_name(name).build(),
        Err(_) => GpuDevice::new(),
    };
    let device = device.unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1);
    });
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == "--json") {
        Some(i) => match arguments.get(i + 1) {
            Some(file) => report(&device, file),
            None => {
                eprintln!("--json needs a file to write to");
                std::process::exit(2);
            }
        },
        None => criterion(&device),
    }
}

fn bench(device: &GpuDevice, (rows, width): (usize, usize)) -> Bench {
    Bench::new(device, rows, width).unwrap_or_else(|error| panic!("{rows} × {width}: {error}"))
}

fn criterion(device: &GpuDevice) {
    let stopwatch = Stopwatch::new(device);
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    println!("{}, {}", device.adapter_info().name, stopwatch.method());
    for shape in SHAPES {
        let bench = bench(device, shape);
        println!("{}", bench.layer_norm.plan());
        let mut group = criterion.benchmark_group(format!("{}x{}", bench.rows, bench.width));
        group.throughput(Throughput::Bytes(bench.bytes()));
        for (name, work) in [("copy", &bench.copy as &dyn Work), ("layer_norm", &bench.layer_norm)] {
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher
                    .iter_custom(|turns| (0..turns).map(|_| stopwatch.time(work).expect("the device is there")).sum());
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

fn report(device: &GpuDevice, file: &str) {
    const SAMPLES: usize = 31;
    let stopwatch = Stopwatch::new(device);
    let info = device.adapter_info();
    println!("{}, {}, {}", info.name, info.driver_info, stopwatch.method());
    println!(
        "{:>9} {:>9}  {:>10} {:>8}  {:>10} {:>8}  {:>6}",
        "rows", "width", "ms", "GB/s", "copy ms", "GB/s", "ratio"
    );
    let mut results = Vec::new();
    for shape in SHAPES {
        let bench = bench(device, shape);
        let (time, copy) = bench.compare(&stopwatch, SAMPLES).expect("the device is there");
        let ratio = time.as_secs_f64() / copy.as_secs_f64().max(1e-9);
        let speed = |time| gigabytes_per_second(bench.bytes(), time);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{:>9} {:>9}  {:>10.3} {:>8.2}  {:>10.3} {:>8.2}  {ratio:>6.2}",
            bench.rows,
            bench.width,
            ms(time),
            speed(time),
            ms(copy),
            speed(copy)
        );
        results.push(json!({
            "rows": bench.rows,
            "width": bench.width,
            "bytes": bench.bytes(),
            "milliseconds": ms(time),
            "gigabytes_per_second": speed(time),
            "copy_milliseconds": ms(copy),
            "copy_gigabytes_per_second": speed(copy),
            "ratio_to_copy": ratio,
            "largest_error": bench.largest_error,
            "strategy": bench.layer_norm.plan().strategy().to_string(),
        }));
    }
    let report = json!({
        "adapter": info.name,
        "backend": format!("{:?}", info.backend),
        "driver": format!("{} {}", info.driver, info.driver_info),
        "method": stopwatch.method(),
        "samples": SAMPLES,
        "results": results,
    });
    if let Err(error) = std::fs::write(file, format!("{report:#}\n")) {
        eprintln!("{file}: {error}");
        std::process::exit(1);
    }
}
