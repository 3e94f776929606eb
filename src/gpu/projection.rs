use super::pipelines::{Pipeline, Shader};
use super::{GpuDevice, GpuTensor};
use crate::Error;
use crate::kernel::{
    Activation, AdapterClass, Finish, MAX_ELEMENTS, Picked, ProjectionBinding, ProjectionKernel, ProjectionParams,
    Sharing,
};

/// Categories of the samples of a batch, on the device: which rows of a table they take.
#[derive(Clone, Debug)]
pub(crate) struct Categories {
    /// One u32 for each sample.
    pub(crate) buffer: wgpu::Buffer,
    /// Where the first is, in words.
    pub(crate) first: u64,
    /// Samples.
    pub(crate) batch: usize,
}

/// A matrix of f32 on the device, of two dimensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    tensor: &'a GpuTensor,
    categories: Option<&'a Categories>,
    is_transposed: bool,
}

impl<'a> Matrix<'a> {
    /// The tensor itself.
    pub(crate) fn new(tensor: &'a GpuTensor) -> Self {
        Self { tensor, categories: None, is_transposed: false }
    }

    /// The rows of a table that categories pick, one for each sample.
    pub(crate) fn picked(table: &'a GpuTensor, categories: &'a Categories) -> Self {
        Self { tensor: table, categories: Some(categories), is_transposed: false }
    }

    /// With rows and columns exchanged. Not for rows that were picked.
    pub(crate) fn transposed(self) -> Self {
        Self { is_transposed: !self.is_transposed, ..self }
    }

    /// Rows and columns.
    fn shape(&self) -> [usize; 2] {
        let [rows, columns] = shape(self.tensor);
        match (self.categories, self.is_transposed) {
            (Some(categories), _) => [categories.batch, columns],
            (None, false) => [rows, columns],
            (None, true) => [columns, rows],
        }
    }

    /// Elements from one row to the next, and from one column to the next.
    fn strides(&self) -> [u32; 2] {
        let [_, columns] = shape(self.tensor);
        if self.is_transposed { [1, columns as u32] } else { [columns as u32, 1] }
    }
}

/// A product of matrices: result = finish(left · right).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    left: Matrix<'a>,
    right: Matrix<'a>,
    result: &'a GpuTensor,
    finish: Finish,
    before: Option<&'a GpuTensor>,
    accumulate: bool,
}

impl<'a> Product<'a> {
    /// result = left · right. The shapes go together, and none of the tensors is the result.
    pub(crate) fn new(left: Matrix<'a>, right: Matrix<'a>, result: &'a GpuTensor) -> Self {
        let finish = Finish::Activated(Activation::Identity);
        Self { left, right, result, finish, before: None, accumulate: false }
    }

    /// The elements go through this.
    pub(crate) fn activated(self, activation: Activation) -> Self {
        Self { finish: Finish::Activated(activation), ..self }
    }

    /// The elements are multiplied by the derivative of the activation at `before`, which has the result's shape.
    pub(crate) fn sloped(self, activation: Activation, before: &'a GpuTensor) -> Self {
        Self { finish: Finish::Sloped(activation), before: Some(before), ..self }
    }

    /// What lies in the result is added, before anything else is done to it.
    pub(crate) fn accumulated(self) -> Self {
        Self { accumulate: true, ..self }
    }

    /// The product, to be recorded. `None` if a dimension is 0: the result is left as it is, and new tensors are zeros.
    pub(crate) fn prepare(&self, device: &GpuDevice) -> Result<Option<Step>, Error> {
        let ([rows, terms], [inner, columns]) = (self.left.shape(), self.right.shape());
        debug_assert_eq!((shape(self.result), terms), ([rows, columns], inner));
        let ([left_row, left_term], [right_term, right_column]) = (self.left.strides(), self.right.strides());
        let (picked, categories) = match (self.left.categories, self.right.categories) {
            (Some(categories), _) => (Picked::Left, Some((categories, self.left.tensor))),
            (None, Some(categories)) => (Picked::Right, Some((categories, self.right.tensor))),
            (None, None) => (Picked::Nothing, None),
        };
        let sharing = Sharing::new(device.capabilities(), rows as u32, left_term == 1, right_term == 1);
        let kernel = ProjectionKernel::Product { sharing, picked, finish: self.finish, accumulate: self.accumulate };
        let params = ProjectionParams {
            rows: rows as u32,
            columns: columns as u32,
            terms: terms as u32,
            left_row,
            left_term,
            right_term,
            right_column,
            last_category: categories.map_or(0, |(_, table)| shape(table)[0].saturating_sub(1) as u32),
            ..ProjectionParams::default()
        };
        let buffers = Buffers {
            left: Some(self.left.tensor.buffer()),
            right: self.right.tensor.buffer(),
            result: self.result.buffer(),
            categories: categories.map(|(categories, _)| categories),
            before: self.before.map(GpuTensor::buffer),
        };
        Step::new(device, kernel, params, &buffers)
    }
}

/// The gradient by a table, from the gradient by the rows that categories have picked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableGradient<'a> {
    pub(crate) categories: &'a Categories,
    /// A row for each sample.
    pub(crate) gradient: &'a GpuTensor,
    /// Of the table's shape.
    pub(crate) result: &'a GpuTensor,
}

