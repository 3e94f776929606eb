//! Layer normalization, and its backward pass, beside a copy of the same bytes. Each result is compared with the f64 reference
//! before it is timed.
//!
//!     cargo bench --bench layer_norm -- --help

mod measure;

use measure::report::{print_head, row, run};
use serde_json::json;

fn main() {
    run(true, false, print_head, |bench, times, copy| {
        let mut result = row(&bench.case, times[0], copy);
        result["largest_error"] = json!(bench.largest_error);
        result["strategy"] = json!(bench.pick().strategy().to_string());
        result["geometry"] = json!(bench.pick().geometry().to_string());
        result
    });
}
