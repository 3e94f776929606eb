//! Regions of buffers, storage types, what is fused, gradients: each byte of each buffer is compared.

use gpu_layer_norm::kernel::{Plan, Problem, Role};
use gpu_layer_norm::{Capabilities, GpuDevice, Modulation, Normalization, StorageType, Strategy, Variance};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Outcome;
use super::common::sample::{Backward, Sample, Spot, Target};
use super::common::{AFFINES, STRATEGIES};
use super::running::{bytes, check_sample, check_with};

fn spot(storage: StorageType, before: usize, between: usize) -> Spot {
    Spot { storage, before, between }
}

/// With each strategy.
async fn by_strategy(sample: &Sample, device: &GpuDevice) -> Outcome {
    for strategy in STRATEGIES {
        check_sample(&Sample { strategy: Some(strategy), ..sample.clone() }, device).await?;
    }
    Ok(())
}

/// Every storage type in every role; rows that vectors divide and others, words that two rows share among them.
pub async fn storage_types(device: &GpuDevice) -> Outcome {
    for (i, storage) in StorageType::ALL.into_iter().enumerate() {
        for (j, width) in [1, 66, 67, 768, 2049].into_iter().enumerate() {
            let other = StorageType::ALL[(i + j) % 3];
            let free = [0, 1, 4][j % 3];
            let sample = Sample {
                rows: 5,
                width,
                input: spot(storage, free, free),
                residual: Some(spot(other, free, 2 * free)),
                parameters: spot(other, free, 0),
                output: Target::Own(spot(other, free, j % 2)),
                sum: Some(Target::Own(spot(storage, 1, free))),
                strategy: (j % 2 == 0).then_some(Strategy::PartlyResident),
                ..Sample::default()
            };
            by_strategy(&sample, device).await?;
            check_sample(&sample, device).await?;
        }
    }
    Ok(())
}

pub async fn places(device: &GpuDevice) -> Outcome {
    for (width, storage) in [(64, StorageType::F32), (64, StorageType::Bf16), (33, StorageType::F16)] {
        let base = Sample { rows: 70, width, input: spot(storage, 0, 0), ..Sample::default() };
        let residual = Some(spot(storage, 0, 0));
        let samples = [
            Sample { output: Target::InPlaceOf(Role::Input), ..base.clone() },
            Sample { output: Target::InPlaceOf(Role::Residual), residual, ..base.clone() },
            // The residual stream of a transformer, in one buffer with the parameters.
            Sample {
                residual,
                sum: Some(Target::InPlaceOf(Role::Residual)),
                output: Target::InPlaceOf(Role::Input),
                parameters: spot(storage, 256, 0),
                pooled: false,
                ..base.clone()
            },
        ];
        for sample in samples {
            by_strategy(&sample, device).await?;
        }
    }
    Ok(())
}

/// The plans that a row count has to fit: whole rows, several to a workgroup; segments; several chunks.
fn row_count_plans(problem: &Problem, device: &GpuDevice) -> Vec<Plan> {
    let small = Capabilities { max_binding_bytes: 4096, ..*device.capabilities() };
    let mut plans: Vec<_> =
        STRATEGIES.iter().flat_map(|&it| Plan::with_strategy(problem, device.capabilities(), it).ok()).collect();
    plans.extend(Plan::new(problem, &small).ok().filter(|plan| plan.chunks().len() > 2));
    plans
}

/// Runs a sample with each of those plans.
async fn by_row_count_plan(sample: &Sample, device: &GpuDevice) -> Outcome {
    // Three strategies and the chunks.
    for i in 0..4 {
        let pick = |problem: &Problem| Ok(row_count_plans(problem, device).swap_remove(i));
        check_with(sample, device, pick).await?;
    }
    Ok(())
}

pub async fn rows_set(device: &GpuDevice) -> Outcome {
    for rows in [100, 99, 3, 0, 64] {
        let sample = Sample { rows: 100, width: 36, set_rows: Some(rows), ..Sample::default() };
        by_row_count_plan(&sample, device).await.map_err(|error| format!("{rows} rows: {error}"))?;
    }
    Ok(())
}

pub async fn row_counts_on_device(device: &GpuDevice) -> Outcome {
    let counts = [100, 99, 3, 0, 64, u32::MAX].map(|count| (count, None));
    for (count, set_rows) in counts.into_iter().chain([(99, Some(64)), (3, Some(64))]) {
        let sample = Sample { rows: 100, width: 36, row_count: Some(count), set_rows, ..Sample::default() };
        let checked = by_row_count_plan(&sample, device).await;
        checked.map_err(|error| format!("a count of {count}, {set_rows:?}: {error}"))?;
    }
    Ok(())
}

