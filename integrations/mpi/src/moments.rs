//! Moments on their way from rank to rank: count, mean and Σ(x − mean)² of a row, in f64.
//!
//! Thousands of ranks may be merged one after another, as a ring does. In f32 each merge would round the deviation by up to 2^-24, and a
//! thousand merges would use up the whole bound of a row; in f64 nothing of it is seen. For RMS normalization the mean is 0 and the sum
//! is that of x².

use std::ffi::{c_int, c_void};

use bytemuck::{Pod, Zeroable};
use gpu_layer_norm::RowMoments;
use mpi::ffi::MPI_Datatype;

use crate::ranks::{Reduction, vectors};

/// Moments of a part of a row. All zeros are those of no elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(crate) struct WideMoments {
    count: f64,
    mean: f64,
    /// Σ(x − mean)².
    squares: f64,
}

impl WideMoments {
    /// How many f64 they are.
    pub(crate) const WORDS: usize = 3;

    /// The reduction that merges them.
    pub(crate) fn reduction() -> Reduction {
        // Safety: the function keeps to the elements that it is told of.
        unsafe { Reduction::of::<{ Self::WORDS }>(merge_all) }
    }

    /// By Chan's formula (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
    /// The same bits whichever comes first, so that ranks that merge in other orders of two have the same result.
    pub(crate) fn merge(self, other: Self) -> Self {
        if other.count == 0.0 {
            return self;
        }
        if self.count == 0.0 {
            return other;
        }
        let count = self.count + other.count;
        let difference = self.mean - other.mean;
        // Rows of one value keep it to the last bit, however many elements they have.
        let mean =
            if difference == 0.0 { self.mean } else { (self.count * self.mean + other.count * other.mean) / count };
        let between = difference * difference * (self.count * other.count / count);
        Self { count, mean, squares: (self.squares + other.squares) + between }
    }

    /// What the kernels take, which is rounded to f32, the mean to two of them.
    pub(crate) fn narrow(self) -> RowMoments {
        if self.count == 0.0 {
            return RowMoments::NONE;
        }
        let mean = self.mean as f32;
        let mean_rest = (self.mean - f64::from(mean)) as f32;
        let deviation = (self.squares / self.count).sqrt() as f32;
        // All ranks have checked, when the layer was made, that a row has no more elements than a u32 counts.
        RowMoments { mean, mean_rest, deviation, count: self.count as u32 }
    }
}

impl From<RowMoments> for WideMoments {
    fn from(moments: RowMoments) -> Self {
        let count = f64::from(moments.count);
        let mean = f64::from(moments.mean) + f64::from(moments.mean_rest);
        Self { count, mean, squares: count * f64::from(moments.deviation).powi(2) }
    }
}

/// As MPI calls it.
unsafe extern "C" fn merge_all(first: *mut c_void, second: *mut c_void, len: *mut c_int, _: *mut MPI_Datatype) {
    // Safety: MPI calls this with vectors of the datatype that the reduction was made with, which is that of these moments.
    let (first, second) = unsafe { vectors::<WideMoments>(first, second, len) };
    for (other, moments) in first.iter().zip(second) {
        *moments = moments.merge(*other);
    }
}

#[cfg(test)]
mod tests {
    use gpu_layer_norm::RowMoments;

    use super::WideMoments;

    /// Of values that are kept in f64, as those of a row that no part of has been rounded.
    fn exact(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let rough = values.iter().sum::<f64>() / n;
        let mean = rough + values.iter().map(|x| x - rough).sum::<f64>() / n;
        (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n)
    }

    fn values(count: usize, mean: f64) -> Vec<f32> {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1_u64 << 24) as f64
        };
        (0..count).map(|_| (mean + 4.0 * (uniform() + uniform() + uniform() - 1.5)) as f32).collect()
    }

    /// The largest share by which the deviation is off after a ring of as many ranks, and the error of the mean in deviations.
    fn off_after_a_ring(ranks: usize, merge: impl Fn(&[RowMoments]) -> (f64, f64)) -> (f64, f64) {
        let row = values(ranks * 24, 1e6);
        let parts: Vec<RowMoments> = row.chunks(24).map(RowMoments::of).collect();
        let (mean, variance) = exact(&row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let (found_mean, found_variance) = merge(&parts);
        ((found_variance / variance).sqrt() - 1.0, (found_mean - mean) / variance.sqrt())
    }

    #[test]
    fn thousands_of_ranks_in_a_ring_lose_nothing_that_counts() {
        let (deviation, mean) = off_after_a_ring(4096, |parts| {
            let whole =
                parts.iter().map(|part| WideMoments::from(*part)).reduce(WideMoments::merge).expect("parts").narrow();
            (whole.mean(), whole.variance())
        });
        // Each part's own deviation is off by up to 2^-24, to either side; the bound of x̂ leaves 5e-7 for all.
        assert!(deviation.abs() < 1e-7 && mean.abs() < 1e-7, "{deviation:e} {mean:e}");
        // In f32 they would.
        let (deviation, _) = off_after_a_ring(4096, |parts| {
            let merge = |a: RowMoments, b: &RowMoments| a.merge(*b).expect("few elements");
            let whole = parts.iter().fold(RowMoments::NONE, merge);
            (whole.mean(), whole.variance())
        });
        assert!(deviation.abs() > 2e-7, "{deviation:e}");
    }

    #[test]
    fn merging_is_symmetric_in_bits() {
        let row = values(300, -7.3);
        for cut in [0, 1, 7, 150, 299] {
            let (a, b) = row.split_at(cut);
            let [a, b] = [a, b].map(|part| WideMoments::from(RowMoments::of(part)));
            assert_eq!(bytemuck::bytes_of(&a.merge(b)), bytemuck::bytes_of(&b.merge(a)), "cut at {cut}");
        }
    }

    #[test]
    fn no_elements_are_neutral_and_one_value_stays_what_it_is() {
        let none = WideMoments::from(RowMoments::NONE);
        assert_eq!(bytemuck::bytes_of(&none), [0; 24]);
        let part = WideMoments { count: 123_456_789.0, mean: f64::from(0.1_f32), squares: 0.0 };
        assert_eq!(none.merge(part), part);
        let whole = (0..30).fold(none, |whole, _| whole.merge(part)).narrow();
        assert_eq!((whole.mean, whole.mean_rest, whole.deviation), (0.1, 0.0, 0.0));
        assert_eq!(whole.count, 30 * 123_456_789);
        assert_eq!(none.narrow().count, 0);
    }

    #[test]
    fn large_and_small_magnitudes_neither_overflow_nor_vanish() {
        for scale in [1e-18_f32, 1.0, 1e37] {
            let row = [3.0, -4.0, 0.5, 1.5].map(|x: f32| x * scale / 4.0);
            let [a, b] = [&row[..1], &row[1..]].map(|part| WideMoments::from(RowMoments::of(part)));
            let whole = a.merge(b).narrow();
            let (mean, variance) = exact(&row.map(f64::from));
            assert!((whole.mean() - mean).abs() <= 1e-7 * variance.sqrt(), "{scale:e}");
            assert!((whole.variance() / variance - 1.0).abs() <= 1e-6, "{scale:e}");
        }
    }

    #[test]
    fn a_nan_spoils_the_row_whichever_part_it_is_in() {
        let [a, b] = [&[1.0, 2.0][..], &[3.0, f32::NAN]].map(|part| WideMoments::from(RowMoments::of(part)));
        for whole in [a.merge(b), b.merge(a)] {
            assert!(whole.narrow().deviation.is_nan());
        }
    }
}
