use crate::gpu::{Region, RowCount, check_buffer};
use crate::kernel::{Operation, Problem, Role};
use crate::tensor::product;
use crate::{Error, GpuTensor, LayerNormConfig, Modulation, wgpu};

/// What an operation reads and writes. [`Bindings::new`] and [`Bindings::of`] begin those of a forward pass: rows of input and
/// output. [`Bindings::backward`] and [`Bindings::backward_of`] begin those of a backward pass: rows of input, and of the gradients of
/// a loss by output and input. Whatever else is asked for is added.
///
/// A row is the elements that share one mean and one variance, and `width` is their number, the product of the normalized shape. Tensors
/// of "rows × width" hold one row after another, a row stride apart; for a layer that names other axes than the last ones they lie as the
/// shape of the input says. Weight and bias, each row of scale, shift and gate, and the gradients of these have the
/// [parameter shape](LayerNormConfig::parameter_shape), which below is `width` elements; in group and instance normalization it is one
/// element for each channel.
///
/// Any of these may lie in one buffer. Output and sum may be the very region of the input or the residual, which they then overwrite;
/// the gradients by input and residual that of the output gradient, of the gradient of the sum, of the input or of the residual. Nothing
/// else that is written may overlap anything ([`Error::Overlap`]); in a browser, tensors of one buffer must lie further apart
/// ([`Error::SharedRange`]).
///
/// ```
/// use gpu_layer_norm::{Bindings, Region, StorageType, wgpu};
///
/// // Pre-norm transformer: the residual stream takes up the attention's output, and what goes to the MLP is normalized.
/// fn add_and_normalize(rows: u64, stream: &wgpu::Buffer, attention: &wgpu::Buffer, mlp_input: &wgpu::Buffer) -> Bindings {
///     let stream = Region::new(stream, StorageType::F32);
///     Bindings::new(rows, Region::new(attention, StorageType::Bf16), Region::new(mlp_input, StorageType::Bf16))
///         .residual(stream.clone())
///         .sum(stream)
/// }
/// ```
///
/// ```
/// use gpu_layer_norm::{Bindings, Region, StorageType, wgpu};
///
/// // Its backward pass. The sum is the input now; the stream's gradient takes up the norm's, in place.
/// fn backward(rows: u64, stream: &wgpu::Buffer, mlp_gradient: &wgpu::Buffer, stream_gradient: &wgpu::Buffer) -> Bindings {
///     let [stream, stream_gradient] = [stream, stream_gradient].map(|buffer| Region::new(buffer, StorageType::F32));
///     Bindings::backward(rows, stream, Region::new(mlp_gradient, StorageType::Bf16), stream_gradient.clone())
///         .sum_gradient(stream_gradient)
/// }
/// ```
///
/// # Scale, shift and gate of a condition
///
/// Rows may belong to conditions, such as the images of a batch, the time steps of a diffusion, or the style of a text: row r to condition
/// c = r / [`rows_per_condition`](Self::rows_per_condition), rounded down. Then x̂ is the normalized
///
/// s = input + residual,  with a [`gate`](Self::gate) s = residual + gate\[c\] · input
///
/// and [`scale`](Self::scale) and [`shift`](Self::shift) go together with weight and bias in one of two ways
/// ([`LayerNormConfig::modulation`]):
///
/// adaptive: y = (x̂ · weight + bias) · (1 + scale\[c\]) + shift\[c\]
///
/// conditional: y = x̂ · (weight + scale\[c\]) + (bias + shift\[c\])
///
/// Each of the three may be absent, weight and bias too. They are conditions × width, of any storage type, anywhere in a buffer.
///
/// **Accuracy**, besides the rounding to what y is stored as, for rows of up to 65,536 elements (beyond, 2e-6 takes the place of
/// 1e-6). With
///
/// | | adaptive | conditional |
/// |---|---|---|
/// | W, what x̂ is multiplied by | weight · (1 + scale) | weight + scale |
/// | W_m, the magnitudes in it | \|weight\| · (1 + \|scale\|) | \|weight\| + \|scale\| |
/// | B_m, those of what is added | \|bias\| · (1 + \|scale\|) + \|shift\| | \|bias\| + \|shift\| |
///
/// y is within 1e-6 · max(1, |x̂| / 4) · |W| + 2^-23 · (3 · |x̂| · W_m + 2 · B_m + |y|): by so much x̂ is off, and so much is rounded on
/// the way from it to y. s is what f32 makes of it, rounded once or, with a gate, up to twice.
///
/// [`backward`](Self::backward) says what the gradients are, and how accurate.
#[derive(Clone, Debug)]
pub struct Bindings {
    operation: Operation,
    accumulate: bool,
    rows: Option<u64>,
    rows_per_condition: Option<u64>,
    sequence_length: Option<u64>,
    input_shape: Option<Vec<usize>>,
    regions: [Option<Region>; Role::ALL.len()],
    row_count: Option<RowCount>,
}

