use super::Bindings;
use crate::kernel::{Operation, Problem, Role, Strategy};
use crate::{Error, GpuDevice, GpuTensor, LayerNormConfig, Normalization, Plan, PreparedPlan, StorageType, Tensor};

/// Mean and rstd of the rows, as a forward pass has saved them: f32, in the shape of the input's dimensions that are not normalized;
/// for group normalization `[.., groups]`.
#[derive(Clone, Debug)]
pub struct GpuStatistics {
    /// The mean of each row. `None` for RMS normalization.
    pub mean: Option<GpuTensor>,
    /// 1 / sqrt(variance + eps) of each row.
    pub rstd: GpuTensor,
}

impl GpuStatistics {
    pub(super) fn bound_to(&self, bindings: Bindings) -> Bindings {
        let bindings = bindings.rstd(&self.rstd);
        match &self.mean {
            Some(mean) => bindings.mean(mean),
            None => bindings,
        }
    }
}

/// The gradients of a loss by what a layer takes, each of the storage type of what it is the gradient of.
#[derive(Clone, Debug)]
pub struct LayerNormGradients {
    /// By the input, of its shape.
    pub input: GpuTensor,
    /// By the weight, of the [parameter shape](LayerNormConfig::parameter_shape). `None` if the layer has none.
    pub weight: Option<GpuTensor>,
    /// By the bias, of the [parameter shape](LayerNormConfig::parameter_shape). `None` if the layer has none.
    pub bias: Option<GpuTensor>,
}

impl LayerNormGradients {
    /// With the gradients by weight and bias.
    pub(super) fn bound_to(&self, mut bindings: Bindings) -> Bindings {
        if let Some(weight) = &self.weight {
            bindings = bindings.weight_gradient(weight);
        }
        if let Some(bias) = &self.bias {
            bindings = bindings.bias_gradient(bias);
        }
        bindings
    }
}

/// Layer normalization over the trailing dimensions of its input, with PyTorch's semantics:
/// y = (x − mean) / sqrt(variance + eps) · weight + bias, mean and variance over each group of trailing dimensions. With
/// [`LayerNormConfig::rms`], RMS normalization.
///
/// There are no running statistics, so training and evaluation are the same.
///
/// ```
/// use gpu_layer_norm::{GpuDevice, GpuLayerNorm, LayerNormConfig, Tensor};
///
/// let device = GpuDevice::new()?;
/// let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new(3))?;
/// let input = Tensor::from_f32([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let output = layer_norm.run(&device, &input)?;
/// assert_eq!(output.shape(), [2, 3]);
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GpuLayerNorm {
    device: GpuDevice,
    config: LayerNormConfig,
    weight: Option<GpuTensor>,
    bias: Option<GpuTensor>,
}

impl GpuLayerNorm {
    /// A layer whose weight is 1 (0 if it is zero-centred) and whose bias is 0. It compiles the pipelines for the input that the
    /// config [expects](LayerNormConfig::expect_input), unless another layer on this device has compiled them.
    ///
    /// # Errors
    /// What is wrong with the config: [`Error::NormalizedShape`], [`Error::Rank`], [`Error::Width`], [`Error::Eps`],
    /// [`Error::UnbiasedWidth`], [`Error::RmsNorm`], [`Error::Axes`], [`Error::Groups`], [`Error::Grid`]. That the device cannot run it:
    /// [`Error::RowSize`], [`Error::DeviceTooSmall`], [`Error::Geometry`], [`Error::Strategy`]; with the rows to expect,
    /// [`Error::BufferSize`], [`Error::Size`]. And [`Error::OutOfMemory`], [`Error::DeviceLost`], [`Error::Wgpu`].
    pub fn new(device: &GpuDevice, config: &LayerNormConfig) -> Result<Self, Error> {
        let problem = config.problem(1)?;
        plan(config, &problem, device)?;
        // As many as a buffer holds, and no more than fill the largest device.
        let most = device.capabilities().max_buffer_bytes / (u64::from(problem.width()) * 4);
        let (rows, storage) = config.expected_input().unwrap_or((most.clamp(1, 1 << 20), StorageType::F32));
        // What rows lie like otherwise, the shape of an input says.
        if rows > 0 && config.has_trailing_axes() {
            let problem = config
                .problem(rows)?
                .tensor(Role::Input, storage)?
                .tensor(Role::Output, config.output_storage_type(storage))?;
            device.compile(plan(config, &problem, device)?.kernels())?;
        }
        let parameter =
            |value: f32| GpuTensor::filled(device, config.parameter_shape(), config.parameter_storage_type(), value);
        let affine = config.affine_kind();
        let one = if config.has_zero_centred_weight() { 0.0 } else { 1.0 };
        Ok(Self {
            device: device.clone(),
            config: config.clone(),
            weight: affine.has_weight().then(|| parameter(one)).transpose()?,
            bias: affine.has_bias().then(|| parameter(0.0)).transpose()?,
        })
    }

