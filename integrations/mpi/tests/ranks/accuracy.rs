//! Outputs and gradients of sharded rows against the f64 reference of whole ones.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use gpu_layer_norm::reference::{
    layer_norm, layer_norm_backward, rms_norm, rms_norm_backward, root_mean_square_rstd, row_statistics,
};
use gpu_layer_norm::{Affine, GpuDevice, GpuLayerNorm, LayerNormConfig, Normalization, StorageType, Tensor, Variance};
use gpu_layer_norm_mpi::mpi::topology::SimpleCommunicator;
use gpu_layer_norm_mpi::mpi::traits::{Communicator, CommunicatorCollectives};
use gpu_layer_norm_mpi::{Options, ShardedLayerNorm, local_device};

use super::sample::{Worst, columns, even, noise, rounded, rounding, uneven, upload};

/// What rows are like.
#[derive(Clone, Copy, Debug)]
enum Rows {
    Mean(f64),
    /// Deviations of this size, and means of twice that.
    Magnitude(f64),
    /// All elements of a row the same, each row of another value.
    Constant,
    /// A NaN in the last element of every other row.
    Nan,
}

impl Rows {
    fn value(self, row: u64, column: u64, width: u64) -> f32 {
        let noise = noise(1, row, column);
        let value = match self {
            Self::Mean(mean) => mean + noise,
            Self::Magnitude(scale) => scale * (2.0 + noise),
            Self::Constant => 0.1 * (1.0 + row as f64) * 10.0_f64.powi(row as i32 % 5),
            Self::Nan if column + 1 == width && row.is_multiple_of(2) => f64::NAN,
            Self::Nan => 3.0 + noise,
        };
        value as f32
    }
}

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    width: usize,
    like: Rows,
    config: LayerNormConfig,
    storage: StorageType,
    shards: fn(usize, usize, usize) -> Range<usize>,
    options: Options,
}

impl Case {
    /// Layer normalization with weight and bias of f32, about 1e6, in one chunk of shards of the same width.
    fn new(rows: usize, width: usize) -> Self {
        Self {
            rows,
            width,
            like: Rows::Mean(1e6),
            config: LayerNormConfig::new(width),
            storage: StorageType::F32,
            shards: even,
            options: Options::default(),
        }
    }

    fn chunks(self, rows: u64) -> Self {
        Self { options: self.options.rows_per_chunk(rows), ..self }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        // Fewer features than ranks: one has none.
        Case::new(5, 3).chunks(2),
        Case::new(1, 4),
        Case::new(0, 768),
        Case { shards: uneven, ..Case::new(37, 768).chunks(10) },
        // Shards in several parts, of odd widths.
        Case { options: Options::default().widest_part(100).rows_per_chunk(4), shards: uneven, ..Case::new(9, 1001) },
        Case::new(600, 64).chunks(7),
        Case::new(3, 65_536),
        Case { options: Options::default().widest_part(1 << 18).rows_per_chunk(1), ..Case::new(2, 1 << 22) },
    ];
    let case = |config: LayerNormConfig| Case { config, ..Case::new(6, 130).chunks(4) };
    cases.extend([
        Case { like: Rows::Mean(-0.5), ..case(LayerNormConfig::rms(130)) },
        Case {
            like: Rows::Mean(-0.5),
            ..case(LayerNormConfig::rms(130).zero_centred_weight(true).affine(Affine::WeightAndBias))
        },
        case(LayerNormConfig::new(130).variance(Variance::Unbiased).eps(1e-12)),
        case(LayerNormConfig::new(130).affine(Affine::None).eps(1e-3)),
        case(LayerNormConfig::new(130).affine(Affine::Weight)),
        Case { like: Rows::Constant, ..case(LayerNormConfig::new(130)) },
        Case { like: Rows::Nan, ..case(LayerNormConfig::new(130)) },
    ]);
    for scale in [1e-25, 1e-3, 1e18, 1e36] {
        cases.push(Case { like: Rows::Magnitude(scale), ..case(LayerNormConfig::new(130).eps(0.0)) });
        cases.push(Case { like: Rows::Magnitude(scale), ..case(LayerNormConfig::rms(130).eps(0.0)) });
    }
    for storage in [StorageType::F16, StorageType::Bf16] {
        let config = LayerNormConfig::new(769).parameter_storage(storage);
        let like = Rows::Mean(3.0);
        // Rows and parts of rows that share a word.
        for widest in [u64::MAX, 200, 101] {
            let (config, options) = (config.clone(), Options::default().widest_part(widest).rows_per_chunk(4));
            cases.push(Case { storage, like, config, options, shards: uneven, ..Case::new(11, 769) });
        }
    }
    cases
}