impl Bindings {
    /// `rows` rows of input, normalized into the output.
    pub fn new(rows: u64, input: impl Into<Region>, output: impl Into<Region>) -> Self {
        Self::empty(Operation::Forward, Some(rows)).with(Role::Input, input).with(Role::Output, output)
    }

    /// All rows of a tensor, normalized into a tensor of the same shape.
    pub fn of(input: &GpuTensor, output: &GpuTensor) -> Self {
        Self::empty(Operation::Forward, None).with(Role::Input, input).with(Role::Output, output)
    }

    /// The backward pass over `rows` rows: from the input of the forward pass and the gradient of a loss by its output to the
    /// gradient by its input (where it had a residual too, that by the residual is the same, unless there is a gate).
    ///
    /// Give [`mean`](Self::mean) and [`rstd`](Self::rstd) as the forward pass has saved them; without them the rows are measured
    /// again. (A [causal](LayerNormConfig::causal) layer takes neither: it measures the positions itself.) For the gradients of weight
    /// and bias give [`weight_gradient`](Self::weight_gradient) and [`bias_gradient`](Self::bias_gradient).
    ///
    /// # With conditions
    ///
    /// Give [`scale`](Self::scale) and [`gate`](Self::gate) as in the forward pass, and input and residual as they were before it: where
    /// there is a gate, a sum that was written over the residual does not do. With W = weight · (1 + scale) in the adaptive form,
    /// W = weight + scale in the conditional one, g = dy · W, dx made of this g as
    /// [`GpuLayerNorm::backward`](crate::GpuLayerNorm::backward) has it, and ds = dx + [`sum_gradient`](Self::sum_gradient):
    ///
    /// | gradient by | adaptive | conditional | sum over |
    /// |---|---|---|---|
    /// | input | ds, with a gate ds · gate | the same | |
    /// | residual | ds | the same | |
    /// | gate | Σ ds · input | the same | the rows of each condition |
    /// | shift | Σ dy | the same | the rows of each condition |
    /// | scale | Σ dy · (x̂ · weight + bias) | Σ dy · x̂ | the rows of each condition |
    /// | weight | Σ dy · (1 + scale) · x̂ | Σ dy · x̂ | all rows |
    /// | bias | Σ dy · (1 + scale) | Σ dy | all rows |
    ///
    /// **Accuracy**, besides the rounding of the results themselves, for rows of up to 65,536 elements; for longer ones 2e-6 becomes
    /// 4e-6 and 1e-6 becomes 2e-6. W_m is that of [`Bindings`], c = 1e-6 + 3e-8 · min(rows, 512), and c′ the same with the
    /// number of rows of the condition. Sums are those of the gradient.
    ///
    /// | gradient by | is within |
    /// |---|---|
    /// | what is normalized, ds | 2e-6 · max(largest \|dx\| in the row, rstd · max(\|dy\| · W_m)) |
    /// | weight | c · Σ\|dy\| · (1 + \|scale\|) · max(1, \|x̂\| / 4); in the conditional form without the factor of the scale |
    /// | bias | c · Σ\|dy\| · (1 + \|scale\|); in the conditional form without the factor of the scale |
    /// | shift | c′ · Σ\|dy\| |
    /// | scale, conditional | P = c′ · Σ\|dy\| · max(1, \|x̂\| / 4) |
    /// | scale, adaptive | \|weight\| · P + \|bias\| · c′ · Σ\|dy\| + 2^-22 · Σ\|dy\| · (\|weight · x̂\| + \|bias\|) |
    /// | input, with a gate | \|gate\| · (the bound of ds + 2^-23 · \|ds\|) |
    /// | gate | Σ\|input\| · (the bound of ds + 2^-23 · \|ds\|) + c′ · Σ\|ds · input\| |
    ///
    /// # Causal
    ///
    /// In [causal](LayerNormConfig::causal) layer normalization an element is part of the mean and the variance of its own position and of
    /// all later ones. With μ and r the mean and rstd of each position t, and N the number of elements that they are of (D the
    /// same, one less for the unbiased variance), the gradient by an element x of position s is
    ///
    /// dx = r_s · g − Σ_{t ≥ s} (r_t · Σg / N_t + r_t² · (x − μ_t) · Σ(g · x̂) / D_t)
    ///
    /// where Σg and Σ(g · x̂) are sums over position t. RMS normalization has no μ and no Σg. Every error is that of a position's own row,
    /// or that of a term of a later position, so dx is within
    ///
    /// 2e-6 · (max(largest |dx| of the row, r_s · max|g|) + A + C · |x − μ_s| + M)
    ///
    /// A = Σ_{t ≥ s} r_t · Σ|g| / N_t,  C_s = C = Σ_{t ≥ s} r_t² · Σ(|g| · max(1, |x̂|)) / D_t,
    /// M = Σ_{t ≥ s} |μ_t − μ_{t+1}| · C_{t+1}
    ///
    /// with |dy| · W_m for |g| where there are conditions. C_{t+1} is 0 after the last position. The gradients that are sums are within the
    /// same as above.
    pub fn backward(
        rows: u64,
        input: impl Into<Region>,
        output_gradient: impl Into<Region>,
        input_gradient: impl Into<Region>,
    ) -> Self {
        Self::empty(Operation::Backward, Some(rows))
            .with(Role::Input, input)
            .with(Role::OutputGradient, output_gradient)
            .with(Role::InputGradient, input_gradient)
    }

