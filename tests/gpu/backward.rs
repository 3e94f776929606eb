//! Gradients, against the f64 reference.

use gpu_layer_norm::kernel::{AdapterClass, Capabilities, Kernel, Plan, Problem, Role};
use gpu_layer_norm::{
    Affine, Bindings, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Normalization, Region, StorageType,
    Strategy, Tensor, Variance,
};

use crate::Outcome;
use crate::common::gradients::{Found, GradientCase, strategies};
use crate::common::sample::{Backward, Sample, Spot, Target};
use crate::common::{AFFINES, Data, STRATEGIES, Turns, bare, element_budget, geometries, step, submit};

/// With given and with measured statistics, each tensor of every type, and another type for the gradients of the parameters.
pub fn every_strategy(name: &str, device: &GpuDevice) -> Outcome {
    let shapes = [(7, 5), (70, 64), (300, 33), (9, 768), (3, 4097), (2, 9000)];
    let shapes = if name == "swiftshader" { &shapes[..4] } else { &shapes[..] };
    let mut turns = Turns::new(name, 4);
    for (i, &(rows, width)) in shapes.iter().enumerate() {
        for storage in StorageType::ALL {
            let spot = Spot { storage, ..Spot::default() };
            for normalization in [Normalization::LayerNorm, Normalization::RmsNorm] {
                for strategy in STRATEGIES {
                    for given in [true, false] {
                        if !turns.takes() {
                            continue;
                        }
                        let backward = Backward {
                            output_gradient: spot,
                            weight_gradient: Some(Spot::default()),
                            bias_gradient: Some(spot),
                            sum_gradient: (i % 2 == 1).then_some(spot),
                            ..Backward::default()
                        };
                        let sample = Sample {
                            backward: Some(backward),
                            rows,
                            width,
                            normalization,
                            strategy: Some(strategy),
                            input: spot,
                            residual: (i % 3 == 1).then_some(spot),
                            parameters: spot,
                            output: Target::Own(spot),
                            mean: (given && normalization == Normalization::LayerNorm).then(Spot::default),
                            rstd: given.then(Spot::default),
                            ..Sample::default()
                        };
                        sample.check(device)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Each access, reduction and segmentation, also those that the planner would not pick here.
pub fn every_geometry(_: &str, device: &GpuDevice) -> Outcome {
    let mut count = 0;
    for (width, affine, variance) in [
        (2, Affine::None, Variance::Biased),
        (129, Affine::Weight, Variance::Unbiased),
        (1000, Affine::WeightAndBias, Variance::Biased),
    ] {
        let case = GradientCase::new(13, width, Data::Normal { mean: -7.0, std: 0.5 }, 3);
        let case = GradientCase { affine, variance, ..case };
        let bounds = case.bounds();
        for (what, gradients) in case.run(device, true, |problem| geometries(problem, device.capabilities()))? {
            case.compare(&bounds, &gradients, false).map_err(|error| format!("{what}: {error}"))?;
            count += 1;
        }
    }
    // Without subgroups there are half as many.
    if count < if device.capabilities().subgroups.is_some() { 45 } else { 20 } {
        return Err(format!("{count} geometries are too few").into());
    }
    Ok(())
}

/// The data of the forward pass's accuracy table; dx is within 2e-6 of the largest in its row.
pub fn accuracy(name: &str, device: &GpuDevice) -> Outcome {
    let widest = if name == "swiftshader" { 65_536 } else { 1_000_003 };
    for width in [64, 768, 4096, 65_536, widest] {
        for (i, data) in crate::common::ACCURACY_DATA.into_iter().enumerate() {
            let case = GradientCase::new((65_536 / width).clamp(1, 16), width, data, 11);
            let case = GradientCase { affine: AFFINES[i % 3], ..case };
            // With one outlier x̂ is all but 0 elsewhere, and g there decides.
            case.check(device, true).map_err(|error| format!("{data}: {error}"))?;
        }
        let rms = GradientCase::new((65_536 / width).clamp(1, 16), width, Data::Normal { mean: 3.0, std: 2.0 }, 12);
        GradientCase { normalization: Normalization::RmsNorm, affine: Affine::Weight, ..rms }.check(device, true)?;
    }
    Ok(())
}

/// Constant rows, rows of extreme magnitude, an output gradient of zeros or of one constant, and rows with what is no number, which
/// do no harm to the others.
pub fn rows_of_every_kind(_: &str, device: &GpuDevice) -> Outcome {
    for width in [5, 768, 4100] {
        for (normalization, eps) in [
            (Normalization::LayerNorm, 1e-5),
            (Normalization::LayerNorm, 0.0),
            (Normalization::RmsNorm, 1e-5),
            (Normalization::RmsNorm, 0.0),
        ] {
            let standard = Data::STANDARD.values(1, width, 5);
            let times = |factor: f32| standard.iter().map(|x| x * factor).collect::<Vec<f32>>();
            let mut rows = vec![times(1.0)];
            rows.extend([1e-30_f32, 1e-18, 1e-12, 1e12, 1e18, 1e30, 1e37].map(times));
            rows.extend([0.0, 1.0, -0.1, 1e6, 1e-30, 1e37].map(|constant| vec![constant; width]));
            rows.push(Data::Normal { mean: 1e6, std: 1.0 }.values(1, width, 6));
            rows.push(times(2.0));
            let case = GradientCase::with_input(rows.len(), width, rows.concat(), 7);
            let mut case = GradientCase { normalization, eps, ..case };
            // The gradient of a sum, and none.
            case.output_gradient[..width].fill(0.1);
            let last = (rows.len() - 1) * width;
            case.output_gradient[last..].fill(0.0);
            case.check(device, false).map_err(|error| format!("{normalization:?}, eps {eps:e}: {error}"))?;

            // A constant row has no gradient where eps is 0, and adds nothing to dweight.
            let constant = GradientCase::with_input(1, width, vec![1.000_476_6; width], 8);
            let constant = GradientCase { eps, ..constant };
            if normalization == Normalization::LayerNorm {
                for (what, [input, weight, _]) in constant.run(device, true, |problem| strategies(problem, device))? {
                    let wrong = eps == 0.0 && input.iter().any(|dx| *dx != 0.0);
                    if wrong || weight.iter().any(|dweight| *dweight != 0.0) || input.iter().any(|dx| dx.is_nan()) {
                        return Err(format!("{what}: a constant row has dx {input:?}, dweight {weight:?}").into());
                    }
                }
            }

            // What is no number, between rows that are not harmed.
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut harmed = GradientCase::new(5, width, Data::STANDARD, 9);
                harmed.input[2 * width + width / 2] = bad;
                let harmed = GradientCase { normalization, eps, ..harmed };
                let bounds = harmed.bounds();
                for (what, [input, weight, bias]) in harmed.run(device, true, |problem| strategies(problem, device))? {
                    // It is a part of dweight, and none of dbias.
                    let spoilt = weight.iter().filter(|dweight| dweight.is_nan()).count();
                    if spoilt == 0 {
                        return Err(format!("{what}: a {bad} does not show in dweight").into());
                    }
                    let near = |(dbias, (exact, allowed)): (&f32, (&f64, &f64))| {
                        (f64::from(*dbias) - exact).abs() <= allowed + exact.abs() * 1e-7
                    };
                    if !bias.iter().zip(bounds.exact.bias.iter().zip(&bounds.bias)).all(near) {
                        return Err(format!("{what}: a {bad} in x spoils dbias").into());
                    }
                    for (i, (&dx, &exact)) in input.iter().zip(&bounds.exact.input).enumerate() {
                        let error = (f64::from(dx) - exact).abs();
                        let right =
                            if i / width == 2 { dx.is_nan() } else { error <= bounds.input[i] + exact.abs() * 1e-7 };
                        if !right {
                            return Err(format!(
                                "{what}: row {} with a {bad} in row 2: {dx:e} for {exact:e}",
                                i / width
                            )
                            .into());
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// One row, the widest row, and as many rows as there may be.
pub fn row_counts(name: &str, device: &GpuDevice) -> Outcome {
    let budget = 16 * element_budget(name);
    let many = if name == "lavapipe" { 10_000_000 } else { budget / 3 };
    for (rows, width) in [(1, 1), (1, 7), (1, 768), (1, budget), (196_608, 1), (196_609, 4), (many, 3)] {
        let case = GradientCase::new(rows, width, Data::Normal { mean: 3.0, std: 2.0 }, 21);
        let bounds = case.bounds();
        for (what, gradients) in
            case.run(device, true, |problem| vec![Plan::new(problem, device.capabilities()).expect("a plan")])?
        {
            case.compare(&bounds, &gradients, false).map_err(|error| format!("{what}: {error}"))?;
        }
    }
    // Equal terms are rounded alike: the worst that there is for a sum of many.
    let (rows, width) = (budget / 8, 2);
    let mut case = GradientCase::new(rows, width, Data::STANDARD, 22);
    case.output_gradient.fill(0.1);
    case.check(device, false)?;
    Ok(())
}

/// The gradients of the parameters are those of the rows that are worked on, also where these are none.
pub fn rows_set(_: &str, device: &GpuDevice) -> Outcome {
    let (rows, width) = (100, 36);
    let case = GradientCase::new(rows, width, Data::STANDARD, 5);
    let layer = case.layer(device)?;
    let upload = |values: &[f32]| GpuTensor::upload(device, &Tensor::from_f32([rows, width], values.to_vec())?);
    let (input, output_gradient) = (upload(&case.input)?, upload(&case.output_gradient)?);
    let gradient = GpuTensor::zeros(device, [rows, width])?;
    let (weight, bias) = (GpuTensor::zeros(device, [width])?, GpuTensor::zeros(device, [width])?);
    let bindings =
        Bindings::backward_of(&input, &output_gradient, &gradient).weight_gradient(&weight).bias_gradient(&bias);
    let marked = Tensor::from_f32([rows, width], vec![7.0; rows * width])?;
    for plan in strategies(&layer.problem(device, &bindings)?, device) {
        let what = plan.to_string();
        let mut prepared = layer.prepare_plan(device, plan, &bindings)?;
        for count in [100, 99, 3, 0, 64] {
            gradient.write(&marked)?;
            prepared.set_rows(count as u64)?;
            submit(device, &prepared);
            let mut found = gradient.download()?.into_values();
            if found.split_off(count * width).iter().any(|&dx| dx != 7.0) {
                return Err(format!("{what}: a row past {count} was touched").into());
            }
            let part = |values: &[f32]| values[..count * width].to_vec();
            let fewer = GradientCase {
                rows: count,
                input: part(&case.input),
                output_gradient: part(&case.output_gradient),
                weight: case.weight.clone(),
                ..case
            };
            let found = [found, weight.download()?.into_values(), bias.download()?.into_values()];
            fewer.compare(&fewer.bounds(), &found, false).map_err(|error| format!("{what}, {count} rows: {error}"))?;
        }
    }
    // No rows to begin with.
    let none = Bindings::backward(0, &input, &output_gradient, &gradient);
    let none = none.weight_gradient(&weight).bias_gradient(Region::from(&bias));
    layer.execute(device, &none)?;
    let zero =
        |tensor: &GpuTensor| Ok::<_, gpu_layer_norm::Error>(tensor.download()?.values().iter().all(|x| *x == 0.0));
    if !zero(&weight)? || !zero(&bias)? {
        return Err("no rows have gradients of 0".into());
    }
    Ok(())
}

pub fn row_counts_on_device(_: &str, device: &GpuDevice) -> Outcome {
    let spot = Some(Spot::default());
    for count in [100, 99, 3, 0, u32::MAX] {
        for strategy in STRATEGIES {
            for chunk_rows in [None, Some(30)] {
                let backward = Backward { weight_gradient: spot, bias_gradient: spot, ..Backward::default() };
                let sample = Sample {
                    backward: Some(backward),
                    rows: 100,
                    width: 36,
                    strategy: Some(strategy),
                    chunk_rows,
                    row_count: Some(count),
                    mean: spot,
                    rstd: spot,
                    ..Sample::default()
                };
                sample.check(device).map_err(|error| format!("a count of {count}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// Odd widths, offsets and strides in 16 bits, in place and apart, and gradients of parameters of 16 bits at odd places.
pub fn shared_words(name: &str, device: &GpuDevice) -> Outcome {
    let mut turns = Turns::new(name, 4);
    for width in [1, 2, 7, 33, 130, 769] {
        for (i, storage) in [StorageType::F16, StorageType::Bf16].into_iter().enumerate() {
            for strategy in STRATEGIES {
                for between in [0, 1] {
                    if !turns.takes() {
                        continue;
                    }
                    let spot = |before| Spot { storage, before, between };
                    let backward = Backward {
                        output_gradient: spot(1),
                        sum_gradient: (i == 0).then(|| spot(0)),
                        weight_gradient: Some(spot(1)),
                        bias_gradient: Some(spot(0)),
                        accumulate: between == 1,
                        ..Backward::default()
                    };
                    let place = if i == 0 { Role::SumGradient } else { Role::OutputGradient };
                    let base = Sample {
                        backward: Some(backward),
                        rows: 9,
                        width,
                        strategy: Some(strategy),
                        input: spot(3),
                        parameters: spot(1),
                        mean: Some(Spot::default()),
                        rstd: Some(Spot::default()),
                        pooled: between == 0,
                        ..Sample::default()
                    };
                    Sample { output: Target::Own(spot(1)), ..base.clone() }.check(device)?;
                    Sample { output: Target::InPlaceOf(place), ..base }.check(device)?;
                }
            }
        }
    }
    Ok(())
}

/// Walks of many rows, in place of each tensor that dx may be in place of: what is read for a round may not have been overwritten in
/// another.
pub fn walks_in_place(name: &str, device: &GpuDevice) -> Outcome {
    let budget = element_budget(name) / 4;
    for (width, storage) in [(8, StorageType::F32), (7, StorageType::F16), (40, StorageType::Bf16)] {
        for strategy in STRATEGIES {
            for place in [Role::Input, Role::Residual, Role::OutputGradient, Role::SumGradient] {
                let spot = Spot { storage, ..Spot::default() };
                let backward = Backward {
                    output_gradient: spot,
                    sum_gradient: (place == Role::SumGradient).then_some(spot),
                    weight_gradient: Some(Spot::default()),
                    bias_gradient: Some(Spot::default()),
                    ..Backward::default()
                };
                let sample = Sample {
                    backward: Some(backward),
                    rows: budget / width,
                    width,
                    strategy: Some(strategy),
                    input: spot,
                    residual: (place == Role::Residual).then_some(spot),
                    parameters: spot,
                    output: Target::InPlaceOf(place),
                    mean: Some(Spot::default()),
                    rstd: Some(Spot::default()),
                    ..Sample::default()
                };
                sample.check(device)?;
            }
        }
    }
    Ok(())
}

/// What the planner picks for GPUs, and the other plans that it would have measured there: on any adapter they are right.
pub fn plans_of_gpus(name: &str, device: &GpuDevice) -> Outcome {
    let budget = element_budget(name) / 2;
    let step = step(name, 3);
    for (w, width) in [64, 768, 1001, 4096, 20_000].into_iter().enumerate() {
        for (s, storage) in StorageType::ALL.into_iter().enumerate() {
            let spot = Spot { storage, ..Spot::default() };
            let backward = Backward {
                output_gradient: spot,
                weight_gradient: Some(Spot::default()),
                bias_gradient: Some(Spot::default()),
                ..Backward::default()
            };
            let sample = Sample {
                backward: Some(backward),
                rows: (budget / width).max(3),
                width,
                input: spot,
                parameters: spot,
                output: Target::Own(spot),
                mean: Some(Spot::default()),
                rstd: Some(Spot::default()),
                ..Sample::default()
            };
            let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(width).expect_nothing())?;
            for i in ((w + s) % step..).step_by(step) {
                let mut more = true;
                let pick = |problem: &Problem| {
                    let capabilities = device.capabilities_for(problem);
                    let capabilities = Capabilities { class: AdapterClass::Discrete, ..capabilities };
                    let mut all = Plan::candidates(problem, &capabilities)?;
                    more = i + step < all.len();
                    Ok(all.swap_remove(i.min(all.len() - 1)))
                };
                sample.check_with(device, &layer, pick)?;
                if !more {
                    break;
                }
            }
        }
    }
    Ok(())
}

pub fn same_bits(_: &str, device: &GpuDevice) -> Outcome {
    for (rows, width) in [(3000, 64), (40, 1000), (2, 20_000)] {
        let case = GradientCase::new(rows, width, Data::STANDARD, 31);
        let run = || case.run(device, true, |problem| strategies(problem, device));
        let bits = |runs: Vec<(String, Found)>| -> Vec<u32> {
            runs.iter().flat_map(|(_, gradients)| gradients.concat()).map(f32::to_bits).collect()
        };
        if bits(run()?) != bits(run()?) {
            return Err(format!("{rows} × {width}: other bits in a second run").into());
        }
    }
    Ok(())
}

/// The comparison that all of these tests rest on must be able to fail.
pub fn wrong_kernels(_: &str, device: &GpuDevice) -> Outcome {
    let case = GradientCase::new(41, 772, Data::Normal { mean: 1e6, std: 1.0 }, 8);
    let unbiased = GradientCase { variance: Variance::Unbiased, ..GradientCase::new(40, 5, Data::STANDARD, 8) };
    // More rows than a GPU has walks, which are 2,048 here, so that some walks have one row less than others.
    let many = GradientCase::new(4099, 772, Data::STANDARD, 8);
    let run =
        |case: &GradientCase, plan: &Plan, wgsl: &dyn Fn(&Kernel) -> String| -> Result<Found, gpu_layer_norm::Error> {
            let layer = case.layer(device)?;
            let input = GpuTensor::upload(device, &Tensor::from_f32([case.rows, case.width], case.input.clone())?)?;
            let (_, statistics) = layer.forward_for_training(device, &input)?;
            let bytes = |values: &[f32]| bytemuck::cast_slice(values).to_vec();
            let downloaded = |tensor: &GpuTensor| Ok::<_, gpu_layer_norm::Error>(bytes(&tensor.download()?.values()));
            let mut tensors = [
                (Role::InputGradient, bytes(&vec![7.0; case.input.len()])),
                (Role::WeightGradient, bytes(&vec![7.0; case.width])),
                (Role::BiasGradient, bytes(&vec![7.0; case.width])),
                (Role::Input, bytes(&case.input)),
                (Role::OutputGradient, bytes(&case.output_gradient)),
                (Role::Weight, bytes(&case.weight)),
                (Role::Mean, downloaded(statistics.mean.as_ref().expect("a mean"))?),
                (Role::Rstd, downloaded(&statistics.rstd)?),
            ];
            bare::run(device, plan, |kernel| bare::wgsl(wgsl(kernel)), &mut tensors);
            Ok([0, 1, 2].map(|i| bytemuck::pod_collect_to_vec(&tensors[i].1)))
        };
    for strategy in STRATEGIES {
        let plan_of = |case: &GradientCase| {
            let problem =
                Problem::new(case.rows as u64, case.width as u64)?.affine(case.affine).variance(case.variance)?;
            let roles = [Role::Mean, Role::Rstd, Role::WeightGradient, Role::BiasGradient];
            let problem =
                roles.into_iter().try_fold(problem.backward(), |it, role| it.tensor(role, StorageType::F32))?;
            Plan::with_strategy(&problem, device.capabilities(), strategy)
        };
        for case in [&case, &unbiased] {
            // A row that short is not split.
            let Ok(plan) = plan_of(case) else { continue };
            case.compare(&case.bounds(), &run(case, &plan, &Kernel::wgsl)?, false)?;
        }
        for (what, case, from, to) in [
            ("the mean of g kept", &case, "-statistics.rstd * (sums.x * params.mean_share)", "0.0"),
            ("no slope", &case, "-row.slope * row.rstd", "-0.0"),
            ("the rounding of the mean kept", &case, "let offset = sums.z * params.mean_share;", "let offset = 0.0;"),
            (
                "width in place of width − 1",
                &unbiased,
                "products * params.variance_share",
                "products * params.mean_share",
            ),
            (
                "the weight left out",
                &case,
                "return unit_multiply(output_gradient, ",
                "return unit_add(output_gradient, ",
            ),
            ("rows that are not there count", &many, "select(0u, params.all_bits, span.owned)", "params.all_bits"),
            ("a round too few", &case, "- first + params.walks - 1u) / params.walks", "- first) / params.walks"),
            ("a walk that is passed over", &case, "first + min(begin + lane, count - 1u)", "first"),
            (
                "the last element ignored",
                &case,
                "select(0u, params.all_bits, in_span(span, turn, even))",
                "select(0u, params.all_bits, position_at(span, turn, even) + 1u < ROW_UNITS)",
            ),
        ] {
            let Ok(plan) = plan_of(case) else { continue };
            // Walks that wait for one another are those of strategy resident alone, and only the others end each for itself.
            let elsewhere =
                if strategy == Strategy::Resident { "a round too few" } else { "rows that are not there count" };
            if what == elsewhere {
                continue;
            }
            if !plan.kernels().iter().any(|kernel| kernel.wgsl().contains(from)) {
                return Err(format!("{what}: no kernel of {plan} has \"{from}\" to replace").into());
            }
            let found = run(case, &plan, &|kernel| kernel.wgsl().replace(from, to))?;
            if case.compare(&case.bounds(), &found, false).is_ok() {
                return Err(format!("{what}: the comparison accepts it; {plan}").into());
            }
        }
    }
    Ok(())
}