    /// The config that the layer was made with.
    pub fn config(&self) -> &LayerNormConfig {
        &self.config
    }

    /// The weight on the device, of the [parameter shape](LayerNormConfig::parameter_shape). `None` if the layer has none.
    pub fn weight(&self) -> Option<&GpuTensor> {
        self.weight.as_ref()
    }

    /// The bias on the device, of the [parameter shape](LayerNormConfig::parameter_shape). `None` if the layer has none.
    pub fn bias(&self) -> Option<&GpuTensor> {
        self.bias.as_ref()
    }

    /// Sets the weight, rounded to the layer's parameter storage type; operations submitted after this use it, prepared ones
    /// too.
    ///
    /// # Errors
    /// [`Error::NoParameter`] if the layer has no weight, [`Error::Shape`] unless it has the parameter shape,
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn set_weight(&self, weight: &Tensor) -> Result<(), Error> {
        self.set_parameter("weight", self.weight.as_ref(), weight)
    }

    /// Sets the bias, as [`set_weight`](Self::set_weight) does.
    ///
    /// # Errors
    /// As [`set_weight`](Self::set_weight).
    pub fn set_bias(&self, bias: &Tensor) -> Result<(), Error> {
        self.set_parameter("bias", self.bias.as_ref(), bias)
    }