/// A backward sample of these storage types, with the gradients of weight and bias.
fn backward_of(storage: StorageType, gradients: StorageType) -> Sample {
    let of = |storage| spot(storage, 0, 0);
    let backward = Backward {
        output_gradient: of(storage),
        weight_gradient: Some(of(gradients)),
        bias_gradient: Some(of(gradients)),
        ..Backward::default()
    };
    Sample {
        backward: Some(backward),
        input: of(storage),
        parameters: of(gradients),
        output: Target::Own(of(storage)),
        ..Sample::default()
    }
}

pub async fn backward(device: &GpuDevice) -> Outcome {
    for (i, storage) in StorageType::ALL.into_iter().enumerate() {
        for (j, (rows, width)) in [(1, 5), (70, 64), (9, 1000), (3, 4097)].into_iter().enumerate() {
            let gradients = StorageType::ALL[(i + j) % 3];
            let given = (j % 2 == 0).then_some(Spot::default());
            let rms = (i + j) % 4 == 3;
            let normalization = if rms { Normalization::RmsNorm } else { Normalization::LayerNorm };
            let mean = given.filter(|_| !rms);
            let of = Sample { rows, width, mean, rstd: given, normalization, ..backward_of(storage, gradients) };
            by_strategy(&of, device).await?;
        }
    }
    Ok(())
}

pub async fn backward_places(device: &GpuDevice) -> Outcome {
    let f32s = backward_of(StorageType::F32, StorageType::F32);
    let accumulated = |sample: Sample| Sample {
        backward: sample.backward.map(|backward| Backward { accumulate: true, ..backward }),
        ..sample
    };
    let samples = [
        Sample { rows: 40, width: 36, chunk_rows: Some(7), ..f32s.clone() },
        Sample { rows: 40, width: 36, output: Target::InPlaceOf(Role::OutputGradient), ..f32s.clone() },
        Sample {
            rows: 40,
            width: 37,
            output: Target::InPlaceOf(Role::Input),
            ..backward_of(StorageType::Bf16, StorageType::F32)
        },
        Sample { rows: 40, width: 36, set_rows: Some(11), ..f32s.clone() },
        Sample { rows: 40, width: 36, row_count: Some(11), ..f32s.clone() },
        Sample { rows: 40, width: 36, residual: Some(Spot::default()), ..f32s.clone() },
        accumulated(Sample { rows: 40, width: 36, ..f32s.clone() }),
    ];
    for sample in &samples {
        check_sample(sample, device).await?;
    }
    Ok(())
}

/// A sample with scale, shift and a gated residual, three rows to a condition.
fn modulated(storage: StorageType, modulation: Modulation) -> Sample {
    let some = Some(spot(storage, 0, 0));
    let (scale, shift, gate, residual) = (some, some, some, some);
    Sample { rows: 20, rows_per_condition: 3, modulation, scale, shift, gate, residual, ..Sample::default() }
}

const MODULATIONS: [Modulation; 2] = [Modulation::Adaptive, Modulation::Conditional];

pub async fn modulation(device: &GpuDevice) -> Outcome {
    for (i, storage) in StorageType::ALL.into_iter().enumerate() {
        for (j, modulation) in MODULATIONS.into_iter().enumerate() {
            for width in [33, 768] {
                let all = modulated(storage, modulation);
                by_strategy(&Sample { width, affine: AFFINES[(i + j) % 3], ..all.clone() }, device).await?;
                check_sample(&Sample { width, scale: None, gate: None, residual: None, ..all.clone() }, device).await?;
                check_sample(&Sample { width, shift: None, chunk_rows: Some(5), ..all }, device).await?;
            }
        }
    }
    Ok(())
}

pub async fn modulation_gradients(device: &GpuDevice) -> Outcome {
    for storage in StorageType::ALL {
        for modulation in MODULATIONS {
            let own = Some(spot(storage, 0, 0));
            // No more than a device with WebGPU's default of 8 storage buffers binds.
            let of_scale = Backward { scale_gradient: own, shift_gradient: own, ..Backward::default() };
            let of_gate = Backward { gate_gradient: own, ..Backward::default() };
            let all = modulated(storage, modulation);
            for (width, backward) in [(33, of_scale), (768, of_scale), (33, of_gate), (1001, of_gate)] {
                let gate = all.gate.filter(|_| backward.gate_gradient.is_some());
                let residual = all.residual.filter(|_| gate.is_some());
                let sample = Sample { width, gate, residual, backward: Some(backward), ..all.clone() };
                check_sample(&sample, device).await?;
            }
        }
    }
    Ok(())
}

/// Positions of a sequence, on both sides of one and of several tiles of 64.
const LENGTHS: [usize; 5] = [1, 3, 64, 65, 200];

