//! Scale, shift and gate of conditions, forward and backward, against the f64 reference.

use gpu_layer_norm::kernel::{AdapterClass, Capabilities, Kernel, Plan, Problem, Role};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Modulation, Normalization,
    StorageType, Strategy, Tensor, Variance,
};
use libtest_mimic::Failed;

use crate::Outcome;
use crate::common::gradients::strategies;
use crate::common::sample::{Backward, ENOUGH_BUFFERS, Sample, Spot, Target, where_it_fits};
use crate::common::{AFFINES, Case, Data, STRATEGIES, element_budget, geometries, submit};

const FORMS: [Modulation; 2] = [Modulation::Adaptive, Modulation::Conditional];

/// With scale, with shift.
const PARTS: [(bool, bool); 3] = [(true, false), (false, true), (true, true)];

/// Rows and width. Neither 3 nor 5 divides all of these numbers of rows.
const SHAPES: [(usize, usize); 5] = [(12, 33), (7, 64), (10, 129), (9, 768), (4, 4097)];

fn shapes(name: &str) -> &'static [(usize, usize)] {
    if name == "swiftshader" { &SHAPES[..4] } else { &SHAPES }
}

fn normalization(i: usize) -> Normalization {
    if i.is_multiple_of(2) { Normalization::LayerNorm } else { Normalization::RmsNorm }
}

fn spot(storage: StorageType) -> Spot {
    Spot { storage, ..Spot::default() }
}

/// Whether the device binds as many buffers as anything needs.
fn binds_everything(device: &GpuDevice) -> bool {
    device.capabilities().max_storage_buffers >= ENOUGH_BUFFERS
}

/// Every gradient that is a sum over rows; half of them f32, the others `storage`.
fn every_sum(storage: StorageType) -> Backward {
    let (single, stored) = (Some(Spot::default()), Some(spot(storage)));
    Backward {
        output_gradient: spot(storage),
        weight_gradient: single,
        bias_gradient: stored,
        scale_gradient: stored,
        shift_gradient: single,
        gate_gradient: stored,
        ..Backward::default()
    }
}

/// A forward sample of both scale and shift, all in `storage`.
fn modulated(storage: StorageType, rows: usize, width: usize, rows_per_condition: usize) -> Sample {
    let spot = spot(storage);
    Sample {
        rows,
        width,
        rows_per_condition,
        input: spot,
        parameters: spot,
        scale: Some(spot),
        shift: Some(spot),
        output: Target::Own(spot),
        ..Sample::default()
    }
}

/// The backward pass of a sample, with every gradient that is a sum over rows, and the statistics given.
fn backward_of(sample: Sample) -> Sample {
    let given = Some(Spot::default());
    let mean = given.filter(|_| sample.normalization == Normalization::LayerNorm);
    Sample { backward: Some(every_sum(sample.input.storage)), mean, rstd: given, ..sample }
}

/// Every `step`-th of these plans; how many they are.
fn each(
    sample: &Sample,
    device: &GpuDevice,
    step: usize,
    plans: impl Fn(&Problem) -> Vec<Plan>,
) -> Result<usize, Failed> {
    let layer = sample.layer(device)?;
    let mut all: Option<Vec<Plan>> = None;
    for count in 1.. {
        let i = (count - 1) * step;
        let mut more = false;
        let pick = |problem: &Problem| {
            let all = all.get_or_insert_with(|| plans(problem));
            more = i + step < all.len();
            match all.get(i) {
                Some(plan) => Ok(plan.clone()),
                // Why there is none.
                None => Plan::new(problem, device.capabilities()),
            }
        };
        where_it_fits(device, sample.check_with(device, &layer, pick))?;
        if !more {
            return Ok(count);
        }
    }
    unreachable!("plans end")
}

/// Every strategy, storage type and form, with scale, with shift and with both in turn, for conditions of one row, of some, of all, and
/// of a number that does not divide that of the rows.
pub fn every_strategy(name: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0;
    for (s, storage) in StorageType::ALL.into_iter().enumerate() {
        for (m, modulation) in FORMS.into_iter().enumerate() {
            for (k, strategy) in STRATEGIES.into_iter().enumerate() {
                let (scale, shift) = PARTS[(s + m + k) % 3];
                i += 1;
                let (rows, width) = shapes(name)[i % shapes(name).len()];
                for rows_per_condition in [1, 3, 5, rows, rows + 2] {
                    let spot = spot(storage);
                    let sample = Sample {
                        normalization: normalization(i / 2),
                        // Not in step with the parts.
                        affine: AFFINES[(i + i / 3) % 3],
                        zero_centred_weight: i % 4 == 0,
                        modulation,
                        strategy: Some(strategy),
                        scale: scale.then_some(spot),
                        shift: shift.then_some(spot),
                        ..modulated(storage, rows, width, rows_per_condition)
                    };
                    sample.check(device)?;
                }
            }
        }
    }
    Ok(())
}

