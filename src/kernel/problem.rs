use std::fmt;

use super::Grid;
use crate::Error;
use crate::tensor::StorageType;

/// The largest width (elements of one row): counts are exact in f32 up to here.
pub const MAX_WIDTH: u64 = 1 << 24;

/// What is done with the rows of a problem: one of the two passes over whole rows, or one of four operations on parts of rows.
///
/// Those four are for rows that are spread over several devices, or longer than one kernel may take: each problem then has a part of every
/// row. [`Moments`](Self::Moments) measures the parts, and those of one row are merged
/// ([`RowMoments::merge`](crate::RowMoments::merge)). [`Normalize`](Self::Normalize) normalizes each part with the moments of the whole
/// row. Backward, [`GradientSums`](Self::GradientSums) finds two sums for each row of a part; they are added up over the parts, and
/// [`Gradients`](Self::Gradients) takes what comes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operation {
    /// From the input to the output.
    #[default]
    Forward,
    /// From the gradient of a loss by the output to its gradients by the input, by weight and by bias.
    Backward,
    /// From the input to the moments of each row, whatever eps, the kind of variance and the affine map are.
    Moments,
    /// From the input and moments that were found before, those of whole rows of which these are parts, to the output.
    Normalize,
    /// From the input, the moments of whole rows and the gradient by the output to the sums that the gradients of a row rest on.
    GradientSums,
    /// From these and the sums over whole rows to the gradients by the input, by weight and by bias.
    Gradients,
}

impl Operation {
    /// Whether it belongs to the backward pass.
    pub const fn is_backward(self) -> bool {
        matches!(self, Self::Backward | Self::GradientSums | Self::Gradients)
    }

    /// Whether the moments of whole rows are given.
    pub(super) const fn has_moments(self) -> bool {
        matches!(self, Self::Normalize | Self::GradientSums | Self::Gradients)
    }

    /// Whether rows are looked at as parts of others.
    pub(super) const fn is_of_parts(self) -> bool {
        self.has_moments() || matches!(self, Self::Moments)
    }

    /// Whether a tensor in this role is read and not written. [`Role::State`], and gradients that are accumulated, are read too, and count
    /// as written.
    pub const fn reads(self, role: Role) -> bool {
        match role {
            Role::Input | Role::Residual | Role::Gate => true,
            Role::Weight | Role::Scale => !matches!(self, Self::Moments),
            Role::Bias => !matches!(self, Self::Moments | Self::GradientSums),
            Role::Shift => matches!(self, Self::Forward | Self::Normalize),
            Role::Mean | Role::Rstd => matches!(self, Self::Backward),
            Role::OutputGradient => self.is_backward(),
            Role::SumGradient => matches!(self, Self::Backward | Self::Gradients),
            Role::Moments => self.has_moments(),
            Role::GradientSums => matches!(self, Self::Gradients),
            _ => false,
        }
    }

    /// Whether a tensor in this role is written.
    pub const fn writes(self, role: Role) -> bool {
        match self {
            Self::Forward => matches!(role, Role::Output | Role::Sum | Role::Mean | Role::Rstd | Role::State),
            Self::Normalize => matches!(role, Role::Output | Role::Sum | Role::Mean | Role::Rstd),
            Self::Backward | Self::Gradients => {
                matches!(role, Role::InputGradient | Role::ResidualGradient) || role.is_sum()
            }
            Self::Moments => matches!(role, Role::Moments),
            Self::GradientSums => matches!(role, Role::GradientSums),
        }
    }

    /// The tensors of rows × width that every problem of this kind has, what is written last.
    pub(super) const fn row_tensors(self) -> &'static [Role] {
        match self {
            Self::Forward | Self::Normalize => &[Role::Input, Role::Output],
            Self::Backward | Self::Gradients => &[Role::Input, Role::OutputGradient, Role::InputGradient],
            Self::Moments => &[Role::Input],
            Self::GradientSums => &[Role::Input, Role::OutputGradient],
        }
    }

    /// The tensors of some words a row that every problem of this kind has.
    const fn word_tensors(self) -> &'static [Role] {
        match self {
            Self::Forward | Self::Backward => &[],
            Self::Moments | Self::Normalize => &[Role::Moments],
            Self::GradientSums | Self::Gradients => &[Role::Moments, Role::GradientSums],
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Moments => "moments",
            Self::Normalize => "normalize",
            Self::GradientSums => "gradient sums",
            Self::Gradients => "gradients",
        })
    }
}

