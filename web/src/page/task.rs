//! What the playground is asked to compute, read from its form.

use gpu_layer_norm::{Affine, Error, LayerNormConfig, Modulation, StorageType, Tensor, Variance};

use super::form::{Form, Refusal, Refusals};
use super::values::{Distribution, Stream, about, drawn};

/// The most elements that are taken, so that the f64 reference and the tables stay quick.
pub(super) const MAX_ELEMENTS: u32 = 65_536;

const STORAGE: [(&str, StorageType); 3] =
    [("f32", StorageType::F32), ("f16", StorageType::F16), ("bf16", StorageType::Bf16)];

/// A layer, what it is given, and its parameters.
pub(super) struct Task {
    pub config: LayerNormConfig,
    pub input: Tensor,
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
    pub condition: Option<Condition>,
}

/// Scale and shift, conditions × width.
pub(super) struct Condition {
    pub rows_per_condition: u64,
    pub scale: Tensor,
    pub shift: Tensor,
}

impl Task {
    /// A layer without parameters.
    pub(super) fn plain(config: LayerNormConfig, input: Tensor) -> Self {
        Self { config: config.affine(Affine::None).expect_nothing(), input, weight: None, bias: None, condition: None }
    }

    /// Elements of a row.
    pub(super) fn width(&self) -> usize {
        self.config.normalized_shape().iter().product()
    }

    /// Positions of a sequence, of which each is a row.
    pub(super) fn positions(&self) -> usize {
        leading(&self.config, self.input.shape()).last().copied().unwrap_or(1)
    }

    pub(super) fn read(form: &Form) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Refusals::default();
        let shape = refusals.gather(form.dimensions("shape"));
        let config = read_config(form, &mut refusals);
        let seed = refusals.gather(form.count("seed"));
        let source = refusals.gather(Source::read(form));
        let (Some(shape), Some(config), Some(seed), Some(source)) = (shape, config, seed, source) else {
            return Err(refusals.into_vec());
        };
        Self::of(form, config, shape, seed, source).map_err(|refusal| vec![refusal])
    }

    fn of(form: &Form, config: LayerNormConfig, shape: Vec<usize>, seed: u64, source: Source) -> Result<Self, Refusal> {
        let problem = config.problem(1).map_err(Refusal::of)?;
        let rows = config.rows(&shape).map_err(Refusal::of)?;
        let width = u64::from(problem.width());
        let elements = rows.checked_mul(width).ok_or_else(|| Refusal::of(Error::Size { shape: shape.clone() }))?;
        // Where there are no rows, a row may still be long.
        if elements.max(width) > u64::from(MAX_ELEMENTS) {
            let largest = elements.max(width);
            let message = format!("shape {shape:?} has {largest} elements; this page takes at most {MAX_ELEMENTS}");
            return Err(Refusal::at("shape", message));
        }
        let storage = |name: &str| form.choice(name, &STORAGE);
        let (input_storage, parameter_storage) = (storage("input_storage")?, storage("parameter_storage")?);
        let output_storage = storage("output_storage")?;
        let config = config.parameter_storage(parameter_storage).output_storage(output_storage);

        let input = source.values(elements as usize, seed);
        let input = Tensor::from_f32(shape, input).map_err(Refusal::of)?.to_storage(input_storage);
        let parameter = |name: &str, middle: f64, stream: Stream| {
            let values = match form.numbers(name)? {
                typed if !typed.is_empty() => typed,
                _ => about(middle, width as usize, seed, stream),
            };
            let tensor = Tensor::from_f32(config.normalized_shape(), values);
            Ok(tensor.map_err(|error| Refusal::at(name, error))?.to_storage(parameter_storage))
        };
        let affine = config.affine_kind();
        let weight = affine.has_weight().then(|| parameter("weight", 1.0, Stream::Weight)).transpose()?;
        let bias = affine.has_bias().then(|| parameter("bias", 0.0, Stream::Bias)).transpose()?;
        let condition = match form.choice("modulation", &MODULATIONS)? {
            Some(_) => {
                let rows_per_condition = match form.text("rows_per_condition").is_empty() {
                    true => of_a_sample(&config, input.shape()),
                    false => form.count("rows_per_condition")?,
                };
                problem.rows_per_condition(rows_per_condition).map_err(Refusal::of)?;
                let shape = [rows.div_ceil(rows_per_condition) as usize, width as usize];
                let tensor = |stream| {
                    let values = about(0.0, shape[0] * shape[1], seed, stream);
                    Ok(Tensor::from_f32(shape, values).map_err(Refusal::of)?.to_storage(parameter_storage))
                };
                Some(Condition { rows_per_condition, scale: tensor(Stream::Scale)?, shift: tensor(Stream::Shift)? })
            }
            None => None,
        };
        Ok(Self { config, input, weight, bias, condition })
    }
}

const MODULATIONS: [(&str, Option<Modulation>); 3] =
    [("none", None), ("adaptive", Some(Modulation::Adaptive)), ("conditional", Some(Modulation::Conditional))];

fn read_config(form: &Form, refusals: &mut Refusals) -> Option<LayerNormConfig> {
    let normalized_shape = refusals.gather(form.dimensions("normalized_shape"));
    let is_rms = refusals.gather(form.choice("norm", &[("layer", false), ("rms", true)]));
    let eps = refusals.gather(form.f32("eps"));
    let affines = [("none", Affine::None), ("weight", Affine::Weight), ("weight_and_bias", Affine::WeightAndBias)];
    let affine = refusals.gather(form.choice("affine", &affines));
    let variances = [("biased", Variance::Biased), ("unbiased", Variance::Unbiased)];
    let variance = refusals.gather(form.choice("variance", &variances));
    let modulation = refusals.gather(form.choice("modulation", &MODULATIONS));
    let config = match is_rms? {
        true => LayerNormConfig::rms(normalized_shape?),
        false => LayerNormConfig::new(normalized_shape?),
    };
    let config = config.eps(eps?).affine(affine?).variance(variance?).causal(form.is_ticked("causal"));
    Some(config.modulation(modulation?.unwrap_or_default()).expect_nothing())
}