/// The same backward, with every gradient, with given and with measured statistics.
pub fn every_gradient(name: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0;
    for (s, storage) in StorageType::ALL.into_iter().enumerate() {
        for (m, modulation) in FORMS.into_iter().enumerate() {
            for (k, strategy) in STRATEGIES.into_iter().enumerate() {
                let (scale, shift) = PARTS[(s + m + k) % 3];
                i += 1;
                let (rows, width) = shapes(name)[i % shapes(name).len()];
                let normalization = normalization(i / 2);
                let given = ((i + i / 2) % 2 == 0).then(Spot::default);
                for rows_per_condition in [1, 3, 5, rows, rows + 2] {
                    let spot = spot(storage);
                    let backward = Backward {
                        sum_gradient: (i % 5 < 2).then_some(spot),
                        shift_gradient: shift.then(Spot::default),
                        ..every_sum(storage)
                    };
                    let sample = Sample {
                        backward: Some(backward),
                        normalization,
                        affine: AFFINES[(i + i / 3) % 3],
                        zero_centred_weight: i % 4 == 0,
                        modulation,
                        strategy: Some(strategy),
                        scale: scale.then_some(spot),
                        shift: shift.then_some(spot),
                        mean: given.filter(|_| normalization == Normalization::LayerNorm),
                        rstd: given,
                        ..modulated(storage, rows, width, rows_per_condition)
                    };
                    sample.check_where_it_fits(device)?;
                }
            }
        }
    }
    Ok(())
}

/// Some of the gradients of a condition, and one alone.
pub fn some_gradients(_: &str, device: &GpuDevice) -> Outcome {
    let all = every_sum(StorageType::F32);
    let none = Backward { output_gradient: all.output_gradient, ..Backward::default() };
    for strategy in STRATEGIES {
        for modulation in FORMS {
            for affine in AFFINES {
                for backward in [
                    none,
                    Backward { scale_gradient: all.scale_gradient, ..none },
                    Backward { shift_gradient: all.shift_gradient, ..none },
                    Backward { weight_gradient: all.weight_gradient, ..none },
                    Backward { bias_gradient: all.bias_gradient, ..none },
                    Backward { scale_gradient: all.scale_gradient, bias_gradient: all.bias_gradient, ..none },
                    Backward { shift_gradient: all.shift_gradient, weight_gradient: all.weight_gradient, ..none },
                ] {
                    let sample = Sample {
                        affine,
                        modulation,
                        strategy: Some(strategy),
                        ..modulated(StorageType::F32, 11, 68, 4)
                    };
                    Sample { backward: Some(backward), ..backward_of(sample) }.check_where_it_fits(device)?;
                }
            }
        }
    }
    Ok(())
}

/// Each access, reduction and segmentation, spans of several rows too, where conditions allow them. Each width tries some of them.
pub fn every_geometry(_: &str, device: &GpuDevice) -> Outcome {
    let (mut count, step) = (0, 4);
    for (w, (width, affine, modulation)) in [
        (2, Affine::None, Modulation::Adaptive),
        (129, Affine::Weight, Modulation::Conditional),
        (1000, Affine::WeightAndBias, Modulation::Adaptive),
    ]
    .into_iter()
    .enumerate()
    {
        // Up to four rows share an invocation, which so many rows of a condition allow, and others do not.
        for (rows_per_condition, first, step) in [(4, w, step), (3, 3 + 4 * w, 3 * step)] {
            let sample = Sample { affine, modulation, ..modulated(StorageType::F32, 13, width, rows_per_condition) };
            count += each(&sample, device, step, |problem| {
                geometries(problem, device.capabilities()).into_iter().skip(first).collect()
            })?;
        }
    }
    let least = if device.capabilities().subgroups.is_some() { 80 } else { 40 };
    if count * step < least {
        return Err(format!("{count} geometries are too few").into());
    }
    Ok(())
}

/// The same backward.
pub fn every_gradient_geometry(_: &str, device: &GpuDevice) -> Outcome {
    let (mut count, step) = (0, 3);
    let gate = binds_everything(device).then(Spot::default);
    for (w, (width, affine, modulation)) in [
        (2, Affine::None, Modulation::Conditional),
        (129, Affine::Weight, Modulation::Adaptive),
        (1000, Affine::WeightAndBias, Modulation::Adaptive),
    ]
    .into_iter()
    .enumerate()
    {
        let sample = Sample { affine, modulation, residual: gate, gate, ..modulated(StorageType::F32, 13, width, 5) };
        count += each(&backward_of(sample), device, step, |problem| {
            geometries(problem, device.capabilities()).into_iter().skip(w).collect()
        })?;
    }
    let least = if device.capabilities().subgroups.is_some() { 30 } else { 15 };
    if binds_everything(device) && count * step < least {
        return Err(format!("{count} geometries are too few").into());
    }
    Ok(())
}