/// Of one rank.
struct Rank {
    rank: usize,
    ranks: usize,
    device: GpuDevice,
}

impl Rank {
    fn new(world: &SimpleCommunicator) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            rank: usize::try_from(world.rank())?,
            ranks: usize::try_from(world.size())?,
            device: local_device(world)?,
        })
    }
}

/// What whole rows have.
struct Whole {
    input: Vec<f32>,
    output_gradient: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    columns: Range<usize>,
}

impl Whole {
    fn new(case: &Case, rank: &Rank) -> Result<Self, Box<dyn Error>> {
        let (rows, width) = (case.rows as u64, case.width as u64);
        let all = |of: &dyn Fn(u64, u64) -> f32| -> Vec<f32> {
            (0..rows).flat_map(|row| (0..width).map(move |column| of(row, column))).collect()
        };
        let parameters = case.config.parameter_storage_type();
        let one = |of: &dyn Fn(u64) -> f64| rounded((0..width).map(|column| of(column) as f32).collect(), parameters);
        let centre = if case.config.has_zero_centred_weight() { 0.0 } else { 1.0 };
        Ok(Self {
            input: rounded(all(&|row, column| case.like.value(row, column, width)), case.storage)?,
            output_gradient: rounded(all(&|row, column| (0.3 + noise(2, row, column)) as f32), case.storage)?,
            weight: one(&|column| centre + 0.3 * noise(3, 0, column))?,
            bias: one(&|column| 0.2 * noise(4, 0, column))?,
            columns: (case.shards)(case.width, rank.rank, rank.ranks),
        })
    }

    /// The weight by which x̂ is multiplied, and the bias; 1 and 0 where the layer has none.
    fn affine(&self, config: &LayerNormConfig) -> (Vec<f32>, Vec<f32>) {
        let affine = config.affine_kind();
        let centre = if config.has_zero_centred_weight() { 1.0 } else { 0.0 };
        let weight = self.weight.iter().map(|w| if affine.has_weight() { centre + w } else { 1.0 });
        let bias = self.bias.iter().map(|b| if affine.has_bias() { *b } else { 0.0 });
        (weight.collect(), bias.collect())
    }
}

pub fn every_case(world: &SimpleCommunicator) -> Result<(), Box<dyn Error>> {
    let rank = Rank::new(world)?;
    for case in cases() {
        let what = format!("{case:?}");
        one_case(world, &rank, &case).map_err(|error| format!("{what}: {error}"))?;
    }
    Ok(())
}

fn layer(
    world: &SimpleCommunicator,
    rank: &Rank,
    case: &Case,
    whole: &Whole,
) -> Result<ShardedLayerNorm, Box<dyn Error>> {
    let shard = whole.columns.len();
    let config = match case.config.normalization_kind() {
        Normalization::RmsNorm => LayerNormConfig::rms(shard),
        _ => LayerNormConfig::new(shard),
    };
    let config = config
        .eps(case.config.eps_value())
        .affine(case.config.affine_kind())
        .variance(case.config.variance_kind())
        .zero_centred_weight(case.config.has_zero_centred_weight())
        .parameter_storage(case.config.parameter_storage_type());
    let layer = ShardedLayerNorm::with_options(world, &rank.device, &config, &case.options)?;
    if layer.row_width() != case.width as u64 {
        return Err(format!("rows of {} elements", layer.row_width()).into());
    }
    if config.affine_kind().has_weight() {
        layer.set_weight(&Tensor::from_f32([shard], &whole.weight[whole.columns.clone()])?)?;
    }
    if config.affine_kind().has_bias() {
        layer.set_bias(&Tensor::from_f32([shard], &whole.bias[whole.columns.clone()])?)?;
    }
    Ok(layer)
}