/// Where the input's values come from.
enum Source {
    Typed(Vec<f32>),
    Drawn { distribution: Distribution, mean: f64, deviation: f64 },
}

impl Source {
    fn read(form: &Form) -> Result<Self, Refusal> {
        Ok(match form.choice("source", &[("typed", true), ("drawn", false)])? {
            true => Self::Typed(form.numbers("values")?),
            false => Self::Drawn {
                distribution: form.choice("distribution", &Distribution::CHOICES)?,
                mean: form.finite("mean")?,
                deviation: form.finite("deviation")?,
            },
        })
    }

    fn values(self, count: usize, seed: u64) -> Vec<f32> {
        match self {
            Self::Typed(values) => values,
            Self::Drawn { distribution, mean, deviation } => {
                drawn(distribution, mean, deviation, count, seed, Stream::Input)
            }
        }
    }
}

/// The dimensions before the normalized ones.
fn leading<'a>(config: &LayerNormConfig, shape: &'a [usize]) -> &'a [usize] {
    shape.strip_suffix(config.normalized_shape()).unwrap_or_default()
}

/// Rows of a sample, the first dimension being that of samples.
fn of_a_sample(config: &LayerNormConfig, shape: &[usize]) -> u64 {
    leading(config, shape).iter().skip(1).map(|&size| size as u64).product::<u64>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: [(&str, &str); 16] = [
        ("shape", "2, 3, 4"),
        ("normalized_shape", "4"),
        ("norm", "layer"),
        ("eps", "1e-5"),
        ("affine", "weight_and_bias"),
        ("variance", "biased"),
        ("modulation", "none"),
        ("input_storage", "f32"),
        ("parameter_storage", "f32"),
        ("output_storage", "f32"),
        ("source", "drawn"),
        ("distribution", "normal"),
        ("mean", "0"),
        ("deviation", "1"),
        ("seed", "1"),
        ("values", ""),
    ];

    fn read(changes: &[(&'static str, &'static str)]) -> Result<Task, Vec<Refusal>> {
        // The last of a name counts.
        let mut fields = [("", ""); 24];
        fields[..16].copy_from_slice(&DEFAULTS);
        fields[16..16 + changes.len()].copy_from_slice(changes);
        Task::read(&Form::from(fields))
    }

    #[test]
    fn a_form_becomes_a_task() {
        let task = read(&[("modulation", "adaptive"), ("input_storage", "bf16"), ("causal", "on")]).unwrap();
        assert_eq!((task.width(), task.positions()), (4, 3));
        assert_eq!(task.input.storage(), StorageType::Bf16);
        assert!(task.config.is_causal());
        let condition = task.condition.unwrap();
        assert_eq!(condition.rows_per_condition, 3);
        assert_eq!(condition.scale.shape(), [2, 4]);
    }

    #[test]
    fn a_mistake_is_told_at_its_field_in_the_words_of_the_crate() {
        let shape_mismatch = Error::ShapeMismatch { normalized_shape: vec![5], shape: vec![2, 3, 4] };
        let count = Error::ValueCount { shape: vec![2, 3, 4], expected: 24, actual: 2 };
        let cases: [(&[_], &str, Error); 7] = [
            (&[("normalized_shape", "5")], "normalized_shape", shape_mismatch),
            (&[("normalized_shape", "")], "normalized_shape", Error::NormalizedShape { normalized_shape: vec![] }),
            (&[("eps", "-1")], "eps", Error::Eps { eps: -1.0 }),
            (&[("source", "typed"), ("values", "1 2")], "values", count),
            (&[("weight", "1 2 3")], "weight", Error::ValueCount { shape: vec![4], expected: 4, actual: 3 }),
            (
                &[("modulation", "adaptive"), ("rows_per_condition", "0")],
                "rows_per_condition",
                Error::RowsPerCondition { rows_per_condition: 0 },
            ),
            (
                &[("shape", "2,1"), ("normalized_shape", "1"), ("variance", "unbiased")],
                "variance",
                Error::UnbiasedWidth { width: 1 },
            ),
        ];
        for (changes, field, error) in cases {
            let Err(refusals) = read(changes) else { panic!("{changes:?} is taken") };
            assert_eq!(refusals, [Refusal::at(field, error)]);
        }
    }

    #[test]
    fn every_field_that_cannot_be_read_is_told_at_once() {
        let Err(refusals) = read(&[("shape", "two"), ("eps", "small"), ("seed", "-1")]) else { panic!("it is taken") };
        assert_eq!(refusals.iter().map(|refusal| &*refusal.field).collect::<Vec<_>>(), ["shape", "eps", "seed"]);
    }

    #[test]
    fn too_many_elements_are_refused_before_any_is_made() {
        for shape in ["4000000000, 4000000000, 4000000000, 4", "65536, 4", "0, 4000000000"] {
            let normalized_shape = shape.rsplit(", ").next().unwrap();
            assert!(read(&[("shape", shape), ("normalized_shape", normalized_shape)]).is_err(), "{shape}");
        }
        assert!(read(&[("shape", "16384, 4")]).is_ok());
        assert!(read(&[("shape", "0, 4")]).is_ok());
    }
}
