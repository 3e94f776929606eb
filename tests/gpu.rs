//! Results on every adapter there is, against the f64 reference. `GPU_LAYER_NORM_ADAPTERS=lavapipe,swiftshader,gl` names
//! adapters that must be there: a missing one fails.

#[path = "gpu/axes.rs"]
mod axes;
#[path = "gpu/backward.rs"]
mod backward;
#[path = "gpu/causal.rs"]
mod causal;
mod common;
#[path = "gpu/modulation.rs"]
mod modulation;
#[path = "gpu/parts.rs"]
mod parts;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use common::sample::{Backward, Sample, Spot, Target, download, stored, upload};
use common::{
    AFFINES, Case, Data, STRATEGIES, Turns, another_device, bare, devices, element_budget, error_bound, geometries,
    short_name, step, submit,
};
use gpu_layer_norm::kernel::{Access, Geometry, Kernel, Problem, Reduction, Role};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Modulation, Normalization, Plan,
    Region, StorageType, Tensor, Variance, reference, wgpu,
};
use libtest_mimic::{Arguments, Failed, Trial};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

type Outcome = Result<(), Failed>;

fn main() {
    let _ = env_logger::try_init();
    let mut arguments = Arguments::from_args();
    // Each trial that runs has a device, with memory of its own.
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(4));
    arguments.test_threads.get_or_insert(threads);
    let (devices, unusable) = devices();
    let mut trials = Vec::new();
    for (name, error) in unusable {
        trials.push(Trial::test(format!("{name}: gives a device"), move || Err(error.to_string().into())));
    }
    for (name, device) in &devices {
        println!("adapter {name}: {} ({:?})", device.adapter_info().name, device.adapter_info().backend);
        let backend = device.adapter_info().backend;
        let pool = Arc::new(Pool { adapter: name.clone(), backend, free: Mutex::new(vec![device.clone()]) });
        let mut add = |what: &'static str, test: fn(&str, &GpuDevice) -> Outcome| {
            let (name, pool) = (name.clone(), pool.clone());
            trials.push(Trial::test(format!("{name}: {what}"), move || {
                let start = std::time::Instant::now();
                let outcome = pool.run(|device| test(&name, device));
                log::info!("{name}: {what}: {:.1} s", start.elapsed().as_secs_f64());
                outcome
            }));
        };
        add("every strategy runs", every_strategy);
        add("widths 1 to 70", |name, device| widths(name, device, 2, 1..=70));
        add("widths around powers of two to 4097", |name, device| {
            let near =
                [128, 256, 512, 768, 1024, 3072, 4096].into_iter().flat_map(|width| [width - 1, width, width + 1]);
            widths(name, device, 2, near.chain([1000]))
        });
        add("widths 8191 to 1000003", |name, device| {
            widths(name, device, 1, [8191, 8192, 8193, 65_535, 65_536, 65_537, 1_000_003])
        });
        add("row counts to 196608", row_counts);
        add("every geometry", every_geometry);
        add("the largest width", largest_width);
        add("unbiased variance and eps", variance_and_eps);
        add("accuracy at every mean and with an outlier", accuracy);
        add("the bound holds for rows with an outlier of any size", outliers);
        add("the bounds hold for rows of two values", two_values);
        add("rstd of constant rows with a tiny eps", tiny_eps);
        add("a constant row gives exactly the bias", constant_rows);
        add("magnitudes 1e-30 to 1e37", magnitudes);
        add("NaN and infinity stay in their row", nan_stays_in_its_row);
        add("properties", properties);
        add("a wrong kernel fails the comparison", wrong_kernels);
        add("kernels with and without runtime checks", runtime_checks);
        add("chunks of rows", chunks);
        add("local indices are in order within subgroups", subgroup_order);
        add("recordings", recordings);
        add("the ONNX backend suites", onnx_suite);
        add("RMS normalization", rms);
        add("backward: every strategy and storage type", backward::every_strategy);
        add("backward: every geometry", backward::every_geometry);
        add("backward: accuracy at every mean", backward::accuracy);
        add("backward: rows of every kind", backward::rows_of_every_kind);
        add("backward: one row, and ten million", backward::row_counts);
        add("backward: fewer rows than prepared", backward::rows_set);
        add("backward: row counts on the device", backward::row_counts_on_device);
        add("backward: words that rows share", backward::shared_words);
        add("backward: walks in place", backward::walks_in_place);
        add("backward: the plans of GPUs", backward::plans_of_gpus);
        add("backward: the same bits from run to run", backward::same_bits);
        add("backward: a wrong kernel fails the comparison", backward::wrong_kernels);
        add("modulation: every strategy and storage type", modulation::every_strategy);
        add("modulation: every gradient", modulation::every_gradient);
        add("modulation: some of the gradients", modulation::some_gradients);
        add("modulation: every geometry", modulation::every_geometry);
        add("modulation: every geometry of the gradients", modulation::every_gradient_geometry);
        add("modulation: gates", modulation::gates);
        add("modulation: the gradients of gates", modulation::gate_gradients);
        add("modulation: conditions and chunks of rows", modulation::chunks);
        add("modulation: fewer rows than prepared", modulation::row_counts);
        add("modulation: words that rows share", modulation::shared_words);
        add("modulation: gradients in place", modulation::places);
        add("modulation: many conditions", modulation::many_conditions);
        add("modulation: the plans of GPUs", modulation::plans_of_gpus);
        add("modulation: a constant row gives exactly what is added", modulation::constant_rows);
        add("modulation: scales and shifts of 0 change nothing", modulation::plain);
        add("modulation: NaN and infinity stay in their condition", modulation::nan_stays_in_its_condition);
        add("modulation: the same bits from run to run", modulation::same_bits);
        add("modulation: a wrong kernel fails the comparison", modulation::wrong_kernels);
        add("parts: the moments of parts", parts::moments);
        add("parts: every strategy, at every mean and with outliers", parts::forward);
        add("parts: the gradients by every strategy", parts::backward);
        add("parts: every geometry", parts::every_geometry);
        add("parts: magnitudes, constant rows, and rows with what is no number", parts::rows_of_every_kind);
        add("parts: together with residual, gate, scale and shift", parts::together);
        add("parts: chunks of rows and row counts", parts::chunks);
        add("parts: channels first", parts::side_by_side);
        add("parts: deviations that are known exactly", parts::exact_deviations);
        add("parts: everything in one buffer, and in place", parts::shared_buffer);
        add("parts: a wrong kernel fails the comparison", parts::wrong_kernels);
        add("causal: every strategy and storage type", causal::every_strategy);
        add("causal: every gradient", causal::every_gradient);
        add("causal: every geometry", causal::every_geometry);
        add("causal: accuracy wherever the mean is and goes", causal::accuracy);
        add("causal: accuracy of the gradients", causal::gradient_accuracy);
        add("causal: gradients across magnitudes", causal::gradients_across_magnitudes);
        add("causal: a constant beginning gives exactly the bias", causal::constant_prefixes);
        add("causal: nothing depends on what comes later", causal::no_future);
        add("causal: NaN and infinity stay in their sequence", causal::nan_stays_in_its_sequence);
        add("causal: a million positions", causal::long);
        add("causal: sequences in blocks", causal::states);
        add("causal: states of fewer rows", causal::states_of_fewer_rows);
        add("causal: chunks of rows", causal::chunks);
        add("causal: chunks of rows with conditions", causal::chunks_of_conditions);
        add("causal: row counts", causal::row_counts);
        add("causal: together with residual, gate, scale and shift", causal::together);
        add("causal: words that rows share", causal::shared_words);
        add("causal: single positions", causal::single_positions);
        add("causal: the same bits from run to run", causal::same_bits);
        add("causal: a wrong kernel fails the comparison", causal::wrong_kernels);
        add("axes: every set of axes", axes::every_set);
        add("axes: every set of five axes", axes::five_dimensions);
        add("axes: listed in any order", axes::listed_orders);
        add("axes: every gradient", axes::every_gradient);
        add("axes: images, channels first", axes::images);
        add("axes: scale, shift and gate", axes::conditions);
        add("axes: offsets", axes::offsets);
        add("axes: dimensions of size 1", axes::lone_dimensions);
        add("axes: chunks of samples", axes::chunks);
        add("axes: row counts on the device", axes::row_counts);
        add("axes: rows side by side", axes::rows_side_by_side);
        add("axes: several rows at once", axes::several_rows_at_once);
        add("axes: the plans of GPUs", axes::plans_of_gpus);
        add("axes: groups of channels", axes::every_group);
        add("axes: groups with scale, shift and gate", axes::groups_of_conditions);
        add("axes: the gradients of groups", axes::group_gradients);
        add("axes: many samples", axes::many_samples);
        add("axes: accuracy at every mean", axes::accuracy);
        add("axes: NaN and infinity stay in their row", axes::nan_stays_in_its_row);
        add("axes: a constant row gives exactly the bias", axes::constant_rows);
        add("axes: the same bits from run to run", axes::same_bits);
        add("axes: a wrong kernel fails the comparison", axes::wrong_kernels);
        add("samples of the whole space", samples);
        add("the conversions of f16 that the language has are used where they are exact", f16_conversions);
        add("16-bit storage decodes and encodes every kind of number", conversions);
        add("tensors in place and side by side", places);
        add("words that rows share", shared_words);
        add("fewer rows than prepared", row_counts_set);
        add("row counts on the device", row_counts_on_device);
        add("a device with default limits and no features", default_limits);
    }
    let required = std::env::var("GPU_LAYER_NORM_ADAPTERS").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        let found = devices.iter().any(|(known, _)| known == name);
        trials.push(Trial::test(format!("{name}: is present"), move || {
            if found { Ok(()) } else { Err("this adapter is required and was not found".into()) }
        }));
    }
    if devices.is_empty() {
        trials.push(Trial::test("an adapter is present", || Err("there is no adapter to test on".into())));
    }
    // They go with the last trial of their adapter, and with them the thousands of kernels that its driver has compiled.
    drop(devices);
    libtest_mimic::run(&arguments, trials).exit();
}

