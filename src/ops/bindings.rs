use crate::gpu::{Region, RowCount, check_buffer};
use crate::kernel::{Operation, Problem, Role};
use crate::{Error, GpuTensor, LayerNormConfig, wgpu};

/// What an operation reads and writes. [`Bindings::new`] and [`Bindings::of`] begin those of a forward pass: rows of input and
/// output. [`Bindings::backward`] and [`Bindings::backward_of`] begin those of a backward pass: rows of input, and of the gradients of
/// a loss by output and input. Whatever else is asked for is added.
///
/// Any of these may lie in one buffer. Output and sum may be the very region of the input or the residual, which they then overwrite;
/// the input gradient that of the output gradient, of the gradient of the sum, of the input or of the residual. Nothing else that is
/// written may overlap anything.
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
#[derive(Clone, Debug)]
pub struct Bindings {
    operation: Operation,
    accumulate: bool,
    rows: Option<u64>,
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
    /// gradient by its input (where it had a residual too, that by the residual is the same).
    ///
    /// Give [`mean`](Self::mean) and [`rstd`](Self::rstd) as the forward pass has saved them; without them the rows are measured
    /// again. For the gradients of weight and bias give [`weight_gradient`](Self::weight_gradient) and
    /// [`bias_gradient`](Self::bias_gradient).
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

    fn empty(operation: Operation, rows: Option<u64>) -> Self {
        let regions = [const { None }; Role::ALL.len()];
        Self { operation, accumulate: false, rows, regions, row_count: None }
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

    /// Writes what is normalized, input + residual, here. Rows × width.
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

    /// Adds this to the input gradient of a backward pass: the gradient of the loss by input + residual, as far as it comes from
    /// elsewhere than the output. Rows × width.
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

    /// Whether the gradients by weight and bias are added to what their regions hold, in place of overwriting it. The input gradient
    /// is always overwritten. Default: no.
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
    /// they are; a count above the rows given before counts as those. The buffer needs [`wgpu::BufferUsages::STORAGE`].
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
    pub(crate) fn or_parameters(mut self, weight: Option<&GpuTensor>, bias: Option<&GpuTensor>) -> Self {
        let parameters = [(Role::Weight, weight), (Role::Bias, bias)];
        for (role, own) in parameters.into_iter().filter(|(role, _)| self.operation.reads(*role)) {
            let region = &mut self.regions[role as usize];
            *region = region.take().or(own.map(Region::from));
        }
        self
    }

    /// The problem that a layer poses with these tensors.
    pub(crate) fn problem(&self, config: &LayerNormConfig) -> Result<Problem, Error> {
        let rows = match (self.rows, self.region(Role::Input).and_then(|input| input.tensor.as_ref())) {
            (Some(rows), _) => rows,
            (None, Some(input)) => {
                self.check_shapes(config, input)?;
                config.rows(input.shape())?
            }
            (None, None) => 0,
        };
        let mut problem = config.problem(rows)?;
        if self.operation == Operation::Backward {
            problem = problem.backward().accumulate(self.accumulate);
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
        config.rows(input.shape())?;
        let leading = &input.shape()[..input.shape().len() - config.normalized_shape().len()];
        for role in Role::ALL {
            // A part of a tensor may be anything.
            let whole = |region: &&Region| region.offset == 0 && region.row_stride.is_none();
            let Some(tensor) = self.region(role).filter(whole).and_then(|region| region.tensor.as_ref()) else {
                continue;
            };
            let expected = match role {
                _ if role.is_parameter() => config.normalized_shape(),
                _ if role.is_statistic() => leading,
                _ => input.shape(),
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
