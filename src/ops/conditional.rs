use super::{Bindings, GpuLayerNorm, GpuStatistics, LayerNormGradients};
use crate::gpu::{Categories, Matrix, Product, Step, TableGradient, check_buffer, check_matrix, matrix};
use crate::kernel::{Activation, Modulation, Role};
use crate::{Error, GpuDevice, GpuTensor, LayerNormConfig, PreparedPlan, Region, StorageType, Tensor, wgpu};

/// What a conditional layer computes: the layer that it modulates, and how a condition becomes scale and shift. Checked when the
/// layer is made.
///
/// ```
/// use gpu_layer_norm::{Activation, ConditionalLayerNormConfig, LayerNormConfig};
///
/// // Text generation in the style of a sentence's embedding of 128 elements.
/// let bert = ConditionalLayerNormConfig::new(LayerNormConfig::new(768).eps(1e-12), 128);
/// // Through a hidden layer of 64 first, as bert4keras has it.
/// let hidden = bert.clone().hidden(64, Activation::Relu);
/// // Conditions that are one of 10 categories, each with a vector of 128 of its own.
/// let categories = bert.clone().categories(10);
/// # let _ = (hidden, categories);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionalLayerNormConfig {
    layer: LayerNormConfig,
    condition_size: usize,
    hidden: Option<(usize, Activation)>,
    categories: Option<usize>,
}

impl ConditionalLayerNormConfig {
    /// A layer whose weight and bias a condition of so many elements moves. Whatever [`Modulation`] the layer's config names, it is used
    /// with [`Modulation::Conditional`].
    pub fn new(layer: LayerNormConfig, condition_size: usize) -> Self {
        let layer = layer.modulation(Modulation::Conditional);
        Self { layer, condition_size, hidden: None, categories: None }
    }

    /// The condition goes through a hidden layer of this size first: h = activation(W_h · c). It has no bias.
    #[must_use]
    pub fn hidden(self, size: usize, activation: Activation) -> Self {
        Self { hidden: Some((size, activation)), ..self }
    }

    /// The layer has a table of so many rows, from which categories pick conditions.
    #[must_use]
    pub fn categories(self, count: usize) -> Self {
        Self { categories: Some(count), ..self }
    }

    /// The config of the layer that is modulated.
    pub fn layer_config(&self) -> &LayerNormConfig {
        &self.layer
    }

    /// Elements of a condition.
    pub fn condition_size(&self) -> usize {
        self.condition_size
    }

    /// Size of the hidden layer, and its activation. `None` if there is no such layer.
    pub fn hidden_layer(&self) -> Option<(usize, Activation)> {
        self.hidden
    }

    /// Rows of the table. `None` if there is no table.
    pub fn category_count(&self) -> Option<usize> {
        self.categories
    }

    /// Elements of what scale and shift are projected from.
    fn source_size(&self) -> usize {
        self.hidden.map_or(self.condition_size, |(size, _)| size)
    }
}

/// The conditions of a batch on the device. Rows are shared out among them evenly and in order: with an input of shape
/// `[batch, positions…, hidden]`, each holds for all positions of its sample.
#[derive(Clone, Copy, Debug)]
pub enum GpuCondition<'a> {
    /// Vectors: f32, of shape `[batch, condition_size]`.
    Values(&'a GpuTensor),
    /// Categories, which pick rows of the layer's table when the recording runs: `batch` values u32 in a buffer that has
    /// [`wgpu::BufferUsages::STORAGE`], from the value at index `first` on. One that is too large picks the last row.
    Categories {
        /// The buffer.
        buffer: &'a wgpu::Buffer,
        /// Index of the first, in values of 4 bytes.
        first: u64,
        /// How many there are: one for each sample.
        batch: usize,
    },
}

impl<'a> From<&'a GpuTensor> for GpuCondition<'a> {
    fn from(values: &'a GpuTensor) -> Self {
        Self::Values(values)
    }
}