/// Devices of one adapter, of which each trial has one to itself. On one for all they would wait for each other: Mesa's lavapipe compiles
/// kernels in the thread of its one queue, and wgpu has one GL context for all devices of an instance, and panics where a thread waits for
/// another's work there for some seconds.
struct Pool {
    adapter: String,
    backend: wgpu::Backend,
    free: Mutex<Vec<GpuDevice>>,
}

impl Pool {
    fn run(&self, trial: impl FnOnce(&GpuDevice) -> Outcome) -> Outcome {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let found = free().pop();
        let device = match found {
            Some(device) => device,
            None => another_device(&self.adapter, self.backend)?,
        };
        let outcome = trial(&device);
        // Of a device on which one has failed nobody knows what state it is in.
        if outcome.is_ok() {
            free().push(device);
        }
        outcome
    }
}

fn check(case: &Case, device: &GpuDevice, affine: Affine, plan: Plan) -> Result<common::Worst, Failed> {
    let what = format!("{plan}");
    let output = case.run(device, affine, plan).map_err(|error| format!("{what}: {error}"))?;
    Ok(case.compare(affine, &output).map_err(|error| format!("{what}: {error}"))?)
}

/// The planner's pick and one plan of each strategy that can run, each geometry once.
fn plans(problem: &Problem, device: &GpuDevice) -> Result<Vec<Plan>, Failed> {
    let mut plans = vec![Plan::new(problem, device.capabilities())?];
    for strategy in STRATEGIES {
        if let Ok(plan) = Plan::with_strategy(problem, device.capabilities(), strategy) {
            if plan != plans[0] {
                plans.push(plan);
            }
        }
    }
    Ok(plans)
}

/// Other tests pass over a strategy that cannot run; none may be unable to everywhere.
fn every_strategy(_: &str, device: &GpuDevice) -> Outcome {
    for (rows, width) in [(64, 256), (3, 768), (2, 8192), (64, 4097)] {
        let case = Case::new(rows, width, Data::STANDARD, 1);
        for strategy in STRATEGIES {
            let plan = Plan::with_strategy(&case.problem(Affine::WeightAndBias), device.capabilities(), strategy)?;
            check(&case, device, Affine::WeightAndBias, plan)?;
        }
    }
    Ok(())
}