/// What a row is divided by, and whether its mean is taken off first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Normalization {
    /// x̂ = (x − mean(x)) / sqrt(variance(x) + eps)
    #[default]
    LayerNorm,
    /// x̂ = x / sqrt(mean(x²) + eps): Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    RmsNorm,
}

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

    /// Its parameters.
    pub const fn parameters(self) -> &'static [Role] {
        match self {
            Self::None => &[],
            Self::Weight => &[Role::Weight],
            Self::WeightAndBias => &[Role::Weight, Role::Bias],
        }
    }
}

/// How scale and shift, which a condition gives, go together with weight and bias, which a layer has learned. A weight that is absent
/// counts as 1, a bias, a scale or a shift as 0; with neither weight nor bias both are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Modulation {
    /// y = (x̂ · weight + bias) · (1 + scale) + shift: adaptive layer normalization, as diffusion transformers have it (Peebles and Xie,
    /// "Scalable Diffusion Models with Transformers", 2023).
    #[default]
    Adaptive,
    /// y = x̂ · (weight + scale) + (bias + shift): conditional layer normalization (Su, "Conditional Text Generation Based on Conditional
    /// Layer Normalization", 2020).
    Conditional,
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

/// Sums over rows, column by column, that walks over the rows leave for gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ColumnSums {
    /// Σ dy · x̂, for the gradients of weight and scale.
    pub products: bool,
    /// Σ dy, for the gradients of bias and shift, and for that of a scale that multiplies a bias.
    pub gradients: bool,
    /// Σ ds · input, ds being the gradient by what is normalized, for the gradient of the gate.
    pub gates: bool,
}

impl ColumnSums {
    /// How many there are.
    pub const fn count(self) -> u32 {
        self.products as u32 + self.gradients as u32 + self.gates as u32
    }
}

/// A tensor that a problem reads or writes. [`Operation::reads`] and [`Operation::writes`] say which take part in which pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// What is normalized, rows × width.
    Input,
    /// Added to the input before it is normalized, rows × width.
    Residual,
    /// Weight, `width` elements; where a grid has positions share their parameters, one for each channel. So it is with all that has the
    /// shape of parameters: bias, scale, shift, gate, and their gradients.
    Weight,
    /// Bias, `width` elements.
    Bias,
    /// What comes out of the forward pass, rows × width.
    Output,
    /// What is normalized: the input, input + residual, or with a gate residual + gate · input; rows × width.
    Sum,
    /// Mean of each row, f32, one element a row. The forward pass writes it, the backward pass reads it.
    Mean,
    /// 1 / sqrt(variance + eps) of each row, f32, one element a row. The forward pass writes it, the backward pass reads it.
    Rstd,
    /// The gradient of the loss by the output, rows × width.
    OutputGradient,
    /// The gradient of the loss by the sum ([`Role::Sum`]) that does not come through the output, rows × width. It is added to that which
    /// does.
    SumGradient,
    /// The gradient of the loss by the input, rows × width. Without a gate that by the residual is the same.
    InputGradient,
    /// The gradient of the loss by the weight, `width` elements.
    WeightGradient,
    /// The gradient of the loss by the bias, `width` elements.
    BiasGradient,
    /// What a condition multiplies with, conditions × width; see [`Modulation`].
    Scale,
    /// What a condition adds, conditions × width; see [`Modulation`].
    Shift,
    /// What the input is multiplied by before it is added to the residual, conditions × width.
    Gate,
    /// The gradient of the loss by the residual, rows × width. Without a gate it is that by the input.
    ResidualGradient,
    /// The gradient of the loss by the scale, conditions × width.
    ScaleGradient,
    /// The gradient of the loss by the shift, conditions × width.
    ShiftGradient,
    /// The gradient of the loss by the gate, conditions × width.
    GateGradient,
    /// What causal layer normalization knows of the positions before those of a call, and afterwards with them: 8 words a sequence, told
    /// to be f32, all 0 where there are none.
    State,
    /// Moments of each row: 4 words, told to be f32, as [`RowMoments`](crate::RowMoments) has them. [`Operation::Moments`] writes those of
    /// parts, the other operations on parts read those of whole rows.
    Moments,
    /// Two f32 a row: Σg and Σ(g · x̂), g being the gradient by x̂ as the affine map makes it of that by the output.
    /// [`Operation::GradientSums`] writes those of parts, [`Operation::Gradients`] reads those of whole rows.
    GradientSums,
}