    /// As [`backward`](Self::backward), for all rows of tensors of the same shape.
    pub fn backward_of(input: &GpuTensor, output_gradient: &GpuTensor, input_gradient: &GpuTensor) -> Self {
        Self::empty(Operation::Backward, None)
            .with(Role::Input, input)
            .with(Role::OutputGradient, output_gradient)
            .with(Role::InputGradient, input_gradient)
    }

    /// Measures `rows` rows, each of which is a part of a longer one: writes 4 words a row, [`RowMoments`](crate::RowMoments), of which the
    /// region says [`StorageType::F32`](crate::StorageType::F32). With [`residual`](Self::residual) and [`gate`](Self::gate) it measures
    /// what [`normalize`](Self::normalize) with the same does. [`GpuLayerNorm::moments`](crate::GpuLayerNorm::moments) has an example.
    pub fn moments(rows: u64, input: impl Into<Region>, moments: impl Into<Region>) -> Self {
        Self::empty(Operation::Moments, Some(rows)).with(Role::Input, input).with(Role::Moments, moments)
    }

    /// Normalizes `rows` rows, each of which is a part of a longer one, by the moments of whole rows. It may have all that a forward pass
    /// ([`new`](Self::new)) has but a [`state`](Self::state). The moments are one storage buffer more.
    pub fn normalize(
        rows: u64,
        input: impl Into<Region>,
        moments: impl Into<Region>,
        output: impl Into<Region>,
    ) -> Self {
        Self::empty(Operation::Normalize, Some(rows))
            .with(Role::Input, input)
            .with(Role::Moments, moments)
            .with(Role::Output, output)
    }

