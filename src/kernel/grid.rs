use std::fmt;

use super::Unit;
use crate::{Error, MAX_RANK};

/// One dimension of a tensor, along which its rows are counted, or the elements of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dimension {
    /// Places along it. Those of all dimensions of rows, multiplied, are the rows of the problem, and those of all dimensions of elements
    /// its width. In the grid of a [`Kernel`](super::Kernel) the outermost dimension of rows has 0 here, because no kernel depends on it.
    pub size: u32,
    /// Elements from one place to the next.
    pub stride: u32,
    /// The same in weight and bias, and what else has their shape: 0 where places share a parameter.
    pub parameter_stride: u32,
}

/// How rows and elements lie in a tensor in which a row is not simply some elements one after another: over which dimensions rows are
/// counted, and over which the elements of a row; in both the last one counts fastest.
///
/// It is the same for all tensors of rows × width of a problem, which have no row stride.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    rows: List,
    elements: List,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct List {
    dimensions: [Dimension; MAX_RANK + 1],
    count: usize,
}

impl List {
    /// Outermost first. Neighbours that one dimension would do for become one; where there are none, one of a single place has this stride.
    fn new(dimensions: &[Dimension], stride: u32) -> Self {
        let mut merged: Vec<Dimension> = Vec::new();
        for &inner in dimensions.iter().filter(|dimension| dimension.size != 1) {
            let fits = |outer: &Dimension| {
                let product = |stride: u32| u64::from(stride) * u64::from(inner.size);
                u64::from(outer.stride) == product(inner.stride)
                    && u64::from(outer.parameter_stride) == product(inner.parameter_stride)
                    && outer.size.checked_mul(inner.size).is_some()
            };
            match merged.last_mut().filter(|outer| fits(outer)) {
                Some(outer) => *outer = Dimension { size: outer.size * inner.size, ..inner },
                None => merged.push(inner),
            }
        }
        if merged.is_empty() {
            merged.push(Dimension { size: 1, stride, parameter_stride: 0 });
        }
        let mut list = Self { dimensions: Default::default(), count: merged.len() };
        list.dimensions[..merged.len()].copy_from_slice(&merged);
        list
    }

    fn get(&self) -> &[Dimension] {
        &self.dimensions[..self.count]
    }
}

impl fmt::Debug for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grid").field("rows", &self.rows()).field("elements", &self.elements()).finish()
    }
}

impl Grid {
    /// Rows over some dimensions and elements over others, outermost first.
    ///
    /// # Errors
    /// [`Error::Rank`] for more than [`MAX_RANK`] + 1 dimensions of rows or of elements.
    pub fn new(rows: &[Dimension], elements: &[Dimension]) -> Result<Self, Error> {
        if rows.len().max(elements.len()) > MAX_RANK + 1 {
            return Err(Error::Rank { shape: vec![0; rows.len().max(elements.len())], max: MAX_RANK });
        }
        Ok(Self { rows: List::new(rows, 0), elements: List::new(elements, 1) })
    }

    /// The dimensions over which rows are counted, outermost first.
    pub fn rows(&self) -> &[Dimension] {
        self.rows.get()
    }

    /// The dimensions over which the elements of a row are counted, outermost first.
    pub fn elements(&self) -> &[Dimension] {
        self.elements.get()
    }

    /// The same, but for the size that no kernel depends on.
    pub(super) fn without_outermost_size(mut self) -> Self {
        self.rows.dimensions[0].size = 0;
        self
    }

    /// Rows that lie within one place of the outermost dimension, where these lie one after another in memory and share their parameters;
    /// `None` where they do not.
    pub(super) fn block_rows(&self) -> Option<u64> {
        let [outermost, inner @ ..] = self.rows() else { return None };
        let is_outermost = |other: &Dimension| other.size <= 1 || other.stride <= outermost.stride;
        let rows = inner.iter().map(|dimension| u64::from(dimension.size)).product();
        let has_own_parameters = outermost.parameter_stride > 0;
        let are_blocks = inner.iter().all(is_outermost) && self.elements().iter().all(is_outermost);
        (are_blocks && !has_own_parameters).then_some(rows)
    }

    /// Whether neighbouring rows are neighbours in memory, and neighbouring elements of a row are not.
    pub(super) fn has_rows_side_by_side(&self) -> bool {
        let innermost = |dimensions: &[Dimension]| dimensions.last().map_or(0, |dimension| dimension.stride);
        innermost(self.rows()) == 1 && innermost(self.elements()) > 1
    }