pub async fn causal(device: &GpuDevice) -> Outcome {
    for (i, length) in LENGTHS.into_iter().enumerate() {
        let storage = StorageType::ALL[i % 3];
        let rms = i % 4 == 3;
        let sample = Sample {
            rows: 2 * length + 1,
            width: [33, 64][i % 2],
            causal: Some(length),
            normalization: if rms { Normalization::RmsNorm } else { Normalization::LayerNorm },
            input: spot(storage, i, 0),
            output: Target::Own(spot(storage, 0, i)),
            mean: (!rms).then(Spot::default),
            rstd: Some(Spot::default()),
            ..Sample::default()
        };
        by_strategy(&sample, device).await?;
    }
    Ok(())
}

pub async fn causal_gradients(device: &GpuDevice) -> Outcome {
    for (i, length) in LENGTHS.into_iter().enumerate() {
        let storage = StorageType::ALL[i % 3];
        let of = backward_of(storage, StorageType::F32);
        check_sample(&Sample { rows: 2 * length + 1, width: [33, 64][i % 2], causal: Some(length), ..of }, device)
            .await?;
    }
    Ok(())
}

const SAMPLES: u64 = 60;

/// Storage types × affine × normalization × residual × modulation × statistics × strides × places × strategies, drawn from seeds.
pub async fn whole_space(device: &GpuDevice) -> Outcome {
    for seed in 0..SAMPLES {
        check_sample(&drawn(seed), device).await.map_err(|error| format!("sample {seed}: {error}"))?;
    }
    Ok(())
}

fn drawn(seed: u64) -> Sample {
    let mut rng = StdRng::seed_from_u64(seed);
    let (rows, width) = match seed % 3 {
        0 => (rng.random_range(1..70), rng.random_range(1..100)),
        1 => (rng.random_range(1..9), 4 * rng.random_range(1..300)),
        _ => (rng.random_range(1..3), rng.random_range(1000..20_000)),
    };
    let rms = rng.random_bool(0.3);
    let mut some = |chance: f64| {
        let free = |rng: &mut StdRng| [0, 0, 0, 1, 3, 4, 128][rng.random_range(0..7)];
        let storage = StorageType::ALL[rng.random_range(0..3)];
        let spot = spot(storage, free(&mut rng), free(&mut rng));
        rng.random_bool(chance).then_some(spot)
    };
    let residual = some(0.5);
    let sum = some(0.4).map(Target::Own);
    let (scale, shift, gate) = (some(0.3), some(0.3), some(0.3));
    let [input, parameters, output] = [(); 3].map(|()| some(1.0).unwrap_or_default());
    let statistic = |spot: Spot| Spot { storage: StorageType::F32, ..spot };
    let (mean, rstd) = (some(0.3).filter(|_| !rms).map(statistic), some(0.3).map(statistic));
    let in_place = some(0.3).is_some();
    let unbiased = !rms && width > 1 && rng.random_bool(0.3);
    Sample {
        rows,
        width,
        normalization: if rms { Normalization::RmsNorm } else { Normalization::LayerNorm },
        affine: AFFINES[rng.random_range(0..3)],
        zero_centred_weight: rng.random_bool(0.3),
        variance: if unbiased { Variance::Unbiased } else { Variance::Biased },
        eps: [1e-5, 1e-12, 0.5][rng.random_range(0..3)],
        modulation: MODULATIONS[rng.random_range(0..2)],
        rows_per_condition: rng.random_range(1..=rows),
        causal: rng.random_bool(0.2).then(|| rng.random_range(1..=rows)),
        strategy: STRATEGIES.get(rng.random_range(0..4)).copied(),
        input,
        residual,
        parameters,
        scale,
        shift,
        gate,
        output: if in_place { Target::InPlaceOf(Role::Input) } else { Target::Own(output) },
        sum,
        mean,
        rstd,
        seed,
        ..Sample::default()
    }
}

/// The comparison must see any byte: one of the output that is wrong, and one beside it that was touched.
pub async fn wrong_bytes(device: &GpuDevice) -> Outcome {
    let sample = Sample { output: Target::Own(spot(StorageType::F32, 3, 3)), ..Sample::default() };
    let (staged, after) = bytes(&sample, device).await?;
    sample.compare(staged, &after)?;
    let last = after.len() - 1;
    // The third byte of the first element is the lowest of its exponent.
    for (what, byte) in [("a free element before the first row", 0), ("the first element", 3 * 4 + 2)] {
        let (staged, mut after) = bytes(&sample, device).await?;
        after[last][byte] ^= 0x80;
        if sample.compare(staged, &after).is_ok() {
            return Err(format!("the comparison accepts a change of {what}"));
        }
    }
    Ok(())
}