fn one_case(world: &SimpleCommunicator, rank: &Rank, case: &Case) -> Result<(), Box<dyn Error>> {
    let whole = Whole::new(case, rank)?;
    let layer = layer(world, rank, case, &whole)?;
    let shape = [case.rows, whole.columns.len()];
    let shard = |values: &[f32]| columns(values, case.width, &whole.columns);
    let input = upload(&rank.device, &shape, &shard(&whole.input), case.storage)?;
    let output_gradient = upload(&rank.device, &shape, &shard(&whole.output_gradient), case.storage)?;

    let (output, moments) = layer.forward(&input)?;
    let output = output.download()?.into_values();
    forward_error(case, &whole, &output)?.check("output")?;

    // The same on every rank, and every time.
    let found = moments.download()?;
    let again = layer.forward(&input)?.1.download()?;
    let digest = |moments: &[gpu_layer_norm::RowMoments]| {
        let mut hasher = DefaultHasher::new();
        // NaN has many forms.
        let words = moments.iter().flat_map(|it| [it.mean, it.mean_rest, it.deviation]);
        let bits = |word: f32| if word.is_nan() { f32::NAN.to_bits() } else { word.to_bits() };
        words.map(bits).for_each(|bits| bits.hash(&mut hasher));
        moments.iter().for_each(|it| it.count.hash(&mut hasher));
        hasher.finish()
    };
    let mut digests = vec![0_u64; rank.ranks];
    world.all_gather_into(&digest(&found), &mut digests[..]);
    if digests.iter().any(|other| *other != digests[0]) || digest(&again) != digests[0] {
        return Err(format!("the moments have other bits on other ranks, or at another time: {digests:?}").into());
    }

    let gradients = layer.backward(&input, &output_gradient, &moments)?;
    let values = |tensor: Option<&gpu_layer_norm::GpuTensor>| {
        tensor.map(|it| it.download().map(Tensor::into_values)).transpose()
    };
    let (weight, bias) = (values(gradients.weight.as_ref())?, values(gradients.bias.as_ref())?);
    let affine = case.config.affine_kind();
    if (weight.is_some(), bias.is_some()) != (affine.has_weight(), affine.has_bias()) {
        return Err("gradients of parameters that are not there, or none of those that are".into());
    }
    let input_gradient = gradients.input.download()?.into_values();
    let chunks = (case.rows as u64).div_ceil(layer.rows_per_chunk(case.rows as u64));
    backward_errors(case, &whole, chunks, &input_gradient, weight.as_deref(), bias.as_deref())
}

/// x̂ may be off by 2e-6 · max(1, |x̂| / 4); what follows rounds a few times.
fn forward_error(case: &Case, whole: &Whole, output: &[f32]) -> Result<Worst, Box<dyn Error>> {
    let (weight, bias) = whole.affine(&case.config);
    let (eps, width) = (f64::from(case.config.eps_value()), case.width);
    let is_rms = case.config.normalization_kind() == Normalization::RmsNorm;
    let unbiased = case.config.variance_kind() == Variance::Unbiased;
    let normalized = if is_rms {
        rms_norm(&whole.input, width, None, None, eps)
    } else {
        layer_norm(&whole.input, width, None, None, eps, unbiased)
    };
    let mut worst = Worst::default();
    let own = normalized.chunks_exact(width).flat_map(|row| whole.columns.clone().map(|column| (column, row[column])));
    let mut compared = 0;
    for ((column, x), y) in own.zip(output) {
        let (w, b) = (f64::from(weight[column]), f64::from(bias[column]));
        let expected = x * w + b;
        let arithmetic = 2.0_f64.powi(-23) * (3.0 * (x * w).abs() + 2.0 * b.abs() + expected.abs());
        let bound = 2e-6 * (x.abs() / 4.0).max(1.0) * w.abs() + arithmetic + rounding(case.storage, expected);
        // A constant row gives exactly the bias.
        let bound = if matches!(case.like, Rows::Constant) { rounding(case.storage, 0.0) } else { bound };
        worst.see(f64::from(*y), expected, bound);
        compared += 1;
    }
    if compared != output.len() || compared != case.rows * whole.columns.len() {
        return Err(format!("{compared} of {} elements compared", output.len()).into());
    }
    Ok(worst)
}