    /// The sums that the gradients by `rows` rows rest on, as far as these parts of longer rows go: 2 words a row, f32, Σg and Σ(g · x̂),
    /// with g = dy · W as [`backward`](Self::backward) has it. `moments` are those of whole rows.
    pub fn gradient_sums(
        rows: u64,
        input: impl Into<Region>,
        moments: impl Into<Region>,
        output_gradient: impl Into<Region>,
        sums: impl Into<Region>,
    ) -> Self {
        Self::empty(Operation::GradientSums, Some(rows))
            .with(Role::Input, input)
            .with(Role::Moments, moments)
            .with(Role::OutputGradient, output_gradient)
            .with(Role::GradientSums, sums)
    }

    /// The gradients by `rows` rows, each of which is a part of a longer one, from the moments of whole rows and the
    /// [`gradient_sums`](Self::gradient_sums) of all parts, added up. It may have all that [`backward`](Self::backward) has but
    /// mean and rstd, which the moments tell.
    pub fn gradients(
        rows: u64,
        input: impl Into<Region>,
        moments: impl Into<Region>,
        output_gradient: impl Into<Region>,
        sums: impl Into<Region>,
        input_gradient: impl Into<Region>,
    ) -> Self {
        Self::empty(Operation::Gradients, Some(rows))
            .with(Role::Input, input)
            .with(Role::Moments, moments)
            .with(Role::OutputGradient, output_gradient)
            .with(Role::GradientSums, sums)
            .with(Role::InputGradient, input_gradient)
    }

    /// An operation on all rows of whole tensors.
    pub(crate) fn whole(operation: Operation, tensors: &[(Role, &GpuTensor)]) -> Self {
        tensors.iter().fold(Self::empty(operation, None), |bindings, (role, tensor)| bindings.with(*role, *tensor))
    }

    fn empty(operation: Operation, rows: Option<u64>) -> Self {
        let regions = [const { None }; Role::ALL.len()];
        Self {
            operation,
            accumulate: false,
            rows,
            rows_per_condition: None,
            sequence_length: None,
            input_shape: None,
            regions,
            row_count: None,
        }
    }

    fn with(mut self, role: Role, region: impl Into<Region>) -> Self {
        self.regions[role as usize] = Some(region.into());
        self
    }

    /// Adds this to the input, in f32, and normalizes the sum. Rows × width.
    #[must_use]
    pub fn residual(self, region: impl Into<Region>) -> Self {
        self.with(Role::Residual, region)
    }

    /// Writes what is normalized here: the input, input + residual, or with a gate residual + gate · input. Rows × width.
    #[must_use]
    pub fn sum(self, region: impl Into<Region>) -> Self {
        self.with(Role::Sum, region)
    }

    /// The mean of each row: f32, one element a row. The forward pass writes it here, the backward pass reads it. Not for RMS
    /// normalization, which has none.
    #[must_use]
    pub fn mean(self, region: impl Into<Region>) -> Self {
        self.with(Role::Mean, region)
    }

    /// 1 / sqrt(variance + eps) of each row, for RMS normalization 1 / sqrt(mean(x²) + eps): f32, one element a row. ONNX calls it
    /// InvStdDev. The forward pass writes it here, the backward pass reads it.
    #[must_use]
    pub fn rstd(self, region: impl Into<Region>) -> Self {
        self.with(Role::Rstd, region)
    }

    /// Multiplies with this, rows of which belong to conditions: conditions × width, one row for each
    /// [`rows_per_condition`](Self::rows_per_condition) rows of the input. [`Modulation`] says how. The backward pass reads it too.
    ///
    /// ```
    /// use gpu_layer_norm::{Bindings, Region, StorageType, wgpu};
    ///
    /// // A block of a diffusion transformer: the residual stream takes up the attention's output, as much of it as a gate says, and what
    /// // goes to the MLP is normalized and modulated. `modulation` has shift, scale and gate of each sample one after another.
    /// fn block(
    ///     samples: u64, tokens: u64, width: u64,
    ///     stream: &wgpu::Buffer, attention: &wgpu::Buffer, modulation: &wgpu::Buffer, mlp_input: &wgpu::Buffer,
    /// ) -> Bindings {
    ///     let of_sample = |i| Region::new(modulation, StorageType::F32).offset(i * width).row_stride(3 * width);
    ///     let stream = Region::new(stream, StorageType::F32);
    ///     let [attention, mlp_input] = [attention, mlp_input].map(|buffer| Region::new(buffer, StorageType::Bf16));
    ///     Bindings::new(samples * tokens, attention, mlp_input)
    ///         .residual(stream.clone())
    ///         .sum(stream)
    ///         .shift(of_sample(0))
    ///         .scale(of_sample(1))
    ///         .gate(of_sample(2))
    ///         .rows_per_condition(tokens)
    /// }
    /// ```
    #[must_use]
    pub fn scale(self, region: impl Into<Region>) -> Self {
        self.with(Role::Scale, region)
    }