/// The stream of a transformer: residual + gate · input takes the place of the residual, and what is normalized goes on; and the gate
/// alone, and apart.
pub fn gates(name: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0;
    for (s, storage) in StorageType::ALL.into_iter().enumerate() {
        for (k, strategy) in STRATEGIES.into_iter().enumerate() {
            i += 1;
            let (rows, width) = shapes(name)[i % shapes(name).len()];
            let residual = StorageType::ALL[(s + (s + k) / 2 % 2) % 3];
            let is_modulated = i % 4 > 0;
            let normalization = normalization(i / 2);
            let spot = spot(storage);
            let base = |rows_per_condition| Sample {
                normalization,
                affine: AFFINES[(s + k) % 3],
                modulation: FORMS[(s + k) % 2],
                strategy: Some(strategy),
                residual: Some(Spot { storage: residual, ..Spot::default() }),
                gate: Some(spot),
                scale: is_modulated.then_some(spot),
                shift: is_modulated.then_some(spot),
                ..modulated(storage, rows, width, rows_per_condition)
            };
            let all = [1, 3, rows];
            for rows_per_condition in all {
                let stream = Sample {
                    sum: Some(Target::InPlaceOf(Role::Residual)),
                    output: Target::InPlaceOf(Role::Input),
                    ..base(rows_per_condition)
                };
                stream.check_where_it_fits(device)?;
            }
            let mean = Some(Spot::default()).filter(|_| normalization == Normalization::LayerNorm);
            let sum = Some(Target::Own(spot));
            let apart = Sample { sum, mean, rstd: Some(Spot::default()), ..base(all[(s + 2 * k) % 3]) };
            apart.check_where_it_fits(device)?;
        }
    }
    Ok(())
}

/// The gradients by gate, input and residual, with and without a gradient that the sum has from elsewhere; that by the residual without
/// a gate.
pub fn gate_gradients(name: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0;
    let cases =
        [(true, true, true), (true, false, true), (true, true, false), (false, true, true), (false, false, false)];
    for (s, storage) in StorageType::ALL.into_iter().enumerate() {
        for (k, strategy) in STRATEGIES.into_iter().enumerate() {
            let (has_gate, has_sum, is_modulated) = cases[i % cases.len()];
            i += 1;
            let (rows, width) = shapes(name)[i % shapes(name).len()];
            let spot = spot(storage);
            let some = |has: bool| has.then_some(spot);
            for rows_per_condition in [1, 3, 5, rows] {
                let sample = Sample {
                    normalization: normalization(i / 2),
                    affine: AFFINES[(s + 2 * k) % 3],
                    modulation: FORMS[(s + k) % 2],
                    strategy: Some(strategy),
                    residual: Some(spot),
                    gate: some(has_gate),
                    scale: some(is_modulated),
                    shift: some(is_modulated),
                    ..modulated(storage, rows, width, rows_per_condition)
                };
                let sample = backward_of(sample);
                let backward = Backward {
                    sum_gradient: some(has_sum),
                    residual_gradient: Some(Target::Own(spot)),
                    shift_gradient: some(is_modulated),
                    ..every_sum(storage)
                };
                let backward = Some(backward);
                Sample { backward, ..sample.clone() }.check_where_it_fits(device)?;
                if s != k {
                    continue;
                }
                // The input gradient alone, of statistics that are measured again.
                let backward = Some(Backward { output_gradient: spot, ..Backward::default() });
                Sample { backward, mean: None, rstd: None, ..sample }.check_where_it_fits(device)?;
            }
        }
    }
    Ok(())
}