impl Role {
    /// Every role, in the order of their discriminants.
    pub const ALL: [Self; 23] = [
        Self::Input,
        Self::Residual,
        Self::Weight,
        Self::Bias,
        Self::Output,
        Self::Sum,
        Self::Mean,
        Self::Rstd,
        Self::OutputGradient,
        Self::SumGradient,
        Self::InputGradient,
        Self::WeightGradient,
        Self::BiasGradient,
        Self::Scale,
        Self::Shift,
        Self::Gate,
        Self::ResidualGradient,
        Self::ScaleGradient,
        Self::ShiftGradient,
        Self::GateGradient,
        Self::State,
        Self::Moments,
        Self::GradientSums,
    ];

    /// The name in WGSL, in errors and in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Residual => "residual",
            Self::Weight => "weight",
            Self::Bias => "bias",
            Self::Output => "output",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Rstd => "rstd",
            Self::OutputGradient => "output_gradient",
            Self::SumGradient => "sum_gradient",
            Self::InputGradient => "input_gradient",
            Self::WeightGradient => "weight_gradient",
            Self::BiasGradient => "bias_gradient",
            Self::Scale => "scale",
            Self::Shift => "shift",
            Self::Gate => "gate",
            Self::ResidualGradient => "residual_gradient",
            Self::ScaleGradient => "scale_gradient",
            Self::ShiftGradient => "shift_gradient",
            Self::GateGradient => "gate_gradient",
            Self::State => "state",
            Self::Moments => "moments",
            Self::GradientSums => "gradient_sums",
        }
    }

    /// Whether it has one element a row.
    pub const fn is_statistic(self) -> bool {
        matches!(self, Self::Mean | Self::Rstd)
    }

    /// Whether it is shared by all rows.
    pub const fn is_parameter(self) -> bool {
        matches!(self, Self::Weight | Self::Bias | Self::WeightGradient | Self::BiasGradient)
    }

    /// Whether it has one row for each condition.
    pub const fn is_condition(self) -> bool {
        matches!(
            self,
            Self::Scale | Self::Shift | Self::Gate | Self::ScaleGradient | Self::ShiftGradient | Self::GateGradient
        )
    }

    /// How many words of 32 bits it has for each row, or for each sequence, where these are no elements of a row.
    pub const fn words(self) -> Option<u64> {
        match self {
            Self::Mean | Self::Rstd => Some(1),
            Self::GradientSums => Some(2),
            Self::Moments => Some(4),
            Self::State => Some(8),
            _ => None,
        }
    }

    /// Whether it is rows × width.
    pub const fn is_of_rows(self) -> bool {
        !self.is_parameter() && !self.is_condition() && self.words().is_none()
    }

    /// Whether it is a gradient that is added up over rows.
    pub const fn is_sum(self) -> bool {
        matches!(
            self,
            Self::WeightGradient | Self::BiasGradient | Self::ScaleGradient | Self::ShiftGradient | Self::GateGradient
        )
    }

    /// The parameter of which this is the gradient.
    pub(super) const fn parameter(self) -> Option<Self> {
        match self {
            Self::WeightGradient => Some(Self::Weight),
            Self::BiasGradient => Some(Self::Bias),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a tensor lies in memory. Offsets and strides count elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    /// What an element is.
    pub storage: StorageType,
    /// Elements before the first one.
    pub offset: u64,
    /// From the beginning of one row to that of the next, at least the width (of mean and rstd: at least 1, of others that have some
    /// words for each row: at least as many). `None`: rows follow one another. Of no meaning to weight and bias.
    pub row_stride: Option<u64>,
    /// Tensors with the same number here lie in one buffer. `None`: in a buffer with no other.
    pub buffer: Option<u32>,
}

impl Layout {
    /// Rows one after another from the beginning of a buffer of their own.
    pub const fn new(storage: StorageType) -> Self {
        Self { storage, offset: 0, row_stride: None, buffer: None }
    }
}

impl From<StorageType> for Layout {
    fn from(storage: StorageType) -> Self {
        Self::new(storage)
    }
}

/// What is to be computed: `rows` rows of `width` elements, statistics of each row, and which tensors take part.
///
/// ```
/// use gpu_layer_norm::kernel::{Affine, Layout, Problem, Role};
/// use gpu_layer_norm::StorageType;
///
/// // 4096 rows of 768 elements, bf16 in and out, the output in place, all in a buffer that others use too.
/// let rows = Layout { storage: StorageType::Bf16, offset: 1000, row_stride: Some(1024), buffer: Some(0) };
/// let problem = Problem::new(4096, 768)?
///     .affine(Affine::Weight)
///     .tensor(Role::Input, rows)?
///     .tensor(Role::Output, rows)?
///     .tensor(Role::Rstd, StorageType::F32)?;
/// assert_eq!(problem.tensors().count(), 4);
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    operation: Operation,
    rows: u64,
    width: u32,
    normalization: Normalization,
    affine: Affine,
    zero_centred_weight: bool,
    variance: Variance,
    eps: f32,
    modulation: Modulation,
    rows_per_condition: u64,
    sequence_rows: Option<u64>,
    grid: Option<Grid>,
    accumulate: bool,
    layouts: [Option<Layout>; Role::ALL.len()],
}

