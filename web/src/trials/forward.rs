//! The forward pass on rows one after another.

use gpu_layer_norm::kernel::{Access, AdapterClass, Geometry, Kernel, Plan, Problem, Reduction, Role};
use gpu_layer_norm::{Affine, Capabilities, Error, GpuDevice, StorageType, Variance};

use super::Outcome;
use super::common::gradients::strategies;
use super::common::{ACCURACY_DATA, AFFINES, Case, Data, STRATEGIES, bare, geometries as all_geometries};
use super::running::{check, download, output};

fn told(error: Error) -> String {
    error.to_string()
}

/// The shortest way, from host to host; each storage type.
pub async fn tensors(device: &GpuDevice) -> Outcome {
    for storage in StorageType::ALL {
        let case = Case::new(20, 768, Data::Normal { mean: 3.0, std: 2.0 }, 1);
        let input = case.tensor().to_storage(storage);
        let layer = case.layer(device, Affine::WeightAndBias).map_err(told)?;
        let output = layer.run_async(device, &input).await.map_err(told)?;
        if output.storage() != storage || output.shape() != input.shape() {
            return Err(format!("{:?} of {} from {:?} of {storage}", output.shape(), output.storage(), input.shape()));
        }
        // In f32 the output is held to the bound; in 16 bits to half a unit in the last place of what the largest can be, besides.
        let exact = Case::with_values(case.rows, case.width, input.into_values(), 1);
        match storage {
            StorageType::F32 => drop(exact.compare(Affine::WeightAndBias, &output.values())?),
            _ => {
                let step = if storage == StorageType::F16 { 2_f32.powi(-11) } else { 2_f32.powi(-8) };
                let y = |(i, x): (usize, &f64)| *x as f32 * exact.weight[i % 768] + exact.bias[i % 768];
                for (y, found) in exact.normalized.iter().enumerate().map(y).zip(output.values().iter()) {
                    let error = (y - found).abs();
                    if error.is_nan() || error > step * y.abs() + 1e-5 {
                        return Err(format!("{storage}: {found:e} in place of {y:e}"));
                    }
                }
            }
        }
    }
    Ok(())
}

pub async fn every_strategy(device: &GpuDevice) -> Outcome {
    for (rows, width) in [(64, 256), (3, 768), (2, 8192), (64, 4097)] {
        let case = Case::new(rows, width, Data::STANDARD, 1);
        let problem = case.problem(Affine::WeightAndBias);
        for strategy in STRATEGIES {
            let plan = Plan::with_strategy(&problem, device.capabilities(), strategy).map_err(told)?;
            check(&case, device, Affine::WeightAndBias, plan).await?;
        }
    }
    Ok(())
}

/// Each affine map of each width is a kernel to compile, so the maps take turns.
pub async fn widths(device: &GpuDevice) -> Outcome {
    let widths =
        [1, 2, 3, 4, 5, 7, 8, 31, 32, 63, 64, 65, 70, 127, 128, 129, 255, 768, 1000, 1023, 4096, 4097, 8193, 65_537];
    for (i, width) in widths.into_iter().enumerate() {
        let rows = [1, 3, 7, 64][i % 4].min((1 << 16) / width).max(1);
        let case = Case::new(rows, width, Data::Normal { mean: 3.0, std: 2.0 }, width as u64);
        let affine = AFFINES[i % 3];
        for plan in strategies(&case.problem(affine), device) {
            check(&case, device, affine, plan).await?;
        }
    }
    Ok(())
}

/// More rows than one dimension of a dispatch has workgroups.
pub async fn row_counts(device: &GpuDevice) -> Outcome {
    for width in [1, 2] {
        let case = Case::new(65_537, width, Data::STANDARD, 7);
        for plan in strategies(&case.problem(Affine::WeightAndBias), device) {
            check(&case, device, Affine::WeightAndBias, plan).await?;
        }
    }
    // One row a workgroup, so that the second dimension of the dispatch is used in earnest.
    let case = Case::new(65_537, 2, Data::STANDARD, 7);
    let problem = case.problem(Affine::None);
    let pick = Plan::new(&problem, device.capabilities()).map_err(told)?;
    let geometry = Geometry { spans_per_lane: 1, spans_per_workgroup: 1, ..*pick.geometry() };
    let plan = Plan::with_geometry(&problem, device.capabilities(), geometry).map_err(told)?;
    if plan.chunks()[0].dispatches[0].workgroups[1] < 2 {
        return Err(format!("{plan} does not reach the second dimension"));
    }
    check(&case, device, Affine::None, plan).await
}