    /// Elements from the first to the last, and one.
    pub(super) fn reach(&self) -> u64 {
        let last = |dimension: &Dimension| u64::from(dimension.size).saturating_sub(1) * u64::from(dimension.stride);
        self.rows().iter().chain(self.elements()).map(last).sum::<u64>() + 1
    }

    /// Whether the elements of four neighbouring rows at one position are one access.
    pub(super) fn divides_rows(&self) -> bool {
        let Some((innermost, outer)) = self.rows().split_last() else { return false };
        let mut strides = outer.iter().chain(self.elements()).map(|dimension| dimension.stride);
        self.has_rows_side_by_side()
            && innermost.size.is_multiple_of(4)
            && strides.all(|stride| stride.is_multiple_of(4))
    }

    /// Whether all places have parameters of their own, the same for all rows.
    pub(super) fn has_parameters_by_element(&self) -> bool {
        self.rows().iter().all(|dimension| dimension.parameter_stride == 0)
            && self.elements().iter().all(|dimension| dimension.parameter_stride > 0 || dimension.size == 1)
    }

    /// Groups of channels, the channels of each and the positions of a channel, where neighbouring positions of a sample's channel share
    /// their parameters and groups are rows one after another; `None` of any other grid.
    pub(super) fn channels(&self) -> Option<[u32; 3]> {
        let (of_group, positions) = match *self.elements() {
            [Dimension { size, stride, parameter_stride: 1 }, inner]
                if inner.stride == 1 && inner.parameter_stride == 0 && stride == inner.size =>
            {
                (size, inner.size)
            }
            [Dimension { size, stride: 1, parameter_stride: 1 }] => (size, 1),
            [Dimension { size, stride: 1, parameter_stride: 0 }] => (1, size),
            _ => return None,
        };
        let width = of_group.checked_mul(positions)?;
        let is_groups = |dimension: &Dimension| dimension.stride == width && dimension.parameter_stride == of_group;
        let is_samples = |dimension: &Dimension| dimension.parameter_stride == 0;
        match self.rows() {
            [samples, groups] if is_samples(samples) && is_groups(groups) => Some([groups.size, of_group, positions]),
            [groups] if is_groups(groups) => Some([groups.size, of_group, positions]),
            [samples] if is_samples(samples) => Some([1, of_group, positions]),
            _ => None,
        }
    }

    /// Elements of a parameter.
    pub(super) fn parameters(&self) -> u64 {
        let last =
            |dimension: &Dimension| u64::from(dimension.size).saturating_sub(1) * u64::from(dimension.parameter_stride);
        self.rows().iter().chain(self.elements()).map(last).sum::<u64>() + 1
    }

    /// Whether rows have parameters of their own.
    pub(super) fn has_parameters_by_row(&self) -> bool {
        self.rows().iter().any(|dimension| dimension.parameter_stride > 0)
    }

    /// Whether neighbouring elements of a row share their parameters.
    pub(super) fn has_shared_parameters(&self) -> bool {
        self.elements().last().is_some_and(|innermost| innermost.parameter_stride == 0)
    }

    /// Whether what has a parameter's shape can be got at by this unit.
    pub(super) fn divides_parameters(&self, unit: Unit) -> bool {
        let whole = |count: u32| count.is_multiple_of(unit.elements());
        let Some((innermost, outer)) = self.elements().split_last() else { return false };
        let mut outer = outer.iter().chain(self.rows());
        unit.elements() == 1
            || innermost.parameter_stride == 1
                && whole(innermost.size)
                && outer.all(|dimension| whole(dimension.parameter_stride))
    }

    /// Whether its elements can be got at by this unit.
    pub(super) fn divides(&self, unit: Unit) -> bool {
        let whole = |count: u32| count.is_multiple_of(unit.elements());
        let Some((innermost, outer)) = self.elements().split_last() else { return false };
        let mut outer = outer.iter().chain(self.rows());
        unit.elements() == 1
            || innermost.stride == 1
                && whole(innermost.size)
                && outer.all(|dimension| whole(dimension.stride))
                && (innermost.parameter_stride == 0 || self.divides_parameters(unit))
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |dimensions: &[Dimension]| {
            let texts: Vec<_> = dimensions
                .iter()
                .map(|Dimension { size, stride, parameter_stride }| format!("{size}/{stride}/{parameter_stride}"))
                .collect();
            texts.join(" ")
        };
        write!(f, "rows over {}, elements over {}", list(self.rows()), list(self.elements()))
    }
}