    /// Normalizes a host tensor. The output has the input's shape, and its storage type unless the config names another.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], or [`Error::Axes`] where the config names axes; [`Error::Grid`] and [`Error::Size`] for a tensor of too
    /// many elements; [`Error::ForeignDevice`], [`Error::BufferSize`], [`Error::OutOfMemory`], [`Error::DeviceLost`], [`Error::Wgpu`]; and
    /// what planning may find: [`Error::RowSize`], [`Error::DeviceTooSmall`], [`Error::Geometry`], [`Error::Strategy`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, device: &GpuDevice, input: &Tensor) -> Result<Tensor, Error> {
        self.submit(device, input)?.download()
    }

    /// As [`run`](Self::run), without blocking the caller's thread; also in a browser.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_async(&self, device: &GpuDevice, input: &Tensor) -> Result<Tensor, Error> {
        self.submit(device, input)?.download_async().await
    }

    /// Normalizes a tensor on the device into a new one. Submits, and reads nothing back.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn forward(&self, device: &GpuDevice, input: &GpuTensor) -> Result<GpuTensor, Error> {
        let output = self.output_for(device, input)?;
        self.execute(device, &Bindings::of(input, &output))?;
        Ok(output)
    }

    /// As [`forward`](Self::forward), and saves the statistics of the rows, which [`backward`](Self::backward) takes. Those of a
    /// [causal](LayerNormConfig::causal) layer are of all positions up to each, and its backward pass does without them.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn forward_for_training(
        &self,
        device: &GpuDevice,
        input: &GpuTensor,
    ) -> Result<(GpuTensor, GpuStatistics), Error> {
        let output = self.output_for(device, input)?;
        let statistics = self.statistics_for(device, input)?;
        self.execute(device, &statistics.bound_to(Bindings::of(input, &output)))?;
        Ok((output, statistics))
    }

    /// From the gradient of a loss by the output to its gradients by input, weight and bias, into new tensors. `input` is that of the
    /// forward pass, `statistics` what [`forward_for_training`](Self::forward_for_training) saved of it; without them the rows are
    /// measured again, as they always are by a [causal](LayerNormConfig::causal) layer. Each gradient has the storage type of what it is
    /// the gradient of. Submits, and reads nothing back.
    ///
    /// For gradients that are added up over several passes, for a residual, with scale, shift and gate, or in buffers of your own, see
    /// [`Bindings::backward`], which also says what dx is, and how accurate, in causal layer normalization.
    ///
    /// With g = dy · weight, x̂ as in the forward pass and sums over a row of n elements,
    ///
    /// dx = rstd · (g − Σg / n − x̂ · Σ(g · x̂) / n),  dweight = Σ dy · x̂ and dbias = Σ dy over the rows
    ///
    /// (n − 1 in the last sum for the unbiased variance; no Σg for RMS normalization).
    ///
    /// **Accuracy**, besides the rounding of the results themselves, for rows of up to 65,536 elements; for longer ones twice that. dx
    /// is within 2e-6 of the largest |dx| in its row, at any mean; or of rstd · max|g| where that is more, as it is where g is all but
    /// a constant and a multiple of x̂, which cancel out. With c = 1e-6 + 3e-8 · min(rows, 512) and sums over the rows, an element of
    /// dweight is within c · Σ|dy| · max(1, |x̂| / 4), and one of dbias within c · Σ|dy|. That is: x̂ is off by what the forward pass
    /// allows; up to 512 terms (and one for each chunk of rows) are added one after another, each time with half a unit in the last
    /// place of a sum that is at most Σ|dy · x̂|, 2^-25 of it on average; and what the sums of these lose is kept. Terms that differ
    /// are rounded to either side, so the errors that are found are some 1e-7 · Σ|dy|.
    ///
    /// A row with a NaN or an infinity spoils its own dx, and, as a part of it, dweight. A constant row adds nothing to dweight. A row
    /// whose rstd is subnormal (its deviation is over 8e37) counts as a constant one.
    ///
    /// The same input gives the same bits: nothing is added up in an order that changes from run to run.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::Shape`] unless the output gradient has the input's shape, [`Error::DeviceTooSmall`] on a device
    /// that binds too few buffers (6 to 8 are needed, by what takes part), and as [`run`](Self::run).
    ///
    /// ```
    /// use gpu_layer_norm::{GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Tensor};
    ///
    /// let device = GpuDevice::new()?;
    /// let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new(3))?;
    /// let input = GpuTensor::upload(&device, &Tensor::from_f32([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?)?;
    /// let (output, statistics) = layer_norm.forward_for_training(&device, &input)?;
    ///
    /// // The loss is the sum of the outputs.
    /// let output_gradient = GpuTensor::upload(&device, &Tensor::from_f32(output.shape(), vec![1.0; 6])?)?;
    /// let gradients = layer_norm.backward(&device, &input, &output_gradient, Some(&statistics))?;
    /// assert_eq!(*gradients.bias.expect("the layer has one").download()?.values(), [2.0, 2.0, 2.0]);
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    pub fn backward(
        &self,
        device: &GpuDevice,
        input: &GpuTensor,
        output_gradient: &GpuTensor,
        statistics: Option<&GpuStatistics>,
    ) -> Result<LayerNormGradients, Error> {
        let gradients = self.gradients_for(device, input)?;
        let mut bindings = gradients.bound_to(Bindings::backward_of(input, output_gradient, &gradients.input));
        // Causal layer normalization measures the positions itself.
        if let Some(statistics) = statistics.filter(|_| !self.config.is_causal()) {
            bindings = statistics.bound_to(bindings);
        }
        self.execute(device, &bindings)?;
        Ok(gradients)
    }

    /// Runs a forward or backward pass, or an operation on parts of rows, on these tensors once. Submits, and reads nothing back.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    ///
    /// ```
    /// use gpu_layer_norm::{Bindings, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Tensor};
    ///
    /// let device = GpuDevice::new()?;
    /// let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new(768))?;
    /// let input = GpuTensor::upload(&device, &Tensor::from_f32([128, 768], vec![0.5; 128 * 768])?)?;
    /// let output = GpuTensor::zeros(&device, [128, 768])?;
    /// let (mean, rstd) = (GpuTensor::zeros(&device, [128])?, GpuTensor::zeros(&device, [128])?);
    /// layer_norm.execute(&device, &Bindings::of(&input, &output).mean(&mean).rstd(&rstd))?;
    /// assert_eq!(*mean.download()?.values(), [0.5; 128]);
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    pub fn execute(&self, device: &GpuDevice, bindings: &Bindings) -> Result<(), Error> {
        let prepared = self.prepare(device, bindings)?;
        device.scoped("the submission of a pass", 0, |wgpu_device| {
            let descriptor = wgpu::CommandEncoderDescriptor { label: Some("layer norm") };
            let mut encoder = wgpu_device.create_command_encoder(&descriptor);
            prepared.encode(&mut encoder);
            device.queue().submit([encoder.finish()]);
        })
    }

    /// Binds a forward or backward pass to tensors, to be recorded into the caller's own encoders any number of times.
    ///
    /// # Errors
    /// About shapes: [`Error::ShapeMismatch`], [`Error::Axes`], [`Error::Rank`], [`Error::Shape`], [`Error::RowCount`]. About regions: [`Error::RowStride`],
    /// [`Error::Region`], [`Error::BufferUsage`], [`Error::Overlap`], [`Error::SharedRange`], [`Error::Size`], [`Error::Offset`]. About
    /// what does not go together: [`Error::NoParameter`], [`Error::Role`], [`Error::Statistics`], [`Error::Needs`],
    /// [`Error::RowsPerCondition`], [`Error::SequenceLength`], [`Error::Causal`], [`Error::Grid`], [`Error::Parts`], [`Error::RmsNorm`],
    /// [`Error::StorageType`], [`Error::ForeignDevice`]. What planning may find: [`Error::BufferSize`], [`Error::RowSize`],
    /// [`Error::DeviceTooSmall`], [`Error::Geometry`], [`Error::Strategy`]. And [`Error::OutOfMemory`], [`Error::DeviceLost`], and
    /// [`Error::Wgpu`] for a buffer that was destroyed or is another device's.
    ///
    /// ```
    /// use gpu_layer_norm::{Bindings, GpuDevice, GpuLayerNorm, LayerNormConfig, Region, StorageType, wgpu};
    ///
    /// # fn frame(device: &GpuDevice, pool: &wgpu::Buffer) -> Result<(), gpu_layer_norm::Error> {
    /// let layer_norm = GpuLayerNorm::new(device, &LayerNormConfig::new(64))?;
    /// // 1000 rows of f16, in place, somewhere in a pool.
    /// let rows = Region::new(pool, StorageType::F16).offset(123_456);
    /// let prepared = layer_norm.prepare(device, &Bindings::new(1000, rows.clone(), rows))?;
    ///
    /// let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    /// prepared.encode(&mut encoder);
    /// device.queue().submit([encoder.finish()]);
    /// # Ok(())
    /// # }
    /// # let device = GpuDevice::new()?;
    /// # let descriptor = wgpu::BufferDescriptor {
    /// #     label: None,
    /// #     size: 1 << 20,
    /// #     usage: wgpu::BufferUsages::STORAGE,
    /// #     mapped_at_creation: false,
    /// # };
    /// # frame(&device, &device.device().create_buffer(&descriptor))?;
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    pub fn prepare(&self, device: &GpuDevice, bindings: &Bindings) -> Result<PreparedPlan, Error> {
        let (bindings, problem) = self.bind(device, bindings)?;
        let plan = plan(&self.config, &problem, device)?;
        prepared(device, plan, &bindings)
    }

    /// As [`prepare`](Self::prepare), with a plan of the caller's choice in place of the planner's.
    ///
    /// # Errors
    /// [`Error::PlanMismatch`] if the plan is for another problem, [`Error::Geometry`] if this device cannot run it,
    /// and as [`prepare`](Self::prepare).
    pub fn prepare_plan(&self, device: &GpuDevice, plan: Plan, bindings: &Bindings) -> Result<PreparedPlan, Error> {
        let (bindings, problem) = self.bind(device, bindings)?;
        if *plan.problem() != problem {
            return Err(Error::PlanMismatch { planned: plan.problem().to_string(), actual: problem.to_string() });
        }
        plan.check(&device.capabilities_for(&problem))?;
        prepared(device, plan, &bindings)
    }

    /// Measures the plans that may be the fastest for these bindings on this adapter, on buffers of its own, and remembers the
    /// fastest: this and every other layer on this device takes it from now on where it meets such a problem (tensors of the
    /// same kind, and rows to the next power of two). [`GpuDevice::save_tunings`] keeps what was found for later runs. Where the
    /// config forces a strategy, its plans are measured and nothing is remembered.
    ///
    /// Takes some tens of milliseconds for each plan, or nine times as long as the operation itself, whichever is longer, and its
    /// compilation. Needs buffers as long as the caller's are up to the last element that takes part.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn tune(&self, device: &GpuDevice, bindings: &Bindings) -> Result<crate::Tuning, Error> {
        let (_, problem) = self.bind(device, bindings)?;
        let capabilities = device.capabilities_for(&problem);
        let mut plans = Plan::candidates(&problem, &capabilities)?;
        let Some(strategy) = forced_strategy(&self.config, &problem) else {
            let tuning = device.measure(plans)?;
            device.remember(tuning.best());
            return Ok(tuning);
        };
        let pick = Plan::with_strategy(&problem, &capabilities, strategy)?;
        plans.retain(|plan| plan.strategy() == strategy && *plan != pick);
        plans.insert(0, pick);
        device.measure(plans)
    }

    /// The problem that this layer poses with these tensors: what [`Plan`] is made from for
    /// [`prepare_plan`](Self::prepare_plan).
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn problem(&self, device: &GpuDevice, bindings: &Bindings) -> Result<Problem, Error> {
        self.bind(device, bindings).map(|(_, problem)| problem)
    }

    /// Checks tensors, and adds the layer's own.
    fn bind(&self, device: &GpuDevice, bindings: &Bindings) -> Result<(Bindings, Problem), Error> {
        device.check_same(&self.device, "layer")?;
        let bindings = bindings.clone().or_parameters(self.weight(), self.bias(), self.config.modulation_kind());
        let problem = bindings.problem(&self.config)?;
        bindings.check(&problem, device)?;
        Ok((bindings, problem))
    }

    /// A tensor for the output of this input, if it is one for this layer.
    pub(super) fn output_for(&self, device: &GpuDevice, input: &GpuTensor) -> Result<GpuTensor, Error> {
        // Before anything is allocated.
        self.config.rows(input.shape())?;
        GpuTensor::zeros_as(device, input.shape(), self.config.output_storage_type(input.storage()))
    }

    /// Tensors for the statistics of the rows of this input.
    pub(super) fn statistics_for(&self, device: &GpuDevice, input: &GpuTensor) -> Result<GpuStatistics, Error> {
        let leading = &self.config.view(input.shape())?.leading[..];
        let has_mean = self.config.normalization_kind() == Normalization::LayerNorm;
        Ok(GpuStatistics {
            mean: has_mean.then(|| GpuTensor::zeros(device, leading)).transpose()?,
            rstd: GpuTensor::zeros(device, leading)?,
        })
    }

    /// Tensors for the gradients by this input and by the layer's parameters, if it is an input for this layer.
    pub(super) fn gradients_for(&self, device: &GpuDevice, input: &GpuTensor) -> Result<LayerNormGradients, Error> {
        // Before anything is allocated.
        self.config.rows(input.shape())?;
        let like = |tensor: Option<&GpuTensor>| {
            tensor.map(|tensor| GpuTensor::zeros_as(device, tensor.shape(), tensor.storage())).transpose()
        };
        Ok(LayerNormGradients {
            input: GpuTensor::zeros_as(device, input.shape(), input.storage())?,
            weight: like(self.weight())?,
            bias: like(self.bias())?,
        })
    }

    fn submit(&self, device: &GpuDevice, input: &Tensor) -> Result<GpuTensor, Error> {
        // Before anything is uploaded.
        self.config.rows(input.shape())?;
        device.check_same(&self.device, "layer")?;
        self.forward(device, &GpuTensor::upload(device, input)?)
    }

    fn set_parameter(&self, name: &'static str, parameter: Option<&GpuTensor>, value: &Tensor) -> Result<(), Error> {
        let Some(parameter) = parameter else {
            return Err(Error::NoParameter { name, affine: self.config.affine_kind() });
        };
        let expected = self.config.parameter_shape();
        if value.shape() != expected {
            return Err(Error::Shape { what: name, expected: expected.to_vec(), actual: value.shape().to_vec() });
        }
        parameter.write(value)
    }
}

