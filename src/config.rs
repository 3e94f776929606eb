//! What a layer computes: over which elements of an input a mean and a variance are taken, and what is done with them.

use crate::kernel::{Affine, Dimension, Grid, MAX_WIDTH, Modulation, Normalization, Problem, Strategy, Variance};
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

/// Which axes of an input are normalized.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Axes {
    /// The last ones.
    Trailing,
    /// These, counted from the end where they are negative.
    Of(Vec<isize>),
    /// Groups of channels, and all positions; of a sample whose first dimension has the channels.
    Groups { groups: usize, sample_shape: Vec<usize> },
}

/// How an input is taken apart.
pub(crate) struct View {
    /// The dimensions over which its rows are counted.
    pub(crate) leading: Vec<usize>,
    /// How rows and elements lie, where they do not one after another.
    pub(crate) grid: Option<Grid>,
}

/// What a layer computes. Checked when the layer is made.
///
/// ```
/// use gpu_layer_norm::{Affine, LayerNormConfig, Variance};
///
/// let bert = LayerNormConfig::new(768).eps(1e-12);
/// let diffusion_transformer = LayerNormConfig::new(1152).affine(Affine::None).eps(1e-6);
/// let unbiased = LayerNormConfig::new(10).variance(Variance::Unbiased).eps(1e-12);
/// let llama = LayerNormConfig::rms(4096).affine(Affine::Weight).eps(1e-6);
/// let gemma = LayerNormConfig::rms(2048).affine(Affine::Weight).eps(1e-6).zero_centred_weight(true);
/// # let _ = (bert, diffusion_transformer, unbiased, llama, gemma);
/// ```
///
/// # Which positions see which
///
/// The normalized shape decides which elements share a mean and a variance, and through these every one of them depends on all the
/// others. With an input of shape `[batch, length, d_model]`, `LayerNormConfig::new(d_model)` keeps the positions of a sequence apart.
/// `LayerNormConfig::new([length, d_model])` is accepted as well, and gives an output of the same shape; but its mean and variance are
/// those of the whole sequence, so that position t is told something of position t + 1 and of all that follow.
///
/// Where a model is to predict what comes next, that is a leak, however carefully its attention is masked. It is found in models of
/// knowledge tracing in the manner of SAKT (Pandey and Karypis, "A Self-Attentive Model for Knowledge Tracing", 2019), which predict
/// from a student's answers so far whether the next one will be right: that answer is part of the input of the next position, and
/// from there gets into the prediction by way of mean and variance. Evaluated on whole sequences such a predictor scores better
/// than is possible, better than the true probabilities of the answers would. In use, where the later positions do not exist yet, its
/// predictions are worth less than those of a predictor that was never shown them. The example `leak` reproduces this.
///
/// So where a position may not see those after it, normalize over the last dimension alone, or let [`causal`](Self::causal) take
/// mean and variance from the positions so far. [`Dependence`](crate::Dependence) measures which position sees which, of a layer or of a
/// whole model.
///
/// ```
/// use gpu_layer_norm::LayerNormConfig;
///
/// let (length, d_model) = (100, 64);
/// let of_each_position = LayerNormConfig::new(d_model);
/// let of_the_positions_so_far = LayerNormConfig::new(d_model).causal(true);
/// let of_the_whole_sequence = LayerNormConfig::new([length, d_model]); // Position t sees position t + 1.
/// # let _ = (of_each_position, of_the_positions_so_far, of_the_whole_sequence);
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
    axes: Axes,
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
            axes: Axes::Trailing,
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

    /// Group normalization (Wu and He, "Group Normalization", 2018) of samples of this shape, channels first, then positions: the channels
    /// are cut into `groups`, and each group of each sample has a mean and a variance over its channels and all positions. Weight and
    /// bias have one element for each channel. An input has the shape `[.., channels, positions ..]`.
    ///
    /// ```
    /// use gpu_layer_norm::LayerNormConfig;
    ///
    /// // PyTorch's GroupNorm(32, 256) on images of 64 × 64.
    /// let config = LayerNormConfig::group_norm(32, [256, 64, 64]);
    /// assert_eq!(config.parameter_shape(), [256]);
    /// assert_eq!(config.rows(&[8, 256, 64, 64])?, 8 * 32);
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    pub fn group_norm(groups: usize, sample_shape: impl Into<NormalizedShape>) -> Self {
        let sample_shape = sample_shape.into().0;
        let mut normalized_shape = sample_shape.clone();
        if let Some(channels) = normalized_shape.first_mut() {
            *channels = channels.checked_div(groups).unwrap_or(0);
        }
        Self { axes: Axes::Groups { groups, sample_shape }, ..Self::new(normalized_shape) }
    }

    /// Instance normalization (Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016) of samples of this shape, channels first,
    /// then positions: each channel of each sample has a mean and a variance over all positions. It is group normalization with a group
    /// for each channel. Without weight and bias, as in PyTorch; [`affine`](Self::affine) adds them, one element for each channel.
    pub fn instance_norm(sample_shape: impl Into<NormalizedShape>) -> Self {
        let sample_shape = sample_shape.into();
        let channels = sample_shape.0.first().copied().unwrap_or(0);
        Self::group_norm(channels, sample_shape).affine(Affine::None)
    }

    /// Normalizes over these axes of an input in place of the last ones; negative ones count from the end. The sizes of the normalized
    /// shape belong to them in this order, and so do the elements of weight and bias. The other axes say which row is which, the last one
    /// counting fastest, and statistics have their shape.
    ///
    /// The input is read as it lies, without a transposed copy. Over no axes at all (`LayerNormConfig::new([]).axes([])`) every element is
    /// a row of its own.
    ///
    /// ```
    /// use gpu_layer_norm::LayerNormConfig;
    ///
    /// // Images, channels first: each pixel over its channels.
    /// let config = LayerNormConfig::new(768).axes([1]);
    /// assert_eq!(config.rows(&[8, 768, 32, 32])?, 8 * 32 * 32);
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    #[must_use]
    pub fn axes(self, axes: impl IntoIterator<Item = isize>) -> Self {
        Self { axes: Axes::Of(axes.into_iter().collect()), ..self }
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

    /// Forces a strategy in place of the planner's choice, in the forward and in the backward pass. The backward pass
    /// has no [`Strategy::PartlyResident`], and operations on parts of rows have not all strategies: where one is forced that they do not
    /// have, they are planned freely. Everywhere else [`Error::Strategy`] tells that rows cannot be worked on so, when the layer is made or
    /// an operation is prepared.
    #[must_use]
    pub fn strategy(self, strategy: Strategy) -> Self {
        Self { strategy: Some(strategy), ..self }
    }

    /// The input to expect. The pipelines for a forward pass over such an input are compiled when the layer is made, all others when they
    /// are first needed; so are all pipelines of a layer that normalizes other axes than the last ones, or groups of channels.
    /// Default: f32, and so many rows that they fill the device. [`expect_nothing`](Self::expect_nothing) compiles none.
    #[must_use]
    pub fn expect_input(self, rows: u64, storage: StorageType) -> Self {
        Self { expected_input: Some((rows, storage)), ..self }
    }

    /// Compiles no pipeline when the layer is made, but all of them when they are first needed.
    #[must_use]
    pub fn expect_nothing(self) -> Self {
        self.expect_input(0, StorageType::F32)
    }

    /// The trailing dimensions.
    pub fn normalized_shape(&self) -> &[usize] {
        self.normalized_shape.dimensions()
    }

    /// The shape of weight and bias, and of a row of scale, shift and gate: the normalized shape, or `[channels]` for group and instance
    /// normalization.
    pub fn parameter_shape(&self) -> &[usize] {
        match &self.axes {
            Axes::Groups { sample_shape, .. } => &sample_shape[..sample_shape.len().min(1)],
            _ => self.normalized_shape(),
        }
    }

    /// Whether rows are simply some elements one after another, whatever the shape of the input is.
    pub(crate) fn has_trailing_axes(&self) -> bool {
        self.axes == Axes::Trailing
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

    /// The problem of this layer's forward pass over so many rows that lie one after another: input and output of f32, weight and bias of
    /// the [storage type](Self::parameter_storage) that is set here. [`Problem::tensor`] says where tensors lie otherwise. The rows of a
    /// causal layer are one sequence ([`Problem::causal`]), and how axes and groups lie is left out ([`Problem::grid`]).
    ///
    /// # Errors
    /// [`Error::NormalizedShape`], [`Error::Rank`], [`Error::Width`], [`Error::Eps`], [`Error::UnbiasedWidth`],
    /// [`Error::RmsNorm`], [`Error::Size`]; [`Error::Axes`] unless each axis is named once and has a size, [`Error::Groups`] unless
    /// groups divide the channels, [`Error::Grid`] for axes or groups of a causal layer.
    pub fn problem(&self, rows: u64) -> Result<Problem, Error> {
        let dimensions = self.normalized_shape.dimensions();
        if let Axes::Groups { groups, sample_shape } = &self.axes {
            if *groups == 0 || sample_shape.first().is_none_or(|channels| !channels.is_multiple_of(*groups)) {
                return Err(Error::Groups { groups: *groups, sample_shape: sample_shape.clone() });
            }
        }
        if let Axes::Of(axes) = &self.axes {
            let is_new = |(i, axis): (usize, &isize)| !axes[..i].contains(axis);
            if axes.len() != dimensions.len() || !axes.iter().enumerate().all(is_new) {
                let (axes, normalized_shape) = (axes.clone(), dimensions.to_vec());
                return Err(Error::Axes { axes, normalized_shape, shape: Vec::new() });
            }
        }
        if self.causal && self.axes != Axes::Trailing {
            return Err(Error::Grid { what: "causal normalization" });
        }
        let is_over_none = matches!(&self.axes, Axes::Of(axes) if axes.is_empty());
        if dimensions.is_empty() && !is_over_none || dimensions.contains(&0) {
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
    /// [`Error::ShapeMismatch`] unless the shape ends with the normalized shape (for group normalization that of a sample),
    /// [`Error::Axes`] unless it has the axes to normalize, [`Error::Rank`] if these leave too many dimensions, [`Error::Grid`] or
    /// [`Error::Size`] if it has too many elements.
    pub fn rows(&self, shape: &[usize]) -> Result<u64, Error> {
        product(&self.view(shape)?.leading).ok_or_else(|| Error::Size { shape: shape.to_vec() })
    }

    /// The axes of an input of this shape along which an element of the output may depend on others of the input, in ascending order: the
    /// normalized ones, and in a causal layer the axis of positions, along which it depends on earlier ones only. All elements that
    /// differ along other axes alone are kept apart. [`Dependence`](crate::Dependence) measures what this tells.
    ///
    /// ```
    /// use gpu_layer_norm::LayerNormConfig;
    ///
    /// let (batch, length, d_model) = (8, 128, 64);
    /// let shape = [batch, length, d_model];
    /// assert_eq!(LayerNormConfig::new(d_model).mixed_axes(&shape)?, [2]);
    /// assert_eq!(LayerNormConfig::new([length, d_model]).mixed_axes(&shape)?, [1, 2]); // positions see each other
    /// assert_eq!(LayerNormConfig::new(d_model).causal(true).mixed_axes(&shape)?, [1, 2]); // only those before them
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn mixed_axes(&self, shape: &[usize]) -> Result<Vec<usize>, Error> {
        self.view(shape)?;
        let last = |count: usize| shape.len().saturating_sub(count)..shape.len();
        let mut axes: Vec<usize> = match &self.axes {
            Axes::Trailing => last(self.normalized_shape().len() + usize::from(self.causal)).collect(),
            Axes::Groups { groups, sample_shape } => {
                let is_apart = sample_shape.first() == Some(groups);
                last(sample_shape.len()).skip(usize::from(is_apart)).collect()
            }
            Axes::Of(axes) => places_of(axes, shape).unwrap_or_default(),
        };
        axes.sort_unstable();
        Ok(axes)
    }

    /// How an input of this shape is taken apart.
    pub(crate) fn view(&self, shape: &[usize]) -> Result<View, Error> {
        let normalized_shape = self.normalized_shape.dimensions();
        let mismatch =
            |expected: &[usize]| Error::ShapeMismatch { normalized_shape: expected.to_vec(), shape: shape.to_vec() };
        match &self.axes {
            Axes::Trailing => {
                let leading = shape.strip_suffix(normalized_shape).ok_or_else(|| mismatch(normalized_shape))?;
                Ok(View { leading: leading.to_vec(), grid: None })
            }
            Axes::Groups { groups, sample_shape } => {
                let samples = shape.strip_suffix(&sample_shape[..]).ok_or_else(|| mismatch(sample_shape))?;
                let grid = self.grid_of_groups(*groups, samples, shape)?;
                Ok(View { leading: [samples, &[*groups]].concat(), grid: Some(grid) })
            }
            Axes::Of(axes) => {
                let refused = || Error::Axes {
                    axes: axes.clone(),
                    normalized_shape: normalized_shape.to_vec(),
                    shape: shape.to_vec(),
                };
                let places = places_of(axes, shape).ok_or_else(refused)?;
                let is_new = |(i, place): (usize, &usize)| !places[..i].contains(place);
                let sizes: Vec<usize> = places.iter().map(|&place| shape[place]).collect();
                if sizes != normalized_shape || !places.iter().enumerate().all(is_new) {
                    return Err(refused());
                }
                self.view_of_places(shape, &places)
            }
        }
    }

    fn view_of_places(&self, shape: &[usize], places: &[usize]) -> Result<View, Error> {
        // The last axes in their order, or none: rows are elements one after another.
        let first = shape.len() - places.len();
        if places.iter().copied().eq(first..shape.len()) || shape.contains(&0) {
            let is_kept = |(axis, _): &(usize, &usize)| !places.contains(axis);
            let leading = shape.iter().enumerate().filter(is_kept).map(|(_, size)| *size).collect();
            return Ok(View { leading, grid: None });
        }
        let too_large = || Error::Grid { what: "a tensor of more than 2^32 elements" };
        let fit = |count: Option<u64>| count.and_then(|count| u32::try_from(count).ok()).ok_or_else(too_large);
        let (mut rows, mut elements, mut leading) = (Vec::new(), Vec::new(), Vec::new());
        for (axis, &size) in shape.iter().enumerate() {
            let parameter_stride = match places.iter().position(|place| *place == axis) {
                Some(listed) => fit(product(&self.normalized_shape()[listed + 1..]))?,
                None => 0,
            };
            let stride = fit(product(&shape[axis + 1..]))?;
            let dimension = Dimension { size: fit(Some(size as u64))?, stride, parameter_stride };
            if places.contains(&axis) {
                elements.push(dimension);
            } else {
                rows.push(dimension);
                leading.push(size);
            }
        }
        Ok(View { leading, grid: Some(Grid::new(&rows, &elements)?) })
    }

    fn grid_of_groups(&self, groups: usize, samples: &[usize], shape: &[usize]) -> Result<Grid, Error> {
        let too_large = || Error::Size { shape: shape.to_vec() };
        let fit = |count: Option<u64>| count.and_then(|count| u32::try_from(count).ok()).ok_or_else(too_large);
        let [channels, positions @ ..] = self.normalized_shape() else { return Err(too_large()) };
        let (channels, positions) = (fit(Some(*channels as u64))?, fit(product(positions))?);
        let width = fit(Some(u64::from(channels) * u64::from(positions)))?;
        let groups = fit(Some(groups as u64))?;
        let sample = fit(Some(u64::from(width) * u64::from(groups)))?;
        let dimension = |size, stride, parameter_stride| Dimension { size, stride, parameter_stride };
        let samples = fit(product(samples))?;
        Grid::new(
            &[dimension(samples, sample, 0), dimension(groups, width, channels)],
            &[dimension(channels, positions, 1), dimension(positions, 1, 0)],
        )
    }
}

/// Where each of these axes, negative ones counted from the end, is in a shape; `None` if one is not.
fn places_of(axes: &[isize], shape: &[usize]) -> Option<Vec<usize>> {
    let place = |axis: &isize| match usize::try_from(*axis) {
        Ok(axis) => Some(axis).filter(|axis| *axis < shape.len()),
        Err(_) => shape.len().checked_sub(axis.unsigned_abs()),
    };
    axes.iter().map(place).collect()
}