/// The conditions of a batch on the host; see [`GpuCondition`].
#[derive(Clone, Copy, Debug)]
pub enum HostCondition<'a> {
    /// Vectors of shape `[batch, condition_size]`. They are used as f32, whatever their storage type is.
    Values(&'a Tensor),
    /// Categories, one for each sample.
    Categories(&'a [u32]),
}

/// The gradients of a loss by what a conditional layer takes. Those that have to do with the condition are `None` where there was none.
#[derive(Clone, Debug)]
pub struct ConditionalGradients {
    /// By the input, of its shape and storage type.
    pub input: GpuTensor,
    /// By the weight, of the normalized shape and the weight's storage type. `None` if the layer has none.
    pub weight: Option<GpuTensor>,
    /// By the bias, of the normalized shape and the bias's storage type. `None` if the layer has none.
    pub bias: Option<GpuTensor>,
    /// By the weight's projection, of its shape; f32, as all that follow.
    pub weight_projection: Option<GpuTensor>,
    /// By the bias's projection, of its shape.
    pub bias_projection: Option<GpuTensor>,
    /// By the hidden projection, of its shape. `None` if the layer has none.
    pub hidden_projection: Option<GpuTensor>,
    /// By the condition, `[batch, condition_size]`; where categories picked it, by what they picked.
    pub condition: Option<GpuTensor>,
    /// By the table, of its shape. `None` unless categories picked the condition.
    pub table: Option<GpuTensor>,
}

/// Conditional layer normalization: layer normalization whose weight and bias a condition moves, another one for each sample of a
/// batch (Su, "Conditional Text Generation Based on Conditional Layer Normalization", 2020).
///
/// y = x̂ · (weight + W_w · c) + (bias + W_b · c)
///
/// x̂ is what [`GpuLayerNorm`] has, an absent weight is 1, an absent bias 0. The condition c, `condition_size` elements, holds for all
/// positions of its sample. W_w and W_b, of shape `[width, condition_size]`, begin as zeros, so the layer begins as plain layer
/// normalization. With a [hidden layer](ConditionalLayerNormConfig::hidden), h = activation(W_h · c) takes the place of c: W_h has shape
/// `[hidden_size, condition_size]`, W_w and W_b have `[width, hidden_size]`. Without a condition it is plain layer normalization.
///
/// W_w · c and W_b · c are formed anew by each call, in memory of its own, and added to weight and bias as they are read. The weight and
/// the bias that are stored change by [`layer`](Self::layer) only, never by a call. (There is published code for such layers that adds
/// what the condition gives into the stored parameters at every call, so that the layer drifts as it is used, in evaluation too.)
///
/// The projections run on the device, in the same recording, before the kernels of the norm. Their sums are within 1.1e-6 · Σ|w · c|.
///
/// ```
/// use gpu_layer_norm::{
///     ConditionalLayerNormConfig, GpuConditionalLayerNorm, GpuDevice, HostCondition, LayerNormConfig, Tensor,
/// };
///
/// let device = GpuDevice::new()?;
/// let config = ConditionalLayerNormConfig::new(LayerNormConfig::new(3), 2);
/// let layer = GpuConditionalLayerNorm::new(&device, &config)?;
/// // The first element of a condition doubles the weight, the second one moves the bias.
/// layer.set_weight_projection(&Tensor::from_f32([3, 2], [1.0, 0.0].repeat(3))?)?;
/// layer.set_bias_projection(&Tensor::from_f32([3, 2], [0.0, 1.0].repeat(3))?)?;
///
/// // Two samples of one position.
/// let input = Tensor::from_f32([2, 1, 3], vec![1.0, 2.0, 3.0, 1.0, 2.0, 3.0])?;
/// let condition = Tensor::from_f32([2, 2], vec![0.0, 5.0, 1.0, 0.0])?;
/// let output = layer.run(&device, &input, Some(HostCondition::Values(&condition)))?;
/// let rounded: Vec<f32> = output.values().iter().map(|y| (y * 10.0).round() / 10.0).collect();
/// assert_eq!(rounded, [3.8, 5.0, 6.2, -2.4, 0.0, 2.4]);
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GpuConditionalLayerNorm {
    device: GpuDevice,
    config: ConditionalLayerNormConfig,
    layer: GpuLayerNorm,
    weight_projection: GpuTensor,
    bias_projection: GpuTensor,
    hidden_projection: Option<GpuTensor>,
    table: Option<GpuTensor>,
}

impl GpuConditionalLayerNorm {
    /// A layer whose projections of weight and bias are zeros. Hidden projection and table begin as numbers that look random, without
    /// which nothing could be learned, and are the same every time: the hidden projection's are uniform and as large as Glorot and Bengio
    /// (2010) have them, the table's uniform with a standard deviation of 1.
    ///
    /// # Errors
    /// [`Error::Zero`] for a size of 0, [`Error::BindingSize`] for a matrix that the device cannot bind whole, and as
    /// [`GpuLayerNorm::new`].
    pub fn new(device: &GpuDevice, config: &ConditionalLayerNormConfig) -> Result<Self, Error> {
        let condition_size = config.condition_size;
        let sizes = [
            ("condition_size", Some(condition_size)),
            ("size of the hidden layer", config.hidden.map(|(size, _)| size)),
            ("number of categories", config.categories),
        ];
        if let Some((what, _)) = sizes.into_iter().find(|(_, size)| *size == Some(0)) {
            return Err(Error::Zero { what });
        }
        config.layer.problem(1)?;
        let width = config.layer.parameter_shape().iter().product::<usize>();
        let source_size = config.source_size();
        // Before anything is made.
        for (what, rows, columns) in [
            ("weight projection", Some(width), source_size),
            ("hidden projection", config.hidden.map(|(size, _)| size), condition_size),
            ("table", config.categories, condition_size),
        ] {
            check_matrix(device, what, rows.unwrap_or(0), columns)?;
        }
        let hidden_projection = config.hidden.map(|(size, _)| {
            let limit = (6.0 / (size as f64 + condition_size as f64)).sqrt();
            uniform(device, "hidden projection", size, condition_size, limit as f32)
        });
        let table = config.categories.map(|count| uniform(device, "table", count, condition_size, 3.0_f32.sqrt()));
        Ok(Self {
            device: device.clone(),
            config: config.clone(),
            layer: GpuLayerNorm::new(device, &config.layer)?,
            weight_projection: matrix(device, "weight projection", width, source_size)?,
            bias_projection: matrix(device, "bias projection", width, source_size)?,
            hidden_projection: hidden_projection.transpose()?,
            table: table.transpose()?,
        })
    }

    /// The config that the layer was made with.
    pub fn config(&self) -> &ConditionalLayerNormConfig {
        &self.config
    }

    /// The layer that is modulated, which has weight and bias. Without a condition it is what this layer computes.
    pub fn layer(&self) -> &GpuLayerNorm {
        &self.layer
    }

    /// W_w on the device: `[width, condition_size]`, `[width, hidden_size]` with a hidden layer.
    pub fn weight_projection(&self) -> &GpuTensor {
        &self.weight_projection
    }

    /// W_b on the device, of the same shape as W_w.
    pub fn bias_projection(&self) -> &GpuTensor {
        &self.bias_projection
    }

    /// W_h on the device: `[hidden_size, condition_size]`. `None` if there is no hidden layer.
    pub fn hidden_projection(&self) -> Option<&GpuTensor> {
        self.hidden_projection.as_ref()
    }

    /// The conditions of the categories on the device: `[categories, condition_size]`. `None` if there are no categories.
    pub fn table(&self) -> Option<&GpuTensor> {
        self.table.as_ref()
    }

    /// Sets W_w, rounded to f32; operations submitted after this use it, prepared ones too.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn set_weight_projection(&self, value: &Tensor) -> Result<(), Error> {
        set("weight projection", Some(&self.weight_projection), value)
    }

    /// Sets W_b, as [`set_weight_projection`](Self::set_weight_projection) does.
    ///
    /// # Errors
    /// As [`set_weight_projection`](Self::set_weight_projection).
    pub fn set_bias_projection(&self, value: &Tensor) -> Result<(), Error> {
        set("bias projection", Some(&self.bias_projection), value)
    }

    /// Sets W_h, as [`set_weight_projection`](Self::set_weight_projection) does.
    ///
    /// # Errors
    /// [`Error::NoConditionParameter`] if there is no hidden layer, and as
    /// [`set_weight_projection`](Self::set_weight_projection).
    pub fn set_hidden_projection(&self, value: &Tensor) -> Result<(), Error> {
        set("hidden projection", self.hidden_projection(), value)
    }

    /// Sets the table, as [`set_weight_projection`](Self::set_weight_projection) does.
    ///
    /// # Errors
    /// [`Error::NoConditionParameter`] if there are no categories, and as
    /// [`set_weight_projection`](Self::set_weight_projection).
    pub fn set_table(&self, value: &Tensor) -> Result<(), Error> {
        set("table", self.table(), value)
    }

    /// Normalizes a host tensor of shape `[batch, positions…, normalized shape…]` under the conditions of its samples. The output has
    /// the input's shape, and its storage type unless the config names another.
    ///
    /// # Errors
    /// [`Error::ConditionCount`] if the rows cannot be shared out evenly among the conditions, [`Error::Shape`] unless these have
    /// `condition_size` elements, [`Error::NoConditionParameter`] for categories without a table, [`Error::Category`] for one that the
    /// table does not have, [`Error::BindingSize`], and as [`GpuLayerNorm::run`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(
        &self,
        device: &GpuDevice,
        input: &Tensor,
        condition: Option<HostCondition<'_>>,
    ) -> Result<Tensor, Error> {
        self.submit(device, input, condition)?.download()
    }

    /// As [`run`](Self::run), without blocking the caller's thread; also in a browser.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_async(
        &self,
        device: &GpuDevice,
        input: &Tensor,
        condition: Option<HostCondition<'_>>,
    ) -> Result<Tensor, Error> {
        self.submit(device, input, condition)?.download_async().await
    }

    /// Normalizes a tensor on the device into a new one. Submits, and reads nothing back.
    ///
    /// # Errors
    /// As [`run`](Self::run), but for categories, which are not looked at; and [`Error::StorageType`] for conditions that are not f32,
    /// [`Error::BufferUsage`], [`Error::Region`] for a buffer that categories cannot be read from.
    pub fn forward(
        &self,
        device: &GpuDevice,
        input: &GpuTensor,
        condition: Option<GpuCondition<'_>>,
    ) -> Result<GpuTensor, Error> {
        let output = self.layer.output_for(device, input)?;
        self.execute(device, &Bindings::of(input, &output), condition)?;
        Ok(output)
    }

    /// As [`forward`](Self::forward), and saves the statistics of the rows, which [`backward`](Self::backward) takes.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_for_training(
        &self,
        device: &GpuDevice,
        input: &GpuTensor,
        condition: Option<GpuCondition<'_>>,
    ) -> Result<(GpuTensor, GpuStatistics), Error> {
        let output = self.layer.output_for(device, input)?;
        let statistics = self.layer.statistics_for(device, input)?;
        self.execute(device, &statistics.bound_to(Bindings::of(input, &output)), condition)?;
        Ok((output, statistics))
    }

    /// From the gradient of a loss by the output to its gradients by all that the layer takes, into new tensors. `input` and `condition`
    /// are those of the forward pass, `statistics` what [`forward_for_training`](Self::forward_for_training) saved; without them the
    /// rows are measured again. One submission; nothing is read back.
    ///
    /// With dscale = Σ dy · x̂ and dshift = Σ dy over the rows of each condition, and h for c where there is no hidden layer,
    ///
    /// dW_w = dscaleᵀ · h,  dW_b = dshiftᵀ · h,  dh = dscale · W_w + dshift · W_b
    ///
    /// and through the hidden layer, z = W_h · c being what the activation is given, dz = dh · activation′(z),  dW_h = dzᵀ · c and
    /// dc = dz · W_h. The table's gradient is the sum of dc over the samples of each category. The same input gives the same bits.
    ///
    /// # Errors
    /// As [`forward`](Self::forward) and [`GpuLayerNorm::backward`].
    pub fn backward(
        &self,
        device: &GpuDevice,
        input: &GpuTensor,
        output_gradient: &GpuTensor,
        condition: Option<GpuCondition<'_>>,
        statistics: Option<&GpuStatistics>,
    ) -> Result<ConditionalGradients, Error> {
        let Some(condition) = condition else {
            let gradients = self.layer.backward(device, input, output_gradient, statistics)?;
            let LayerNormGradients { input, weight, bias } = gradients;
            return Ok(ConditionalGradients {
                input,
                weight,
                bias,
                weight_projection: None,
                bias_projection: None,
                hidden_projection: None,
                condition: None,
                table: None,
            });
        };
        let rows = self.config.layer.rows(input.shape())?;
        let condition = self.check(device, condition)?;
        let rows_per_condition = rows_per_condition(rows, condition.batch)?;
        let forward = self.project(device, &condition, Pass::Backward)?;
        let source = forward.hidden.as_ref().map_or(condition.matrix(), Matrix::new);

        let like = |what, tensor: &GpuTensor| matrix(device, what, tensor.shape()[0], tensor.shape()[1]);
        let of_condition = |what, size| matrix(device, what, condition.batch, size);
        let scale_gradient = of_condition("scale_gradient", self.width())?;
        let shift_gradient = of_condition("shift_gradient", self.width())?;
        let gradients = self.layer.gradients_for(device, input)?;
        let bindings = gradients.bound_to(Bindings::backward_of(input, output_gradient, &gradients.input));
        // Causal layer normalization measures the positions itself.
        let bindings = match statistics.filter(|_| !self.layer.config().is_causal()) {
            Some(statistics) => statistics.bound_to(bindings),
            None => bindings,
        };
        let bindings = forward.bound_to(bindings, rows_per_condition);
        let bindings = bindings.scale_gradient(region(&scale_gradient)).shift_gradient(region(&shift_gradient));
        let norm = self.layer.prepare(device, &bindings)?;

        let mut steps = Vec::new();
        let [scale, shift] = [&scale_gradient, &shift_gradient].map(Matrix::new);
        let weight_projection = like("gradient of the weight projection", &self.weight_projection)?;
        let bias_projection = like("gradient of the bias projection", &self.bias_projection)?;
        for (gradient, projection) in [(scale, &weight_projection), (shift, &bias_projection)] {
            steps.extend(Product::new(gradient.transposed(), source, projection).prepare(device)?);
        }
        let source_gradient = of_condition("gradient of the condition", self.config.source_size())?;
        let by_scale = Product::new(scale, Matrix::new(&self.weight_projection), &source_gradient);
        let by_shift = Product::new(shift, Matrix::new(&self.bias_projection), &source_gradient).accumulated();
        let by_shift = match (&forward.before, self.config.hidden) {
            (Some(before), Some((_, activation))) => by_shift.sloped(activation, before),
            _ => by_shift,
        };
        for product in [by_scale, by_shift] {
            steps.extend(product.prepare(device)?);
        }
        let (hidden_projection, condition_gradient) = match &self.hidden_projection {
            None => (None, source_gradient),
            Some(projection) => {
                let projection_gradient = like("gradient of the hidden projection", projection)?;
                let condition_gradient = of_condition("gradient of the condition", self.config.condition_size)?;
                let of_hidden = Matrix::new(&source_gradient);
                for product in [
                    Product::new(of_hidden.transposed(), condition.matrix(), &projection_gradient),
                    Product::new(of_hidden, Matrix::new(projection), &condition_gradient),
                ] {
                    steps.extend(product.prepare(device)?);
                }
                (Some(projection_gradient), condition_gradient)
            }
        };
        let table = match &condition.categories {
            None => None,
            Some(categories) => {
                let result = like("gradient of the table", condition.tensor)?;
                let gradient = TableGradient { categories, gradient: &condition_gradient, result: &result };
                steps.extend(gradient.prepare(device)?);
                Some(result)
            }
        };

        submit(device, |pass| {
            forward.steps.iter().for_each(|step| step.encode_pass(pass));
            norm.encode_pass(pass);
            steps.iter().for_each(|step| step.encode_pass(pass));
        })?;
        let LayerNormGradients { input, weight, bias } = gradients;
        Ok(ConditionalGradients {
            input,
            weight,
            bias,
            weight_projection: Some(weight_projection),
            bias_projection: Some(bias_projection),
            hidden_projection,
            condition: Some(condition_gradient),
            table,
        })
    }

    /// Runs a pass on these tensors once, as [`prepare`](Self::prepare) has it. Submits, and reads nothing back.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn execute(
        &self,
        device: &GpuDevice,
        bindings: &Bindings,
        condition: Option<GpuCondition<'_>>,
    ) -> Result<(), Error> {
        let prepared = self.prepare(device, bindings, condition)?;
        submit(device, |pass| prepared.encode_pass(pass))
    }

    /// Binds a pass to tensors and conditions, to be recorded into the caller's own encoders any number of times. The scale,
    /// shift and rows per condition that the conditions give take the place of those of the bindings; a gate has as many rows as there are
    /// conditions. Of a backward pass only the norm is bound: it reads the scale that the conditions give, and writes the gradients that
    /// the bindings ask for. The gradients by projections, conditions and table are [`backward`](Self::backward)'s alone.
    ///
    /// The first conditions are those of the first rows: with [`Bindings::row_count`], or fewer rows by
    /// [`PreparedConditional::set_rows`], each has as many rows as before.
    ///
    /// # Errors
    /// As [`forward`](Self::forward) and [`GpuLayerNorm::prepare`].
    ///
    /// ```
    /// use gpu_layer_norm::{
    ///     Bindings, ConditionalLayerNormConfig, GpuCondition, GpuConditionalLayerNorm, GpuDevice, GpuTensor, LayerNormConfig,
    ///     wgpu,
    /// };
    ///
    /// let device = GpuDevice::new()?;
    /// let config = ConditionalLayerNormConfig::new(LayerNormConfig::new(64), 16).categories(10);
    /// let layer = GpuConditionalLayerNorm::new(&device, &config)?;
    /// // Four samples of 20 positions, whose categories another kernel writes.
    /// let [input, output] = [GpuTensor::zeros(&device, [4, 20, 64])?, GpuTensor::zeros(&device, [4, 20, 64])?];
    /// let buffer = device.device().create_buffer(&wgpu::BufferDescriptor {
    ///     label: None,
    ///     size: 16,
    ///     usage: wgpu::BufferUsages::STORAGE,
    ///     mapped_at_creation: false,
    /// });
    /// let categories = GpuCondition::Categories { buffer: &buffer, first: 0, batch: 4 };
    /// let prepared = layer.prepare(&device, &Bindings::of(&input, &output), Some(categories))?;
    ///
    /// let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    /// prepared.encode(&mut encoder);
    /// device.queue().submit([encoder.finish()]);
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    pub fn prepare(
        &self,
        device: &GpuDevice,
        bindings: &Bindings,
        condition: Option<GpuCondition<'_>>,
    ) -> Result<PreparedConditional, Error> {
        device.check_same(&self.device, "layer")?;
        let Some(condition) = condition else {
            return Ok(PreparedConditional { projected: None, norm: self.layer.prepare(device, bindings)? });
        };
        let condition = self.check(device, condition)?;
        let rows_per_condition = rows_per_condition(bindings.row_total(&self.config.layer)?, condition.batch)?;
        let is_backward = bindings.get(Role::OutputGradient).is_some();
        let pass = if is_backward { Pass::Backward } else { Pass::Forward };
        let projected = self.project(device, &condition, pass)?;
        let norm = self.layer.prepare(device, &projected.bound_to(bindings.clone(), rows_per_condition))?;
        Ok(PreparedConditional { projected: Some(projected), norm })
    }

    fn width(&self) -> usize {
        self.weight_projection.shape()[0]
    }

    /// Checks a condition.
    fn check<'a>(&'a self, device: &GpuDevice, condition: GpuCondition<'a>) -> Result<Condition<'a>, Error> {
        device.check_same(&self.device, "layer")?;
        let size = self.config.condition_size;
        let condition = match condition {
            GpuCondition::Values(tensor) => {
                device.check_same(tensor.device(), "condition")?;
                check_condition_shape(tensor.shape(), size)?;
                if tensor.storage() != StorageType::F32 {
                    let (what, expected) = ("condition", StorageType::F32);
                    return Err(Error::StorageType { what, expected, actual: tensor.storage() });
                }
                Condition { tensor, categories: None, batch: tensor.shape()[0] }
            }
            GpuCondition::Categories { buffer, first, batch } => {
                let Some(tensor) = self.table() else { return Err(Error::NoConditionParameter { name: "table" }) };
                // Any buffer ends before 2^63.
                let end = first.saturating_add(batch as u64).min(1 << 60) * 4;
                check_buffer("categories", buffer, end)?;
                Condition { tensor, categories: Some(Categories { buffer: buffer.clone(), first, batch }), batch }
            }
        };
        check_matrix(device, "condition", condition.batch, size)?;
        Ok(condition)
    }

    /// From a condition to scale and shift.
    fn project(&self, device: &GpuDevice, condition: &Condition<'_>, pass: Pass) -> Result<Projected, Error> {
        let scratch = |what, size| matrix(device, what, condition.batch, size);
        let mut steps = Vec::new();
        let (mut before, mut hidden) = (None, None);
        if let (Some(projection), Some((size, activation))) = (&self.hidden_projection, self.config.hidden) {
            let transposed = Matrix::new(projection).transposed();
            if pass == Pass::Backward && activation != Activation::Identity {
                let result = scratch("hidden layer", size)?;
                steps.extend(Product::new(condition.matrix(), transposed, &result).prepare(device)?);
                before = Some(result);
            }
            let result = scratch("hidden layer", size)?;
            let product = Product::new(condition.matrix(), transposed, &result).activated(activation);
            steps.extend(product.prepare(device)?);
            hidden = Some(result);
        }
        let source = hidden.as_ref().map_or(condition.matrix(), Matrix::new);
        let scale = scratch("scale", self.width())?;
        steps.extend(Product::new(source, Matrix::new(&self.weight_projection).transposed(), &scale).prepare(device)?);
        // The backward pass does not take it.
        let shift = match pass {
            Pass::Backward => None,
            Pass::Forward => {
                let shift = scratch("shift", self.width())?;
                let projection = Matrix::new(&self.bias_projection).transposed();
                steps.extend(Product::new(source, projection, &shift).prepare(device)?);
                Some(shift)
            }
        };
        Ok(Projected { steps, before, hidden, scale, shift })
    }

    fn submit(
        &self,
        device: &GpuDevice,
        input: &Tensor,
        condition: Option<HostCondition<'_>>,
    ) -> Result<GpuTensor, Error> {
        // Before anything is uploaded.
        let rows = self.config.layer.rows(input.shape())?;
        device.check_same(&self.device, "layer")?;
        match condition {
            None => self.forward(device, &GpuTensor::upload(device, input)?, None),
            Some(HostCondition::Values(values)) => {
                check_condition_shape(values.shape(), self.config.condition_size)?;
                rows_per_condition(rows, values.shape()[0])?;
                let uploaded = matrix(device, "condition", values.shape()[0], self.config.condition_size)?;
                uploaded.write(values)?;
                let condition = GpuCondition::Values(&uploaded);
                self.forward(device, &GpuTensor::upload(device, input)?, Some(condition))
            }
            Some(HostCondition::Categories(values)) => {
                let Some(categories) = self.config.categories else {
                    return Err(Error::NoConditionParameter { name: "table" });
                };
                let is_known = |category: u32| usize::try_from(category).is_ok_and(|category| category < categories);
                if let Some((index, &category)) = values.iter().enumerate().find(|(_, category)| !is_known(**category))
                {
                    return Err(Error::Category { index, category, categories });
                }
                rows_per_condition(rows, values.len())?;
                let usage = wgpu::BufferUsages::STORAGE;
                let buffer = device.create_buffer_with("categories", usage, bytemuck::cast_slice(values))?;
                let condition = GpuCondition::Categories { buffer: &buffer, first: 0, batch: values.len() };
                self.forward(device, &GpuTensor::upload(device, input)?, Some(condition))
            }
        }
    }
}

