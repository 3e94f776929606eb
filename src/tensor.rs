use std::borrow::Cow;
use std::fmt;

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use crate::Error;

/// The most dimensions that a tensor may have.
pub const MAX_RANK: usize = 8;

/// What an element is in memory. Arithmetic is f32, whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StorageType {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE 754 binary16, two elements to a 32-bit word; every adapter has it.
    F16,
    /// bfloat16, the upper half of an f32; every adapter has it.
    Bf16,
}

impl StorageType {
    /// Every storage type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Bytes of an element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for StorageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// A tensor in host memory: a shape, and its values with the last dimension innermost. A shape without dimensions holds one
/// value; a dimension of zero leaves none.
///
/// ```
/// use gpu_layer_norm::{StorageType, Tensor};
/// use half::bf16;
///
/// let tensor = Tensor::from_bf16([2], vec![bf16::from_f32(1.5), bf16::from_f32(-2.0)])?;
/// assert_eq!(tensor.storage(), StorageType::Bf16);
/// assert_eq!(*tensor.values(), [1.5, -2.0]);
/// assert_eq!(tensor, Tensor::from_f32([2], vec![1.5, -2.0])?.to_storage(StorageType::Bf16));
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Values,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Tensor {
    /// A tensor of this shape, its values in row-major order.
    ///
    /// # Errors
    /// [`Error::Rank`] above [`MAX_RANK`], [`Error::Size`] if the byte count overflows, [`Error::ValueCount`] if the values
    /// do not fill the shape.
    ///
    /// ```
    /// use gpu_layer_norm::Tensor;
    ///
    /// let tensor = Tensor::from_f32([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// assert_eq!(tensor.shape(), [2, 3]);
    /// assert!(Tensor::from_f32([2, 3], vec![1.0]).is_err());
    /// # Ok::<(), gpu_layer_norm::Error>(())
    /// ```
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: impl Into<Vec<f32>>) -> Result<Self, Error> {
        let values = values.into();
        Self::new(shape.into(), values.len(), Values::F32(values))
    }

    /// As [`from_f32`](Self::from_f32), of f16.
    ///
    /// # Errors
    /// As [`from_f32`](Self::from_f32).
    pub fn from_f16(shape: impl Into<Vec<usize>>, values: impl Into<Vec<f16>>) -> Result<Self, Error> {
        let values = values.into();
        Self::new(shape.into(), values.len(), Values::F16(values))
    }

    /// As [`from_f32`](Self::from_f32), of bf16.
    ///
    /// # Errors
    /// As [`from_f32`](Self::from_f32).
    pub fn from_bf16(shape: impl Into<Vec<usize>>, values: impl Into<Vec<bf16>>) -> Result<Self, Error> {
        let values = values.into();
        Self::new(shape.into(), values.len(), Values::Bf16(values))
    }

    fn new(shape: Vec<usize>, actual: usize, values: Values) -> Result<Self, Error> {
        let expected = element_count(&shape)?;
        if actual != expected {
            return Err(Error::ValueCount { shape, expected, actual });
        }
        Ok(Self { shape, values })
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What an element is.
    pub fn storage(&self) -> StorageType {
        match self.values {
            Values::F32(_) => StorageType::F32,
            Values::F16(_) => StorageType::F16,
            Values::Bf16(_) => StorageType::Bf16,
        }
    }

    /// The values in row-major order as f32, which holds all of them exactly; borrowed where they are f32.
    pub fn values(&self) -> Cow<'_, [f32]> {
        match &self.values {
            Values::F32(values) => Cow::Borrowed(values),
            Values::F16(values) => Cow::Owned(values.to_f32_vec()),
            Values::Bf16(values) => Cow::Owned(values.to_f32_vec()),
        }
    }

    /// The values in row-major order as f32, taken out.
    pub fn into_values(self) -> Vec<f32> {
        match self.values {
            Values::F32(values) => values,
            Values::F16(values) => values.to_f32_vec(),
            Values::Bf16(values) => values.to_f32_vec(),
        }
    }

    /// The values in row-major order, if they are f16.
    pub fn as_f16(&self) -> Option<&[f16]> {
        if let Values::F16(values) = &self.values { Some(values) } else { None }
    }

    /// The values in row-major order, if they are bf16.
    pub fn as_bf16(&self) -> Option<&[bf16]> {
        if let Values::Bf16(values) = &self.values { Some(values) } else { None }
    }