/// Every width with 1, 2, 3 or 7 rows, in turn, and with 64, as far as the adapter's budget goes, with the planner's pick, and
/// with each forced strategy at the few rows. Each affine map of each of these is a kernel to compile, so they take the maps in
/// turn, and so do the strategies: next to every width is one that tries the others.
fn widths(name: &str, device: &GpuDevice, step: usize, widths: impl IntoIterator<Item = usize>) -> Outcome {
    let budget = element_budget(name).min(1 << 16);
    let mut turns = Turns::new(name, step);
    for width in widths {
        let most = (budget / width).max(1);
        let forced_rows = [1, 2, 3, 7][width / 2 % 4].min(most);
        let row_counts = BTreeSet::from([forced_rows, 64.min(most)]);
        for rows in row_counts {
            let case = Case::new(rows, width, Data::Normal { mean: 3.0, std: 2.0 }, width as u64);
            for (i, affine) in AFFINES.into_iter().enumerate() {
                for (j, plan) in plans(&case.problem(affine), device)?.into_iter().enumerate() {
                    let forced = rows == forced_rows && (i + width) % 2 == 0;
                    if (i + j + width) % 3 == 0 && (j == 0 || forced) && turns.takes() {
                        check(&case, device, affine, plan)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// More rows than one dimension of a dispatch has workgroups.
fn row_counts(name: &str, device: &GpuDevice) -> Outcome {
    for rows in [65_535, 65_536, 196_608] {
        let widest = (element_budget(name) / rows).max(1);
        for width in BTreeSet::from([1, widest.min(4), widest]) {
            let case = Case::new(rows, width, Data::STANDARD, rows as u64);
            for affine in AFFINES {
                for plan in plans(&case.problem(affine), device)? {
                    check(&case, device, affine, plan)?;
                }
            }
        }
    }
    // One row a workgroup, so that the second dimension of the dispatch is used in earnest.
    let case = Case::new(65_537, 2, Data::STANDARD, 7);
    let problem = case.problem(Affine::None);
    let geometry = Geometry {
        spans_per_lane: 1,
        spans_per_workgroup: 1,
        ..*Plan::new(&problem, device.capabilities())?.geometry()
    };
    let plan = Plan::with_geometry(&problem, device.capabilities(), geometry)?;
    if plan.chunks()[0].dispatches[0].workgroups[1] < 2 {
        return Err(format!("{plan} does not reach the second dimension").into());
    }
    check(&case, device, Affine::None, plan)?;
    Ok(())
}

/// Widths at which every geometry runs. Few, because each is a kernel to compile.
const GEOMETRY_CASES: [(usize, Affine); 3] = [(2, Affine::None), (129, Affine::Weight), (1000, Affine::WeightAndBias)];

/// Each access, reduction and segmentation, also those that the planner would not pick here.
fn every_geometry(name: &str, device: &GpuDevice) -> Outcome {
    let (mut count, mut turns, mut seen) = (0, Turns::new(name, 3), HashSet::new());
    for (width, affine) in GEOMETRY_CASES {
        let case = Case::new(13, width, Data::Normal { mean: -7.0, std: 0.5 }, 3);
        for plan in geometries(&case.problem(affine), device.capabilities()) {
            let Geometry { access, reduction, segment_width, .. } = *plan.geometry();
            let is_new = seen.insert((access, reduction, segment_width.is_some()));
            if turns.takes() || is_new {
                check(&case, device, affine, plan)?;
                count += 1;
            }
        }
    }
    // Without subgroups there are half as many.
    if count * step(name, 3) < if device.capabilities().subgroups.is_some() { 100 } else { 50 } {
        return Err(format!("{count} geometries are too few").into());
    }
    Ok(())
}

/// A row of 2^24 elements, and one of 2^24 − 1, which no vector divides.
fn largest_width(name: &str, device: &GpuDevice) -> Outcome {
    let widths: &[usize] = if name == "swiftshader" { &[(1 << 24) - 1] } else { &[1 << 24, (1 << 24) - 1] };
    for &width in widths {
        let case = Case::new(1, width, Data::Normal { mean: 1e3, std: 1.0 }, 24);
        let plan = Plan::new(&case.problem(Affine::None), device.capabilities())?;
        check(&case, device, Affine::None, plan)?;
    }
    Ok(())
}

fn variance_and_eps(_: &str, device: &GpuDevice) -> Outcome {
    for (variance, eps, width) in [
        (Variance::Unbiased, 1e-12, 10),
        (Variance::Unbiased, 1e-5, 2),
        (Variance::Unbiased, 0.0, 768),
        (Variance::Biased, 0.0, 33),
        (Variance::Biased, 1e-12, 768),
        (Variance::Biased, 10.0, 768),
        (Variance::Biased, 1e30, 8),
    ] {
        let case = Case::new(20, width, Data::STANDARD, 5).variance(variance).eps(eps);
        for plan in plans(&case.problem(Affine::WeightAndBias), device)? {
            check(&case, device, Affine::WeightAndBias, plan)?;
        }
    }
    Ok(())
}

/// The data of the accuracy table, at widths that every strategy has to sum in another way.
fn accuracy(name: &str, device: &GpuDevice) -> Outcome {
    let widest = if name == "swiftshader" { 65_536 } else { 1_000_003 };
    for width in [768, 4096, 65_536, widest] {
        for data in common::ACCURACY_DATA {
            let case = Case::new((65_536 / width).clamp(1, 16), width, data, 11);
            for plan in plans(&case.problem(Affine::None), device)? {
                check(&case, device, Affine::None, plan)
                    .map_err(|error| format!("{data}: {}", error.message().unwrap_or_default()))?;
            }
        }
    }
    Ok(())
}

/// Rows of small whole numbers with a large first element, as many as there are sizes of it; their statistics too.
fn outliers(name: &str, device: &GpuDevice) -> Outcome {
    let rows = if name == "swiftshader" { 500 } else { 2000 };
    for width in [34_usize, 37, 64, 257] {
        let mut input: Vec<f32> = (0..rows * width).map(|i| (i % width % 3) as f32).collect();
        for (i, row) in input.chunks_mut(width).enumerate() {
            row[0] = 8000.0 + i as f32;
        }
        // Those that were found to be over the bound.
        (input[0], input[width]) = (8594.0, 8970.0);
        let case = Case::with_values(rows, width, input.clone(), 1).eps(0.0);
        for plan in plans(&case.problem(Affine::None), device)? {
            check(&case, device, Affine::None, plan)?;
        }
        for strategy in STRATEGIES {
            let config = LayerNormConfig::new(width).affine(Affine::None).eps(0.0).strategy(strategy);
            let layer = match GpuLayerNorm::new(device, &config.expect_nothing()) {
                // Rows that short are not split on a GPU.
                Err(Error::Strategy { .. }) => continue,
                made => made?,
            };
            let tensor = GpuTensor::upload(device, &case.tensor())?;
            let (output, rstd) = (GpuTensor::zeros(device, [rows, width])?, GpuTensor::zeros(device, [rows])?);
            layer.execute(device, &Bindings::of(&tensor, &output).rstd(&rstd))?;
            for (row, found) in input.chunks(width).zip(rstd.download()?.values().iter()) {
                let exact = reference::row_statistics(row, 0.0, false).rstd;
                let off = (f64::from(*found) / exact - 1.0).abs();
                if off.is_nan() || off > common::rstd_bound(width) {
                    return Err(format!("{strategy}, width {width}, [{}, …]: rstd is {off:e} off", row[0]).into());
                }
            }
        }
    }
    Ok(())
}

/// Rows in which each element has one of two values, as those of a mask have, every second time beside an outlier. All squares of
/// differences are about the same, and so are the errors of their sums: they add up where those of other rows cancel out. Half of the
/// rows are so large that they are measured again.
fn two_values(_: &str, device: &GpuDevice) -> Outcome {
    let (rows, mut turns, mut count) = (256, Turns::everywhere(4), 0);
    for (width, storage) in [
        (128, StorageType::F32),
        (257, StorageType::F32),
        (1000, StorageType::F32),
        (4096, StorageType::F32),
        (257, StorageType::F16),
        (1000, StorageType::F16),
    ] {
        let mut rng = StdRng::seed_from_u64(width as u64);
        let mut input = Vec::with_capacity(rows * width);
        for row in 0..rows {
            let unit = if row % 4 < 2 || storage == StorageType::F16 { 1.0 } else { 2.0_f32.powi(60) };
            let value = unit * rng.random_range(1.0..4.0_f32);
            // An outlier may be all there is beside one value.
            let values = [if row % 8 == 1 || row % 8 == 3 { value } else { 0.0 }, value];
            input.extend((0..width).map(|_| values[rng.random_range(0..2)]));
            if row % 2 == 1 {
                input[row * width] = unit * rng.random_range(50.0..5000.0);
            }
        }
        input.iter_mut().for_each(|value| *value = stored(storage, *value));
        let case = Case::with_values(rows, width, input.clone(), 1).eps(0.0);
        let mut problem = case.problem(Affine::None).tensor(Role::Rstd, StorageType::F32)?;
        for role in [Role::Input, Role::Output] {
            problem = problem.tensor(role, storage)?;
        }
        let layer = case.layer(device, Affine::None)?;
        let tensor = GpuTensor::upload(device, &case.tensor().to_storage(storage))?;
        let mut all = plans(&problem, device)?;
        // As many terms in each invocation as there may be, or as many invocations. Of the former each costs a rounding, all alike.
        let most = if width < 4096 { 1.3 } else { 1.0 };
        if width < 4096 {
            all.extend(geometries(&problem, device.capabilities()));
        } else {
            for reduction in ["Workgroup", "SubgroupThenWorkgroup"] {
                let geometry = [256, 1024].map(|lanes| format!("Reread {reduction} {lanes} 1 1 0").parse());
                let plan = |geometry| Plan::with_geometry(&problem, device.capabilities(), geometry?);
                all.extend(geometry.into_iter().flat_map(plan));
            }
        }
        for plan in all.into_iter().filter(|_| turns.takes()) {
            let geometry = *plan.geometry();
            let output = GpuTensor::zeros_as(device, [rows, width], storage)?;
            let rstd = GpuTensor::zeros(device, [rows])?;
            let prepared = layer.prepare_plan(device, plan, &Bindings::of(&tensor, &output).rstd(&rstd))?;
            submit(device, &prepared);
            let told = |error: String| format!("{geometry}, {storage}, width {width}: {error}");
            if storage == StorageType::F32 {
                case.compare(Affine::None, &output.download()?.values()).map_err(told)?;
            }
            for (row, found) in input.chunks(width).zip(rstd.download()?.values().iter()) {
                let exact = reference::row_statistics(row, 0.0, false).rstd;
                let off = (f64::from(*found) / exact - 1.0).abs();
                if off.is_nan() || off > most * common::rstd_bound(width) {
                    return Err(told(format!("[{}, …]: rstd is {off:e} off", row[0])).into());
                }
            }
            count += 1;
        }
    }
    assert!(count >= 20, "{count} plans are too few");
    Ok(())
}

/// The variance is 0, so rstd is 1 / √eps, whatever the constant.
fn tiny_eps(_: &str, device: &GpuDevice) -> Outcome {
    for (constant, eps) in [(1e15_f32, 1e-20_f32), (1e6, 1e-30), (1e37, 1e-30), (1e-30, 1e-25), (3.0, 1e-37)] {
        for width in [70, 768, 4097] {
            for strategy in STRATEGIES {
                let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(width).eps(eps).strategy(strategy))?;
                let input = GpuTensor::upload(device, &Tensor::from_f32([1, width], vec![constant; width])?)?;
                let (output, rstd) = (GpuTensor::zeros(device, [1, width])?, GpuTensor::zeros(device, [1])?);
                layer.execute(device, &Bindings::of(&input, &output).rstd(&rstd))?;
                let (found, exact) = (f64::from(rstd.download()?.values()[0]), f64::from(eps).sqrt().recip());
                if (found / exact - 1.0).abs() > common::rstd_bound(width) {
                    return Err(
                        format!("{strategy}, {width} of {constant:e}, eps {eps:e}: {found:e}, not {exact:e}").into()
                    );
                }
            }
        }
    }
    Ok(())
}

fn constant_rows(_: &str, device: &GpuDevice) -> Outcome {
    for width in [1, 3, 64, 1000, 4096, 65_537] {
        let constants =
            [0.0, 1.0, -0.1, 1e6, 1.000_476_6, 1.000_476_6e-13, 3.333_333e-7, 1e-30, 1e37, f32::MAX, f32::MIN_POSITIVE];
        let input = constants.iter().flat_map(|&value| vec![value; width]).collect();
        for eps in [1e-5, 0.0] {
            let case = Case::with_values(constants.len(), width, Vec::clone(&input), 2).eps(eps);
            for plan in plans(&case.problem(Affine::WeightAndBias), device)? {
                let what = plan.to_string();
                let output = case.run(device, Affine::WeightAndBias, plan)?;
                for (i, &y) in output.iter().enumerate() {
                    if y.to_bits() != case.bias[i % width].to_bits() {
                        return Err(format!(
                            "{what}: a row of {:e} gives {y:e}, the bias is {:e}",
                            case.input[i],
                            case.bias[i % width]
                        )
                        .into());
                    }
                }
            }
        }
    }
    Ok(())
}

fn magnitudes(_: &str, device: &GpuDevice) -> Outcome {
    let magnitudes = [1e-30, 1e-24, 1e-18, 1e-12, 1.0, 1e12, 1e18, 1e24, 1e30, 1e37];
    for width in [5, 768, 4097, 65_536] {
        let standard = Data::STANDARD.values(magnitudes.len(), width, 9);
        // Values up to 5e37; in the last row one of the largest f32 of either sign stands among them.
        let mut input: Vec<f32> = standard.iter().enumerate().map(|(i, x)| x * magnitudes[i / width]).collect();
        input.extend([f32::MAX, -f32::MAX].iter().chain(&standard[..width - 2]));
        // Two halves of a row far apart, so that segments differ by more than f32 can square.
        input.extend((0..width).map(|i| if i < width / 2 { 1e30 } else { -1e30 }));
        for eps in [0.0, 1e-5, 1e-12, 1e-37, f32::MAX] {
            let case = Case::with_values(magnitudes.len() + 2, width, input.clone(), 4).eps(eps);
            for plan in plans(&case.problem(Affine::None), device)? {
                check(&case, device, Affine::None, plan)
                    .map_err(|error| format!("eps {eps:e}: {}", error.message().unwrap_or_default()))?;
            }
        }
    }
    Ok(())
}

fn is_processor(device: &GpuDevice) -> bool {
    device.capabilities().class == gpu_layer_norm::kernel::AdapterClass::Cpu
}

fn nan_stays_in_its_row(_: &str, device: &GpuDevice) -> Outcome {
    let bad = [(2, f32::NAN), (5, f32::INFINITY), (6, f32::NEG_INFINITY), (11, f32::MAX), (23, f32::NAN)];
    for (i, (width, affine)) in GEOMETRY_CASES.into_iter().enumerate() {
        let mut input = Data::STANDARD.values(24, width, 6);
        // These are measured twice by themselves, and keep what the second time found while neighbours take a third.
        for row in [3, 10] {
            let peaks = Data::Peaks { height: 1e4 }.values(1, width, row as u64);
            input[row * width..(row + 1) * width].copy_from_slice(&peaks);
        }
        let clean = Case::with_values(24, width, input, 6);
        let clean = if i == 1 { clean.rms() } else { clean };
        let mut all = plans(&clean.problem(affine), device)?;
        // Each is a kernel to compile.
        all.extend(geometries(&clean.problem(affine), device.capabilities()).into_iter().skip(i).step_by(4));
        let mut dirty = clean.input.clone();
        for (row, value) in bad {
            dirty[row * width + width / 2] = value;
        }
        // Its first element far from its mean: that row is measured three times.
        dirty[11 * width] = f32::MAX;
        let dirty = Case::with_values(24, width, dirty, 6);
        let dirty = if i == 1 { dirty.rms() } else { dirty };
        for plan in all {
            let expected = clean.run(device, affine, plan.clone())?;
            let output = dirty.run(device, affine, plan.clone())?;
            for (row, (y, expected)) in output.chunks(width).zip(expected.chunks(width)).enumerate() {
                let exact = &dirty.normalized[row * width..];
                let holds = match row {
                    // What is no number, and, of RMS normalization, what an infinity leaves: 0, or the bias.
                    2 | 5 | 6 | 23 => y.iter().zip(exact).all(|(y, exact)| y.is_nan() == exact.is_nan()),
                    11 => y.iter().all(|y| y.is_finite()),
                    // What stands beside them is as it was: to the bit, unless the compiler may do otherwise.
                    _ if is_processor(device) => y.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                    _ => y.iter().zip(expected).all(|(a, b)| approx::abs_diff_eq!(a, b, epsilon = 2e-6)),
                };
                if !holds {
                    return Err(format!("{plan}: row {row} is {y:?}").into());
                }
            }
        }
    }
    // The statistics of such rows.
    let (rows, width) = (24, 768);
    let mut values = Data::STANDARD.values(rows, width, 6);
    for (row, value) in bad {
        values[row * width + width / 2] = value;
    }
    let input = GpuTensor::upload(device, &Tensor::from_f32([rows, width], values.clone())?)?;
    let zeros = |shape: &[usize]| GpuTensor::zeros(device, shape);
    let (output, mean, rstd) = (zeros(&[rows, width])?, zeros(&[rows])?, zeros(&[rows])?);
    for normalization in [Normalization::LayerNorm, Normalization::RmsNorm] {
        for strategy in common::STRATEGIES {
            let (config, bindings) = match normalization {
                Normalization::LayerNorm => (LayerNormConfig::new(width), Bindings::of(&input, &output).mean(&mean)),
                Normalization::RmsNorm => (LayerNormConfig::rms(width), Bindings::of(&input, &output)),
            };
            let layer = GpuLayerNorm::new(device, &config.affine(Affine::None).strategy(strategy))?;
            layer.execute(device, &bindings.rstd(&rstd))?;
            let (mean, rstd) = (mean.download()?.into_values(), rstd.download()?.into_values());
            for (row, values) in values.chunks(width).enumerate() {
                let exact = reference::row_statistics(values, f64::from(1e-5_f32), false);
                let (exact_mean, exact_rstd) = match normalization {
                    Normalization::LayerNorm => (exact.mean, exact.rstd),
                    Normalization::RmsNorm => {
                        (f64::from(mean[row]), reference::root_mean_square_rstd(values, f64::from(1e-5_f32)))
                    }
                };
                for (what, found, exact) in [("mean", mean[row], exact_mean), ("rstd", rstd[row], exact_rstd)] {
                    let near = (f64::from(found) - exact).abs() <= 1e-6 * exact.abs() + 1e-6;
                    if !near && f64::from(found) != exact && !(found.is_nan() && exact.is_nan()) {
                        let what = format!("{normalization:?}, {strategy}: {what} of row {row}");
                        return Err(format!("{what} is {found:e} in place of {exact:e}").into());
                    }
                }
            }
        }
    }
    Ok(())
}

/// Invariances that hold whatever the values; 24 sampled shapes, from a fixed seed.
fn properties(_: &str, device: &GpuDevice) -> Outcome {
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        // Milliseconds; a failing property ends soon after.
        max_shrink_time: 5000,
        rng_seed: RngSeed::Fixed(768),
        ..Config::default()
    });
    let run = |case: &Case| {
        let layer = case.layer(device, Affine::WeightAndBias)?;
        layer.run(device, &case.tensor()).map(Tensor::into_values)
    };
    runner
        .run(&(1_usize..=40, 2_usize..=600, any::<u64>(), -1000_i32..=1000, 0_i32..=20), |sample| {
            let (rows, width, seed, constant, exponent) = sample;
            // Whole numbers, so that adding a constant rounds nothing.
            let input: Vec<f32> =
                Data::STANDARD.values(rows, width, seed).iter().map(|x| (x * 100.0).round()).collect();
            let case = |input: Vec<f32>| Case::with_values(rows, width, input, seed).eps(0.0);
            let base = run(&case(input.clone()))?;
            let bound = 2.0 * error_bound(width) as f32 * 1.5 * (width as f32).sqrt().max(1.0);

            let again = run(&case(input.clone()))?;
            prop_assert!(again.iter().zip(&base).all(|(a, b)| a.to_bits() == b.to_bits()), "run twice, same bits");

            let moved = run(&case(input.iter().map(|x| x + constant as f32).collect()))?;
            for (a, b) in moved.iter().zip(&base) {
                prop_assert!(approx::abs_diff_eq!(a, b, epsilon = bound), "{a} after adding {constant}, {b} before");
            }

            let scaled = run(&case(input.iter().map(|x| x * (exponent as f32).exp2()).collect()))?;
            for (a, b) in scaled.iter().zip(&base) {
                prop_assert!(approx::abs_diff_eq!(a, b, epsilon = bound), "{a} after 2^{exponent}, {b} before");
            }

            let reversed = run(&case(input.chunks(width).rev().flatten().copied().collect()))?;
            for (a, b) in reversed.chunks(width).zip(base.chunks(width).rev()) {
                prop_assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "rows in another order");
            }
            Ok(())
        })
        .map_err(|error| error.to_string().into())
}

/// Runs a plan by bare wgpu calls, with WGSL of the caller's choice.
fn run_wgsl(
    device: &GpuDevice,
    case: &Case,
    plan: &Plan,
    wgsl: impl Fn(&Kernel) -> String,
) -> Result<Vec<f32>, Failed> {
    let bytes = |values: &[f32]| bytemuck::cast_slice(values).to_vec();
    let mut tensors = [(Role::Input, bytes(&case.input)), (Role::Output, bytes(&vec![0.0; case.input.len()]))];
    bare::run(device, plan, |kernel| bare::wgsl(wgsl(kernel)), &mut tensors);
    Ok(bytemuck::pod_collect_to_vec(&tensors[1].1))
}

/// The comparison that all of these tests rest on must be able to fail.
fn wrong_kernels(_: &str, device: &GpuDevice) -> Outcome {
    let case = Case::new(16, 768, Data::STANDARD, 8);
    let unbiased = Case::new(16, 768, Data::STANDARD, 8).variance(Variance::Unbiased);
    // One invocation a row, in several blocks of turns: the mutations below all take effect there, on any adapter.
    let geometry = Geometry {
        access: Access::Reread,
        reduction: Reduction::Lane,
        lanes: 1,
        spans_per_lane: 1,
        spans_per_workgroup: 8,
        segment_width: None,
    };
    let plan_of = |case: &Case| Plan::with_geometry(&case.problem(Affine::None), device.capabilities(), geometry);
    let right = run_wgsl(device, &case, &plan_of(&case)?, Kernel::wgsl)?;
    case.compare(Affine::None, &right)?;
    let right = run_wgsl(device, &unbiased, &plan_of(&unbiased)?, Kernel::wgsl)?;
    unbiased.compare(Affine::None, &right)?;

    for (what, case, from, to) in [
        ("eps dropped", &case, "let eps = scaled(params.eps, 2 * moments.exponent);", "let eps = 0.0;"),
        (
            "the last element ignored",
            &case,
            "params.all_bits, in_span(span, turn, even)",
            "params.all_bits, unit_index(span, turn) + 1u < span.units",
        ),
        (
            "width in place of width − 1",
            &unbiased,
            "fma(moments.squares, params.variance_share, rest)",
            "fma(moments.squares, params.mean_share, rest)",
        ),
        ("a mean that is 1e-5 off", &case, "-scaling.correction * scaling.rstd", "1e-5"),
        (
            "all but the last block lost",
            &case,
            "total = add_block(total, block_sums(span, turn, shift, factor));",
            "total = add_block(Total(), block_sums(span, turn, shift, factor));",
        ),
    ] {
        let plan = plan_of(case)?;
        let wgsl = plan.kernels()[0].wgsl();
        if !wgsl.contains(from) {
            return Err(format!("{what}: the kernel has no \"{from}\" to replace").into());
        }
        let output = run_wgsl(device, case, &plan, |_| wgsl.replace(from, to))?;
        if case.compare(Affine::None, &output).is_ok() {
            return Err(format!("{what}: the comparison accepts it").into());
        }
    }
    Ok(())
}

/// Without its checks wgpu promises nothing about a kernel that needs them; these do not. Compilers that reassociate need not give
/// the same bits to code that differs by checks, those of processors do.
fn runtime_checks(_: &str, device: &GpuDevice) -> Outcome {
    let checked = device.with_shader_checks();
    for (width, affine) in GEOMETRY_CASES {
        // One of the rows is measured twice.
        let mut case = Case::new(13, width, Data::Normal { mean: -7.0, std: 0.5 }, 3);
        case.input[width..2 * width].iter_mut().for_each(|x| *x *= 1e30);
        let case = Case::with_values(13, width, case.input, 3);
        let problem = case.problem(affine);
        let mut all = plans(&problem, device)?;
        all.extend(geometries(&problem, device.capabilities()).into_iter().step_by(7));
        for plan in all {
            let (a, b) = (case.run(device, affine, plan.clone())?, case.run(&checked, affine, plan.clone())?);
            if is_processor(device) && a.iter().zip(&b).any(|(a, b)| a.to_bits() != b.to_bits()) {
                return Err(format!("{plan}: {a:?} and, checked, {b:?}").into());
            }
            case.compare(affine, &a)?;
            case.compare(affine, &b)?;
        }
    }
    // Two elements to a word, in place, in a pool, in chunks, with a row count on the device.
    let spot = Spot { storage: StorageType::Bf16, before: 1, between: 2 };
    let sample = Sample {
        rows: 20,
        input: spot,
        residual: Some(spot),
        sum: Some(Target::InPlaceOf(Role::Residual)),
        output: Target::InPlaceOf(Role::Input),
        rstd: Some(Spot::default()),
        pooled: true,
        chunk_rows: Some(4),
        row_count: Some(17),
        ..Sample::default()
    };
    sample.check(&checked)?;
    Ok(sample.check(device)?)
}

/// Several chunks in one plan, the later ones at offsets that no binding can begin at.
fn chunks(_: &str, device: &GpuDevice) -> Outcome {
    for width in [33, 36, 1001] {
        let case = Case::new(50, width, Data::STANDARD, 10);
        let problem = case.problem(Affine::WeightAndBias);
        // As on a device whose bindings hold 7 rows.
        let small = gpu_layer_norm::Capabilities {
            max_binding_bytes: 7 * width as u64 * 4
                + u64::from(device.capabilities().storage_offset_alignment.max(32))
                + 4,
            ..*device.capabilities()
        };
        let plan = Plan::new(&problem, &small)?;
        if plan.chunks().len() != 8 {
            return Err(format!("{} chunks in {plan}", plan.chunks().len()).into());
        }
        let layer = case.layer(device, Affine::WeightAndBias)?;
        let input = GpuTensor::upload(device, &case.tensor())?;
        let output = GpuTensor::zeros(device, input.shape())?;
        let prepared = layer.prepare_plan(device, plan, &Bindings::of(&input, &output))?;
        if prepared.plan().chunks().len() != 8 {
            return Err("the plan was not run as given".into());
        }
        submit(device, &prepared);
        case.compare(Affine::WeightAndBias, &output.download()?.values())?;
    }
    Ok(())
}

/// What reduce/subgroup.wgsl takes for granted.
fn subgroup_order(_: &str, device: &GpuDevice) -> Outcome {
    let Some(sizes) = device.capabilities().subgroups else { return Ok(()) };
    let wgsl = "@group(0) @binding(0) var<storage, read_write> seen: array<vec2<u32>, 128>;
        @compute @workgroup_size(128)
        fn main(@builtin(local_invocation_index) index: u32, @builtin(subgroup_invocation_id) lane: u32,
                @builtin(subgroup_size) size: u32) {
            seen[index] = vec2<u32>(lane, size);
        }";
    let gpu = device.device();
    let module = gpu.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(wgsl.into()),
    });
    let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let seen = GpuTensor::zeros(device, [128, 2])?;
    let bind_group = gpu.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: seen.buffer().as_entire_binding() }],
    });
    let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bind_group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    device.queue().submit([encoder.finish()]);
    for (index, pair) in seen.download()?.values().chunks(2).enumerate() {
        let (lane, size) = (pair[0].to_bits() as usize, pair[1].to_bits());
        if size < sizes.min || size > sizes.max || lane != index % size as usize {
            return Err(format!("invocation {index} is lane {lane} of {size}, the adapter says {sizes:?}").into());
        }
    }
    Ok(())
}