/// Conditions that span chunks of rows, and chunks that hold several conditions.
pub fn chunks(_: &str, device: &GpuDevice) -> Outcome {
    let small = Capabilities { max_binding_bytes: 4096, ..*device.capabilities() };
    for strategy in STRATEGIES {
        for rows_per_condition in [1, 3, 16, 40, 100] {
            for (i, accumulate) in [false, true].into_iter().enumerate() {
                let gate = binds_everything(device).then(Spot::default);
                let base = Sample {
                    affine: Affine::WeightAndBias,
                    modulation: FORMS[(i + rows_per_condition) % 2],
                    residual: gate,
                    gate,
                    ..modulated(StorageType::F32, 100, 36, rows_per_condition)
                };
                let backward = backward_of(base.clone());
                let backward =
                    Sample { backward: Some(Backward { accumulate, ..every_sum(StorageType::F32) }), ..backward };
                for sample in [base, backward] {
                    let layer = sample.layer(device)?;
                    let pick = |problem: &Problem| {
                        let plan = match Plan::with_strategy(problem, &small, strategy) {
                            Err(Error::Strategy { .. }) => Plan::new(problem, &small),
                            decided => decided,
                        }?;
                        match plan.chunks().len() {
                            0..3 => Err(Error::Geometry { reason: format!("{plan} is to have several chunks") }),
                            _ => Ok(plan),
                        }
                    };
                    where_it_fits(device, sample.check_with(device, &layer, pick))?;
                }
            }
        }
    }
    Ok(())
}