    /// Adds this in the end, conditions × width, as [`scale`](Self::scale) multiplies. The backward pass does not read it.
    #[must_use]
    pub fn shift(self, region: impl Into<Region>) -> Self {
        self.with(Role::Shift, region)
    }

    /// Multiplies the input by this before the [`residual`](Self::residual), which it needs, is added: conditions × width. What is
    /// normalized is residual + gate · input. The backward pass reads it too.
    #[must_use]
    pub fn gate(self, region: impl Into<Region>) -> Self {
        self.with(Role::Gate, region)
    }

    /// So many rows one after another share a condition, a row of scale, shift and gate; the last condition may have fewer. In group
    /// normalization each group of a sample is a row. Default: what the shapes say where whole tensors are given ([`of`](Self::of),
    /// [`backward_of`](Self::backward_of)), whose condition tensors have the shape of the input without some of the dimensions before the
    /// normalized ones, as `[batch, width]` beside `[batch, length, width]`; otherwise 1.
    #[must_use]
    pub fn rows_per_condition(self, rows: u64) -> Self {
        Self { rows_per_condition: Some(rows), ..self }
    }

    /// The shape of the input, where it is no whole tensor and its rows are not simply elements one after another: where a layer
    /// normalizes [axes](LayerNormConfig::axes) that are not the last ones, or [groups](LayerNormConfig::group_norm) of channels. Its
    /// elements must lie one after another, from the region's offset on.
    #[must_use]
    pub fn input_shape(self, shape: impl Into<Vec<usize>>) -> Self {
        Self { input_shape: Some(shape.into()), ..self }
    }

    /// So many rows one after another are the positions of a sequence, for a layer that is [causal](LayerNormConfig::causal); the last
    /// sequence may have fewer. Default: what the shape of the input says where it is a whole tensor ([`of`](Self::of),
    /// [`backward_of`](Self::backward_of)), of which the last dimension before the normalized ones is that of positions; otherwise all
    /// rows are one sequence.
    #[must_use]
    pub fn sequence_length(self, positions: u64) -> Self {
        Self { sequence_length: Some(positions), ..self }
    }

    /// What a [causal](LayerNormConfig::causal) layer carries from one call to the next, so that a sequence may be normalized block by
    /// block, as it comes in. It is read before the positions of this call, and overwritten with what holds after them. Fill it with zeros
    /// where a sequence begins. It has 8 words of 32 bits for each sequence, and [`StorageType::F32`](crate::StorageType::F32) is what a
    /// region of it says; what is in them is the kernels' own affair.
    ///
    /// The values are those of one long call, within the bounds on the error of both; the bits are the same
    /// where each block but the last has a multiple of 64 positions and the plans measure rows alike, as plans of one geometry do. Only
    /// the forward pass has states: a backward pass takes whole sequences.
    ///
    /// ```
    /// use gpu_layer_norm::{Bindings, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Tensor};
    ///
    /// let device = GpuDevice::new()?;
    /// let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new(2).causal(true))?;
    /// let whole = Tensor::from_f32([1, 3, 2], vec![1.0, 3.0, 5.0, 1.0, 2.0, 4.0])?;
    /// let expected = layer_norm.run(&device, &whole)?;
    ///
    /// let state = GpuTensor::zeros(&device, [1, 8])?;
    /// let mut found = Vec::new();
    /// for block in whole.values().chunks(2) {
    ///     let input = GpuTensor::upload(&device, &Tensor::from_f32([1, 1, 2], block.to_vec())?)?;
    ///     let output = GpuTensor::zeros(&device, [1, 1, 2])?;
    ///     layer_norm.execute(&device, &Bindings::of(&input, &output).state(&state))?;
    ///     found.extend(output.download()?.into_values());
    /// }
    /// assert!(found.iter().zip(&*expected.values()).all(|(a, b)| (a - b).abs() < 1e-6));
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    #[must_use]
    pub fn state(self, region: impl Into<Region>) -> Self {
        self.with(Role::State, region)
    }