/// Of every geometry that a test may force, each third at each of these widths; three widths, so that each has its turn.
pub async fn geometries(device: &GpuDevice) -> Outcome {
    let mut reductions = Vec::new();
    let cases = [(2, Affine::None), (129, Affine::Weight), (1000, Affine::WeightAndBias)];
    for (i, (width, affine)) in cases.into_iter().enumerate() {
        let case = Case::new(13, width, Data::Normal { mean: -7.0, std: 0.5 }, 3);
        for plan in all_geometries(&case.problem(affine), device.capabilities()).into_iter().skip(i).step_by(3) {
            reductions.push(plan.geometry().reduction);
            check(&case, device, affine, plan).await?;
        }
    }
    let has_subgroups = device.capabilities().subgroups.is_some();
    let wanted = [
        (Reduction::Lane, true),
        (Reduction::Workgroup, true),
        (Reduction::Subgroup, has_subgroups),
        (Reduction::SubgroupThenWorkgroup, has_subgroups),
    ];
    match wanted.into_iter().find(|(reduction, is_there)| *is_there && !reductions.contains(reduction)) {
        Some((missing, _)) => Err(format!("no geometry had the reduction {missing:?}")),
        None => Ok(()),
    }
}

pub async fn variance_and_eps(device: &GpuDevice) -> Outcome {
    for (variance, eps, width) in [
        (Variance::Unbiased, 1e-12, 10),
        (Variance::Unbiased, 1e-5, 2),
        (Variance::Unbiased, 0.0, 768),
        (Variance::Biased, 0.0, 33),
        (Variance::Biased, 10.0, 768),
        (Variance::Biased, 1e30, 8),
    ] {
        let case = Case::new(20, width, Data::STANDARD, 5).variance(variance).eps(eps);
        for plan in strategies(&case.problem(Affine::WeightAndBias), device) {
            check(&case, device, Affine::WeightAndBias, plan).await?;
        }
    }
    Ok(())
}

/// The data of the accuracy table, at widths that every strategy has to sum in another way.
pub async fn accuracy(device: &GpuDevice) -> Outcome {
    for width in [768, 4096, 65_536] {
        for data in ACCURACY_DATA {
            let case = Case::new((65_536 / width).clamp(1, 16), width, data, 11);
            for plan in strategies(&case.problem(Affine::None), device) {
                check(&case, device, Affine::None, plan).await.map_err(|error| format!("{data}: {error}"))?;
            }
        }
    }
    Ok(())
}

pub async fn constant_rows(device: &GpuDevice) -> Outcome {
    let constants = [0.0, 1.0, -0.1, 1e6, 1.000_476_6, 3.333_333e-7, 1e-30, 1e37, f32::MAX, f32::MIN_POSITIVE];
    for width in [1, 3, 64, 1000, 4096] {
        let input: Vec<f32> = constants.iter().flat_map(|&value| vec![value; width]).collect();
        for eps in [1e-5, 0.0] {
            let case = Case::with_values(constants.len(), width, input.clone(), 2).eps(eps);
            for plan in strategies(&case.problem(Affine::WeightAndBias), device) {
                let what = plan.to_string();
                let output = output(&case, device, Affine::WeightAndBias, plan).await?;
                for (i, y) in output.iter().enumerate() {
                    let bias = case.bias[i % width];
                    if y.to_bits() != bias.to_bits() {
                        return Err(format!("{what}: a row of {:e} gives {y:e}, the bias is {bias:e}", case.input[i]));
                    }
                }
            }
        }
    }
    Ok(())
}

pub async fn magnitudes(device: &GpuDevice) -> Outcome {
    let magnitudes = [1e-30, 1e-24, 1e-18, 1e-12, 1.0, 1e12, 1e18, 1e24, 1e30, 1e37];
    for width in [5, 768, 4097] {
        let standard = Data::STANDARD.values(magnitudes.len(), width, 9);
        let mut input: Vec<f32> = standard.iter().enumerate().map(|(i, x)| x * magnitudes[i / width]).collect();
        // The largest f32 of either sign among ordinary numbers, and two halves that differ by more than f32 can square.
        input.extend([f32::MAX, -f32::MAX].iter().chain(&standard[..width - 2]));
        input.extend((0..width).map(|i| if i < width / 2 { 1e30 } else { -1e30 }));
        for eps in [0.0, 1e-5, 1e-37, f32::MAX] {
            let case = Case::with_values(magnitudes.len() + 2, width, input.clone(), 4).eps(eps);
            for plan in strategies(&case.problem(Affine::None), device) {
                check(&case, device, Affine::None, plan).await.map_err(|error| format!("eps {eps:e}: {error}"))?;
            }
        }
    }
    Ok(())
}