/// One encoder with two operations, the same one twice, and a chain in which each output is the next input.
fn recordings(_: &str, device: &GpuDevice) -> Outcome {
    let (rows, width) = (5, 48);
    let config = LayerNormConfig::new(width).affine(Affine::None).eps(0.5);
    let layer = GpuLayerNorm::new(device, &config)?;
    let values = Data::STANDARD.values(rows, width, 12);
    let mut tensors = vec![GpuTensor::upload(device, &Tensor::from_f32([rows, width], values.clone())?)?];
    let mut chain = Vec::new();
    for _ in 0..100 {
        let input = tensors.last().expect("there is a first tensor");
        let output = GpuTensor::zeros(device, input.shape())?;
        chain.push(layer.prepare(device, &Bindings::of(input, &output))?);
        tensors.push(output);
    }
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for prepared in &chain {
        prepared.encode(&mut encoder);
        prepared.encode(&mut encoder);
    }
    device.queue().submit([encoder.finish()]);
    let mut expected = values;
    for (step, tensor) in tensors.iter().enumerate().skip(1) {
        let exact = reference::layer_norm(&expected, width, None, None, 0.5, false);
        expected = tensor.download()?.into_values();
        for (y, exact) in expected.iter().zip(exact) {
            if (f64::from(*y) - exact).abs() > error_bound(width) {
                return Err(format!("step {step}: {y:e} in place of {exact:e}").into());
            }
        }
    }
    Ok(())
}

