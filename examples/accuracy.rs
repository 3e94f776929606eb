//! The accuracy table: the largest |x̂ − x̂_f64| for each strategy, data and adapter.
//!
//!     cargo run --release --example accuracy
//!
//! Then the same with 16-bit input and output: what an element is off beyond the bound of f32, in units in the last place of
//! its storage type. Rounded to nearest, that is a half.
//!
//! Ends with an error if any figure is over its bound: 1e-6 up to a width of 65,536, 2e-6 beyond, for |x̂| above 4 times |x̂| / 4;
//! one unit for 16 bits.

#[path = "../tests/common/mod.rs"]
mod common;

use common::sample::{stored, unit_in_the_last_place};
use common::{ACCURACY_DATA, Case, Data, STRATEGIES, devices, error_bound, scale};
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
    }
    if over > 0 {
        eprintln!("{over} figures are over their bound, or adapters unusable");
        std::process::exit(1);
    }
}

fn heading(what: &str, data: &[Data]) {
    print!("{:>9}  {what:<10}", "width");
    for data in data {
        print!("  {:>19}", data.to_string());
    }
    println!();
}

/// Prints the worst of all seeds for each data, and says how many are over the bound.
fn line(width: usize, what: String, data: &[Data], bound: f64, measure: impl Fn(&Case) -> Option<f64>) -> usize {
    let mut over = 0;
    print!("{width:>9}  {what:<10}");
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