pub async fn nan_stays_in_its_row(device: &GpuDevice) -> Outcome {
    let bad = [(2, f32::NAN), (5, f32::INFINITY), (6, f32::NEG_INFINITY), (23, f32::NAN)];
    let cases = [(2, Affine::None), (129, Affine::Weight), (1000, Affine::WeightAndBias)];
    for (i, (width, affine)) in cases.into_iter().enumerate() {
        let of = |input| Case::with_values(24, width, input, 6);
        let clean = of(Data::STANDARD.values(24, width, 6));
        let mut dirty = clean.input.clone();
        bad.iter().for_each(|(row, value)| dirty[row * width + width / 2] = *value);
        let dirty = of(dirty);
        let mut all = strategies(&clean.problem(affine), device);
        all.extend(all_geometries(&clean.problem(affine), device.capabilities()).into_iter().skip(i).step_by(9));
        for plan in all {
            let expected = output(&clean, device, affine, plan.clone()).await?;
            let found = output(&dirty, device, affine, plan.clone()).await?;
            for (row, (y, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
                let exact = &dirty.normalized[row * width..];
                let is_near = |(a, b): (&f32, &f32)| match is_processor(device) {
                    true => a.to_bits() == b.to_bits(),
                    false => (a - b).abs() < 2e-6,
                };
                let holds = match bad.iter().any(|(bad, _)| *bad == row) {
                    true => y.iter().zip(exact).all(|(y, exact)| y.is_nan() && exact.is_nan()),
                    false => y.iter().zip(expected).all(is_near),
                };
                if !holds {
                    return Err(format!("{plan}: row {row} is {y:?}"));
                }
            }
        }
    }
    Ok(())
}

/// Whose compilers leave the order of operations as it is, so that results are the same to the bit.
fn is_processor(device: &GpuDevice) -> bool {
    device.capabilities().class == AdapterClass::Cpu
}

pub async fn rms(device: &GpuDevice) -> Outcome {
    let magnitudes = [1e-30, 1e-18, 1.0, 1e18, 1e37];
    for width in [1, 5, 64, 768, 4097] {
        let mut input = Data::Normal { mean: 3.0, std: 2.0 }.values(magnitudes.len(), width, 9);
        for (row, magnitude) in input.chunks_mut(width).zip(magnitudes) {
            row.iter_mut().for_each(|x| *x *= magnitude);
        }
        for eps in [1e-5, 0.0] {
            let case = Case::with_values(magnitudes.len(), width, input.clone(), 4).rms().eps(eps);
            for plan in strategies(&case.problem(Affine::WeightAndBias), device) {
                check(&case, device, Affine::WeightAndBias, plan).await?;
            }
        }
    }
    Ok(())
}

/// Several chunks in one plan, the later ones at offsets that no binding can begin at.
pub async fn chunks(device: &GpuDevice) -> Outcome {
    for width in [33, 36, 1001] {
        let case = Case::new(50, width, Data::STANDARD, 10);
        // As on a device whose bindings hold 7 rows.
        let alignment = u64::from(device.capabilities().storage_offset_alignment);
        let small = Capabilities { max_binding_bytes: 28 * width as u64 + alignment + 4, ..*device.capabilities() };
        let plan = Plan::new(&case.problem(Affine::WeightAndBias), &small).map_err(told)?;
        if plan.chunks().len() != 8 {
            return Err(format!("{} chunks in {plan}", plan.chunks().len()));
        }
        check(&case, device, Affine::WeightAndBias, plan).await?;
    }
    Ok(())
}

/// The comparison that these trials rest on must be able to fail.
pub async fn wrong_kernels(device: &GpuDevice) -> Outcome {
    let case = Case::new(16, 768, Data::STANDARD, 8);
    // One invocation a row, in several blocks of turns: the mutations below all take effect there, on any adapter.
    let geometry = Geometry {
        access: Access::Reread,
        reduction: Reduction::Lane,
        lanes: 1,
        spans_per_lane: 1,
        spans_per_workgroup: 8,
        segment_width: None,
    };
    let problem: Problem = case.problem(Affine::None);
    let plan = Plan::with_geometry(&problem, device.capabilities(), geometry).map_err(told)?;
    let wgsl = plan.kernels()[0].wgsl();
    for (what, from, to) in [
        ("the kernel itself", "", ""),
        ("eps dropped", "let eps = scaled(params.eps, 2 * moments.exponent);", "let eps = 0.0;"),
        (
            "the last element ignored",
            "params.all_bits, in_span(span, turn, even)",
            "params.all_bits, unit_index(span, turn) + 1u < span.units",
        ),
        ("a mean that is 1e-5 off", "-scaling.correction * scaling.rstd", "1e-5"),
    ] {
        if !wgsl.contains(from) {
            return Err(format!("{what}: the kernel has no \"{from}\" to replace"));
        }
        let shader = |_: &Kernel| bare::wgsl(if from.is_empty() { wgsl.clone() } else { wgsl.replace(from, to) });
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let tensors = [(Role::Input, bytes(&case.input)), (Role::Output, vec![0; 4 * case.input.len()])];
        let buffers = bare::start(device, &plan, shader, &tensors);
        let output = download(device, &buffers[1]).await?;
        let output: Vec<f32> = output.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect();
        match (case.compare(Affine::None, &output), from.is_empty()) {
            (Err(error), true) => return Err(error),
            (Ok(_), false) => return Err(format!("{what}: the comparison accepts it")),
            _ => {}
        }
    }
    Ok(())
}
