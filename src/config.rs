use crate::kernel::{Affine, MAX_WIDTH, Problem, Strategy, Variance};
use crate::tensor::product;
use crate::{Error, MAX_RANK};

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
/// # let _ = (bert, whole_sequence, second_source);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormConfig {
    normalized_shape: NormalizedShape,
    eps: f32,
    affine: Affine,
    variance: Variance,
    strategy: Option<Strategy>,
}

impl LayerNormConfig {
    /// Normalization over the trailing dimensions `normalized_shape`, eps 1e-5, weight and bias, biased variance.
    pub fn new(normalized_shape: impl Into<NormalizedShape>) -> Self {
        Self {
            normalized_shape: normalized_shape.into(),
            eps: 1e-5,
            affine: Affine::default(),
            variance: Variance::default(),
            strategy: None,
        }
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

    /// Forces a strategy in place of the planner's choice.
    #[must_use]
    pub fn strategy(self, strategy: Strategy) -> Self {
        Self { strategy: Some(strategy), ..self }
    }

    /// The trailing dimensions.
    pub fn normalized_shape(&self) -> &[usize] {
        self.normalized_shape.dimensions()
    }

    /// The affine map.
    pub fn affine_kind(&self) -> Affine {
        self.affine
    }

    /// The forced strategy.
    pub fn forced_strategy(&self) -> Option<Strategy> {
        self.strategy
    }

    /// The problem that this layer poses for so many rows.
    ///
    /// # Errors
    /// [`Error::NormalizedShape`], [`Error::Rank`], [`Error::Width`], [`Error::Eps`], [`Error::UnbiasedWidth`],
    /// [`Error::Size`].
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
        Problem::new(rows, width)?.affine(self.affine).variance(self.variance)?.eps(self.eps)
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