    /// Writes the gradient by the residual here, in a backward pass that has a [`residual`](Self::residual): rows × width. Without a gate
    /// it is the same as that by the input.
    #[must_use]
    pub fn residual_gradient(self, region: impl Into<Region>) -> Self {
        self.with(Role::ResidualGradient, region)
    }

    /// Writes the gradient by the scale here, in a backward pass that has a [`scale`](Self::scale): conditions × width.
    #[must_use]
    pub fn scale_gradient(self, region: impl Into<Region>) -> Self {
        self.with(Role::ScaleGradient, region)
    }

    /// Writes the gradient by the shift here, in a backward pass: conditions × width.
    #[must_use]
    pub fn shift_gradient(self, region: impl Into<Region>) -> Self {
        self.with(Role::ShiftGradient, region)
    }

    /// Writes the gradient by the gate here, in a backward pass that has a [`gate`](Self::gate): conditions × width.
    #[must_use]
    pub fn gate_gradient(self, region: impl Into<Region>) -> Self {
        self.with(Role::GateGradient, region)
    }

    /// The gradient of the loss by the sum (input + residual, or residual + gate · input) that does not come through the output, in a
    /// backward pass. It is added to that which does; the gradient by the residual is what comes out, and so is that by the input, which a
    /// gate multiplies. Rows × width.
    #[must_use]
    pub fn sum_gradient(self, region: impl Into<Region>) -> Self {
        self.with(Role::SumGradient, region)
    }

    /// Writes the gradient by the weight here, in a backward pass: `width` elements.
    #[must_use]
    pub fn weight_gradient(self, region: impl Into<Region>) -> Self {
        self.with(Role::WeightGradient, region)
    }

    /// Writes the gradient by the bias here, in a backward pass: `width` elements.
    #[must_use]
    pub fn bias_gradient(self, region: impl Into<Region>) -> Self {
        self.with(Role::BiasGradient, region)
    }

    /// Whether the gradients by weight, bias, scale, shift and gate are added to what their regions hold, in place of overwriting it.
    /// Those by input and residual are always overwritten. Default: no.
    #[must_use]
    pub fn accumulate(self, accumulate: bool) -> Self {
        Self { accumulate, ..self }
    }

    /// Takes the weight from here, `width` elements, in place of the layer's own.
    #[must_use]
    pub fn weight(self, region: impl Into<Region>) -> Self {
        self.with(Role::Weight, region)
    }

    /// Takes the bias from here, `width` elements, in place of the layer's own.
    #[must_use]
    pub fn bias(self, region: impl Into<Region>) -> Self {
        self.with(Role::Bias, region)
    }

    /// Takes the number of rows from the u32 at `index` of a buffer of u32, when the recording runs. Rows from there on are left as
    /// they are; a count above the rows given before, or above those of
    /// [`PreparedPlan::set_rows`](crate::PreparedPlan::set_rows), counts as these. The buffer needs [`wgpu::BufferUsages::STORAGE`].
    #[must_use]
    pub fn row_count(self, buffer: &wgpu::Buffer, index: u64) -> Self {
        // What overflows lies past the end of any buffer too.
        Self { row_count: Some(RowCount { buffer: buffer.clone(), offset: index.saturating_mul(4) }), ..self }
    }

    /// The region of a tensor, if one was given.
    pub fn get(&self, role: Role) -> Option<&Region> {
        self.region(role)
    }