impl TableGradient<'_> {
    /// As [`Product::prepare`].
    pub(crate) fn prepare(&self, device: &GpuDevice) -> Result<Option<Step>, Error> {
        let [rows, columns] = shape(self.result);
        let invocations = device.capabilities().max_invocations_per_workgroup.min(64);
        let params = ProjectionParams {
            rows: rows as u32,
            columns: columns as u32,
            terms: self.categories.batch as u32,
            right_term: columns as u32,
            right_column: 1,
            last_category: rows.saturating_sub(1) as u32,
            ..ProjectionParams::default()
        };
        let buffers = Buffers {
            left: None,
            right: self.gradient.buffer(),
            result: self.result.buffer(),
            categories: Some(self.categories),
            before: None,
        };
        Step::new(device, ProjectionKernel::TableGradient { invocations }, params, &buffers)
    }
}

/// The most terms that one invocation adds up on a processor: these, and a sum of each 16 of them, in loops.
const MAX_TERMS: u32 = 57_000;

/// What a kernel binds.
struct Buffers<'a> {
    left: Option<&'a wgpu::Buffer>,
    right: &'a wgpu::Buffer,
    result: &'a wgpu::Buffer,
    categories: Option<&'a Categories>,
    before: Option<&'a wgpu::Buffer>,
}

/// A dispatch, to be recorded any number of times.
#[derive(Debug)]
pub(crate) struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Step {
    fn new(
        device: &GpuDevice,
        kernel: ProjectionKernel,
        mut params: ProjectionParams,
        buffers: &Buffers<'_>,
    ) -> Result<Option<Self>, Error> {
        if params.rows == 0 || params.columns == 0 || params.terms == 0 {
            return Ok(None);
        }
        // llvmpipe ends an invocation's loops after 65,534 turns, and goes on with a wrong result.
        if device.capabilities().class == AdapterClass::Cpu && params.terms > MAX_TERMS {
            return Err(Error::Geometry {
                reason: format!("sums of {} terms, on a processor the most is {MAX_TERMS}", params.terms),
            });
        }
        let bindings = kernel.bindings();
        let needed = bindings.len() as u32 - 1;
        let actual = device.capabilities().max_storage_buffers;
        if needed > actual {
            return Err(Error::DeviceTooSmall {
                what: "storage buffers a shader",
                needed: needed.into(),
                actual: actual.into(),
            });
        }

        let (work, at_once) = kernel.work(params.rows, params.columns);
        let most = device.capabilities().max_workgroups_per_dimension;
        let x = work.div_ceil(at_once).min(most);
        // Where these are too few, each takes several turns.
        let y = work.div_ceil(at_once).div_ceil(x).min(most);
        (params.work, params.workgroups, params.workgroups_x, params.all_bits) = (work, x * y, x, u32::MAX);

        let alignment = u64::from(device.capabilities().storage_offset_alignment.max(4)) / 4;
        let first = buffers.categories.map_or(0, |categories| categories.first);
        params.first_category = (first % alignment) as u32;
        let params =
            device.create_buffer_with("projection params", wgpu::BufferUsages::UNIFORM, bytemuck::bytes_of(&params))?;

        let Pipeline { pipeline, layout } = device.pipeline(Shader::Projection(kernel))?;
        let bind_group = device.scoped("the binding of a projection", 0, |wgpu_device| {
            let resource = |binding| match binding {
                ProjectionBinding::Params => params.as_entire_binding(),
                ProjectionBinding::Left => buffers.left.expect(BOUND).as_entire_binding(),
                ProjectionBinding::Right => buffers.right.as_entire_binding(),
                ProjectionBinding::Result => buffers.result.as_entire_binding(),
                ProjectionBinding::Categories => {
                    let categories = buffers.categories.expect(BOUND);
                    let words = first % alignment + categories.batch as u64;
                    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &categories.buffer,
                        offset: (first - first % alignment) * 4,
                        size: wgpu::BufferSize::new(words * 4),
                    })
                }
                ProjectionBinding::Before => buffers.before.expect(BOUND).as_entire_binding(),
            };
            let entries: Vec<_> = bindings
                .into_iter()
                .map(|binding| wgpu::BindGroupEntry { binding: binding.number(), resource: resource(binding) })
                .collect();
            wgpu_device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("projection"),
                layout: &layout,
                entries: &entries,
            })
        })?;
        Ok(Some(Self { pipeline, bind_group, workgroups: [x, y] }))
    }

    /// Records the dispatch. Leaves its own pipeline and bind group 0 set.
    pub(crate) fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}

const BOUND: &str = "a kernel binds what its variant says";

/// A matrix of f32 zeros, if a kernel can bind it.
pub(crate) fn matrix(device: &GpuDevice, what: &'static str, rows: usize, columns: usize) -> Result<GpuTensor, Error> {
    check_matrix(device, what, rows, columns)?;
    GpuTensor::zeros(device, [rows, columns])
}

/// That a kernel can bind a matrix of f32 of this shape whole.
pub(crate) fn check_matrix(device: &GpuDevice, what: &'static str, rows: usize, columns: usize) -> Result<(), Error> {
    let elements = (rows as u64).checked_mul(columns as u64).filter(|elements| elements.checked_mul(4).is_some());
    let Some(elements) = elements else { return Err(Error::Size { shape: vec![rows, columns] }) };
    let (bytes, max) = (elements * 4, device.capabilities().max_binding_bytes.min(MAX_ELEMENTS * 4));
    if bytes > max {
        return Err(Error::BindingSize { what, bytes, max });
    }
    Ok(())
}

/// Rows and columns of a tensor of two dimensions.
fn shape(tensor: &GpuTensor) -> [usize; 2] {
    match *tensor.shape() {
        [rows, columns] => [rows, columns],
        _ => [0, 0],
    }
}

#[cfg(test)]
mod tests;
