//! Layer normalization, and its backward pass, beside a copy of the same bytes. Each result is compared with the f64 reference
//! before it is timed.
//!
//!     cargo bench --bench layer_norm -- --help
//!
//! Adaptive and causal layer normalization are measured where they are asked for, each in turn with the operation that it extends, of
//! the same shape. How many times as long as that it takes stands at the end of its line:
//!
//!     cargo bench --bench layer_norm -- --operations layer_norm,modulated,causal --rows 4096 --widths 768 --storage f32
//!
//! `channels_first` is measured beside a transposed copy, layer normalization and a transposed copy back, too: how many times as long as
//! these three it takes stands behind.

mod measure;

use measure::report::{print_head, row, run};
use serde_json::json;

fn main() {
    run(true, false, print_head, |bench, times| {
        let mut result = row(&bench.case, times);
        result["largest_error"] = json!(bench.largest_error);
        result["strategy"] = json!(bench.pick().strategy().to_string());
        result["geometry"] = json!(bench.pick().geometry().to_string());
        result
    });
}
