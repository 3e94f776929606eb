//! Rows of each rank's own, and gradients of weight and bias that are those of all rows.

use std::error::Error;

use gpu_layer_norm::reference::layer_norm_backward;
use gpu_layer_norm::{GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, StorageType, Tensor};
use gpu_layer_norm_mpi::mpi::topology::SimpleCommunicator;
use gpu_layer_norm_mpi::mpi::traits::Communicator;
use gpu_layer_norm_mpi::{DataParallel, Options};

use super::sample::{Worst, noise, rounded, rounding, uneven, upload};

pub fn gradients_of_all_rows(world: &SimpleCommunicator) -> Result<(), Box<dyn Error>> {
    let device = GpuDevice::new()?;
    for (rows, width, mean, storage, chunk) in [
        (64, 768, 1e6, StorageType::F32, 1 << 20),
        // Chunks that end within a tensor and begin within another.
        (33, 1000, 1e6, StorageType::F32, 300),
        // Fewer rows than ranks: some have none.
        (2, 5, 3.0, StorageType::F32, 1),
        (40, 257, 3.0, StorageType::Bf16, 100),
    ] {
        let what = format!("{rows} × {width}, mean {mean:e}, {storage:?}");
        one(world, &device, (rows, width, mean, storage, chunk)).map_err(|error| format!("{what}: {error}"))?;
    }
    sums(world, &device)
}

fn one(
    world: &SimpleCommunicator,
    device: &GpuDevice,
    (rows, width, mean, storage, chunk): (usize, usize, f64, StorageType, u64),
) -> Result<(), Box<dyn Error>> {
    let (rank, ranks) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
    let options = Options::default().elements_per_chunk(chunk);
    let data_parallel = DataParallel::with_options(world, device, &options)?;
    let layer_norm = GpuLayerNorm::new(device, &LayerNormConfig::new(width).parameter_storage(storage))?;
    let at = |seed: u64, centre: f64, i: usize| (centre + noise(seed, (i / width) as u64, (i % width) as u64)) as f32;
    let all = |seed, centre| rounded((0..rows * width).map(|i| at(seed, centre, i)).collect(), storage);
    let (input, output_gradient) = (all(5, mean)?, all(6, 0.3)?);
    let weight = rounded((0..width).map(|i| at(7, 1.0, i)).collect(), storage)?;
    layer_norm.set_weight(&Tensor::from_f32([width], &weight[..])?)?;

    let own = uneven(rows, rank, ranks);
    let part =
        |values: &[f32]| upload(device, &[own.len(), width], &values[own.start * width..own.end * width], storage);
    let (own_input, own_gradient) = (part(&input)?, part(&output_gradient)?);
    let (_, statistics) = layer_norm.forward_for_training(device, &own_input)?;
    // With saved statistics and without.
    for statistics in [Some(&statistics), None] {
        let gradients = data_parallel.backward(&layer_norm, &own_input, &own_gradient, statistics)?;
        let [found_weight, found_bias] =
            [&gradients.weight, &gradients.bias].map(|it| it.as_ref().ok_or("it has both"));
        let found_weight = found_weight?.download()?.into_values();
        let found_bias = found_bias?.download()?.into_values();

        // Whole rows on one device, and the reference.
        let whole = |values: &[f32]| upload(device, &[rows, width], values, storage);
        let alone = layer_norm.backward(device, &whole(&input)?, &whole(&output_gradient)?, None)?;
        let alone = alone.weight.ok_or("it has a weight")?.download()?.into_values();
        let expected = layer_norm_backward(&input, &output_gradient, width, Some(&weight), 1e-5, false);
        let normalized = gpu_layer_norm::reference::layer_norm(&input, width, None, None, 1e-5, false);
        // What GpuLayerNorm::backward says, where each rank is one more term.
        let c = 1e-6 + 3e-8 * (rows + ranks) as f64;
        let (mut of_weight, mut of_bias, mut of_one) = (Worst::default(), Worst::default(), Worst::default());
        for column in 0..width {
            let dy = |row: usize| f64::from(output_gradient[row * width + column]).abs();
            let sum: f64 = (0..rows).map(dy).sum();
            let share = |row: usize| (normalized[row * width + column].abs() / 4.0).max(1.0);
            let weighted: f64 = (0..rows).map(|row| dy(row) * share(row)).sum();
            of_weight.see(f64::from(found_weight[column]), expected.weight[column], c * weighted);
            of_bias.see(f64::from(found_bias[column]), expected.bias[column], c * sum);
            let bound = 2.0 * c * weighted + rounding(storage, expected.weight[column]);
            of_one.see(f64::from(found_weight[column]), f64::from(alone[column]), bound);
        }
        of_weight.check("dweight")?;
        of_bias.check("dbias")?;
        of_one.check("dweight beside one device")?;

        // The input's own gradient stays with its rows.
        let found = gradients.input.download()?.into_values();
        let mut of_input = Worst::default();
        for (i, dx) in found.iter().enumerate() {
            let row = own.start + i / width;
            let expected_row = &expected.input[row * width..(row + 1) * width];
            let x = &input[row * width..(row + 1) * width];
            let rstd = gpu_layer_norm::reference::row_statistics(x, 1e-5, false).rstd;
            let g = (0..width).map(|k| f64::from(output_gradient[row * width + k] * weight[k]).abs());
            let largest = g.map(|g| g * rstd).chain(expected_row.iter().map(|dx| dx.abs())).fold(0.0, f64::max);
            let expected = expected_row[i % width];
            of_input.see(f64::from(*dx), expected, 2e-6 * largest + rounding(storage, expected));
        }
        of_input.check("dx")?;
    }
    Ok(())
}

/// Small whole numbers, whose sums are exact.
fn sums(world: &SimpleCommunicator, device: &GpuDevice) -> Result<(), Box<dyn Error>> {
    let (rank, ranks) = (world.rank() as f32, world.size() as f32);
    let data_parallel = DataParallel::with_options(world, device, &Options::default().elements_per_chunk(7))?;
    let shapes: [&[usize]; 4] = [&[3, 2], &[0], &[1], &[20]];
    let tensors = shapes.map(|shape| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 + 1.0) * (rank + 1.0)).collect();
        upload(device, shape, &values, StorageType::F32)
    });
    let tensors: Vec<GpuTensor> = tensors.into_iter().collect::<Result<_, _>>()?;
    data_parallel.all_reduce(&tensors.iter().collect::<Vec<_>>())?;
    let factor = ranks * (ranks + 1.0) / 2.0;
    for tensor in &tensors {
        let values = tensor.download()?.into_values();
        let expected: Vec<f32> = (0..values.len()).map(|i| (i as f32 + 1.0) * factor).collect();
        if values != expected {
            return Err(format!("{values:?} in place of {expected:?}").into());
        }
    }
    Ok(())
}