/// Fewer rows than prepared, by the host and by a count on the device: rows past the count do not count, and conditions without any
/// row have gradients of 0, or keep what they had.
pub fn row_counts(_: &str, device: &GpuDevice) -> Outcome {
    let gate = binds_everything(device).then(Spot::default);
    for strategy in STRATEGIES {
        for (i, count) in [100, 99, 50, 3, 0, 64].into_iter().enumerate() {
            for chunk_rows in [None, Some(30)] {
                for rows_per_condition in [1, 7, 100] {
                    let base = Sample {
                        modulation: FORMS[i % 2],
                        strategy: Some(strategy),
                        residual: gate,
                        gate,
                        chunk_rows,
                        ..modulated(StorageType::F32, 100, 36, rows_per_condition)
                    };
                    let accumulate = rows_per_condition == 7;
                    let backward = Backward { accumulate, ..every_sum(StorageType::F32) };
                    let backward = Sample { backward: Some(backward), ..backward_of(base.clone()) };
                    for sample in [base, backward] {
                        Sample { set_rows: Some(count), ..sample.clone() }
                            .check_where_it_fits(device)
                            .map_err(|error| format!("set to {count} rows: {error}"))?;
                        // One of the counts is more rows than there are.
                        let on_device = if count == 100 { u32::MAX } else { count as u32 };
                        Sample { row_count: Some(on_device), ..sample }
                            .check_where_it_fits(device)
                            .map_err(|error| format!("a count of {on_device} on the device: {error}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Odd widths, offsets and strides of 16 bits, those of the condition's tensors too, side by side in one buffer and each in its own.
pub fn shared_words(name: &str, device: &GpuDevice) -> Outcome {
    let widths: &[usize] = if name == "swiftshader" { &[1, 2, 33] } else { &[1, 2, 7, 33, 130] };
    for (w, &width) in widths.iter().enumerate() {
        for (k, strategy) in STRATEGIES.into_iter().enumerate() {
            let (i, between) = ((w + k) % 2, (w + k) / 2 % 2);
            let storage = [StorageType::F16, StorageType::Bf16][i];
            let spot = |before| Spot { storage, before, between };
            let base = Sample {
                rows: 9,
                width,
                modulation: FORMS[i],
                rows_per_condition: 2,
                strategy: Some(strategy),
                input: spot(3),
                residual: Some(spot(1)),
                gate: (between == 0).then(|| spot(1)),
                parameters: spot(1),
                scale: Some(spot(1)),
                shift: Some(spot(0)),
                output: Target::Own(spot(1)),
                pooled: between == 0,
                ..Sample::default()
            };
            base.check_where_it_fits(device)?;
            let backward = Backward {
                output_gradient: spot(1),
                sum_gradient: (i == 0).then(|| spot(0)),
                weight_gradient: Some(spot(1)),
                bias_gradient: Some(spot(0)),
                residual_gradient: (between == 0).then(|| Target::Own(spot(1))),
                scale_gradient: Some(spot(1)),
                shift_gradient: Some(spot(0)),
                gate_gradient: Some(spot(1)),
                accumulate: (i + between) % 2 == 0,
            };
            let given = Some(Spot::default());
            let backward = Sample { backward: Some(backward), mean: given, rstd: given, ..base };
            backward.check_where_it_fits(device)?;
        }
    }
    Ok(())
}

/// The gradients by input and by residual in the places of what they may overwrite, on walks of many rows.
pub fn places(name: &str, device: &GpuDevice) -> Outcome {
    let budget = element_budget(name) / 32;
    let mut turn = 0;
    for (width, storage) in [(8, StorageType::F32), (7, StorageType::F16), (40, StorageType::Bf16)] {
        for (i, strategy) in STRATEGIES.into_iter().enumerate() {
            let spot = spot(storage);
            let own = Target::Own(spot);
            for (has_gate, input, residual) in [
                (true, Target::InPlaceOf(Role::Input), Target::InPlaceOf(Role::Residual)),
                (true, Target::InPlaceOf(Role::OutputGradient), Target::InPlaceOf(Role::SumGradient)),
                (true, Target::InPlaceOf(Role::Input), Target::InPlaceOf(Role::SumGradient)),
                (true, Target::InPlaceOf(Role::OutputGradient), own),
                (true, own, Target::InPlaceOf(Role::SumGradient)),
                (false, own, Target::InPlaceOf(Role::Residual)),
                (false, Target::InPlaceOf(Role::OutputGradient), Target::InPlaceOf(Role::SumGradient)),
            ] {
                turn += 1;
                if turn % 4 > 0 {
                    continue;
                }
                let rows = budget / width;
                let sample = Sample {
                    modulation: FORMS[i % 2],
                    strategy: Some(strategy),
                    residual: Some(spot),
                    gate: has_gate.then_some(spot),
                    output: input,
                    ..modulated(storage, rows, width, [7, rows / 3, rows][i])
                };
                let sample = backward_of(sample);
                let backward =
                    Backward { sum_gradient: Some(spot), residual_gradient: Some(residual), ..every_sum(storage) };
                Sample { backward: Some(backward), ..sample }.check_where_it_fits(device)?;
            }
        }
    }
    Ok(())
}

/// Many conditions, and few of many rows.
pub fn many_conditions(name: &str, device: &GpuDevice) -> Outcome {
    let budget = element_budget(name) / 8;
    for (width, rows_per_condition) in [(4, 1), (4, 2), (3, 100), (64, 700), (32, 1000)] {
        for strategy in STRATEGIES {
            let sample = Sample {
                strategy: Some(strategy),
                ..modulated(StorageType::F32, budget / width, width, rows_per_condition)
            };
            sample.check(device)?;
            backward_of(sample).check_where_it_fits(device)?;
        }
    }
    Ok(())
}

/// What each of some plans gives: output, gradient by the input, gradient by the scale, or the like.
type Runs = Vec<(String, [Vec<f32>; 3])>;

/// What the planner picks for GPUs, and the other plans that it would have measured there.
pub fn plans_of_gpus(name: &str, device: &GpuDevice) -> Outcome {
    let budget = element_budget(name) / 16;
    for (width, storage) in [(64, StorageType::F16), (768, StorageType::F32), (1001, StorageType::Bf16)] {
        let rows = (budget / width).max(6);
        let sample = modulated(storage, rows, width, rows / 3);
        for sample in [backward_of(sample.clone()), sample] {
            each(&sample, device, 3, |problem| {
                let capabilities = device.capabilities_for(problem);
                let capabilities = Capabilities { class: AdapterClass::Discrete, ..capabilities };
                Plan::candidates(problem, &capabilities).unwrap_or_default()
            })?;
        }
    }
    Ok(())
}

/// A layer with these parameters.
fn layer(device: &GpuDevice, modulation: Modulation, weight: &[f32], bias: &[f32]) -> Result<GpuLayerNorm, Failed> {
    let width = weight.len();
    let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(width).modulation(modulation).expect_nothing())?;
    layer.set_weight(&Tensor::from_f32([width], weight.to_vec())?)?;
    layer.set_bias(&Tensor::from_f32([width], bias.to_vec())?)?;
    Ok(layer)
}

fn uploaded(device: &GpuDevice, width: usize, values: &[f32]) -> Result<GpuTensor, Failed> {
    Ok(GpuTensor::upload(device, &Tensor::from_f32([values.len() / width, width], values.to_vec())?)?)
}

/// A constant row gives exactly bias · (1 + scale) + shift, or bias + shift. All of these are eighths, and no sum or product of them is
/// rounded, whatever the order.
pub fn constant_rows(_: &str, device: &GpuDevice) -> Outcome {
    let constants = [0.0, 1.0, -0.1, 1e6, 1e-30, 1e37, f32::MIN_POSITIVE];
    let (rows, rows_per_condition) = (constants.len(), 2);
    for (w, width) in [1, 37, 64, 4100].into_iter().enumerate() {
        let eighths = |count: usize, salt: u64| -> Vec<f32> {
            Data::STANDARD.values(count, width, salt).iter().map(|x| (8.0 * x.clamp(-2.0, 2.0)).round() / 8.0).collect()
        };
        let conditions = rows.div_ceil(rows_per_condition);
        let (weight, bias) = (eighths(1, 1), eighths(1, 2));
        let (scale, shift) = (eighths(conditions, 3), eighths(conditions, 4));
        let input: Vec<f32> = constants.iter().flat_map(|&constant| vec![constant; width]).collect();
        let input = uploaded(device, width, &input)?;
        let (of_scale, of_shift) = (uploaded(device, width, &scale)?, uploaded(device, width, &shift)?);
        for (m, modulation) in FORMS.into_iter().enumerate() {
            let layer = layer(device, modulation, &weight, &bias)?;
            let storage = [StorageType::F32, StorageType::F16][(w + m + w / 2) % 2];
            let output = GpuTensor::zeros_as(device, [rows, width], storage)?;
            let bindings = Bindings::new(rows as u64, &input, &output).scale(&of_scale).shift(&of_shift);
            let bindings = bindings.rows_per_condition(rows_per_condition as u64);
            for plan in strategies(&layer.problem(device, &bindings)?, device) {
                let what = plan.to_string();
                submit(device, &layer.prepare_plan(device, plan, &bindings)?);
                for (i, y) in output.download()?.values().iter().enumerate() {
                    let of_condition = i / width / rows_per_condition * width + i % width;
                    let (bias, scale) = (bias[i % width], scale[of_condition]);
                    let exact = shift[of_condition]
                        + match modulation {
                            Modulation::Adaptive => bias * (1.0 + scale),
                            Modulation::Conditional => bias,
                        };
                    if *y != exact {
                        let constant = constants[i / width];
                        return Err(format!("{what}: a row of {constant:e} gives {y:e}, not {exact:e}").into());
                    }
                }
            }
        }
    }
    Ok(())
}

/// Scales and shifts of 0 change nothing.
pub fn plain(_: &str, device: &GpuDevice) -> Outcome {
    for (rows, width, rows_per_condition) in [(40, 768, 8), (7, 33, 7), (3, 4097, 1)] {
        let case = Case::new(rows, width, Data::Normal { mean: 3.0, std: 2.0 }, 12);
        let input = uploaded(device, width, &case.input)?;
        let output = GpuTensor::zeros(device, [rows, width])?;
        let zeros = GpuTensor::zeros(device, [rows.div_ceil(rows_per_condition), width])?;
        for modulation in FORMS {
            let layer = layer(device, modulation, &case.weight, &case.bias)?;
            let bindings = Bindings::new(rows as u64, &input, &output).scale(&zeros).shift(&zeros);
            let bindings = bindings.rows_per_condition(rows_per_condition as u64);
            for plan in strategies(&layer.problem(device, &bindings)?, device) {
                let what = plan.to_string();
                submit(device, &layer.prepare_plan(device, plan, &bindings)?);
                let output = output.download()?.into_values();
                case.compare(Affine::WeightAndBias, &output).map_err(|error| format!("{what}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// What is no number stays in its row, in its condition, and in that condition's gradients.
pub fn nan_stays_in_its_condition(_: &str, device: &GpuDevice) -> Outcome {
    let (rows, width, rows_per_condition) = (12, 129, 4);
    let conditions = rows / rows_per_condition;
    let standard = |rows, salt| Data::STANDARD.values(rows, width, salt);
    let (weight, bias, output_gradient) = (standard(1, 1), standard(1, 2), standard(rows, 3));
    let (input, scale) = (standard(rows, 4), standard(conditions, 5));
    // In the middle condition.
    let (bad_row, bad_condition, bad_column) = (5, 1, 17);
    let with = |values: &[f32], row: usize, bad: f32| {
        let mut values = values.to_vec();
        values[row * width + bad_column] = bad;
        values
    };
    let near = |a: f32, b: f32| (a - b).abs() <= 1e-4;
    for modulation in FORMS {
        let layer = layer(device, modulation, &weight, &bias)?;
        let of_output_gradient = uploaded(device, width, &output_gradient)?;
        // Output or input gradient, scale gradient, shift gradient, of each plan.
        let run = |input: &[f32], scale: &[f32]| -> Result<Runs, Failed> {
            let (input, scale) = (uploaded(device, width, input)?, uploaded(device, width, scale)?);
            let written = GpuTensor::zeros(device, [rows, width])?;
            let sums = [GpuTensor::zeros(device, [conditions, width])?, GpuTensor::zeros(device, [conditions, width])?];
            let forward = Bindings::new(rows as u64, &input, &written);
            let backward = Bindings::backward(rows as u64, &input, &of_output_gradient, &written);
            let backward = backward.scale_gradient(&sums[0]).shift_gradient(&sums[1]);
            let mut all = Vec::new();
            let backward = binds_everything(device).then_some(backward);
            for bindings in [Some(forward), backward].into_iter().flatten() {
                let bindings = bindings.scale(&scale).rows_per_condition(rows_per_condition as u64);
                for plan in strategies(&layer.problem(device, &bindings)?, device) {
                    let what = plan.to_string();
                    submit(device, &layer.prepare_plan(device, plan, &bindings)?);
                    let values = |tensor: &GpuTensor| Ok::<_, Failed>(tensor.download()?.into_values());
                    let found = [values(&written)?, values(&sums[0])?, values(&sums[1])?];
                    all.push((what, found));
                }
            }
            Ok(all)
        };
        let clean = run(&input, &scale)?;
        for bad in [f32::NAN, f32::INFINITY] {
            for (in_scale, dirty) in [
                (false, run(&with(&input, bad_row, bad), &scale)?),
                (true, run(&input, &with(&scale, bad_condition, f32::NAN))?),
            ] {
                for ((what, dirty), (_, clean)) in dirty.iter().zip(&clean) {
                    let is_backward = what.contains("backward");
                    for (i, (&found, &clean)) in dirty[0].iter().zip(&clean[0]).enumerate() {
                        let (row, column) = (i / width, i % width);
                        let is_spoilt = match (in_scale, is_backward) {
                            (false, _) => row == bad_row,
                            (true, false) => row / rows_per_condition == bad_condition && column == bad_column,
                            (true, true) => row / rows_per_condition == bad_condition,
                        };
                        let is_right = if is_spoilt { found.is_nan() } else { near(found, clean) };
                        if !is_right {
                            return Err(
                                format!("{what}: {bad} makes {found:e} of {clean:e}, row {row}, {column}").into()
                            );
                        }
                    }
                    if !is_backward {
                        continue;
                    }
                    for (sum, (dirty, clean)) in dirty[1..].iter().zip(&clean[1..]).enumerate() {
                        for (i, (&found, &clean)) in dirty.iter().zip(clean).enumerate() {
                            // Neither the gradient of the scale nor that of the shift takes the scale itself.
                            let is_spoilt = sum == 0 && !in_scale && i / width == bad_condition;
                            let is_right = if is_spoilt { found.is_nan() } else { near(found, clean) };
                            if !is_right {
                                let (condition, column) = (i / width, i % width);
                                let of = ["scale", "shift"][sum];
                                return Err(format!(
                                    "{what}: {bad} makes {found:e} of {clean:e}, {of} gradient {condition}, {column}"
                                )
                                .into());
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

pub fn same_bits(_: &str, device: &GpuDevice) -> Outcome {
    if !binds_everything(device) {
        return Ok(());
    }
    let gate = Some(Spot::default());
    for (rows, width, rows_per_condition) in [(600, 64, 70), (40, 1000, 7), (3, 9000, 2)] {
        let sample = Sample { residual: gate, gate, ..modulated(StorageType::F32, rows, width, rows_per_condition) };
        let sample = backward_of(sample);
        let layer = sample.layer(device)?;
        for i in 0.. {
            let mut more = true;
            let mut run = || {
                let pick = |problem: &Problem| {
                    let mut all = strategies(problem, device);
                    more = i + 1 < all.len();
                    Ok(all.swap_remove(i))
                };
                sample.bytes(device, &layer, pick)
            };
            if run()? != run()? {
                return Err(format!("{rows} × {width}: other bits in a second run").into());
            }
            if !more {
                break;
            }
        }
    }
    Ok(())
}

/// The comparison that these tests rest on must be able to fail.
pub fn wrong_kernels(name: &str, device: &GpuDevice) -> Outcome {
    let forward = modulated(StorageType::F32, 12, 772, 5);
    let conditional = Sample { modulation: Modulation::Conditional, ..forward.clone() };
    let gated = Sample { residual: Some(Spot::default()), gate: Some(Spot::default()), ..forward.clone() };
    let residual_gradient = Some(Target::Own(Spot::default()));
    let with_residual = Backward { residual_gradient, ..every_sum(StorageType::F32) };
    let backward = backward_of(forward.clone());
    let gated_backward = Sample { backward: Some(with_residual), ..backward_of(gated.clone()) };

    // One form is not the other.
    forward.check_another(device, &forward)?;
    for (a, b) in [(&forward, &conditional), (&conditional, &forward)] {
        if a.check_another(device, b).is_ok() {
            return Err(format!("{:?}: what is {:?} is accepted", a.modulation, b.modulation).into());
        }
    }

    let plan_of =
        |strategy: Strategy| move |problem: &Problem| Plan::with_strategy(problem, device.capabilities(), strategy);
    let samples = [&forward, &conditional, &gated, &backward, &gated_backward];
    for (k, strategy) in STRATEGIES.into_iter().enumerate() {
        // Its invocations are too few to hold the five tensors of a backward pass.
        if name == "swiftshader" && strategy == Strategy::Resident {
            continue;
        }
        for sample in samples {
            let layer = sample.layer(device)?;
            where_it_fits(device, sample.check_wgsl(device, &layer, plan_of(strategy), Kernel::wgsl))?;
        }
        for (turn, (what, sample, from, to)) in [
            (
                "the condition of row 0",
                &forward,
                "scale_at(span.condition, span.row, position)",
                "scale_at(0u, span.row, position)",
            ),
            (
                "the shift of row 0",
                &forward,
                "shift_at(span.condition, span.row, position)",
                "shift_at(0u, span.row, position)",
            ),
            (
                "no 1 + scale",
                &forward,
                "unit_add(unit_of(1.0), scale_at(span.condition, span.row, position))",
                "scale_at(span.condition, span.row, position)",
            ),
            (
                "a shift that is scaled too",
                &forward,
                "shift_at(span.condition, span.row, position))",
                "unit_multiply(factor, shift_at(span.condition, span.row, position)))",
            ),
            (
                "a bias that is not scaled",
                &forward,
                "unit_product_sum(bias_at(span.row, position), factor, ",
                "unit_add(bias_at(span.row, position), ",
            ),
            (
                "a scale that multiplies the weight",
                &conditional,
                "unit_add(weight_at(span.row, position), scale_at(",
                "unit_multiply(weight_at(span.row, position), scale_at(",
            ),
            (
                "a shift that is left out",
                &conditional,
                "unit_add(bias_at(span.row, position), shift_at(span.condition, span.row, position))",
                "bias_at(span.row, position)",
            ),
            (
                "the gate of row 0",
                &gated,
                "gate_load(span.condition, span.row, position)",
                "gate_load(0u, span.row, position)",
            ),
            (
                "a gate that is left out",
                &gated,
                "unit_product_sum(gate, input_unit(input_load(span.row, position)), residual)",
                "unit_add(input_unit(input_load(span.row, position)), residual)",
            ),
            (
                "g by the scale of row 0",
                &backward,
                "scale_at(span.condition, span.row, position)",
                "scale_at(0u, span.row, position)",
            ),
            (
                "dweight without the scale",
                &backward,
                "Quad(1.0) + scale_at(min(group / params.walks, params.conditions - 1u), 0u, position)",
                "Quad(1.0)",
            ),
            ("dscale without the bias", &backward, " + gradients * bias_at(0u, position)", ""),
            ("dscale without the weight", &backward, "products * weight_at(0u, position)", "products"),
            (
                "the sums of the first condition for all",
                &backward,
                "let first = condition * params.walks;",
                "let first = 0u;",
            ),
            ("walks that stay among the first rows", &backward, "condition * params.condition_rows + within", "within"),
            (
                "the residual's gradient gated too",
                &gated_backward,
                "WrittenGradient(gradient, unit_multiply(gradient, gate))",
                "WrittenGradient(unit_multiply(gradient, gate), unit_multiply(gradient, gate))",
            ),
            (
                "the input's gradient not gated",
                &gated_backward,
                "WrittenGradient(gradient, unit_multiply(gradient, gate))",
                "WrittenGradient(gradient, gradient)",
            ),
            (
                "dgate without the input",
                &gated_backward,
                "unit_product_sum(gradient, input, gate_sums[turn])",
                "unit_add(gradient, gate_sums[turn])",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            // Each by two of the strategies.
            if (turn + k) % 3 == 2 {
                continue;
            }
            let layer = sample.layer(device)?;
            let mut found = None;
            let pick = |problem: &Problem| {
                let plan = plan_of(strategy)(problem)?;
                found = Some(plan.kernels().iter().any(|kernel| kernel.wgsl().contains(from)));
                Ok(plan)
            };
            let checked = sample.check_wgsl(device, &layer, pick, |kernel| kernel.wgsl().replace(from, to));
            match (found, checked) {
                (None, checked) if where_it_fits(device, checked.clone()).is_ok() => {}
                (Some(true), Err(_)) => {}
                (Some(true), Ok(())) => return Err(format!("{what}: the comparison accepts it; {strategy}").into()),
                (_, error) => return Err(format!("{what}: no kernel of {strategy} has \"{from}\"; {error:?}").into()),
            }
        }
    }

    // Another statistic than that of the rows.
    let unbiased = Sample { variance: Variance::Unbiased, ..modulated(StorageType::F32, 12, 9, 5) };
    let biased = Sample { variance: Variance::Biased, ..unbiased.clone() };
    if biased.check_another(device, &unbiased).is_ok() {
        return Err("another variance is accepted".into());
    }
    Ok(())
}
