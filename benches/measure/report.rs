//! What the benchmarks are told, and what they tell: options, tables, JSON.

use std::time::Duration;

use gpu_layer_norm::kernel::AdapterClass;
use gpu_layer_norm::{Error, GpuDevice, StorageType};
use serde_json::{Value, json};

use super::{Bench, Case, Operation, Pool, Stopwatch, Times, gigabytes_per_second};

/// Widths that are measured unless others are asked for.
pub const WIDTHS: [usize; 21] = [
    32, 64, 128, 256, 512, 768, 1000, 1001, 1024, 2048, 3072, 4096, 5120, 8192, 16_384, 32_768, 50_257, 65_536,
    131_072, 262_144, 1_048_576,
];
/// Rows and widths of what is too small to fill a large device.
pub const FEW_ROWS: [(usize, usize); 11] = [
    (1, 768),
    (4, 768),
    (16, 768),
    (256, 768),
    (1, 3072),
    (4, 3072),
    (16, 3072),
    (256, 3072),
    (1, 65_536),
    (4, 65_536),
    (16, 65_536),
];

fn usage(operations: &[Operation], default: &[Operation]) -> String {
    let names = |operations: &[Operation]| operations.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ");
    let unless_all = if default == operations { String::new() } else { format!("; {}", names(default)) };
    format!(
        "  --json FILE           writes the results here too
  --log2-elements N     tensors of 2^N elements; 28 on a GPU, 22 on a processor
  --widths A,B,…        only these widths, and no few-row shapes
  --rows N              so many rows at every width, where such tensors are no larger, and no few-row shapes
  --storage A,B,…       of f32, f16, bf16
  --operations A,B,…    of {}{unless_all}
  --samples N           runs of each, of which the median counts; 15

GPU_LAYER_NORM_ADAPTER=NAME picks an adapter whose name or driver contains NAME; the best one otherwise.",
        names(operations)
    )
}

/// What a benchmark was told.
pub struct Options {
    pub json: Option<String>,
    log2_elements: Option<u32>,
    widths: Option<Vec<usize>>,
    rows: Option<usize>,
    pub storage: Vec<StorageType>,
    pub operations: Vec<Operation>,
    pub samples: usize,
}

impl Options {
    /// Reads the command line of a benchmark of these operations, the default ones unless others are asked for. Says what is
    /// wrong with it, and ends.
    pub fn from_command_line(operations: &[Operation], default: &[Operation]) -> Self {
        Self::parse(lexopt::Parser::from_env(), operations, default).unwrap_or_else(|error| {
            eprintln!("{error}\n\n{}", usage(operations, default));
            std::process::exit(2);
        })
    }

    fn parse(
        mut parser: lexopt::Parser,
        operations: &[Operation],
        default: &[Operation],
    ) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut options = Self {
            json: None,
            log2_elements: None,
            widths: None,
            rows: None,
            storage: StorageType::ALL.to_vec(),
            operations: default.to_vec(),
            samples: 15,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("json") => options.json = Some(parser.value()?.string()?),
                Long("log2-elements") => options.log2_elements = Some(parser.value()?.parse()?),
                Long("widths") => {
                    let list = parser.value()?.string()?;
                    let widths: Result<Vec<usize>, _> = list.split(',').map(str::parse).collect();
                    options.widths = Some(widths.map_err(|error| format!("--widths {list}: {error}"))?);
                }
                Long("rows") => options.rows = Some(parser.value()?.parse::<usize>()?.max(1)),
                Long("storage") => options.storage = named(&parser.value()?.string()?, &StorageType::ALL)?,
                Long("operations") => options.operations = named(&parser.value()?.string()?, operations)?,
                Long("samples") => options.samples = parser.value()?.parse::<usize>()?.max(1),
                Long("help") => {
                    println!("{}", usage(operations, default));
                    std::process::exit(0);
                }
                // From `cargo bench`.
                Long("bench") => {}
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }

    /// Elements of the tensors of full size.
    pub fn elements(&self, device: &GpuDevice) -> usize {
        let class = device.capabilities().class;
        let log2 = self.log2_elements.unwrap_or(if class == AdapterClass::Cpu { 22 } else { 28 });
        Pool::elements(device, 1 << log2.min(40))
    }

    /// Rows and widths: tensors of so many elements, or of as many rows as were asked for, and, unless widths or rows were asked for,
    /// few-row shapes.
    pub fn shapes(&self, elements: usize, few_rows: bool) -> Vec<(usize, usize)> {
        let widths = self.widths.as_deref().unwrap_or(&WIDTHS);
        let rows = |width: usize| self.rows.unwrap_or(elements / width.max(1));
        let mut shapes: Vec<_> = widths.iter().map(|&width| (rows(width), width)).collect();
        if few_rows && self.widths.is_none() && self.rows.is_none() {
            shapes.extend(FEW_ROWS);
        }
        shapes.retain(|(rows, width)| *rows > 0 && rows.checked_mul(*width).is_some_and(|it| it <= elements));
        shapes
    }

    /// Writes what was measured, if it was asked for.
    pub fn write(&self, report: &Value) {
        if let Some(file) = &self.json {
            write(file, report);
        }
    }
}

/// Writes JSON to a file, or says why not, and ends.
pub fn write(file: &str, report: &Value) {
    if let Err(error) = std::fs::write(file, format!("{report:#}\n")) {
        eprintln!("{file}: {error}");
        std::process::exit(1);
    }
}

