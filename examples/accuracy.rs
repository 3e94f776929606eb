//! The accuracy table: the largest |x̂ − x̂_f64| for each strategy, data and adapter.
//!
//!     cargo run --release --example accuracy
//!
//! Then the same of causal normalization, of one sequence of 4 to 200 positions: of the data, and of the same where every position lies
//! 100 higher than the one before.
//!
//! Then the first table with 16-bit input and output: what an element is off beyond the bound of f32, in units in the last place of
//! its storage type. Rounded to nearest, that is a half.
//!
//! Then the gradients: how far dx is off, relative to the largest |dx| in its row, dweight, relative to Σ|dy| · max(1, |x̂| / 4) over
//! the rows, and dbias, relative to Σ|dy|.
//!
//! Then y of adaptive layer normalization, relative to |weight| · (1 + |scale|) · max(1, |x̂| / 4) and the magnitudes of what is added
//! to it.
//!
//! Ends with an error if any figure is over its bound: 1e-6 up to a width of 65,536, 2e-6 beyond, for |x̂| above 4 times |x̂| / 4;
//! one unit for 16 bits; 2e-6 for dx, 4e-6 beyond a width of 65,536; for dweight and dbias 1e-6 (2e-6) and 3e-8 for each of up to
//! 512 rows; 3e-6 for y of adaptive layer normalization, where factors, products and sums are rounded too.

#[path = "../tests/common/mod.rs"]
mod common;

use common::gradients::{GradientCase, chain_bound};
use common::sample::{stored, unit_in_the_last_place};
use common::{ACCURACY_DATA, Case, Data, STRATEGIES, devices, error_bound, scale, submit};
use gpu_layer_norm::kernel::Problem;
use gpu_layer_norm::reference::{self, Condition};
use gpu_layer_norm::{
    Affine, Bindings, GpuDevice, GpuLayerNorm, GpuTensor, Modulation, Plan, StorageType, Strategy, Tensor,
};