/// The 19 test_layer_normalization cases and the 19 of RMS normalization. Their outputs were computed in f32; the tolerance is
/// theirs, and the error to the f64 reference is held to this crate's own bound in every other test here.
fn onnx_suite(_: &str, device: &GpuDevice) -> Outcome {
    for normalization in [Normalization::LayerNorm, Normalization::RmsNorm] {
        for case in common::onnx_cases(normalization) {
            let shape = case.normalized_shape();
            let config = match normalization {
                Normalization::LayerNorm => LayerNormConfig::new(shape),
                Normalization::RmsNorm => LayerNormConfig::rms(shape),
            };
            let layer = GpuLayerNorm::new(device, &config.eps(case.epsilon as f32))?;
            layer.set_weight(&Tensor::from_f32(shape, case.weight.values.clone())?)?;
            let input =
                GpuTensor::upload(device, &Tensor::from_f32(case.input.shape.clone(), case.input.values.clone())?)?;
            let output = GpuTensor::zeros(device, case.output.shape.clone())?;
            let leading = &input.shape()[..input.shape().len() - shape.len()];
            let (mean, rstd) = (GpuTensor::zeros(device, leading)?, GpuTensor::zeros(device, leading)?);
            let mut bindings = Bindings::of(&input, &output);
            if normalization == Normalization::LayerNorm {
                layer.set_bias(&Tensor::from_f32(shape, case.bias.clone())?)?;
                bindings = bindings.mean(&mean).rstd(&rstd);
            }
            layer.execute(device, &bindings)?;
            for (what, tensor, expected) in
                [("Y", output, &case.output.values), ("Mean", mean, &case.mean), ("InvStdDev", rstd, &case.rstd)]
            {
                for (y, expected) in tensor.download()?.values().iter().zip(expected) {
                    if !approx::relative_eq!(y, expected, epsilon = 4e-6, max_relative = 1e-6) {
                        return Err(format!("{}: {what} {y:e} in place of {expected:e}", case.name).into());
                    }
                }
            }
        }
    }
    Ok(())
}