    pub(crate) fn region(&self, role: Role) -> Option<&Region> {
        self.regions[role as usize].as_ref()
    }

    pub(crate) fn row_count_on_device(&self) -> Option<&RowCount> {
        self.row_count.as_ref()
    }

    /// The layer's own parameters where no others were given.
    pub(crate) fn or_parameters(
        mut self,
        weight: Option<&GpuTensor>,
        bias: Option<&GpuTensor>,
        of: Modulation,
    ) -> Self {
        // The backward pass needs the bias only for the gradient of a scale that multiplies it.
        let has_bias =
            !self.operation.is_backward() || of == Modulation::Adaptive && self.region(Role::ScaleGradient).is_some();
        for (role, own) in [(Role::Weight, weight), (Role::Bias, bias.filter(|_| has_bias))] {
            let own = own.filter(|_| self.operation.reads(role));
            let region = &mut self.regions[role as usize];
            *region = region.take().or(own.map(Region::from));
        }
        self
    }

    /// Rows of the input.
    pub(crate) fn row_total(&self, config: &LayerNormConfig) -> Result<u64, Error> {
        match (self.rows, self.whole_input()) {
            (Some(rows), _) => Ok(rows),
            (None, Some(input)) => config.rows(input.shape()),
            (None, None) => Ok(0),
        }
    }

    /// The shape of the input, as far as it is known.
    fn shape(&self) -> Option<&[usize]> {
        self.input_shape.as_deref().or_else(|| self.whole_input().map(GpuTensor::shape))
    }

    /// The dimensions over which rows are counted, as far as the shape of the input is known.
    fn leading(&self, config: &LayerNormConfig) -> Option<Vec<usize>> {
        Some(config.view(self.shape()?).ok()?.leading)
    }

    /// The input, where all rows of it are meant.
    fn whole_input(&self) -> Option<&GpuTensor> {
        if self.rows.is_some() { None } else { self.region(Role::Input)?.tensor.as_ref() }
    }

    /// The problem that a layer poses with these tensors.
    pub(crate) fn problem(&self, config: &LayerNormConfig) -> Result<Problem, Error> {
        if let Some(input) = self.whole_input() {
            self.check_shapes(config, input)?;
        }
        if let (Some(expected), Some(input)) = (&self.input_shape, self.whole_input()) {
            if expected[..] != *input.shape() {
                let (expected, actual) = (expected.clone(), input.shape().to_vec());
                return Err(Error::Shape { what: Role::Input.name(), expected, actual });
            }
        }
        if self.sequence_length.is_some() && !config.is_causal() {
            return Err(Error::Needs { what: "sequence length", needs: "causal normalization" });
        }
        let rows = self.row_total(config)?;
        let mut problem = config.problem(rows)?;
        if let Some(shape) = self.shape() {
            let found = config.rows(shape)?;
            if found != rows {
                return Err(Error::RowCount { rows, max: found });
            }
            if let Some(grid) = config.view(shape)?.grid {
                problem = problem.grid(grid)?;
            }
        } else if !config.has_trailing_axes() {
            return Err(Error::Needs { what: "choice of axes or groups", needs: "shape of the input" });
        }
        if let Some(rows) = self.rows_per_condition.or(self.condition_rows(config)) {
            problem = problem.rows_per_condition(rows)?;
        }
        if let Some(positions) = self.sequence_length.or(self.positions(config)).filter(|_| config.is_causal()) {
            problem = problem.causal(positions)?;
        }
        if self.operation != Operation::Forward {
            problem = problem.with_operation(self.operation).accumulate(self.accumulate);
        }
        let buffers: Vec<_> = self.regions.iter().flatten().map(|region| &region.buffer).collect();
        for role in Role::ALL {
            let Some(region) = self.region(role) else { continue };
            let layout = crate::kernel::Layout {
                storage: region.storage,
                offset: region.offset,
                row_stride: region.row_stride,
                // Alone, a buffer needs no number.
                buffer: match buffers.iter().filter(|buffer| **buffer == &region.buffer).count() {
                    0 | 1 => None,
                    _ => buffers.iter().position(|buffer| *buffer == &region.buffer).map(|first| first as u32),
                },
            };
            problem = problem.tensor(role, layout)?;
        }
        Ok(problem)
    }