/// dx within 4e-6 of the largest |dx| of its row, or of rstd · max|g|. The sums over rows within what `GpuLayerNorm::backward` says, but for x̂,
/// which may be off by 2e-6 here, and for the chunks, each of which is one more term.
fn backward_errors(
    case: &Case,
    whole: &Whole,
    chunks: u64,
    input_gradient: &[f32],
    weight_gradient: Option<&[f32]>,
    bias_gradient: Option<&[f32]>,
) -> Result<(), Box<dyn Error>> {
    let (weight, _) = whole.affine(&case.config);
    let (eps, width) = (f64::from(case.config.eps_value()), case.width);
    let is_rms = case.config.normalization_kind() == Normalization::RmsNorm;
    let unbiased = case.config.variance_kind() == Variance::Unbiased;
    if case.rows == 0 {
        let zero = |values: Option<&[f32]>| values.is_none_or(|values| values.iter().all(|value| *value == 0.0));
        let all_zero = zero(weight_gradient) && zero(bias_gradient) && input_gradient.is_empty();
        return if all_zero { Ok(()) } else { Err("gradients of no rows are not 0".into()) };
    }
    let (expected, normalized) = if is_rms {
        let gradients = rms_norm_backward(&whole.input, &whole.output_gradient, width, Some(&weight), eps);
        (gradients, rms_norm(&whole.input, width, None, None, eps))
    } else {
        let gradients = layer_norm_backward(&whole.input, &whole.output_gradient, width, Some(&weight), eps, unbiased);
        (gradients, layer_norm(&whole.input, width, None, None, eps, unbiased))
    };
    let own = whole.columns.clone();
    let mut worst = Worst::default();
    let rows = whole.input.chunks_exact(width).zip(whole.output_gradient.chunks_exact(width));
    let expected_rows = expected.input.chunks_exact(width);
    if !own.is_empty() {
        for (((x, dy), expected), actual) in rows.zip(expected_rows).zip(input_gradient.chunks_exact(own.len())) {
            let rstd = if is_rms { root_mean_square_rstd(x, eps) } else { row_statistics(x, eps, unbiased).rstd };
            let g = dy.iter().zip(&weight).fold(0.0_f64, |most, (dy, w)| most.max(f64::from(dy * w).abs()));
            let largest = expected.iter().fold(rstd * g, |most, dx| most.max(dx.abs()));
            for (actual, column) in actual.iter().zip(own.clone()) {
                let bound = 4e-6 * largest + rounding(case.storage, expected[column]) + 1e-44;
                worst.see(f64::from(*actual), expected[column], bound);
            }
        }
    }
    worst.check("dx")?;

    let c = 2e-6 + 3e-8 * (case.rows.min(512) as f64 + chunks as f64);
    let (mut of_weight, mut of_bias) = (Worst::default(), Worst::default());
    for (i, column) in own.enumerate() {
        let dy = |row: usize| f64::from(whole.output_gradient[row * width + column]).abs();
        let sum: f64 = (0..case.rows).map(dy).sum();
        let weighted: f64 =
            (0..case.rows).map(|row| dy(row) * (normalized[row * width + column].abs() / 4.0).max(1.0)).sum();
        if let Some(actual) = weight_gradient {
            of_weight.see(f64::from(actual[i]), expected.weight[column], c * weighted);
        }
        if let Some(actual) = bias_gradient {
            of_bias.see(f64::from(actual[i]), expected.bias[column], c * sum);
        }
    }
    of_weight.check("dweight")?;
    of_bias.check("dbias")?;
    Ok(())
}

/// The comparison is one that can fail: what each rank makes of its shard alone is far from what whole rows have.
pub fn shards_alone(world: &SimpleCommunicator) -> Result<(), Box<dyn Error>> {
    let rank = Rank::new(world)?;
    for like in [Rows::Mean(0.0), Rows::Mean(1e6)] {
        let case = Case { like, ..Case::new(8, 768) };
        let whole = Whole::new(&case, &rank)?;
        let shard = whole.columns.len();
        let alone = GpuLayerNorm::new(&rank.device, &LayerNormConfig::new(shard))?;
        alone.set_weight(&Tensor::from_f32([shard], &whole.weight[whole.columns.clone()])?)?;
        alone.set_bias(&Tensor::from_f32([shard], &whole.bias[whole.columns.clone()])?)?;
        let input = Tensor::from_f32([case.rows, shard], columns(&whole.input, case.width, &whole.columns))?;
        let worst = forward_error(&case, &whole, &alone.run(&rank.device, &input)?.into_values())?;
        if worst.share < 100.0 {
            return Err(format!("{like:?}: shards alone are only {:.2} times what is allowed off", worst.share).into());
        }
    }
    Ok(())
}
