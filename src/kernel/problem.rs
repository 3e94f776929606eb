use crate::Error;

/// The largest width (elements of one row): counts are exact in f32 up to here.
pub const MAX_WIDTH: u64 = 1 << 24;

/// The elementwise affine map that follows the normalization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Affine {
    /// y = x̂
    None,
    /// y = x̂ · weight
    Weight,
    /// y = x̂ · weight + bias
    #[default]
    WeightAndBias,
}

impl Affine {
    /// Whether there is a weight.
    pub const fn has_weight(self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether there is a bias.
    pub const fn has_bias(self) -> bool {
        matches!(self, Self::WeightAndBias)
    }
}

/// What the sum of squared deviations is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Variance {
    /// By n, as PyTorch's and ONNX's layer normalization do.
    #[default]
    Biased,
    /// By n − 1, as `torch.var` does by default. Needs a width of at least 2.
    Unbiased,
}

/// What is to be computed: `rows` × `width` f32 elements, contiguous, one mean and one variance a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    rows: u64,
    width: u32,
    affine: Affine,
    variance: Variance,
    eps: f32,
}

impl Problem {
    /// `rows` rows of `width` elements, no affine map, biased variance, eps 1e-5.
    ///
    /// # Errors
    /// [`Error::Width`] if `width` is 0 or above [`MAX_WIDTH`], [`Error::Size`] if the byte count does not fit 64 bits.
    pub fn new(rows: u64, width: u64) -> Result<Self, Error> {
        if width == 0 || width > MAX_WIDTH {
            return Err(Error::Width { width, max: MAX_WIDTH });
        }
        if rows.checked_mul(width * 4).is_none() {
            return Err(Error::Size { shape: vec![rows as usize, width as usize] });
        }
        Ok(Self { rows, width: width as u32, affine: Affine::None, variance: Variance::Biased, eps: 1e-5 })
    }

    /// With this affine map.
    #[must_use]
    pub fn affine(self, affine: Affine) -> Self {
        Self { affine, ..self }
    }

    /// With this kind of variance.
    ///
    /// # Errors
    /// [`Error::UnbiasedWidth`] for the unbiased variance of a single element.
    pub fn variance(self, variance: Variance) -> Result<Self, Error> {
        if variance == Variance::Unbiased && self.width < 2 {
            return Err(Error::UnbiasedWidth { width: u64::from(self.width) });
        }
        Ok(Self { variance, ..self })
    }

    /// With this eps.
    ///
    /// # Errors
    /// [`Error::Eps`] unless eps is finite and ≥ 0.
    pub fn eps(self, eps: f32) -> Result<Self, Error> {
        if !eps.is_finite() || eps < 0.0 {
            return Err(Error::Eps { eps });
        }
        // −0 becomes 0: the kernels read the bits.
        Ok(Self { eps: eps.abs(), ..self })
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Elements of a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The affine map.
    pub fn affine_kind(&self) -> Affine {
        self.affine
    }

    /// The kind of variance.
    pub fn variance_kind(&self) -> Variance {
        self.variance
    }

    /// What is added to the variance.
    pub fn eps_value(&self) -> f32 {
        self.eps
    }

    /// What the biased variance is multiplied by: 1, or n / (n − 1).
    pub fn variance_factor(&self) -> f32 {
        match self.variance {
            Variance::Biased => 1.0,
            Variance::Unbiased => (f64::from(self.width) / (f64::from(self.width) - 1.0)) as f32,
        }
    }

    /// Bytes of the input, and of the output.
    pub fn bytes(&self) -> u64 {
        self.rows * self.row_bytes()
    }

    pub(super) fn row_bytes(&self) -> u64 {
        u64::from(self.width) * 4
    }
}
