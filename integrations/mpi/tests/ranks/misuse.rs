//! What ranks that do not do the same are told: a typed error on every one of them, after which they go on.

use std::error::Error as AnyError;
use std::fmt::Debug;

use gpu_layer_norm::{Affine, GpuDevice, GpuMoments, GpuTensor, LayerNormConfig, StorageType, Variance};
use gpu_layer_norm_mpi::mpi::topology::SimpleCommunicator;
use gpu_layer_norm_mpi::mpi::traits::Communicator;
use gpu_layer_norm_mpi::{DataParallel, Error, Options, ShardedLayerNorm};

type Outcome = Result<(), Box<dyn AnyError>>;

/// That there is an error, with these words.
fn refused<T: Debug>(what: &str, result: Result<T, Error>, words: &[&str]) -> Result<Error, Box<dyn AnyError>> {
    let error = match result {
        Ok(value) => return Err(format!("{what} was not refused: {value:?}").into()),
        Err(error) => error,
    };
    let text = error.to_string();
    match words.iter().find(|words| !text.contains(**words)) {
        Some(words) => Err(format!("{what}: no word of \"{words}\" in: {text}").into()),
        None => Ok(error),
    }
}

/// That the ranks are told of a disagreement, with these values.
fn disagree<T: Debug>(what: &'static str, result: Result<T, Error>, words: &[&str]) -> Outcome {
    match refused(what, result, words)? {
        Error::Disagreement { what: of, found, .. } if of == what && found.len() > 1 => Ok(()),
        other => Err(format!("{what}: another error: {other}").into()),
    }
}

/// That `rank` has its own error, and the others are told of it.
fn told<T: Debug>(
    world: &SimpleCommunicator,
    rank: i32,
    what: &str,
    result: Result<T, Error>,
    words: &[&str],
) -> Outcome {
    match (refused(what, result, words)?, world.rank() == rank) {
        (Error::OtherRank { rank: other, .. }, false) if other == rank => Ok(()),
        (Error::OtherRank { .. }, _) => Err(format!("{what}: told of a wrong rank").into()),
        (_, true) => Ok(()),
        (other, false) => Err(format!("{what}: another error: {other}").into()),
    }
}

pub fn making(world: &SimpleCommunicator) -> Outcome {
    let device = GpuDevice::new()?;
    let rank = world.rank();
    let make =
        |config: LayerNormConfig, options: Options| ShardedLayerNorm::with_options(world, &device, &config, &options);
    let config = || LayerNormConfig::new(8);
    let options = Options::default();

    let other = if rank == 2 { config().eps(1e-6) } else { config() };
    disagree("eps", make(other, options.clone()), &["1e-5 on ranks 0, 1, 3", "1e-6 on rank 2", "same on every rank"])?;
    let other = if rank == 0 { LayerNormConfig::rms(8) } else { config() };
    let words = ["RMS normalization on rank 0", "layer normalization on ranks 1 to 3"];
    disagree("kind of normalization", make(other, options.clone()), &words)?;
    let other = if rank == 3 { config().variance(Variance::Unbiased) } else { config() };
    disagree("kind of variance", make(other, options.clone()), &["unbiased on rank 3"])?;
    let other = if rank < 2 { config().affine(Affine::Weight) } else { config() };
    disagree("affine map", make(other, options.clone()), &["weight on ranks 0, 1", "weight and bias on ranks 2, 3"])?;
    let other = if rank == 1 { config().zero_centred_weight(true) } else { config() };
    disagree("kind of weight", make(other, options.clone()), &["zero-centred on rank 1"])?;
    let chunks = if rank == 1 { options.clone().rows_per_chunk(5) } else { options.clone() };
    disagree("rows of a chunk", make(config(), chunks), &["5 on rank 1", "the default on ranks 0, 2, 3"])?;

    // What one rank cannot make.
    let other = if rank == 1 { config().eps(-1.0) } else { config() };
    told(world, 1, "a negative eps", make(other, options.clone()), &["eps", "-1"])?;
    let other = if rank == 2 { config().causal(true) } else { config() };
    told(world, 2, "a causal layer", make(other, options.clone()), &["causal normalization cannot be sharded"])?;
    let config_of = |width: usize| LayerNormConfig::new(width).variance(Variance::Unbiased);
    let other = make(config_of(if rank == 0 { 1 } else { 8 }), options.clone());
    told(world, 0, "the unbiased variance of a shard of one element", other, &["unbiased"])?;
    let zero = if rank == 3 { options.clone().rows_per_chunk(0) } else { options.clone() };
    told(world, 3, "chunks of no rows", make(config(), zero), &["rows_per_chunk must be more than 0"])?;

    // What no rank can make, though each could its part.
    let error =
        refused("rows of nothing", make(LayerNormConfig::new(0), options.clone()), &["0 elements", "between 1 and"])?;
    if !matches!(error, Error::Width { width: 0, min: 1, .. }) {
        return Err(format!("another error: {error}").into());
    }

    // After all that, a layer.
    let layer = make(config(), options)?;
    let input = GpuTensor::zeros(&device, [3, 8])?;
    let (output, moments) = layer.forward(&input)?;
    let counts: Vec<u32> = moments.download()?.iter().map(|row| row.count).collect();
    let whole = 8 * u32::try_from(world.size())?;
    if counts != [whole; 3] || output.download()?.values().iter().any(|y| *y != 0.0) {
        return Err(format!("rows of zeros have become others, or of {counts:?} elements").into());
    }
    Ok(())
}

