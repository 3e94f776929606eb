//! Rows that no device could take alone, at mean / std 1e6, against sums in f64 that are taken over all ranks as the values stream by.

use std::error::Error;
use std::io::Write;
use std::ops::Range;
use std::time::{Duration, Instant};

use gpu_layer_norm::{GpuDevice, GpuTensor, LayerNormConfig, Tensor};
use gpu_layer_norm_mpi::mpi::collective::SystemOperation;
use gpu_layer_norm_mpi::mpi::topology::SimpleCommunicator;
use gpu_layer_norm_mpi::mpi::traits::{Communicator, CommunicatorCollectives};
use gpu_layer_norm_mpi::{Options, ShardedLayerNorm};

use super::sample::{Worst, even, noise};

/// Names the logarithm of the width.
pub const LOG2_WIDTH: &str = "GPU_LAYER_NORM_MPI_LOG2_WIDTH";

const EPS: f32 = 1e-5;

fn x(column: usize) -> f64 {
    f64::from((1e6 + noise(11, 0, column as u64)) as f32)
}

fn dy(column: usize) -> f64 {
    f64::from((0.3 + noise(12, 0, column as u64)) as f32)
}

fn weight(column: usize) -> f64 {
    f64::from((1.0 + 0.3 * noise(13, 0, column as u64)) as f32)
}

fn bias(column: usize) -> f64 {
    f64::from((0.2 * noise(14, 0, column as u64)) as f32)
}

/// The sum of what all ranks have.
fn sum<const N: usize>(world: &SimpleCommunicator, own: [f64; N]) -> [f64; N] {
    let mut all = [0.0; N];
    world.all_reduce_into(&own[..], &mut all[..], SystemOperation::sum());
    all
}

/// By blocks, so that the sum of 2^28 numbers is as good as that of a few.
fn sum_of<const N: usize>(
    world: &SimpleCommunicator,
    own: &Range<usize>,
    each: impl Fn(usize) -> [f64; N],
) -> [f64; N] {
    let mut total = [0.0; N];
    for start in own.clone().step_by(4096) {
        let mut block = [0.0; N];
        for column in start..own.end.min(start + 4096) {
            block.iter_mut().zip(each(column)).for_each(|(sum, term)| *sum += term);
        }
        total.iter_mut().zip(block).for_each(|(sum, term)| *sum += term);
    }
    sum(world, total)
}

pub fn wide(world: &SimpleCommunicator) -> Result<(), Box<dyn Error>> {
    let log2: u32 = std::env::var(LOG2_WIDTH)?.parse()?;
    let width = 1_usize << log2;
    let (rank, ranks) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
    let own = even(width, rank, ranks);
    let device = GpuDevice::new()?;
    // Ranks make their values in between calls.
    let options = Options::default().timeout(Duration::from_secs(600));
    let layer = ShardedLayerNorm::with_options(world, &device, &LayerNormConfig::new(own.len()).eps(EPS), &options)?;
    let host = |of: fn(usize) -> f64, shape: &[usize]| {
        Tensor::from_f32(shape, own.clone().map(|column| of(column) as f32).collect::<Vec<_>>())
    };
    layer.set_weight(&host(weight, &[own.len()])?)?;
    layer.set_bias(&host(bias, &[own.len()])?)?;
    let input = GpuTensor::upload(&device, &host(x, &[1, own.len()])?)?;
    device.wait()?;

    let began = Instant::now();
    let (output, moments) = layer.forward(&input)?;
    device.wait()?;
    let forward = began.elapsed();

    let n = width as f64;
    let [rough] = sum_of(world, &own, |column| [x(column) - 1e6]);
    let mean = 1e6 + rough / n;
    let [squares] = sum_of(world, &own, |column| [(x(column) - mean).powi(2)]);
    let rstd = 1.0 / (squares / n + f64::from(EPS)).sqrt();
    let mut of_output = Worst::default();
    for (column, y) in own.clone().zip(output.download()?.values().iter()) {
        let normalized = (x(column) - mean) * rstd;
        let (w, expected) = (weight(column), normalized * weight(column) + bias(column));
        let arithmetic = 2.0_f64.powi(-23) * (3.0 * (normalized * w).abs() + 2.0 * bias(column).abs() + expected.abs());
        of_output.see(f64::from(*y), expected, 2e-6 * (normalized.abs() / 4.0).max(1.0) * w.abs() + arithmetic);
    }
    drop(output);
    of_output.check("output")?;

    let output_gradient = GpuTensor::upload(&device, &host(dy, &[1, own.len()])?)?;
    device.wait()?;
    let began = Instant::now();
    let gradients = layer.backward(&input, &output_gradient, &moments)?;
    device.wait()?;
    let backward = began.elapsed();

    let [of_g, slope] = sum_of(world, &own, |column| {
        let g = dy(column) * weight(column);
        [g, g * (x(column) - mean) * rstd]
    });
    let dx = |column: usize| {
        let normalized = (x(column) - mean) * rstd;
        rstd * (dy(column) * weight(column) - of_g / n - normalized * slope / n)
    };
    let largest = own.clone().fold(0.0_f64, |most, column| most.max(dx(column).abs()));
    let mut all = [0.0];
    world.all_reduce_into(&[largest][..], &mut all[..], SystemOperation::max());
    let [largest] = all;
    let (mut of_input, mut of_weight, mut of_bias) = (Worst::default(), Worst::default(), Worst::default());
    for (column, found) in own.clone().zip(gradients.input.download()?.values().iter()) {
        of_input.see(f64::from(*found), dx(column), 4e-6 * largest);
    }
    drop(gradients.input);
    let parameters = [&gradients.weight, &gradients.bias].map(|it| it.as_ref().ok_or("the layer has both"));
    let [by_weight, by_bias] = [parameters[0]?.download()?, parameters[1]?.download()?];
    for ((column, by_weight), by_bias) in own.zip(by_weight.values().iter()).zip(by_bias.values().iter()) {
        let normalized = (x(column) - mean) * rstd;
        let bound = 2.1e-6 * dy(column).abs();
        of_weight.see(f64::from(*by_weight), dy(column) * normalized, bound * (normalized.abs() / 4.0).max(1.0));
        of_bias.see(f64::from(*by_bias), dy(column), bound);
    }
    of_input.check("dx")?;
    of_weight.check("dweight")?;
    of_bias.check("dbias")?;
    // In one piece: the other ranks are writing too.
    let line = format!(
        "rank {rank} of {ranks}: width 2^{log2}: forward {:.2} s, backward {:.2} s; of what is allowed, at most {:.0} % off in y, {:.0} % in dx\n",
        forward.as_secs_f64(),
        backward.as_secs_f64(),
        of_output.share * 100.0,
        of_input.share * 100.0,
    );
    std::io::stderr().write_all(line.as_bytes())?;
    Ok(())
}