/// A pass of a conditional layer, bound to tensors and conditions: recording it costs nothing but the recording. It may be recorded
/// any number of times, in any encoder of the device, and reads the buffers, those of the conditions and the projections too, as they are
/// when the recording runs. Scale and shift are its own; a recording fills them before it uses them.
#[derive(Debug)]
pub struct PreparedConditional {
    // Absent without a condition.
    projected: Option<Projected>,
    norm: PreparedPlan,
}

impl PreparedConditional {
    /// The pass of the layer that is modulated.
    pub fn norm(&self) -> &PreparedPlan {
        &self.norm
    }

    /// Works on the first `rows` rows only, as [`PreparedPlan::set_rows`] does.
    ///
    /// # Errors
    /// As [`PreparedPlan::set_rows`].
    pub fn set_rows(&mut self, rows: u64) -> Result<(), Error> {
        self.norm.set_rows(rows)
    }

    /// Records projections and norm as a compute pass of its own. Does not submit.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        encode(encoder, |pass| self.encode_pass(pass));
    }

    /// Records projections and norm into a compute pass. Leaves its own pipeline and bind group 0 set.
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) {
        if let Some(projected) = &self.projected {
            projected.steps.iter().for_each(|step| step.encode_pass(pass));
        }
        self.norm.encode_pass(pass);
    }
}