const SEEDS: u64 = 4;
/// Rows that share a condition.
const ROWS_PER_CONDITION: usize = 4;
/// How much higher a position lies than the one before.
const DRIFT: f32 = 100.0;

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
                over +=
                    line(few_rows(width), width, strategy.to_string(), &ACCURACY_DATA, error_bound(width), |case| {
                        let plan =
                            Plan::with_strategy(&case.problem(Affine::None), device.capabilities(), strategy).ok()?;
                        let output = case.run(&device, Affine::None, plan).expect("the plan runs");
                        Some(case.largest_error(&output))
                    });
            }
        }
        println!("{name}: causal, the same of a sequence of 4 to 200 positions");
        heading("strategy", &ACCURACY_DATA);
        for width in [64, 768, 4096, 65_536] {
            for strategy in STRATEGIES {
                for (what, drift) in [(strategy.to_string(), 0.0), (format!("{strategy} drift"), DRIFT)] {
                    let positions = (65_536 / width).clamp(4, 200);
                    over += line(positions, width, what, &ACCURACY_DATA, error_bound(width), |case| {
                        causal_error(&device, case, drift, strategy)
                    });
                }
            }
        }
        println!("{name}: 16-bit input and output, units in the last place beyond the bound of f32");
        heading("storage", &STORAGE_DATA);
        for width in [64, 768, 4097, 65_536] {
            for storage in [StorageType::F16, StorageType::Bf16] {
                over += line(few_rows(width), width, storage.to_string(), &STORAGE_DATA, 1.0, |case| {
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
                    over += line(few_rows(width), width, format!("{strategy} {what}"), &ACCURACY_DATA, bound, |case| {
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
        println!("{name}: adaptive layer normalization; y to what x̂ is multiplied by and what is added");
        heading("strategy", &ACCURACY_DATA);
        for width in [64, 768, 4096, 65_536] {
            for strategy in STRATEGIES {
                let bound = error_bound(width) + 2e-6;
                over += line(few_rows(width), width, strategy.to_string(), &ACCURACY_DATA, bound, |case| {
                    modulated_error(&device, case, strategy)
                });
            }
        }
    }
    if over > 0 {
        eprintln!("{over} figures are over their bound, or adapters unusable");
        std::process::exit(1);
    }
}

/// The largest error of y where rows are modulated, as a share of what y is made of; `None` where the strategy does not run.
fn modulated_error(device: &GpuDevice, case: &Case, strategy: Strategy) -> Option<f64> {
    let &Case { rows, width, .. } = case;
    let conditions = rows.div_ceil(ROWS_PER_CONDITION);
    let [scales, shifts] = [0xa1, 0xa2].map(|seed| {
        let values = Data::STANDARD.values(conditions, width, seed);
        values.iter().map(|x| x.tanh() / 2.0).collect::<Vec<f32>>()
    });
    let layer = case.layer(device, Affine::WeightAndBias).expect("a layer");
    let upload = |values: &Vec<f32>| {
        let tensor = Tensor::from_f32([values.len() / width, width], values.clone()).expect("whole rows");
        GpuTensor::upload(device, &tensor).expect("room for a tensor")
    };
    let output = GpuTensor::zeros(device, [rows, width]).expect("room for a tensor");
    let bindings = Bindings::of(&upload(&case.input), &output)
        .scale(&upload(&scales))
        .shift(&upload(&shifts))
        .rows_per_condition(ROWS_PER_CONDITION as u64);
    let found = run(device, &layer, &bindings, &output, strategy)?;
    let condition = Condition {
        modulation: Modulation::Adaptive,
        rows_per_condition: ROWS_PER_CONDITION,
        scale: Some(&scales[..]),
        shift: Some(&shifts[..]),
    };
    let (weight, bias, eps) = (Some(&case.weight[..]), Some(&case.bias[..]), case.eps.into());
    let exact = reference::modulated_layer_norm(&case.input, width, weight, bias, &condition, eps, false);
    let error = |(i, (&y, &exact)): (usize, (&f32, &f64))| {
        let (column, of_condition) = (i % width, i / width / ROWS_PER_CONDITION * width + i % width);
        let magnitude = |values: &[f32], i: usize| f64::from(values[i]).abs();
        let factor = 1.0 + magnitude(&scales, of_condition);
        let multiplied = magnitude(&case.weight, column) * factor * scale(case.normalized[i]);
        let added = magnitude(&case.bias, column) * factor + magnitude(&shifts, of_condition);
        (f64::from(y) - exact).abs() / (multiplied + added)
    };
    Some(largest(found.iter().zip(&exact).enumerate().map(error)))
}

/// The largest error of x̂ where all rows are one sequence, each `drift` higher than the one before; `None` where the strategy does not
/// run.
fn causal_error(device: &GpuDevice, case: &Case, drift: f32, strategy: Strategy) -> Option<f64> {
    let &Case { rows, width, .. } = case;
    let input: Vec<f32> = case.input.iter().enumerate().map(|(i, x)| x + drift * (i / width) as f32).collect();
    let exact = reference::causal_layer_norm(&input, rows, width, None, None, case.eps.into(), false);
    let config = case.config(Affine::None).causal(true).expect_nothing();
    let layer = GpuLayerNorm::new(device, &config).expect("a layer");
    let input = Tensor::from_f32([rows, width], input).expect("whole rows");
    let input = GpuTensor::upload(device, &input).expect("room for a tensor");
    let output = GpuTensor::zeros(device, [rows, width]).expect("room for a tensor");
    let found = run(device, &layer, &Bindings::of(&input, &output), &output, strategy)?;
    let error = |(&x, &exact): (&f32, &f64)| (f64::from(x) - exact).abs() / scale(exact);
    Some(largest(found.iter().zip(&exact).map(error)))
}

/// What a plan of this strategy writes to the output.
fn run(
    device: &GpuDevice,
    layer: &GpuLayerNorm,
    bindings: &Bindings,
    output: &GpuTensor,
    strategy: Strategy,
) -> Option<Vec<f32>> {
    let problem = layer.problem(device, bindings).expect("a problem");
    let plan = Plan::with_strategy(&problem, device.capabilities(), strategy).ok()?;
    submit(device, &layer.prepare_plan(device, plan, bindings).expect("the plan is prepared"));
    Some(output.download().expect("an output").into_values())
}

/// The largest of these errors, infinite where one is NaN.
fn largest(errors: impl Iterator<Item = f64>) -> f64 {
    errors.fold(0.0, |largest: f64, error| if error.is_nan() { f64::INFINITY } else { largest.max(error) })
}

/// Rows of most cases.
fn few_rows(width: usize) -> usize {
    (65_536 / width).clamp(1, 16)
}

fn heading(what: &str, data: &[Data]) {
    print!("{:>9}  {what:<17}", "width");
    for data in data {
        print!("  {:>19}", data.to_string());
    }
    println!();
}

/// Prints the worst of all seeds for each data, and says how many are over the bound.
fn line(
    rows: usize,
    width: usize,
    what: String,
    data: &[Data],
    bound: f64,
    measure: impl Fn(&Case) -> Option<f64>,
) -> usize {
    let mut over = 0;
    print!("{width:>9}  {what:<17}");
    for &data in data {
        let worst = (0..SEEDS).map(|seed| measure(&Case::new(rows, width, data, seed)));
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