    /// That the tensors of an operation on whole tensors have the shapes they should.
    fn check_shapes(&self, config: &LayerNormConfig, input: &GpuTensor) -> Result<(), Error> {
        let leading = &config.view(input.shape())?.leading[..];
        for role in Role::ALL {
            // A part of a tensor may be anything.
            let whole = self.region(role).filter(|region| region.is_whole());
            let Some(tensor) = whole.and_then(|region| region.tensor.as_ref()) else {
                continue;
            };
            let expected = match role {
                _ if role.is_parameter() => config.parameter_shape(),
                _ if role.is_statistic() => leading,
                _ if role.is_condition() => {
                    self.check_condition(config, leading, role, tensor)?;
                    continue;
                }
                // Its regions are checked by their size.
                Role::State => continue,
                _ => match role.words() {
                    Some(words) => &[leading, &[words as usize]].concat(),
                    None => input.shape(),
                },
            };
            if tensor.shape() != expected {
                return Err(Error::Shape {
                    what: role.name(),
                    expected: expected.to_vec(),
                    actual: tensor.shape().to_vec(),
                });
            }
        }
        Ok(())
    }

    /// That a tensor has a row of the normalized shape for each condition.
    fn check_condition(
        &self,
        config: &LayerNormConfig,
        leading: &[usize],
        role: Role,
        tensor: &GpuTensor,
    ) -> Result<(), Error> {
        let product =
            |dimensions: &[usize]| product(dimensions).ok_or_else(|| Error::Size { shape: dimensions.to_vec() });
        let rows = product(leading)?;
        let of_each = self.rows_per_condition.or(self.condition_rows(config)).unwrap_or(1).max(1);
        let conditions = rows.div_ceil(of_each);
        let found = tensor.shape().strip_suffix(config.parameter_shape());
        let found = found.map(product).transpose()?;
        if found == Some(conditions) {
            return Ok(());
        }
        let expected = [&[conditions as usize], config.parameter_shape()].concat();
        Err(Error::Shape { what: role.name(), expected, actual: tensor.shape().to_vec() })
    }

    /// Positions of a sequence as the shape of a whole input has them.
    fn positions(&self, config: &LayerNormConfig) -> Option<u64> {
        Some((*self.leading(config)?.last()? as u64).max(1))
    }

    /// Rows that share a condition as the shapes of whole tensors have it: a condition's tensor has the first dimensions of the input,
    /// and the normalized ones.
    fn condition_rows(&self, config: &LayerNormConfig) -> Option<u64> {
        let shape = |role| Some(self.region(role).filter(|region| region.is_whole())?.tensor.as_ref()?.shape());
        let leading = self.leading(config)?;
        let conditions = Role::ALL.into_iter().filter(|role| role.is_condition()).find_map(shape)?;
        let conditions = conditions.strip_suffix(config.parameter_shape())?;
        let rest = leading.strip_prefix(conditions)?;
        Some(product(rest)?.max(1))
    }

    /// That every region lies within a buffer that can be bound.
    pub(crate) fn check(&self, problem: &Problem, device: &crate::GpuDevice) -> Result<(), Error> {
        for role in Role::ALL {
            if let Some(region) = self.region(role) {
                region.check(role, problem, device)?;
            }
        }
        if let Some(count) = &self.row_count {
            // Any buffer ends before 2^63.
            check_buffer("row count", &count.buffer, count.offset.min(1 << 63) + 4)?;
            for role in Role::ALL.into_iter().filter(|role| problem.writes(*role)) {
                if self.region(role).is_none_or(|region| region.buffer != count.buffer) {
                    continue;
                }
                let bytes = problem.byte_range(role)?;
                if bytes.start < count.offset + 4 && count.offset < bytes.end {
                    return Err(Error::Overlap { written: role.name(), other: "row count" });
                }
            }
        }
        Ok(())
    }
}
