//! The accuracy table: the largest |x̂ − x̂_f64| for each strategy, data and adapter.
//!
//!     cargo run --release --example accuracy
//!
//! Then the same with 16-bit input and output: what an element is off beyond the bound of f32, in units in the last place of
//! its storage type. Rounded to nearest, that is a half.
//!
//! Then the gradients: how far dx is off, relative to the largest |dx| in its row, dweight, relative to Σ|dy| · max(1, |x̂| / 4) over
//! the rows, and dbias, relative to Σ|dy|.
//!
//! Ends with an error if any figure is over its bound: 1e-6 up to a width of 65,536, 2e-6 beyond, for |x̂| above 4 times |x̂| / 4;
//! one unit for 16 bits; 2e-6 for dx, 4e-6 beyond a width of 65,536; for dweight and dbias 1e-6 (2e-6) and 3e-8 for each of up to
//! 512 rows.

#[path = "../tests/common/mod.rs"]
mod common;

use common::gradients::{GradientCase, chain_bound};
use common::sample::{stored, unit_in_the_last_place};
use common::{ACCURACY_DATA, Case, Data, STRATEGIES, devices, error_bound, scale};
use gpu_layer_norm::kernel::Problem;
use gpu_layer_norm::{Affine, Plan, StorageType};

const SEEDS: u64 = 4;

/// What f16 can hold.
const STORAGE_DATA: [Data; 4] = [
    Data::STANDARD,
    Data::Normal { mean: 100.0, std: 1.0 },
    Data::Normal { mean: -3.0, std: 200.0 },
    Data::Outlier { first: 1e4 },
];

fn main() {
    let mut over = 0;
    let (devices, unusable) = devices();
    for (name, error) in unusable {
        eprintln!("{name}: {error}");
        over += 1;
    }
    if devices.is_empty() {
        eprintln!("there is no adapter; scripts/demo installs one");
        std::process::exit(1);
    }
    for (name, device) in devices {
        println!("{name}: {}, largest |x̂ − x̂_f64|, for |x̂| over 4 times 4 / |x̂|", device.adapter_info().name);
        heading("strategy", &ACCURACY_DATA);
        for width in [64, 768, 4096, 65_536, 1_000_003] {
            for strategy in STRATEGIES {
                over += line(width, strategy.to_string(), &ACCURACY_DATA, error_bound(width), |case| {
                    let plan =
                        Plan::with_strategy(&case.problem(Affine::None), device.capabilities(), strategy).ok()?;
                    let output = case.run(&device, Affine::None, plan).expect("the plan runs");
                    Some(case.largest_error(&output))
                });
            }
        }
        println!("{name}: 16-bit input and output, units in the last place beyond the bound of f32");
        heading("storage", &STORAGE_DATA);
        for width in [64, 768, 4097, 65_536] {
            for storage in [StorageType::F16, StorageType::Bf16] {
                over += line(width, storage.to_string(), &STORAGE_DATA, 1.0, |case| {
                    let values = case.input.iter().map(|&value| stored(storage, value)).collect();
                    let case = Case::with_values(case.rows, width, values, 0);
                    let layer = case.layer(&device, Affine::None).expect("a layer");
                    let output = layer.run(&device, &case.tensor().to_storage(storage)).expect("an output");
                    let excess = |(y, exact): (&f32, &f64)| {
                        let beyond = (f64::from(*y) - exact).abs() - error_bound(width) * scale(*exact);
                        // max would pass over a NaN.
                        if beyond.is_nan() {
                            return f64::INFINITY;
                        }
                        beyond.max(0.0) / unit_in_the_last_place(storage, *exact)
                    };
                    Some(output.values().iter().zip(&case.normalized).map(excess).fold(0.0, f64::max))
                });
            }
        }
        println!(
            "{name}: gradients; dx to the largest in its row, dweight and dbias to the sums of their terms' sizes"
        );
        heading("strategy", &ACCURACY_DATA);
        for width in [64, 768, 4096, 65_536] {
            for strategy in STRATEGIES {
                for (i, what) in ["dx", "dweight", "dbias"].into_iter().enumerate() {
                    let rows = (65_536 / width).clamp(1, 1024);
                    let bound = if i == 0 { 2.0 * error_bound(width) } else { chain_bound(width, rows) };
                    over += line(width, format!("{strategy} {what}"), &ACCURACY_DATA, bound, |case| {
                        let case = GradientCase::with_input(case.rows, width, case.input.clone(), 5);
                        let plan = |problem: &Problem| {
                            Plan::with_strategy(problem, device.capabilities(), strategy).into_iter().collect()
                        };
                        let runs = case.run(&device, true, plan).expect("the plan runs");
                        let (_, found) = runs.first()?;
                        Some(case.largest_errors(&case.bounds(), found)[i])
                    });
                }
            }
        }
    }
    if over > 0 {
        eprintln!("{over} figures are over their bound, or adapters unusable");
        std::process::exit(1);
    }
}

fn heading(what: &str, data: &[Data]) {
    print!("{:>9}  {what:<17}", "width");
    for data in data {
        print!("  {:>19}", data.to_string());
    }
    println!();
}

/// Prints the worst of all seeds for each data, and says how many are over the bound.
fn line(width: usize, what: String, data: &[Data], bound: f64, measure: impl Fn(&Case) -> Option<f64>) -> usize {
    let mut over = 0;
    print!("{width:>9}  {what:<17}");
    for &data in data {
        let worst = (0..SEEDS).map(|seed| measure(&Case::new((65_536 / width).clamp(1, 16), width, data, seed)));
        match worst.collect::<Option<Vec<f64>>>() {
            None => print!("  {:>19}", "–"),
            Some(errors) => {
                let worst = errors.into_iter().fold(0.0, f64::max);
                // Also where it is NaN.
                let mark = if worst <= bound { "" } else { "!" };
                over += usize::from(!mark.is_empty());
                print!("  {:>19}", format!("{worst:.2e}{mark}"));
            }
        }
    }
    println!();
    over
}