impl Problem {
    /// `rows` rows of `width` elements, f32, contiguous; layer normalization, no affine map, biased variance, eps 1e-5.
    ///
    /// # Errors
    /// [`Error::Width`] if `width` is 0 or above [`MAX_WIDTH`], [`Error::Size`] if the byte count does not fit 64 bits.
    pub fn new(rows: u64, width: u64) -> Result<Self, Error> {
        if width == 0 || width > MAX_WIDTH {
            return Err(Error::Width { width, max: MAX_WIDTH });
        }
        let mut layouts = [None; Role::ALL.len()];
        layouts[Role::Input as usize] = Some(Layout::default());
        layouts[Role::Output as usize] = Some(Layout::default());
        let problem = Self {
            operation: Operation::Forward,
            rows,
            width: width as u32,
            normalization: Normalization::LayerNorm,
            affine: Affine::None,
            zero_centred_weight: false,
            variance: Variance::Biased,
            eps: 1e-5,
            modulation: Modulation::default(),
            rows_per_condition: 1,
            sequence_rows: None,
            grid: None,
            accumulate: false,
            layouts,
        };
        problem.byte_range(Role::Input)?;
        Ok(problem)
    }

    /// The backward pass of this problem: from the input and the gradient of a loss by the output to its gradient by the input. What
    /// only the forward pass has is gone: output, sum, bias and shift. Mean and rstd are measured again unless they are given by
    /// [`tensor`](Self::tensor); the gradients of weight, bias, scale, shift and gate, and that by the residual, are written where they
    /// are given.
    ///
    /// ```
    /// use gpu_layer_norm::StorageType;
    /// use gpu_layer_norm::kernel::{Affine, Capabilities, Plan, Problem, Role};
    ///
    /// let problem = Problem::new(4096, 768)?
    ///     .affine(Affine::WeightAndBias)
    ///     .backward()
    ///     .tensor(Role::Mean, StorageType::F32)?
    ///     .tensor(Role::Rstd, StorageType::F32)?
    ///     .tensor(Role::WeightGradient, StorageType::F32)?
    ///     .tensor(Role::BiasGradient, StorageType::F32)?;
    /// println!("{}", Plan::new(&problem, &Capabilities::webgpu_baseline())?);
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    #[must_use]
    pub fn backward(self) -> Self {
        self.with_operation(Operation::Backward)
    }

    /// The same rows in another operation. What this does not read or write is gone, and so are statistics; what it cannot do without is
    /// there, contiguous and f32, in buffers of its own.
    #[must_use]
    pub fn with_operation(mut self, operation: Operation) -> Self {
        if self.operation == operation {
            return self;
        }
        self.operation = operation;
        for role in Role::ALL {
            let is_needed_later = role == Role::Bias && operation.is_backward();
            if role.is_statistic() || is_needed_later || !operation.reads(role) && !operation.writes(role) {
                self.layouts[role as usize] = None;
            }
        }
        for &role in operation.row_tensors().iter().chain(operation.word_tensors()) {
            self.layouts[role as usize].get_or_insert_default();
        }
        self.with_parameters().with_needed_bias()
    }

    /// The parameters of the affine map that the operation reads, where they were not given.
    fn with_parameters(mut self) -> Self {
        for role in [Role::Weight, Role::Bias] {
            let is_read = self.operation.reads(role) && !(role == Role::Bias && self.operation.is_backward());
            let has = self.affine.parameters().contains(&role) && is_read;
            let layout = &mut self.layouts[role as usize];
            *layout = has.then(|| layout.unwrap_or_default());
        }
        self
    }

    /// Whether the gradients that are added up over rows, those of weight, bias, scale, shift and gate, are added to what their tensors
    /// hold, in place of overwriting it.
    #[must_use]
    pub fn accumulate(self, accumulate: bool) -> Self {
        Self { accumulate, ..self }
    }

