//! Layer normalization beside a copy of the same bytes. Each result is compared with the f64 reference before it is timed.
//!
//!     cargo bench --bench layer_norm -- --help

mod measure;

use measure::report::{Options, device, fail, header, print_head, row};
use measure::{Bench, Case, Pool, Stopwatch};
use serde_json::json;

fn main() {
    let options = Options::from_command_line();
    let device = device();
    let stopwatch = Stopwatch::new(&device);
    let mut report = header("gpu-layer-norm", &device, &stopwatch, options.samples);
    print_head();
    let elements = options.elements(&device);
    let mut pool = Pool::new(&device, elements);
    let mut results = Vec::new();
    for &storage in &options.storage {
        for &operation in &options.operations {
            for (rows, width) in options.shapes(elements, true) {
                let case = Case { operation, storage, rows, width };
                let bench = Bench::new(&mut pool, case, false).unwrap_or_else(|error| fail(&error));
                let (times, copy) = bench.compare(&stopwatch, options.samples).unwrap_or_else(|error| fail(&error));
                let mut result = row(&case, times[0], copy);
                result["largest_error"] = json!(bench.largest_error);
                result["strategy"] = json!(bench.pick().strategy().to_string());
                result["geometry"] = json!(bench.pick().geometry().to_string());
                results.push(result);
            }
        }
    }
    report["results"] = json!(results);
    options.write(&report);
}