pub fn calling(world: &SimpleCommunicator) -> Outcome {
    let device = GpuDevice::new()?;
    let rank = world.rank();
    let options = Options::default().rows_per_chunk(2);
    let layer = ShardedLayerNorm::with_options(world, &device, &LayerNormConfig::new(6), &options)?;
    let zeros = |shape: &[usize]| GpuTensor::zeros(&device, shape);
    let input = zeros(&[5, 6])?;
    let (output, moments) = layer.forward(&input)?;

    let rows = if rank == 3 { zeros(&[9, 6])? } else { zeros(&[5, 6])? };
    let words = ["5 on ranks 0 to 2", "9 on rank 3", "same rows"];
    disagree("number of rows", layer.forward(&rows), &words)?;
    disagree("number of rows", layer.backward(&rows, &rows, &moments_of(&device, &rows)?), &words)?;
    let rows = if rank == 0 { zeros(&[0, 6])? } else { zeros(&[5, 6])? };
    disagree("number of rows", layer.forward(&rows), &["0 on rank 0"])?;

    let call = if rank == 1 {
        layer.backward(&input, &output, &moments).map(|_| ())
    } else {
        layer.forward(&input).map(|_| ())
    };
    disagree("operation", call, &["forward on ranks 0, 2, 3", "backward on rank 1", "same calls in the same order"])?;

    // The same number of rows, of another width.
    let shape = if rank == 2 { zeros(&[5, 7])? } else { zeros(&[5, 6])? };
    told(world, 2, "a shard of another width", layer.forward(&shape), &["[5, 7]"])?;
    let gradient = if rank == 0 { zeros(&[5, 5])? } else { zeros(&[5, 6])? };
    let words = ["output gradient has shape [5, 5], expected [5, 6]"];
    told(world, 0, "an output gradient of another shape", layer.backward(&input, &gradient, &moments), &words)?;
    let others = if rank == 1 { GpuMoments::zeros(&device, [4])? } else { moments.clone() };
    let words = ["moments has shape [4, 4], expected [5, 4]"];
    told(world, 1, "moments of other rows", layer.backward(&input, &output, &others), &words)?;
    let foreign = GpuTensor::zeros(&GpuDevice::new()?, [5, 6])?;
    let other = if rank == 3 { &foreign } else { &input };
    told(world, 3, "an input of another device", layer.forward(other), &["another GpuDevice"])?;

    // After all that, a call.
    let values: Vec<f32> = (0..30).map(|i| (i * i) as f32 + 100.0 * rank as f32).collect();
    let input = super::sample::upload(&device, &[5, 6], &values, StorageType::F32)?;
    let (_, moments) = layer.forward(&input)?;
    let first = moments.download()?[0];
    // By hand: 0 1 4 9 16 25 have mean 55/6, and rank r adds 100 r.
    let expected = 55.0 / 6.0 + 50.0 * f64::from(world.size() - 1);
    if (first.mean() - expected).abs() > 1e-5 {
        return Err(format!("mean {} in place of {expected}", first.mean()).into());
    }
    Ok(())
}

fn moments_of(device: &GpuDevice, input: &GpuTensor) -> Result<GpuMoments, gpu_layer_norm::Error> {
    GpuMoments::zeros(device, &input.shape()[..1])
}

pub fn adding_up(world: &SimpleCommunicator) -> Outcome {
    let device = GpuDevice::new()?;
    let rank = world.rank();
    let chunks = if rank == 2 { Options::default().elements_per_chunk(5) } else { Options::default() };
    let made = DataParallel::with_options(world, &device, &chunks);
    disagree("elements of a chunk", made, &["1048576 on ranks 0, 1, 3", "5 on rank 2"])?;

    let data_parallel = DataParallel::with_options(world, &device, &Options::default().elements_per_chunk(4))?;
    let ones =
        |shape: &[usize]| super::sample::upload(&device, shape, &vec![1.0; shape.iter().product()], StorageType::F32);
    let more = if rank == 1 { ones(&[12])? } else { ones(&[10])? };
    disagree("number of elements", data_parallel.all_reduce(&[&more]), &["10 on ranks 0, 2, 3", "12 on rank 1"])?;
    let (a, b) = if rank == 3 { (ones(&[4])?, ones(&[6])?) } else { (ones(&[6])?, ones(&[4])?) };
    disagree("shapes", data_parallel.all_reduce(&[&a, &b]), &["[6] [4] on ranks 0 to 2", "[4] [6] on rank 3"])?;
    // More shapes than a message tells of, and the last of them another one.
    let many: Vec<GpuTensor> = (0..60)
        .map(|i| {
            ones(if i < 58 {
                &[2, 2, 2]
            } else if (i == 58) == (rank == 1) {
                &[3]
            } else {
                &[5]
            })
        })
        .collect::<Result<_, _>>()?;
    let many: Vec<&GpuTensor> = many.iter().collect();
    disagree("shapes", data_parallel.all_reduce(&many), &["on ranks 0, 2, 3", "on rank 1", "digest"])?;
    let half = GpuTensor::zeros_as(&device, [10], StorageType::Bf16)?;
    let other = if rank == 0 { &half } else { &ones(&[10])? };
    told(world, 0, "tensors of bf16", data_parallel.all_reduce(&[other]), &["tensor 0", "must be f32"])?;

    let tensor = ones(&[10])?;
    data_parallel.all_reduce(&[&tensor])?;
    let expected = vec![world.size() as f32; 10];
    let found = tensor.download()?.into_values();
    if found == expected { Ok(()) } else { Err(format!("{found:?} in place of {expected:?}").into()) }
}