/// What is to be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Forward,
    Backward,
}

/// A condition that has been checked: values, or a table and which of its rows.
struct Condition<'a> {
    tensor: &'a GpuTensor,
    categories: Option<Categories>,
    batch: usize,
}

impl Condition<'_> {
    /// A row for each sample.
    fn matrix(&self) -> Matrix<'_> {
        match &self.categories {
            None => Matrix::new(self.tensor),
            Some(categories) => Matrix::picked(self.tensor, categories),
        }
    }
}

/// Scale and shift, of a row for each sample, with what computes them.
#[derive(Debug)]
struct Projected {
    steps: Vec<Step>,
    /// What the activation of the hidden layer is given, where a backward pass needs it.
    before: Option<GpuTensor>,
    /// What it gives.
    hidden: Option<GpuTensor>,
    scale: GpuTensor,
    shift: Option<GpuTensor>,
}

impl Projected {
    fn bound_to(&self, bindings: Bindings, rows_per_condition: u64) -> Bindings {
        let bindings = bindings.rows_per_condition(rows_per_condition).scale(region(&self.scale));
        match &self.shift {
            Some(shift) => bindings.shift(region(shift)),
            None => bindings,
        }
    }
}

/// A tensor as rows in a buffer: its shape says nothing of that of the input.
fn region(tensor: &GpuTensor) -> Region {
    Region::new(tensor.buffer(), tensor.storage())
}