/// Widths that every strategy has to sum in another way, ordinary data and magnitudes that squares do not bear.
fn rms(_: &str, device: &GpuDevice) -> Outcome {
    let magnitudes = [1e-30, 1e-18, 1.0, 1e18, 1e37];
    for width in [1, 5, 64, 768, 4097, 65_536] {
        let mut input = Data::Normal { mean: 3.0, std: 2.0 }.values(magnitudes.len(), width, 9);
        for (row, magnitude) in input.chunks_mut(width).zip(magnitudes) {
            row.iter_mut().for_each(|x| *x *= magnitude);
        }
        for eps in [1e-5, 0.0] {
            let case = Case::with_values(magnitudes.len(), width, input.clone(), 4).rms().eps(eps);
            for plan in plans(&case.problem(Affine::WeightAndBias), device)? {
                check(&case, device, Affine::WeightAndBias, plan)?;
            }
        }
    }
    let case = Case::new(13, 1000, Data::Normal { mean: 100.0, std: 0.5 }, 3).rms();
    // Each is a kernel to compile, and differs from that of layer normalization in one fragment only.
    for plan in geometries(&case.problem(Affine::Weight), device.capabilities()).into_iter().step_by(5) {
        check(&case, device, Affine::Weight, plan)?;
    }
    Ok(())
}

const SAMPLES: u32 = 96;
const SEED: u64 = 160_706_450;

/// Storage types × affine × normalization × residual × modulation × statistics × strides × places × strategies.
fn samples(name: &str, device: &GpuDevice) -> Outcome {
    let storage = || prop::sample::select(StorageType::ALL.to_vec());
    // Often even, so that vectors are used too.
    let free = || prop_oneof![2 => Just(0_usize), 1 => 0_usize..=3, 1 => Just(4_usize), 1 => Just(128_usize)];
    let spot =
        move || (storage(), free(), free()).prop_map(|(storage, before, between)| Spot { storage, before, between });
    let statistic = move || (free(), free()).prop_map(|(before, between)| Spot { before, between, ..Spot::default() });
    let target = move || {
        prop_oneof![
            3 => spot().prop_map(Target::Own),
            1 => Just(Target::InPlaceOf(Role::Input)),
            1 => Just(Target::InPlaceOf(Role::Residual)),
        ]
    };
    let budget = element_budget(name) / 16;
    let shape = prop_oneof![
        3 => (1_usize..=70, 1_usize..=100),
        2 => (1_usize..=9, (1_usize..=300).prop_map(|n| n * 4)),
        1 => (1_usize..=3, 1000_usize..=20_000),
    ];
    let numerics = (
        prop::sample::select(vec![Normalization::LayerNorm, Normalization::RmsNorm]),
        prop::sample::select(AFFINES.to_vec()),
        any::<bool>(),
        any::<bool>(),
        prop::sample::select(vec![1e-5_f32, 1e-12, 0.5]),
        prop::option::weighted(0.75, prop::sample::select(common::STRATEGIES.to_vec())),
    );
    let tensors = (
        spot(),
        prop::option::of(spot()),
        spot(),
        target(),
        prop::option::of(target()),
        prop::option::of(statistic()),
        prop::option::of(statistic()),
        any::<bool>(),
        prop::option::weighted(0.25, 1_usize..=9),
    );
    // Where the input gradient goes is one of these if it is no place of its own.
    let places = prop::sample::select(vec![Role::OutputGradient, Role::SumGradient, Role::Input, Role::Residual]);
    let backward = prop::option::of((
        (spot(), prop::option::of(spot()), prop::option::of(spot()), prop::option::of(spot()), any::<bool>()),
        prop::option::of(places),
    ));
    // Scale, shift and gate, and, backward, where the gradient by the residual and those of the three go.
    let residual_gradient = prop_oneof![
        2 => spot().prop_map(Target::Own),
        1 => Just(Target::InPlaceOf(Role::Residual)),
        1 => Just(Target::InPlaceOf(Role::SumGradient)),
    ];
    let some = move || prop::option::weighted(0.7, spot());
    let modulation = prop::option::weighted(
        0.35,
        (
            prop::sample::select(vec![Modulation::Adaptive, Modulation::Conditional]),
            prop_oneof![Just(1_usize), 2_usize..=9, Just(usize::MAX)],
            (some(), some(), some()),
            prop::option::of(residual_gradient),
            (some(), some(), some()),
        ),
    );
    let causal = prop::option::weighted(0.2, prop_oneof![1_usize..=9, 1_usize..=70, Just(usize::MAX)]);
    let sample = (shape, numerics, tensors, backward, modulation, causal, any::<u64>());
    let sample = sample.prop_map(move |(shape, numerics, tensors, backward, modulation, causal, seed)| {
        let (rows, width) = shape;
        let (normalization, affine, zero_centred_weight, unbiased, eps, strategy) = numerics;
        let (input, residual, parameters, output, sum, mean, rstd, pooled, chunk_rows) = tensors;
        let rms = normalization == Normalization::RmsNorm;
        // Combinations that are no problems become the nearest that is one.
        let possible = |target| match target {
            Target::InPlaceOf(Role::Residual) if residual.is_none() => Target::InPlaceOf(Role::Input),
            target => target,
        };
        let output = possible(output);
        let sum = sum.map(possible).filter(|sum| match (sum, &output) {
            (Target::InPlaceOf(a), Target::InPlaceOf(b)) => a != b,
            _ => true,
        });
        let rows = rows.min((budget / width).max(1));
        let (modulation, rows_per_condition, factors, residual_gradient, of_factors) =
            modulation.unwrap_or((Modulation::Adaptive, 1, (None, None, None), None, (None, None, None)));
        let ((scale, shift, gate), (scale_gradient, shift_gradient, gate_gradient)) = (factors, of_factors);
        let forward = Sample {
            backward: None,
            rows,
            width,
            normalization,
            affine,
            zero_centred_weight,
            variance: if unbiased && !rms && width > 1 { Variance::Unbiased } else { Variance::Biased },
            eps,
            modulation,
            rows_per_condition: rows_per_condition.min(rows),
            causal: causal.map(|length| length.min(rows)),
            strategy,
            input,
            residual,
            parameters,
            scale,
            shift,
            gate,
            output,
            sum,
            mean: mean.filter(|_| !rms),
            rstd,
            pooled,
            // Sequences of which a part would be too much, or that no conditions are in step with, are not taken.
            chunk_rows: chunk_rows.filter(|_| causal.is_none()),
            row_count: None,
            set_rows: None,
            seed,
        };
        let Some((tensors, place)) = backward else { return forward };
        let (output_gradient, sum_gradient, weight_gradient, bias_gradient, accumulate) = tensors;
        let output = match place {
            Some(Role::SumGradient) if sum_gradient.is_none() => Target::InPlaceOf(Role::OutputGradient),
            Some(Role::Residual) if residual.is_none() => Target::InPlaceOf(Role::Input),
            Some(role) => Target::InPlaceOf(role),
            None => Target::Own(input),
        };
        let possible = |target: &Target| match (target, &output) {
            (Target::InPlaceOf(Role::SumGradient), _) if sum_gradient.is_none() => false,
            // The input gradient goes there.
            (Target::InPlaceOf(a), Target::InPlaceOf(b)) => a != b,
            _ => true,
        };
        let backward = Backward {
            output_gradient,
            sum_gradient,
            weight_gradient,
            bias_gradient,
            residual_gradient: residual_gradient.filter(possible),
            scale_gradient,
            shift_gradient,
            gate_gradient,
            accumulate,
        };
        // Both statistics or neither.
        let mean = rstd.filter(|_| !rms);
        Sample { backward: Some(backward), output, mean, ..forward }
    });
    let cases = SAMPLES / step(name, 3) as u32;
    println!("{name}: {cases} samples from seed {SEED}");
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        // Milliseconds; a failing property ends soon after.
        max_shrink_time: 5000,
        rng_seed: RngSeed::Fixed(SEED),
        max_shrink_iters: 100,
        ..Config::default()
    });
    runner
        .run(&sample, |sample| sample.check_where_it_fits(device).map_err(TestCaseError::fail))
        .map_err(|error| error.to_string().into())
}