    /// The forward pass that only measures the rows of this backward pass: no output, mean (which RMS normalization has not) and
    /// rstd in buffers of their own.
    pub(super) fn statistics(&self) -> Self {
        let mut layouts = [None; Role::ALL.len()];
        for role in [Role::Input, Role::Residual, Role::Gate] {
            layouts[role as usize] = self.layouts[role as usize];
        }
        if self.normalization == Normalization::LayerNorm {
            layouts[Role::Mean as usize] = Some(Layout::default());
        }
        layouts[Role::Rstd as usize] = Some(Layout::default());
        let (operation, affine) = (Operation::Forward, Affine::None);
        Self { operation, affine, zero_centred_weight: false, accumulate: false, layouts, ..*self }
    }

    /// Of the statistics that the normalization has, whether they are given.
    ///
    /// # Errors
    /// [`Error::Statistics`] if only one of them is.
    pub(super) fn has_statistics(&self) -> Result<bool, Error> {
        let [mean, rstd] = [Role::Mean, Role::Rstd].map(|role| self.layout(role).is_some());
        match (self.normalization, mean, rstd) {
            (Normalization::LayerNorm, true, false) => Err(Error::Statistics { given: "mean", missing: "rstd" }),
            (Normalization::LayerNorm, false, true) => Err(Error::Statistics { given: "rstd", missing: "mean" }),
            (_, _, rstd) => Ok(rstd),
        }
    }

    /// The sums over rows that its gradients are made of.
    pub(super) fn column_sums(&self) -> ColumnSums {
        if self.channel_gradients().is_some() {
            return ColumnSums::default();
        }
        let has = |role| self.layout(role).is_some();
        ColumnSums {
            products: has(Role::WeightGradient) || has(Role::ScaleGradient),
            gradients: has(Role::BiasGradient) || has(Role::ShiftGradient) || self.has_bias_in_scale_gradient(),
            gates: has(Role::GateGradient),
        }
    }

    /// The channels of which gradients are asked for, where positions share their parameters ([`Grid::channels`]).
    pub(super) fn channel_gradients(&self) -> Option<[u32; 3]> {
        let grid = self.grid.as_ref().filter(|grid| !grid.has_parameters_by_element())?;
        grid.channels().filter(|_| self.tensors().any(|(role, _)| role.is_sum()))
    }

    /// Whether the gradient of the scale takes the bias: what the scale multiplies is x̂ · weight + bias.
    pub(crate) fn has_bias_in_scale_gradient(&self) -> bool {
        self.modulation == Modulation::Adaptive && self.affine.has_bias() && self.layout(Role::ScaleGradient).is_some()
    }

    /// With this normalization.
    ///
    /// # Errors
    /// [`Error::RmsNorm`] if RMS normalization would have an unbiased variance or a mean.
    pub fn normalization(self, normalization: Normalization) -> Result<Self, Error> {
        Self { normalization, ..self }.without_contradiction()
    }

    /// With this affine map. A weight or bias that is new lies in a buffer of its own, as f32.
    #[must_use]
    pub fn affine(mut self, affine: Affine) -> Self {
        for role in [Role::WeightGradient, Role::BiasGradient] {
            if role.parameter().is_some_and(|parameter| !affine.parameters().contains(&parameter)) {
                self.layouts[role as usize] = None;
            }
        }
        Self { affine, ..self }.with_parameters().with_needed_bias()
    }

    /// The backward pass reads the bias only for the gradient of the scale, and then in any case.
    fn with_needed_bias(mut self) -> Self {
        if self.has_bias_in_scale_gradient() {
            self.layouts[Role::Bias as usize].get_or_insert_default();
        }
        self
    }

    /// How scale and shift go together with weight and bias. Which of scale and shift there are, [`tensor`](Self::tensor) says.
    #[must_use]
    pub fn modulation(self, modulation: Modulation) -> Self {
        Self { modulation, ..self }.with_needed_bias()
    }

    /// With so many rows one after another that share a condition, a row of scale, shift and gate: the positions of a sample, say. The
    /// last condition may have fewer. Default: 1.
    ///
    /// # Errors
    /// [`Error::RowsPerCondition`] if it is 0; [`Error::Size`], [`Error::Offset`] if a tensor that was given ends past what 64 bits can
    /// count.
    pub fn rows_per_condition(self, rows: u64) -> Result<Self, Error> {
        if rows == 0 {
            return Err(Error::RowsPerCondition { rows_per_condition: rows });
        }
        let problem = Self { rows_per_condition: rows, ..self };
        for (role, _) in problem.tensors().filter(|(role, _)| role.is_condition()) {
            problem.byte_range(role)?;
        }
        Ok(problem)
    }