fn check_condition_shape(shape: &[usize], condition_size: usize) -> Result<(), Error> {
    if shape.len() == 2 && shape[1] == condition_size {
        return Ok(());
    }
    let expected = vec![shape.first().copied().unwrap_or(1), condition_size];
    Err(Error::Shape { what: "condition", expected, actual: shape.to_vec() })
}

fn rows_per_condition(rows: u64, conditions: usize) -> Result<u64, Error> {
    let conditions = conditions as u64;
    match rows.checked_rem(conditions) {
        // At least 1, also where there are no rows.
        Some(0) => Ok((rows / conditions).max(1)),
        None if rows == 0 => Ok(1),
        _ => Err(Error::ConditionCount { rows, conditions }),
    }
}

fn set(name: &'static str, parameter: Option<&GpuTensor>, value: &Tensor) -> Result<(), Error> {
    let Some(parameter) = parameter else { return Err(Error::NoConditionParameter { name }) };
    if value.shape() != parameter.shape() {
        let (expected, actual) = (parameter.shape().to_vec(), value.shape().to_vec());
        return Err(Error::Shape { what: name, expected, actual });
    }
    parameter.write(value)
}

/// A matrix of numbers from −limit to limit, the same ones every time, from the generator splitmix64 (Steele, Lea and Flood, "Fast
/// Splittable Pseudorandom Number Generators", 2014).
fn uniform(
    device: &GpuDevice,
    what: &'static str,
    rows: usize,
    columns: usize,
    limit: f32,
) -> Result<GpuTensor, Error> {
    let tensor = matrix(device, what, rows, columns)?;
    let count = rows as u64 * columns as u64;
    let value = |i: u64| {
        let mut bits = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // 24 bits, in steps that f32 has all of.
        ((bits >> 40) as f32 / (1_u32 << 23) as f32 - 1.0) * limit
    };
    tensor.write(&Tensor::from_f32([rows, columns], (0..count).map(value).collect::<Vec<f32>>())?)?;
    Ok(tensor)
}

fn encode(encoder: &mut wgpu::CommandEncoder, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) {
    let descriptor = wgpu::ComputePassDescriptor { label: Some("conditional layer norm"), timestamp_writes: None };
    record(&mut encoder.begin_compute_pass(&descriptor));
}

fn submit(device: &GpuDevice, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<(), Error> {
    device.scoped("the submission of a pass", 0, |wgpu_device| {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("conditional layer norm") };
        let mut encoder = wgpu_device.create_command_encoder(&descriptor);
        encode(&mut encoder, record);
        device.queue().submit([encoder.finish()]);
    })
}
