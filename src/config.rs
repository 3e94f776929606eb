use crate::kernel::{Affine, MAX_WIDTH, Modulation, Normalization, Problem, Strategy, Variance};
use crate::tensor::product;
use crate::{Error, MAX_RANK, StorageType};

/// The trailing dimensions that share one mean and one variance: an integer or a list, as in PyTorch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NormalizedShape(Vec<usize>);

impl NormalizedShape {
    /// The dimensions.
    pub fn dimensions(&self) -> &[usize] {
        &self.0
    }
}

impl From<usize> for NormalizedShape {
    fn from(width: usize) -> Self {
        Self(vec![width])
    }
}

impl<const N: usize> From<[usize; N]> for NormalizedShape {
    fn from(dimensions: [usize; N]) -> Self {
        Self(dimensions.to_vec())
    }
}

impl From<&[usize]> for NormalizedShape {
    fn from(dimensions: &[usize]) -> Self {
        Self(dimensions.to_vec())
    }
}

impl From<Vec<usize>> for NormalizedShape {
    fn from(dimensions: Vec<usize>) -> Self {
        Self(dimensions)
    }
}

/// What a layer computes. Checked when the layer is made.
///
/// ```
/// use gpu_layer_norm::{Affine, LayerNormConfig, Variance};
///
/// let bert = LayerNormConfig::new(768).eps(1e-12);
/// let whole_sequence = LayerNormConfig::new([128, 768]).affine(Affine::None);
/// let second_source = LayerNormConfig::new(10).variance(Variance::Unbiased).eps(1e-12);
/// let llama = LayerNormConfig::rms(4096).affine(Affine::Weight).eps(1e-6);
/// let gemma = LayerNormConfig::rms(2048).affine(Affine::Weight).eps(1e-6).zero_centred_weight(true);
/// # let _ = (bert, whole_sequence, second_source, llama, gemma);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormConfig {
    normalized_shape: NormalizedShape,
    eps: f32,
    affine: Affine,
    variance: Variance,
    normalization: Normalization,
    zero_centred_weight: bool,
    modulation: Modulation,
    causal: bool,
    parameter_storage: StorageType,
    output_storage: Option<StorageType>,
    strategy: Option<Strategy>,
    expected_input: Option<(u64, StorageType)>,
}

impl LayerNormConfig {
    /// Normalization over the trailing dimensions `normalized_shape`, eps 1e-5, weight and bias, biased variance.
    pub fn new(normalized_shape: impl Into<NormalizedShape>) -> Self {
        Self {
            normalized_shape: normalized_shape.into(),
            eps: 1e-5,
            affine: Affine::default(),
            variance: Variance::default(),
            normalization: Normalization::default(),
            zero_centred_weight: false,
            modulation: Modulation::default(),
            causal: false,
            parameter_storage: StorageType::default(),
            output_storage: None,
            strategy: None,
            expected_input: None,
        }
    }

    /// RMS normalization over the trailing dimensions `normalized_shape`: y = x / sqrt(mean(x²) + eps) · weight, eps 1e-5. A
    /// bias may be had by [`affine`](Self::affine).
    pub fn rms(normalized_shape: impl Into<NormalizedShape>) -> Self {
        Self { normalization: Normalization::RmsNorm, affine: Affine::Weight, ..Self::new(normalized_shape) }
    }

    /// What is added to the variance: any finite number ≥ 0.
    #[must_use]
    pub fn eps(self, eps: f32) -> Self {
        Self { eps, ..self }
    }

    /// Which of weight and bias the layer has; PyTorch's `elementwise_affine` and `bias`.
    #[must_use]
    pub fn affine(self, affine: Affine) -> Self {
        Self { affine, ..self }
    }

    /// Whether the variance divides by n (biased, the default) or by n − 1.
    #[must_use]
    pub fn variance(self, variance: Variance) -> Self {
        Self { variance, ..self }
    }

    /// Whether the weight is stored as its difference from 1, y = x̂ · (1 + weight) + bias; it then begins as 0.
    #[must_use]
    pub fn zero_centred_weight(self, zero_centred_weight: bool) -> Self {
        Self { zero_centred_weight, ..self }
    }

    /// How scale and shift, where a call has them ([`Bindings::scale`](crate::Bindings::scale)), go together with weight and bias.
    /// Default: [`Modulation::Adaptive`].
    #[must_use]
    pub fn modulation(self, modulation: Modulation) -> Self {
        Self { modulation, ..self }
    }

    /// Whether the last dimension before the normalized ones is one of positions, each of which is normalized with the mean and variance
    /// of all elements of its own position and those before it, and of none after it: cumulative layer normalization (Luo and
    /// Mesgarani, "Conv-TasNet", 2019). Weight and bias stay of the normalized shape. An input of shape `[batch, length, d_model]` with
    /// `LayerNormConfig::new(d_model).causal(true)` has `batch` sequences of `length` positions.
    /// [`Bindings::state`](crate::Bindings::state) goes on with a sequence in a later call.
    ///
    /// This is what `LayerNormConfig::new([length, d_model])` is sometimes taken for, which lets every position see all those after it
    /// (see [`LayerNormConfig`]). [`Dependence`](crate::Dependence) shows the difference.
    #[must_use]
    pub fn causal(self, causal: bool) -> Self {
        Self { causal, ..self }
    }