    /// Causal: rows are positions of sequences of so many, and each is normalized with mean and variance of all elements of its own
    /// position and those before it in its sequence. The last sequence may have fewer.
    ///
    /// # Errors
    /// [`Error::SequenceLength`] if it is 0.
    pub fn causal(self, sequence_rows: u64) -> Result<Self, Error> {
        if sequence_rows == 0 {
            return Err(Error::SequenceLength { rows: self.rows, length: sequence_rows });
        }
        let problem = Self { sequence_rows: Some(sequence_rows), ..self };
        problem.byte_range(Role::State)?;
        problem.without_contradiction()
    }

    /// With rows and elements that lie otherwise than one after another.
    ///
    /// # Errors
    /// [`Error::Grid`] if the grid has other numbers of rows or elements, or gaps; if a tensor has a row stride, if the normalization is
    /// causal, or if places share a gate whose gradient is asked for.
    pub fn grid(self, grid: Grid) -> Result<Self, Error> {
        let product = |dimensions: &[super::Dimension]| {
            dimensions.iter().try_fold(1_u64, |product, dimension| product.checked_mul(dimension.size.into()))
        };
        let (rows, elements) = (product(grid.rows()), product(grid.elements()));
        if rows.is_none_or(|rows| rows != self.rows) && self.rows > 0 || elements != Some(self.width.into()) {
            return Err(Error::Grid { what: "a grid of other rows or elements" });
        }
        if self.rows > 0 && self.rows.checked_mul(self.width.into()).is_none_or(|elements| grid.reach() > elements) {
            return Err(Error::Grid { what: "a grid with gaps" });
        }
        Self { grid: Some(grid), ..self }.without_contradiction()
    }

    /// Whether the weight is stored as its difference from 1: y = x̂ · (1 + weight).
    #[must_use]
    pub fn zero_centred_weight(self, zero_centred_weight: bool) -> Self {
        Self { zero_centred_weight, ..self }
    }

