use crate::Error;

/// The most dimensions that a tensor may have.
pub const MAX_RANK: usize = 8;

/// A tensor of f32 in host memory: a shape, and its values with the last dimension innermost. A shape without dimensions
/// holds one value; a dimension of zero leaves none.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
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
        let (shape, values) = (shape.into(), values.into());
        let expected = element_count(&shape)?;
        if values.len() != expected {
            return Err(Error::ValueCount { shape, expected, actual: values.len() });
        }
        Ok(Self { shape, values })
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values in row-major order, taken out.
    pub fn into_values(self) -> Vec<f32> {
        self.values
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