    /// What weight and bias are in memory. Default: f32.
    #[must_use]
    pub fn parameter_storage(self, storage: StorageType) -> Self {
        Self { parameter_storage: storage, ..self }
    }

    /// What the output of `run` and `forward` is in memory. Default: what the input is.
    #[must_use]
    pub fn output_storage(self, storage: StorageType) -> Self {
        Self { output_storage: Some(storage), ..self }
    }

    /// Forces a strategy in place of the planner's choice, in the forward and in the backward pass. The latter holds no rows in part:
    /// where that is forced, it is planned freely.
    #[must_use]
    pub fn strategy(self, strategy: Strategy) -> Self {
        Self { strategy: Some(strategy), ..self }
    }

    /// The input to expect: the pipelines for such ones are made with the layer, those for others when they are first needed.
    /// Default: so many rows of f32 that they fill the device. [`expect_nothing`](Self::expect_nothing) makes none.
    #[must_use]
    pub fn expect_input(self, rows: u64, storage: StorageType) -> Self {
        Self { expected_input: Some((rows, storage)), ..self }
    }

    /// No pipeline is made with the layer, all of them when they are first needed.
    #[must_use]
    pub fn expect_nothing(self) -> Self {
        self.expect_input(0, StorageType::F32)
    }

    /// The trailing dimensions.
    pub fn normalized_shape(&self) -> &[usize] {
        self.normalized_shape.dimensions()
    }

    /// The normalization.
    pub fn normalization_kind(&self) -> Normalization {
        self.normalization
    }

    /// What is added to the variance.
    pub fn eps_value(&self) -> f32 {
        self.eps
    }

    /// The kind of variance.
    pub fn variance_kind(&self) -> Variance {
        self.variance
    }

    /// The affine map.
    pub fn affine_kind(&self) -> Affine {
        self.affine
    }

    /// Whether the weight is stored as its difference from 1.
    pub fn has_zero_centred_weight(&self) -> bool {
        self.zero_centred_weight
    }

    /// How scale and shift go together with weight and bias.
    pub fn modulation_kind(&self) -> Modulation {
        self.modulation
    }

    /// Whether positions are normalized with what came before them.
    pub fn is_causal(&self) -> bool {
        self.causal
    }

    /// What weight and bias are in memory.
    pub fn parameter_storage_type(&self) -> StorageType {
        self.parameter_storage
    }

    /// What the output is in memory, for an input that is this.
    pub fn output_storage_type(&self, input: StorageType) -> StorageType {
        self.output_storage.unwrap_or(input)
    }

    /// The forced strategy.
    pub fn forced_strategy(&self) -> Option<Strategy> {
        self.strategy
    }

    /// Rows and storage type of the input to expect; `None` for the default.
    pub fn expected_input(&self) -> Option<(u64, StorageType)> {
        self.expected_input
    }

    /// The problem that this layer poses for so many rows of f32. [`Problem::tensor`] says where tensors lie.
    ///
    /// # Errors
    /// [`Error::NormalizedShape`], [`Error::Rank`], [`Error::Width`], [`Error::Eps`], [`Error::UnbiasedWidth`],
    /// [`Error::RmsNorm`], [`Error::Size`].
    pub fn problem(&self, rows: u64) -> Result<Problem, Error> {
        let dimensions = self.normalized_shape.dimensions();
        if dimensions.is_empty() || dimensions.contains(&0) {
            return Err(Error::NormalizedShape { normalized_shape: dimensions.to_vec() });
        }
        if dimensions.len() > MAX_RANK {
            return Err(Error::Rank { shape: dimensions.to_vec(), max: MAX_RANK });
        }
        let width = product(dimensions).unwrap_or(u64::MAX);
        if width > MAX_WIDTH {
            return Err(Error::Width { width, max: MAX_WIDTH });
        }
        let mut problem = Problem::new(rows, width)?
            .affine(self.affine)
            .zero_centred_weight(self.zero_centred_weight)
            .modulation(self.modulation)
            .variance(self.variance)?
            .eps(self.eps)?
            .normalization(self.normalization)?;
        for &role in self.affine.parameters() {
            problem = problem.tensor(role, self.parameter_storage)?;
        }
        // One sequence, until a shape says more.
        if self.causal { problem.causal(rows.max(1)) } else { Ok(problem) }
    }

    /// The number of rows that an input of this shape has.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the shape ends with the normalized shape, [`Error::Size`] if the number does not
    /// fit 64 bits.
    pub fn rows(&self, shape: &[usize]) -> Result<u64, Error> {
        let Some(leading) = shape.strip_suffix(self.normalized_shape.dimensions()) else {
            return Err(Error::ShapeMismatch {
                normalized_shape: self.normalized_shape.dimensions().to_vec(),
                shape: shape.to_vec(),
            });
        };
        product(leading).ok_or_else(|| Error::Size { shape: shape.to_vec() })
    }
}