    /// The same tensor in another storage type: rounded to nearest, ties to even, and to infinity where it is too large.
    #[must_use]
    pub fn to_storage(&self, storage: StorageType) -> Self {
        if storage == self.storage() {
            return self.clone();
        }
        fn converted<T: bytemuck::Pod>(tensor: &Tensor, storage: StorageType, count: usize) -> Vec<T> {
            let mut values = vec![T::zeroed(); count];
            tensor.fill(storage, 0, bytemuck::cast_slice_mut(&mut values));
            values
        }
        let count = self.bytes().len() / self.storage().bytes() as usize;
        let values = match storage {
            StorageType::F32 => Values::F32(converted(self, storage, count)),
            StorageType::F16 => Values::F16(converted(self, storage, count)),
            StorageType::Bf16 => Values::Bf16(converted(self, storage, count)),
        };
        Self { shape: self.shape.clone(), values }
    }

    /// Writes the values to `target` as they lie in memory in this storage type, from element `first` on; zeros after the last one.
    ///
    /// # Panics
    /// If `target` is no whole number of elements, or not aligned to them.
    pub(crate) fn fill(&self, storage: StorageType, first: usize, target: &mut [u8]) {
        fn part<T>(values: &[T], first: usize, count: usize) -> &[T] {
            let end = values.len().min(first.saturating_add(count));
            &values[first.min(end)..end]
        }
        let element = storage.bytes() as usize;
        let count = target.len() / element;
        let left = (self.bytes().len() / self.storage().bytes() as usize).saturating_sub(first);
        let (target, rest) = target.split_at_mut(left.min(count) * element);
        rest.fill(0);
        match (&self.values, storage) {
            (Values::F32(values), StorageType::F16) => {
                bytemuck::cast_slice_mut::<_, f16>(target).convert_from_f32_slice(part(values, first, count));
            }
            (Values::F32(values), StorageType::Bf16) => {
                bytemuck::cast_slice_mut::<_, bf16>(target).convert_from_f32_slice(part(values, first, count));
            }
            (Values::F16(values), StorageType::F32) => {
                part(values, first, count).convert_to_f32_slice(bytemuck::cast_slice_mut(target));
            }
            (Values::Bf16(values), StorageType::F32) => {
                part(values, first, count).convert_to_f32_slice(bytemuck::cast_slice_mut(target));
            }
            (Values::F16(values), StorageType::Bf16) => {
                let target = bytemuck::cast_slice_mut::<_, bf16>(target);
                let rounded = part(values, first, count).iter().map(|value| bf16::from_f32(value.to_f32()));
                target.iter_mut().zip(rounded).for_each(|(target, value)| *target = value);
            }
            (Values::Bf16(values), StorageType::F16) => {
                let target = bytemuck::cast_slice_mut::<_, f16>(target);
                let rounded = part(values, first, count).iter().map(|value| f16::from_f32(value.to_f32()));
                target.iter_mut().zip(rounded).for_each(|(target, value)| *target = value);
            }
            // The same storage type.
            _ => target.copy_from_slice(part(self.bytes(), first * element, count * element)),
        }
    }

    /// The values as they lie in memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.values {
            Values::F32(values) => bytemuck::cast_slice(values),
            Values::F16(values) => bytemuck::cast_slice(values),
            Values::Bf16(values) => bytemuck::cast_slice(values),
        }
    }

    /// A tensor from values as they lie in memory; what is there beyond them is left out.
    pub(crate) fn from_bytes(shape: Vec<usize>, storage: StorageType, bytes: &[u8]) -> Result<Self, Error> {
        fn values<T: bytemuck::Pod>(count: usize, bytes: &[u8]) -> Result<Vec<T>, Error> {
            let bytes = &bytes[..count * size_of::<T>()];
            let mut values = Vec::new();
            values.try_reserve_exact(count).map_err(|_| Error::OutOfMemory {
                operation: "the copying of a tensor to the host",
                bytes: bytes.len() as u64,
            })?;
            values.extend(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>));
            Ok(values)
        }
        let count = element_count(&shape)?;
        let values = match storage {
            StorageType::F32 => Values::F32(values(count, bytes)?),
            StorageType::F16 => Values::F16(values(count, bytes)?),
            StorageType::Bf16 => Values::Bf16(values(count, bytes)?),
        };
        Self::new(shape, count, values)
    }
}

/// The product of dimensions, if it fits 64 bits; 0 if one of them is 0, whatever the others are.
pub(crate) fn product(dimensions: &[usize]) -> Option<u64> {
    if dimensions.contains(&0) {
        return Some(0);
    }
    dimensions.iter().try_fold(1_u64, |product, &dimension| product.checked_mul(dimension as u64))
}

/// The number of elements of a shape, checked: rank, and a byte count that fits `usize`.
pub(crate) fn element_count(shape: &[usize]) -> Result<usize, Error> {
    if shape.len() > MAX_RANK {
        return Err(Error::Rank { shape: shape.to_vec(), max: MAX_RANK });
    }
    product(shape)
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| count.checked_mul(size_of::<f32>()).is_some())
        .ok_or_else(|| Error::Size { shape: shape.to_vec() })
}