/// A constant row gives exactly the bias, so a bias of chosen numbers goes through decoding and encoding and nothing else.
fn conversions(_: &str, device: &GpuDevice) -> Outcome {
    use gpu_layer_norm::half::{bf16, f16};

    let run = |bias: &Tensor, storage: StorageType| -> Result<Tensor, Failed> {
        let width = bias.shape()[0];
        let config = LayerNormConfig::new(width).parameter_storage(bias.storage());
        let layer = GpuLayerNorm::new(device, &config)?;
        layer.set_bias(bias)?;
        let input = GpuTensor::zeros(device, [1, width])?;
        let output = GpuTensor::zeros_as(device, [1, width], storage)?;
        layer.execute(device, &Bindings::of(&input, &output))?;
        Ok(output.download()?)
    };
    // Subnormal f32 may count as zero.
    let same = |a: f32, b: f32| {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan() || a == 0.0 && b == 0.0 || b.is_subnormal() && a == 0.0
    };
    // As vectors, then one by one.
    for drop in [0, 1] {
        let patterns: Vec<u16> = (0..u16::MAX - drop).chain((drop == 0).then_some(u16::MAX)).collect();
        let width = patterns.len();
        for bias in [
            Tensor::from_f16([width], patterns.iter().map(|&bits| f16::from_bits(bits)).collect::<Vec<_>>())?,
            Tensor::from_bf16([width], patterns.iter().map(|&bits| bf16::from_bits(bits)).collect::<Vec<_>>())?,
        ] {
            let output = run(&bias, StorageType::F32)?;
            for (y, exact) in output.values().iter().zip(bias.values().iter()) {
                if !same(*y, *exact) {
                    return Err(format!("{} {exact:e} was read as {y:e}", bias.storage()).into());
                }
            }
        }
    }
    for storage in [StorageType::F16, StorageType::Bf16] {
        // Every number of the storage type, what lies halfway to the next, and the f32 beside that.
        let step = |bits: u32| move |by: i32| f32::from_bits(bits.wrapping_add_signed(by));
        let number = |bits: u16| match storage {
            StorageType::F16 => f16::from_bits(bits).to_f32(),
            _ => bf16::from_bits(bits).to_f32(),
        };
        let around = (0..=u16::MAX).flat_map(|bits| {
            let (value, next) = (number(bits), number(bits.wrapping_add(1)));
            let halfway = ((f64::from(value) + f64::from(next)) / 2.0) as f32;
            let beside = step(halfway.to_bits());
            [value, halfway, beside(-1), beside(1)]
        });
        let mut values =
            vec![65_519.99, 65_520.0, 65_536.0, 1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        values.extend([-65_520.0, -1e30, 2.98e-8, 2.981e-8, -2.98e-8, 1e-20, 3.389e38, 3.3962e38]);
        values.extend(around.filter(|value| !value.is_subnormal()));
        for odd in [0, 1] {
            values.truncate(values.len() / 4 * 4 - odd);
            let bias = Tensor::from_f32([values.len()], values.clone())?;
            let output = run(&bias, storage)?;
            for (y, value) in output.values().iter().zip(&values) {
                if !same(*y, stored(storage, *value)) {
                    return Err(format!("{value:e} became the {storage} {y:e}").into());
                }
            }
        }
    }
    Ok(())
}

/// Where an adapter's conversions are found to be exact, kernels use them, and give the same as those by bits.
fn f16_conversions(name: &str, device: &GpuDevice) -> Outcome {
    let (rows, width) = (40, 4096);
    let values = Data::Normal { mean: 0.5, std: 3.0 }.values(rows, width, 5);
    let input = Tensor::from_f32([rows, width], values)?.to_storage(StorageType::F16);
    let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(width))?;
    let input = GpuTensor::upload(device, &input)?;
    let output = GpuTensor::zeros_as(device, [rows, width], StorageType::F16)?;
    let bindings = Bindings::of(&input, &output);
    let problem = layer.problem(device, &bindings)?;
    let found = device.capabilities_for(&problem);
    println!("{name}: unpack2x16float exact {}, pack2x16float exact {}", found.exact_unpack_f16, found.exact_pack_f16);
    // These are known to read f16 exactly. Where the trying itself fails, nothing else would show.
    if ["lavapipe", "swiftshader", "gl"].contains(&name) && !found.exact_unpack_f16 {
        return Err("unpack2x16float was found to be inexact".into());
    }
    let plan = Plan::new(&problem, &found)?;
    if plan.kernels()[0].unpack_f16 != found.exact_unpack_f16 || plan.kernels()[0].pack_f16 != found.exact_pack_f16 {
        return Err("the plan does not go by what was found".into());
    }
    let mut outputs = Vec::new();
    for plan in [plan, Plan::new(&problem, device.capabilities())?] {
        submit(device, &layer.prepare_plan(device, plan, &bindings)?);
        outputs.push(output.download()?);
    }
    if outputs[0] != outputs[1] && is_processor(device) {
        return Err("by the language's conversions the output is another than by bits".into());
    }
    // A plan that rests on what this device has not shown is refused.
    let all = gpu_layer_norm::Capabilities { exact_unpack_f16: true, exact_pack_f16: true, ..found };
    let refused = layer.prepare_plan(device, Plan::new(&problem, &all)?, &bindings).is_err();
    if refused != (!found.exact_unpack_f16 || !found.exact_pack_f16) {
        return Err("a plan with conversions that are not exact is accepted".into());
    }
    Ok(())
}