/// Runs a benchmark from its command line: prepares and times each case that is asked for, the planner's pick or all its
/// candidates; the pick in turn with that of the operation's counterpart, of the same storage and shape, where it has one. `describe`
/// is given the median times, prints them, and gives them as JSON.
pub fn run(
    few_rows: bool,
    all_candidates: bool,
    heading: impl FnOnce(),
    mut describe: impl FnMut(&Bench, &Times) -> Value,
) {
    let options = Options::from_command_line(&Operation::ALL, &Operation::ALONE);
    let device = device();
    let stopwatch = Stopwatch::new(&device);
    let mut report = header("gpu-layer-norm", &device, &stopwatch, options.samples);
    heading();
    let elements = options.elements(&device);
    let mut pool = Pool::new(&device, elements);
    let mut results = Vec::new();
    for &storage in &options.storage {
        for &operation in &options.operations {
            for (rows, width) in options.shapes(elements, few_rows) {
                let mut prepare = |operation, all_candidates| {
                    let case = Case { operation, storage, rows, width };
                    Bench::new(&mut pool, case, all_candidates).unwrap_or_else(|error| fail(&error))
                };
                let counterpart = operation.counterpart().filter(|_| !all_candidates);
                let counterpart = counterpart.map(|operation| prepare(operation, false));
                let bench = prepare(operation, all_candidates);
                let times = bench.compare_with(counterpart.as_ref(), &stopwatch, options.samples);
                results.push(describe(&bench, &times.unwrap_or_else(|error| fail(&error))));
            }
        }
    }
    report["results"] = json!(results);
    options.write(&report);
}

fn named<T: Copy + std::fmt::Display>(list: &str, all: &[T]) -> Result<Vec<T>, lexopt::Error> {
    let find = |name: &str| all.iter().find(|item| item.to_string() == name).copied();
    list.split(',').map(|name| find(name).ok_or_else(|| format!("there is no {name}").into())).collect()
}

/// The device that the environment names.
pub fn device() -> GpuDevice {
    let device = match std::env::var("GPU_LAYER_NORM_ADAPTER") {
        Ok(name) => GpuDevice::builder().adapter_name(name).build(),
        Err(_) => GpuDevice::new(),
    };
    device.unwrap_or_else(|error| fail(&error))
}

pub fn fail(error: &Error) -> ! {
    eprintln!("{error}");
    std::process::exit(1);
}

/// What results hold for: adapter, driver, day, and how they were measured.
pub fn header(implementation: &str, device: &GpuDevice, stopwatch: &Stopwatch<'_>, samples: usize) -> Value {
    let info = device.adapter_info();
    println!("{implementation} on {}, {:?}, {} {}", info.name, info.backend, info.driver, info.driver_info);
    println!("medians of {samples}, {}", stopwatch.method());
    json!({
        "implementation": implementation,
        "version": env!("CARGO_PKG_VERSION"),
        "adapter": info.name,
        "backend": format!("{:?}", info.backend),
        "driver": format!("{} {}", info.driver, info.driver_info).trim(),
        "date": jiff::Timestamp::now().strftime("%F").to_string(),
        "method": stopwatch.method(),
        "samples": samples,
    })
}

/// The line above those of [`row`].
pub fn print_head() {
    println!(
        "{:<18} {:>4} {:>9} {:>9}  {:>10} {:>8}  {:>10} {:>8}  {:>6}",
        "operation", "", "rows", "width", "ms", "GB/s", "copy ms", "GB/s", "ratio"
    );
}

/// Prints the result of the planner's pick, with its ratio to the counterpart at the end of the line, and gives it as JSON.
pub fn row(case: &Case, times: &Times) -> Value {
    let (mut line, mut result) = result(case.operation.name(), case, case.bytes(), times.plans[0], times.copy);
    if let Some(counterpart) = &times.counterpart {
        line += &format!("  {:>5.2} × {}", counterpart.ratio, counterpart.operation);
        result["counterpart"] = json!(counterpart.operation.name());
        result["counterpart_milliseconds"] = json!(counterpart.time.as_secs_f64() * 1e3);
        result["ratio_to_counterpart"] = json!(counterpart.ratio);
    }
    if let Some((time, ratio)) = times.detour {
        line += &format!("  {ratio:>5.2} × transposed");
        result["transposed_milliseconds"] = json!(time.as_secs_f64() * 1e3);
        result["ratio_to_transposed"] = json!(ratio);
    }
    println!("{line}");
    result
}

/// As [`row`], of what is more than the case's operation, and moves so many bytes.
pub fn row_of(operation: &str, case: &Case, bytes: u64, time: Duration, copy: Duration) -> Value {
    let (line, result) = result(operation, case, bytes, time, copy);
    println!("{line}");
    result
}

/// A result as a line and as JSON.
fn result(operation: &str, case: &Case, bytes: u64, time: Duration, copy: Duration) -> (String, Value) {
    let ratio = time.as_secs_f64() / copy.as_secs_f64().max(1e-9);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let speed = |time| gigabytes_per_second(bytes, time);
    let line = format!(
        "{operation:<18} {:>4} {:>9} {:>9}  {:>10.4} {:>8.2}  {:>10.4} {:>8.2}  {ratio:>6.2}",
        case.storage,
        case.rows,
        case.width,
        ms(time),
        speed(time),
        ms(copy),
        speed(copy)
    );
    let result = json!({
        "operation": operation,
        "storage": case.storage.to_string(),
        "rows": case.rows,
        "width": case.width,
        "bytes": bytes,
        "milliseconds": ms(time),
        "gigabytes_per_second": speed(time),
        "copy_milliseconds": ms(copy),
        "copy_gigabytes_per_second": speed(copy),
        "ratio_to_copy": ratio,
    });
    (line, result)
}