    /// With this kind of variance.
    ///
    /// # Errors
    /// [`Error::UnbiasedWidth`] for the unbiased variance of a single element, [`Error::RmsNorm`] for that of RMS
    /// normalization.
    pub fn variance(self, variance: Variance) -> Result<Self, Error> {
        if variance == Variance::Unbiased && self.width < 2 {
            return Err(Error::UnbiasedWidth { width: u64::from(self.width) });
        }
        Self { variance, ..self }.without_contradiction()
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

    /// With a tensor that lies so. Residual, sum, mean, rstd, the gradient of the sum and those of the parameters are absent until
    /// they are given here.
    ///
    /// # Errors
    /// [`Error::Role`] for a tensor that takes no part in this pass, [`Error::NoParameter`] for a parameter that the affine map does not
    /// have, or its gradient, [`Error::RmsNorm`] for the mean of RMS normalization, [`Error::RowStride`] if rows would overlap,
    /// [`Error::StorageType`] for words of rows ([`Role::words`]) that are not f32, [`Error::Size`], [`Error::Offset`] if the tensor ends
    /// past what 64 bits can count.
    pub fn tensor(mut self, role: Role, layout: impl Into<Layout>) -> Result<Self, Error> {
        let layout = layout.into();
        if role.is_parameter() && !self.affine.parameters().contains(&role.parameter().unwrap_or(role)) {
            return Err(Error::NoParameter { name: role.name(), affine: self.affine });
        }
        if !self.operation.reads(role) && !self.operation.writes(role) {
            return Err(Error::Role { what: role.name(), operation: self.operation });
        }
        if role.words().is_some() && layout.storage != StorageType::F32 {
            return Err(Error::StorageType { what: role.name(), expected: StorageType::F32, actual: layout.storage });
        }
        let (row_stride, width) = (layout.row_stride, self.row_elements(role));
        if let Some(row_stride) = row_stride.filter(|&row_stride| row_stride < width && !role.is_parameter()) {
            return Err(Error::RowStride { what: role.name(), row_stride, width });
        }
        self.layouts[role as usize] = Some(layout);
        self.byte_range(role)?;
        self.with_needed_bias().without_contradiction()
    }

    fn without_contradiction(self) -> Result<Self, Error> {
        if let Some(grid) = &self.grid {
            let has_stride = |(role, layout): (Role, &Layout)| layout.row_stride.is_some() && role.is_of_rows();
            let mut sums = self.tensors().filter(|(role, _)| role.is_sum());
            if self.tensors().any(has_stride) {
                return Err(Error::Grid { what: "a row stride" });
            }
            if self.sequence_rows.is_some() {
                return Err(Error::Grid { what: "causal normalization" });
            }
            let is_left = |(role, _): (Role, &Layout)| role == Role::GateGradient || grid.channels().is_none();
            if !grid.has_parameters_by_element() && sums.any(is_left) {
                return Err(Error::Grid { what: "the gradient of a gate that positions share" });
            }
        }
        let statistic = [Role::Mean, Role::Rstd].into_iter().find(|role| self.layout(*role).is_some());
        if let (Some(_), Operation::Backward, Some(what)) = (self.sequence_rows, self.operation, statistic) {
            return Err(Error::Causal { what: what.name() });
        }
        if self.normalization == Normalization::RmsNorm {
            if self.variance == Variance::Unbiased {
                return Err(Error::RmsNorm { what: "an unbiased variance" });
            }
            if self.layout(Role::Mean).is_some() {
                return Err(Error::RmsNorm { what: "a mean" });
            }
        }
        Ok(self)
    }

    /// Which way it goes.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Whether the gradients that are added up over rows are added to what their tensors hold.
    pub fn accumulates(&self) -> bool {
        self.accumulate
    }

    /// Whether a tensor takes part and is written.
    pub fn writes(&self, role: Role) -> bool {
        self.operation.writes(role) && self.layout(role).is_some()
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Elements of a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The normalization.
    pub fn normalization_kind(&self) -> Normalization {
        self.normalization
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

    /// Rows that share a condition.
    pub fn condition_rows(&self) -> u64 {
        self.rows_per_condition
    }

    /// Whether rows belong to conditions at all.
    pub(super) fn has_conditions(&self) -> bool {
        self.tensors().any(|(role, _)| role.is_condition())
    }

    /// Rows of a sequence, where the normalization is causal.
    pub fn sequence_rows(&self) -> Option<u64> {
        self.sequence_rows
    }

    /// How rows and elements lie, where they do not one after another.
    pub fn grid_of_rows(&self) -> Option<&Grid> {
        self.grid.as_ref()
    }

    /// The kind of variance.
    pub fn variance_kind(&self) -> Variance {
        self.variance
    }

    /// What is added to the variance.
    pub fn eps_value(&self) -> f32 {
        self.eps
    }

    /// Where a tensor lies; `None` if it takes no part.
    pub fn layout(&self, role: Role) -> Option<&Layout> {
        self.layouts[role as usize].as_ref()
    }

    /// The tensors that take part.
    pub fn tensors(&self) -> impl Iterator<Item = (Role, &Layout)> {
        Role::ALL.into_iter().filter_map(|role| Some((role, self.layout(role)?)))
    }

    /// What the sum of squared deviations is divided by: n, or n − 1.
    pub fn variance_divisor(&self) -> f64 {
        match self.variance {
            Variance::Biased => f64::from(self.width),
            Variance::Unbiased => f64::from(self.width) - 1.0,
        }
    }

    /// Elements of one row of a tensor.
    pub(super) fn row_elements(&self, role: Role) -> u64 {
        match role.words() {
            Some(words) => words,
            None if role.is_of_rows() => self.width.into(),
            // Of what has the shape of a parameter.
            None => self.grid.as_ref().map_or(self.width.into(), Grid::parameters),
        }
    }

    /// Rows of a tensor: of a parameter 1, of what a condition has as many as there are conditions.
    pub(crate) fn rows_of(&self, role: Role) -> u64 {
        if role.is_parameter() {
            1
        } else if role.is_condition() {
            self.rows.div_ceil(self.rows_per_condition)
        } else if role == Role::State {
            self.rows.div_ceil(self.sequence_rows.unwrap_or(u64::MAX))
        } else {
            self.rows
        }
    }

    /// Bytes from one row of a tensor to the next; 0 where there is no next one.
    pub(super) fn row_stride_bytes(&self, role: Role) -> u64 {
        let layout = self.layout(role).copied().unwrap_or_default();
        if self.rows_of(role) <= 1 {
            return 0;
        }
        layout.row_stride.unwrap_or_else(|| self.row_elements(role)) * layout.storage.bytes()
    }

    /// The bytes of its buffer from the first to the last that a tensor has. Empty if there are no rows.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Offset`] if they do not fit 64 bits. A problem that was made has none such.
    pub(crate) fn byte_range(&self, role: Role) -> Result<std::ops::Range<u64>, Error> {
        let layout = self.layout(role).copied().unwrap_or_default();
        let width = self.row_elements(role);
        let stride = layout.row_stride.unwrap_or(width);
        let rows = self.rows_of(role);
        let bytes = || {
            let last_row = rows.saturating_sub(1).checked_mul(stride)?;
            let elements = if rows == 0 { 0 } else { last_row.checked_add(width)? };
            elements.checked_mul(layout.storage.bytes())
        };
        let bytes = bytes().ok_or_else(|| Error::Size { shape: vec![rows as usize, stride as usize] })?;
        let range = || {
            let first = layout.offset.checked_mul(layout.storage.bytes())?;
            let end = first.checked_add(bytes)?;
            // Room for the rounding up to words.
            (end <= u64::MAX - 4).then_some(first..end)
        };
        range().ok_or(Error::Offset { what: role.name(), offset: layout.offset })
    }

    /// The tensor that `written` is in the place of, if it is: the region of one that is read, row for row.
    ///
    /// # Errors
    /// [`Error::Overlap`] if it overlaps another tensor in any other way.
    pub(super) fn in_place_of(&self, written: Role) -> Result<Option<Role>, Error> {
        let Some(layout) = self.layout(written) else { return Ok(None) };
        let mut place = None;
        for (other, other_layout) in self.tensors() {
            if other == written || layout.buffer.is_none() || layout.buffer != other_layout.buffer {
                continue;
            }
            let same = layout.storage == other_layout.storage
                && layout.offset == other_layout.offset
                && self.row_stride_bytes(written) == self.row_stride_bytes(other);
            let may = matches!(
                (written, other),
                (Role::Output | Role::Sum, Role::Input | Role::Residual)
                    | (
                        Role::InputGradient | Role::ResidualGradient,
                        Role::Input | Role::Residual | Role::OutputGradient | Role::SumGradient
                    )
            );
            if same && may && place.is_none() {
                place = Some(other);
            } else if self.overlap(written, other)? {
                return Err(Error::Overlap { written: written.name(), other: other.name() });
            }
        }
        Ok(place)
    }

    /// Whether two tensors in one buffer have an element in common.
    fn overlap(&self, a: Role, b: Role) -> Result<bool, Error> {
        let (a_bytes, b_bytes) = (self.byte_range(a)?, self.byte_range(b)?);
        if a_bytes.start >= b_bytes.end || b_bytes.start >= a_bytes.end {
            return Ok(false);
        }
        // Columns of one matrix may lie beside each other.
        let stride = self.row_stride_bytes(a);
        if stride == 0 || stride != self.row_stride_bytes(b) {
            return Ok(true);
        }
        let bytes =
            |role: Role| self.row_elements(role) * self.layout(role).copied().unwrap_or_default().storage.bytes();
        let distance = |from: u64, to: u64| match (from % stride, to % stride) {
            (from, to) if from <= to => to - from,
            (from, to) => stride - (from - to),
        };
        let beside =
            distance(a_bytes.start, b_bytes.start) >= bytes(a) && distance(b_bytes.start, a_bytes.start) >= bytes(b);
        Ok(!beside)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let normalization = match self.normalization {
            Normalization::LayerNorm => "layer norm",
            Normalization::RmsNorm => "RMS norm",
        };
        let variance = match self.variance {
            Variance::Biased => "biased",
            Variance::Unbiased => "unbiased",
        };
        write!(
            f,
            "{normalization}{} of {} rows of {} elements, affine {:?}{}, {variance} variance, eps {:e}",
            match self.operation {
                Operation::Forward => "",
                Operation::Backward => " backward",
                Operation::Moments => ", moments",
                Operation::Normalize => " by given moments",
                Operation::GradientSums => " backward by given moments, sums",
                Operation::Gradients => " backward by given moments and sums",
            },
            self.rows,
            self.width,
            self.affine,
            if self.zero_centred_weight { " about 1" } else { "" },
            self.eps
        )?;
        if let Some(grid) = &self.grid {
            write!(f, ", {grid}")?;
        }
        if let Some(rows) = self.sequence_rows {
            write!(f, ", causal in sequences of {rows} rows")?;
        }
        if self.has_conditions() {
            let modulation = match self.modulation {
                Modulation::Adaptive => "adaptive",
                Modulation::Conditional => "conditional",
            };
            write!(f, ", {modulation} to conditions of {} rows", self.rows_per_condition)?;
        }
        if self.accumulate && self.operation.writes(Role::WeightGradient) {
            write!(f, ", gradients of parameters added up")?;
        }
        for (role, layout) in self.tensors() {
            write!(f, ", {role} {}", layout.storage)?;
            if layout.offset > 0 {
                write!(f, " from {}", layout.offset)?;
            }
            if let Some(row_stride) = layout.row_stride {
                write!(f, " every {row_stride}")?;
            }
            if let Some(buffer) = layout.buffer {
                write!(f, " in buffer {buffer}")?;
            }
        }
        Ok(())
    }
}