/// Words that two rows share, or a row and what lies beside it: rows that begin and end in the middle of one, an output and a sum
/// that do so in different places, and outputs of another type than the input.
fn shared_words(name: &str, device: &GpuDevice) -> Outcome {
    let strategies = [common::STRATEGIES.as_slice(), &[gpu_layer_norm::Strategy::PartlyResident]].concat();
    let mut turns = Turns::new(name, 3);
    for width in [1, 2, 5, 66, 67, 1025, 2049] {
        let storages = [StorageType::F16, StorageType::Bf16];
        let inputs = [StorageType::F32, storages[width % 2]];
        for (i, input) in inputs.into_iter().enumerate() {
            for before in 0..2 {
                let spot = |storage, before, between| Spot { storage, before, between };
                let between = (width + i) % 2;
                let mut sample = Sample {
                    rows: 5,
                    width,
                    input: spot(input, i, 1 - between),
                    residual: Some(spot(input, before, 2)),
                    parameters: spot(storages[before], before, 0),
                    // f32 beside a sum of 16 bits too.
                    output: Target::Own(spot(
                        if width == 67 { StorageType::F32 } else { storages[i] },
                        before,
                        between,
                    )),
                    sum: Some(Target::Own(spot(storages[before], 1, before))),
                    ..Sample::default()
                };
                for &strategy in &strategies {
                    if turns.takes() {
                        sample.strategy = Some(strategy);
                        sample.check(device)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The places of tensors that a sample may miss, with and without vectors.
fn places(_: &str, device: &GpuDevice) -> Outcome {
    let spot = |storage, before, between| Spot { storage, before, between };
    for (width, storage) in [(64, StorageType::F32), (64, StorageType::Bf16), (33, StorageType::F16)] {
        let base = Sample { rows: 70, width, input: spot(storage, 0, 0), ..Sample::default() };
        let residual = Some(spot(storage, 0, 0));
        let samples = [
            Sample { output: Target::InPlaceOf(Role::Input), ..base.clone() },
            Sample { output: Target::InPlaceOf(Role::Residual), residual, ..base.clone() },
            // The residual stream of a transformer.
            Sample {
                residual,
                sum: Some(Target::InPlaceOf(Role::Residual)),
                output: Target::InPlaceOf(Role::Input),
                pooled: true,
                ..base.clone()
            },
        ];
        for mut sample in samples {
            for strategy in common::STRATEGIES {
                sample.strategy = Some(strategy);
                sample.check(device)?;
            }
        }
    }
    // Columns of one matrix beside each other.
    let (rows, width) = (9, 20);
    let values = Data::STANDARD.values(rows, 2 * width, 3);
    let matrix =
        upload(device, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC, bytemuck::cast_slice(&values));
    let columns = |first| Region::new(&matrix, StorageType::F32).offset(first).row_stride(2 * width as u64);
    let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(width))?;
    layer.execute(device, &Bindings::new(rows as u64, columns(0), columns(width as u64)))?;
    let bytes = download(device, &matrix);
    let after: &[f32] = bytemuck::cast_slice(&bytes);
    for (after, before) in after.chunks(2 * width).zip(values.chunks(2 * width)) {
        let exact = reference::layer_norm(&before[..width], width, None, None, 1e-5, false);
        let right = after[width..].iter().zip(exact).all(|(y, exact)| (f64::from(*y) - exact).abs() < 1e-6);
        if after[..width] != before[..width] || !right {
            return Err(format!("{after:?} from {before:?}").into());
        }
    }
    Ok(())
}

/// The plans that a row count has to fit: whole rows, several to a workgroup; segments; several chunks.
fn row_count_plans(problem: &Problem, device: &GpuDevice) -> Result<Vec<Plan>, Failed> {
    let mut all = plans(problem, device)?;
    let small = gpu_layer_norm::Capabilities { max_binding_bytes: 4096, ..*device.capabilities() };
    let chunked = Plan::new(problem, &small)?;
    if chunked.chunks().len() < 3 {
        return Err(format!("{chunked} is to have several chunks").into());
    }
    all.push(chunked);
    Ok(all)
}

fn row_counts_set(_: &str, device: &GpuDevice) -> Outcome {
    let (rows, width) = (100, 36);
    let case = Case::new(rows, width, Data::STANDARD, 5);
    let layer = case.layer(device, Affine::None)?;
    let input = GpuTensor::upload(device, &case.tensor())?;
    let output = GpuTensor::zeros(device, [rows, width])?;
    let bindings = Bindings::of(&input, &output);
    let marked = Tensor::from_f32([rows, width], vec![7.0; rows * width])?;
    for plan in row_count_plans(&layer.problem(device, &bindings)?, device)? {
        let what = plan.to_string();
        let mut prepared = layer.prepare_plan(device, plan, &bindings)?;
        for count in [100, 99, 3, 0, 64, 100] {
            output.write(&marked)?;
            prepared.set_rows(count as u64)?;
            submit(device, &prepared);
            let mut found = output.download()?.into_values();
            if found[count * width..].iter().any(|&y| y != 7.0) {
                return Err(format!("{what}: a row past {count} was touched").into());
            }
            // The rest is compared as if it were right.
            let rest: Vec<f32> = case.normalized[count * width..].iter().map(|&y| y as f32).collect();
            found.truncate(count * width);
            found.extend(rest);
            case.compare(Affine::None, &found).map_err(|error| format!("{what}, {count} rows: {error}"))?;
        }
        if prepared.set_rows(101) != Err(gpu_layer_norm::Error::RowCount { rows: 101, max: 100 }) {
            return Err("a row too many is accepted".into());
        }
    }
    Ok(())
}

fn row_counts_on_device(_: &str, device: &GpuDevice) -> Outcome {
    let counts = [100, 99, 3, 0, 64, u32::MAX].map(|count| (count, None));
    // The smaller of two counts holds.
    for (count, set_rows) in counts.into_iter().chain([(99, Some(64)), (3, Some(64)), (u32::MAX, Some(0))]) {
        let sample = Sample { rows: 100, width: 36, row_count: Some(count), set_rows, ..Sample::default() };
        let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(36))?;
        for i in 0.. {
            let mut more = true;
            let pick = |problem: &Problem| {
                let mut all = row_count_plans(problem, device).expect("plans");
                more = i + 1 < all.len();
                Ok(all.swap_remove(i))
            };
            sample
                .check_with(device, &layer, pick)
                .map_err(|error| format!("a count of {count}, {set_rows:?}: {error}"))?;
            if !more {
                break;
            }
        }
    }
    Ok(())
}

/// An engine's own device on this adapter, that asked for nothing: WebGPU's default limits, then those of old hardware.
fn default_limits(name: &str, _: &GpuDevice) -> Outcome {
    let adapters = pollster::block_on(GpuDevice::builder().adapters());
    let adapter = adapters.into_iter().find(|adapter| short_name(&adapter.get_info()) == name);
    let adapter = adapter.ok_or("the adapter is gone")?;
    for limits in [wgpu::Limits::defaults(), wgpu::Limits::downlevel_defaults()] {
        let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
        let (wgpu_device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
        let own = GpuDevice::from_wgpu(adapter.clone(), wgpu_device, queue)?;
        // No more than four storage buffers, which the least of these limits allow.
        let spot = Some(Spot { storage: StorageType::Bf16, ..Spot::default() });
        for (rows, width) in [(300, 33), (20, 768), (2, 40_000)] {
            Sample { rows, width, ..Sample::default() }.check(&own)?;
            let sum = Some(Target::InPlaceOf(Role::Residual));
            let output = Target::InPlaceOf(Role::Input);
            Sample { rows, width, residual: spot, sum, output, ..Sample::default() }.check(&own)?;
        }
        let refused = Sample { residual: spot, mean: Some(Spot::default()), ..Sample::default() };
        let buffers = own.capabilities().max_storage_buffers;
        if refused.check(&own).is_ok() != (buffers >= 6) {
            return Err(format!("six storage buffers where {buffers} are allowed").into());
        }
        // A backward pass has eight with everything that it may have.
        let own_spot = Some(Spot::default());
        let backward =
            Backward { sum_gradient: spot, weight_gradient: own_spot, bias_gradient: own_spot, ..Backward::default() };
        let everything = Sample {
            backward: Some(backward),
            rows: 40,
            residual: spot,
            mean: own_spot,
            rstd: own_spot,
            ..Sample::default()
        };
        match everything.check(&own) {
            Ok(()) if buffers >= 8 => {}
            Err(error) if buffers < 8 && error.contains(&format!("allows {buffers} storage buffers")) => {}
            other => return Err(format!("eight storage buffers where {buffers} are allowed: {other:?}").into()),
        }
    }
    Ok(())
}
