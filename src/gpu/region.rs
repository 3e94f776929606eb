use super::GpuTensor;
use crate::kernel::{Problem, Role};
use crate::{Error, GpuDevice, StorageType};

/// A tensor somewhere in a buffer: a storage type, an offset, and the distance from one row to the next, in elements.
///
/// The buffer needs [`wgpu::BufferUsages::STORAGE`], and must be the operation's device's. (That of another device is an error,
/// but wgpu cannot tell that of another [`wgpu::Instance`].) Offsets may be any; an operation is fastest where offset, row
/// stride and width are multiples of 4, of 8 where input and output are of 16 bits. Several regions may lie in one buffer.
///
/// ```
/// use gpu_layer_norm::{Region, StorageType, wgpu};
///
/// fn second_half_of_the_columns(matrix: &wgpu::Buffer) -> Region {
///     // Rows of 768 in a matrix of 1536 columns.
///     Region::new(matrix, StorageType::Bf16).offset(768).row_stride(1536)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Region {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) storage: StorageType,
    pub(crate) offset: u64,
    pub(crate) row_stride: Option<u64>,
    // What is known where it is a tensor of this crate's.
    pub(crate) tensor: Option<GpuTensor>,
}

impl Region {
    /// The beginning of a buffer, rows one after another.
    pub fn new(buffer: &wgpu::Buffer, storage: StorageType) -> Self {
        Self { buffer: buffer.clone(), storage, offset: 0, row_stride: None, tensor: None }
    }

    /// From this element of the buffer on. Default: 0.
    #[must_use]
    pub fn offset(self, elements: u64) -> Self {
        Self { offset: elements, ..self }
    }

    /// From the beginning of one row to that of the next; at least the width, for mean and rstd at least 1, for moments of rows 4, for the
    /// sums that gradients of parts rest on 2, for states of sequences 8. Weight and bias have no use for it. Default: the least.
    #[must_use]
    pub fn row_stride(self, elements: u64) -> Self {
        Self { row_stride: Some(elements), ..self }
    }

    /// The buffer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// What an element is.
    pub fn storage(&self) -> StorageType {
        self.storage
    }

    /// Where it begins, in elements.
    pub fn element_offset(&self) -> u64 {
        self.offset
    }

    /// From the beginning of one row to that of the next, in elements; `None` if rows follow one another.
    pub fn elements_between_rows(&self) -> Option<u64> {
        self.row_stride
    }

    /// Whether it may be a tensor as a whole: nothing is left free before it or between its rows.
    pub(crate) fn is_whole(&self) -> bool {
        self.offset == 0 && self.row_stride.is_none()
    }

    /// That the region lies within its buffer, which can be bound.
    pub(crate) fn check(&self, role: Role, problem: &Problem, device: &GpuDevice) -> Result<(), Error> {
        if let Some(tensor) = &self.tensor {
            device.check_same(tensor.device(), role.name())?;
        }
        check_buffer(role.name(), &self.buffer, problem.byte_range(role)?.end)
    }
}

/// That a buffer can be bound as storage and has so many bytes.
pub(crate) fn check_buffer(what: &'static str, buffer: &wgpu::Buffer, end: u64) -> Result<(), Error> {
    let (needed, actual) = (wgpu::BufferUsages::STORAGE, buffer.usage());
    if !actual.contains(needed) {
        return Err(Error::BufferUsage { what, needed, actual });
    }
    // Bound are whole words.
    let (needed, actual) = (end.next_multiple_of(4), buffer.size());
    if needed > actual {
        return Err(Error::Region { what, needed, actual });
    }
    Ok(())
}

impl From<&GpuTensor> for Region {
    fn from(tensor: &GpuTensor) -> Self {
        Self { tensor: Some(tensor.clone()), ..Self::new(tensor.buffer(), tensor.storage()) }
    }
}
