//! How the rows of a tensor lie in memory.

use burn_cubecl::cubecl::zspace::metadata::Metadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use gpu_layer_norm::kernel::{Dimension, Grid};

/// The dimensions of a tensor in the order in which they lie in memory, outermost first.
pub(crate) struct MemoryOrder(Vec<usize>);

impl MemoryOrder {
    /// That of a tensor. The last dimension, along which rows lie, comes last where it has a single place.
    fn of(tensor: &CubeTensor) -> Self {
        let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
        let last = shape.len() - 1;
        let mut order: Vec<usize> = (0..shape.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(if i == last && shape[i] == 1 { 0 } else { strides[i] }));
        Self(order)
    }

    /// Where in this order the last dimension is.
    pub(crate) fn place_of_last(&self) -> usize {
        self.0.iter().position(|&i| i + 1 == self.0.len()).unwrap_or(0)
    }

    /// A view of the tensor with its dimensions in this order.
    pub(crate) fn apply(&self, tensor: CubeTensor) -> CubeTensor {
        permuted(tensor, &self.0)
    }

    /// A view of the tensor, whose dimensions are in this order, with the order taken back.
    pub(crate) fn undo(&self, tensor: CubeTensor) -> CubeTensor {
        let mut inverse = vec![0; self.0.len()];
        self.0.iter().enumerate().for_each(|(place, &dimension)| inverse[dimension] = place);
        permuted(tensor, &inverse)
    }
}

fn permuted(mut tensor: CubeTensor, order: &[usize]) -> CubeTensor {
    let pick = |of: &[usize]| order.iter().map(|&i| of[i]).collect::<Vec<_>>();
    *tensor.meta = Metadata::new(pick(tensor.meta.shape()), pick(tensor.meta.strides()));
    tensor
}

/// The rows of a tensor in the order of memory.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) count: u64,
    pub(crate) width: u64,
    /// Elements from one row to the next, where there are gaps between rows.
    pub(crate) stride: Option<u64>,
    /// How they lie where the elements of a row are not side by side. Then there are no gaps.
    pub(crate) grid: Option<Grid>,
}

impl Rows {
    /// The tensor as it lies, its dimensions in memory order; `None` if the kernels cannot read it so.
    pub(crate) fn as_they_lie(tensor: &CubeTensor) -> Option<(CubeTensor, MemoryOrder, Self)> {
        if tensor.meta.is_tiled() {
            return None;
        }
        let order = MemoryOrder::of(tensor);
        let view = order.apply(tensor.clone());
        let rows = Self::of_view(&view, &order)?;
        Some((view, order, rows))
    }

    /// The tensor, copied if it is not contiguous.
    pub(crate) fn contiguous(tensor: CubeTensor) -> (CubeTensor, MemoryOrder, Self) {
        let tensor = into_contiguous(tensor);
        let shape = tensor.meta.shape();
        let (order, width) = (MemoryOrder((0..shape.len()).collect()), shape[shape.len() - 1] as u64);
        let count = shape[..shape.len() - 1].iter().product::<usize>() as u64;
        (tensor, order, Self { count, width, stride: None, grid: None })
    }

    /// Another tensor of the shape of these rows' own, in the same memory order, and its stride. It is copied if its rows do not lie one
    /// after another, or apart where these do not.
    pub(crate) fn beside(&self, tensor: CubeTensor, order: &MemoryOrder) -> (CubeTensor, Option<u64>) {
        let tensor = if tensor.meta.is_tiled() { into_contiguous(tensor) } else { tensor };
        let view = order.apply(tensor);
        match Self::of_view(&view, order) {
            Some(Self { stride, grid: None, .. }) if self.grid.is_none() => (view, stride),
            _ => (into_contiguous(view), None),
        }
    }

    fn of_view(view: &CubeTensor, order: &MemoryOrder) -> Option<Self> {
        let (sizes, strides, place) = (view.meta.shape(), view.meta.strides(), order.place_of_last());
        let width = sizes[place];
        let leading = (0..sizes.len()).filter(|&i| i != place);
        let rows = Self {
            count: leading.clone().map(|i| sizes[i] as u64).product(),
            width: width as u64,
            stride: None,
            grid: None,
        };
        if place + 1 == sizes.len() && (width == 1 || strides[place] == 1) {
            let stride = even_stride(&sizes[..place], &strides[..place])?.unwrap_or(width);
            let stride = (stride >= width).then_some(stride)?;
            return Some(Self { stride: (stride > width).then_some(stride as u64), ..rows });
        }
        if even_stride(sizes, strides)? != Some(1) {
            return None;
        }
        let dimension = |i: usize, parameter_stride| {
            let (size, stride) = (u32::try_from(sizes[i]).ok()?, u32::try_from(strides[i]).ok()?);
            Some(Dimension { size, stride, parameter_stride })
        };
        let leading = leading.map(|i| dimension(i, 0)).collect::<Option<Vec<_>>>()?;
        let grid = Grid::new(&leading, &[dimension(place, 1)?]).ok()?;
        Some(Self { grid: Some(grid), ..rows })
    }
}

/// From each place of these dimensions, counted through, to the next: `None` if that is not always as far, `Some(None)` if there is no
/// second place.
fn even_stride(sizes: &[usize], strides: &[usize]) -> Option<Option<usize>> {
    let mut innermost = None;
    let mut expected = None;
    for (&size, &stride) in sizes.iter().zip(strides).rev().filter(|(size, _)| **size != 1) {
        if expected.is_some_and(|expected| expected != stride) {
            return None;
        }
        innermost.get_or_insert(stride);
        expected = Some(stride * size);
    }
    Some(innermost)
}

#[cfg(test)]
mod tests {
    use super::even_stride;

    #[test]
    fn an_even_stride_is_that_of_the_innermost_dimension_with_places() {
        assert_eq!(even_stride(&[4, 6], &[6, 1]), Some(Some(1)));
        assert_eq!(even_stride(&[4, 1, 6], &[60, 7, 10]), Some(Some(10)));
        assert_eq!(even_stride(&[4, 6], &[61, 10]), None);
        assert_eq!(even_stride(&[4, 6], &[0, 1]), None);
        assert_eq!(even_stride(&[1, 1], &[5, 5]), Some(None));
        assert_eq!(even_stride(&[], &[]), Some(None));
    }
}