fn plan(config: &LayerNormConfig, problem: &Problem, device: &GpuDevice) -> Result<Plan, Error> {
    let capabilities = device.capabilities_for(problem);
    match forced_strategy(config, problem) {
        Some(strategy) => Plan::with_strategy(problem, &capabilities, strategy),
        None => device.tuned_plan(problem).map_or_else(|| Plan::new(problem, &capabilities), Ok),
    }
}

/// The strategy that the config forces on a problem. The backward pass holds no rows in part, rows whose moments are given are not held at
/// all, and where their sums are given too there is one strategy only.
fn forced_strategy(config: &LayerNormConfig, problem: &Problem) -> Option<Strategy> {
    let exists = |strategy: &Strategy| match problem.operation() {
        Operation::Forward | Operation::Moments => true,
        Operation::Backward => *strategy != Strategy::PartlyResident,
        Operation::Normalize | Operation::GradientSums => {
            !matches!(strategy, Strategy::Resident | Strategy::PartlyResident)
        }
        Operation::Gradients => false,
    };
    config.forced_strategy().filter(exists)
}

fn prepared(device: &GpuDevice, plan: Plan, bindings: &Bindings) -> Result<PreparedPlan, Error> {
    let buffers = Role::ALL.map(|role| bindings.region(role).map(|region| region.buffer.clone()));
    PreparedPlan::new(device, plan, &buffers, bindings.row_count_on_device())
}
