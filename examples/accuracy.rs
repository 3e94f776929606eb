//! The accuracy table: the largest |x̂ − x̂_f64| for each strategy, data and adapter.
//!
//!     cargo run --release --example accuracy
//!
//! Ends with an error if any figure is over its bound: 1e-6 up to a width of 65,536, 2e-6 beyond.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{ACCURACY_DATA, Case, STRATEGIES, devices, error_bound};
use gpu_layer_norm::{Affine, Plan};

const SEEDS: u64 = 4;

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
        println!("{name}: {}, largest |x̂ − x̂_f64|, for |x̂| over 6 relative to it", device.adapter_info().name);
        print!("{:>9}  {:<10}", "width", "strategy");
        for data in ACCURACY_DATA {
            print!("  {:>19}", data.to_string());
        }
        println!();
        for width in [64, 768, 4096, 65_536, 1_000_003] {
            for strategy in STRATEGIES {
                let mut cells = String::new();
                for data in ACCURACY_DATA {
                    let worst = (0..SEEDS).map(|seed| {
                        let case = Case::new((65_536 / width).clamp(1, 16), width, data, seed);
                        let problem = case.problem(Affine::None);
                        let plan = Plan::with_strategy(&problem, device.capabilities(), strategy).ok()?;
                        let output = case.run(&device, Affine::None, plan).expect("the plan runs");
                        Some(case.largest_error(&output))
                    });
                    match worst.collect::<Option<Vec<f64>>>() {
                        None => cells.push_str(&format!("  {:>19}", "–")),
                        Some(errors) => {
                            let worst = errors.into_iter().fold(0.0, f64::max);
                            // Also where it is NaN.
                            let mark = if worst <= error_bound(width) { "" } else { "!" };
                            over += usize::from(!mark.is_empty());
                            cells.push_str(&format!("  {:>19}", format!("{worst:.2e}{mark}")));
                        }
                    }
                }
                println!("{width:>9}  {:<10}{cells}", strategy.to_string());
            }
        }
    }
    if over > 0 {
        eprintln!("{over} figures are over their bound, or adapters unusable");
        std::process::exit(1);
    }
}
