use crate::gpu::Buffers;
use crate::kernel::Problem;
use crate::{Error, GpuDevice, GpuTensor, LayerNormConfig, Plan, PreparedPlan, Tensor};

/// Layer normalization over the trailing dimensions of its input, with PyTorch's semantics:
/// y = (x − mean) / sqrt(variance + eps) · weight + bias, mean and variance over each group of trailing dimensions.
///
/// There are no running statistics, so training and evaluation are the same.
///
/// ```no_run
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
    /// A layer whose weight is 1 and whose bias is 0.
    ///
    /// # Errors
    /// What is wrong with the config: [`Error::NormalizedShape`], [`Error::Rank`], [`Error::Width`], [`Error::Eps`],
    /// [`Error::UnbiasedWidth`]. That the device cannot run it: [`Error::RowSize`], [`Error::DeviceTooSmall`],
    /// [`Error::Strategy`]. And [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(device: &GpuDevice, config: &LayerNormConfig) -> Result<Self, Error> {
        let problem = config.problem(1)?;
        plan(config, &problem, device)?;
        let parameter = |value: f32| {
            let values = vec![value; problem.width() as usize];
            GpuTensor::upload(device, &Tensor::from_f32(config.normalized_shape(), values)?)
        };
        let affine = config.affine_kind();
        Ok(Self {
            device: device.clone(),
            config: config.clone(),
            weight: affine.has_weight().then(|| parameter(1.0)).transpose()?,
            bias: affine.has_bias().then(|| parameter(0.0)).transpose()?,
        })
    }

    /// The config that the layer was made with.
    pub fn config(&self) -> &LayerNormConfig {
        &self.config
    }

    /// The weight on the device, of the normalized shape. `None` if the layer has none.
    pub fn weight(&self) -> Option<&GpuTensor> {
        self.weight.as_ref()
    }

    /// The bias on the device, of the normalized shape. `None` if the layer has none.
    pub fn bias(&self) -> Option<&GpuTensor> {
        self.bias.as_ref()
    }

    /// Sets the weight; operations submitted after this use it, prepared ones too.
    ///
    /// # Errors
    /// [`Error::NoParameter`] if the layer has no weight, [`Error::Shape`] unless it has the normalized shape,
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn set_weight(&self, weight: &Tensor) -> Result<(), Error> {
        self.set_parameter("weight", self.weight.as_ref(), weight)
    }

    /// Sets the bias; operations submitted after this use it, prepared ones too.
    ///
    /// # Errors
    /// As [`set_weight`](Self::set_weight).
    pub fn set_bias(&self, bias: &Tensor) -> Result<(), Error> {
        self.set_parameter("bias", self.bias.as_ref(), bias)
    }

    /// Normalizes a host tensor. The output has the input's shape.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::ForeignDevice`], [`Error::BufferSize`], [`Error::OutOfMemory`],
    /// [`Error::DeviceLost`], and what planning may find: [`Error::RowSize`], [`Error::Geometry`], [`Error::Strategy`].
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
        // Before anything is allocated.
        self.config.rows(input.shape())?;
        let output = GpuTensor::zeros(device, input.shape())?;
        let prepared = self.prepare(device, input, &output)?;
        device.scoped("the submission of a forward pass", 0, |wgpu_device| {
            let descriptor = wgpu::CommandEncoderDescriptor { label: Some("layer norm") };
            let mut encoder = wgpu_device.create_command_encoder(&descriptor);
            prepared.encode(&mut encoder);
            device.queue().submit([encoder.finish()]);
        })?;
        Ok(output)
    }

    /// Binds the forward pass to an input and an output, to be recorded into the caller's own encoders any number of times.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::SameBuffer`] if the output is the input or a parameter, and as
    /// [`run`](Self::run).
    pub fn prepare(&self, device: &GpuDevice, input: &GpuTensor, output: &GpuTensor) -> Result<PreparedPlan, Error> {
        let problem = self.config.problem(self.config.rows(input.shape())?)?;
        self.prepare_plan(device, plan(&self.config, &problem, device)?, input, output)
    }

    /// As [`prepare`](Self::prepare), with a plan of the caller's choice in place of the planner's.
    ///
    /// # Errors
    /// [`Error::PlanMismatch`] if the plan is for another problem, [`Error::Geometry`] if this device cannot run it,
    /// and as [`prepare`](Self::prepare).
    pub fn prepare_plan(
        &self,
        device: &GpuDevice,
        plan: Plan,
        input: &GpuTensor,
        output: &GpuTensor,
    ) -> Result<PreparedPlan, Error> {
        device.check_same(&self.device, "the layer")?;
        device.check_same(input.device(), "the input")?;
        device.check_same(output.device(), "the output")?;
        if output.shape() != input.shape() {
            return Err(Error::Shape {
                what: "output",
                expected: input.shape().to_vec(),
                actual: output.shape().to_vec(),
            });
        }
        // A buffer cannot be bound for reading and for writing at once.
        for (name, read) in [("input", Some(input)), ("weight", self.weight()), ("bias", self.bias())] {
            if read.is_some_and(|read| read.buffer() == output.buffer()) {
                return Err(Error::SameBuffer { name });
            }
        }
        let problem = self.config.problem(self.config.rows(input.shape())?)?;
        if *plan.problem() != problem {
            return Err(Error::PlanMismatch { planned: plan.problem().to_string(), actual: problem.to_string() });
        }
        plan.check(device.capabilities())?;
        PreparedPlan::new(
            device,
            plan,
            &Buffers {
                input: input.buffer(),
                weight: self.weight.as_ref().map(GpuTensor::buffer),
                bias: self.bias.as_ref().map(GpuTensor::buffer),
                output: output.buffer(),
            },
        )
    }

    fn submit(&self, device: &GpuDevice, input: &Tensor) -> Result<GpuTensor, Error> {
        // Before anything is uploaded.
        self.config.rows(input.shape())?;
        device.check_same(&self.device, "the layer")?;
        self.forward(device, &GpuTensor::upload(device, input)?)
    }

    fn set_parameter(&self, name: &'static str, parameter: Option<&GpuTensor>, value: &Tensor) -> Result<(), Error> {
        let Some(parameter) = parameter else {
            return Err(Error::NoParameter { name, affine: self.config.affine_kind() });
        };
        let expected = self.config.normalized_shape();
        if value.shape() != expected {
            return Err(Error::Shape { what: name, expected: expected.to_vec(), actual: value.shape().to_vec() });
        }
        parameter.write(value)
    }
}

fn plan(config: &LayerNormConfig, problem: &Problem, device: &GpuDevice) -> Result<Plan, Error> {
    match config.forced_strategy() {
        Some(strategy) => Plan::with_strategy(problem, device.capabilities(), strategy),
        None => Plan::new(problem, device.capabilities()),
    }
}
