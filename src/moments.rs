use crate::Error;

/// The moments of a row, or of a part of one: mean, standard deviation and number of elements, in 16 bytes. Those of two parts merge into
/// those of both.
///
/// Rows that are spread over several devices, or longer than a kernel may take, are measured part by part
/// ([`GpuLayerNorm::moments`](crate::GpuLayerNorm::moments)). What the parts give is merged, in any order, and with the moments of the
/// whole row each part is normalized ([`GpuLayerNorm::normalize`](crate::GpuLayerNorm::normalize)).
///
/// The mean is kept in two f32 numbers, because one of them is not enough beside a deviation that is a millionth of it. In RMS
/// normalization the mean is 0 and the deviation is the root mean square. A row with a NaN has a deviation that is NaN; so has one with an
/// infinity, but in RMS normalization its deviation is infinite.
///
/// ```
/// use gpu_layer_norm::RowMoments;
///
/// // By hand: 1 2 4 1 has mean 2, and its squared deviations 1 0 4 1 have mean 1.5.
/// let parts = [RowMoments::of(&[1.0]), RowMoments::of(&[2.0, 4.0, 1.0])];
/// let whole = parts[0].merge(parts[1])?;
/// assert_eq!(whole.count, 4);
/// assert!((whole.mean() - 2.0).abs() < 1e-12 && (whole.variance() - 1.5).abs() < 1e-6);
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct RowMoments {
    /// The mean, rounded to f32.
    pub mean: f32,
    /// What that rounding has lost: the mean is `mean` + `mean_rest`.
    pub mean_rest: f32,
    /// The square root of the biased variance: of the mean of (x − mean)².
    pub deviation: f32,
    /// How many elements there are.
    pub count: u32,
}

impl RowMoments {
    /// Those of no elements, with which a merge changes nothing.
    pub const NONE: Self = Self { mean: 0.0, mean_rest: 0.0, deviation: 0.0, count: 0 };

    /// Those of these elements, for layer normalization. Found in f64; a count of more than u32 has numbers for is cut to the largest.
    pub fn of(values: &[f32]) -> Self {
        let mean = crate::reference::row_statistics(values, 0.0, false).mean;
        Self::about(mean, values)
    }

    /// Those of these elements, for RMS normalization, which takes no mean off. Found in f64.
    pub fn of_squares(values: &[f32]) -> Self {
        Self::about(0.0, values)
    }

    /// Those of the elements of both, as [`WideMoments::merge`] has them, rounded to f32. Which of the two comes first makes no difference,
    /// to the last bit. Each merge rounds the deviation once, by up to 6e-8 of it: many parts are better merged as [`WideMoments`], and
    /// rounded in the end.
    ///
    /// # Errors
    /// [`Error::Width`] if the elements of both are more than u32 can count.
    pub fn merge(self, other: Self) -> Result<Self, Error> {
        match (self.count, other.count) {
            (0, _) => Ok(other),
            (_, 0) => Ok(self),
            _ => WideMoments::from(self).merge(other.into()).round(),
        }
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        f64::from(self.mean) + f64::from(self.mean_rest)
    }

    /// The biased variance.
    pub fn variance(&self) -> f64 {
        f64::from(self.deviation) * f64::from(self.deviation)
    }

    fn about(mean: f64, values: &[f32]) -> Self {
        if values.is_empty() {
            return Self::NONE;
        }
        let squares: f64 = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        Self::rounded(mean, (squares / values.len() as f64).sqrt(), count)
    }

    fn rounded(mean: f64, deviation: f64, count: u32) -> Self {
        let rounded = mean as f32;
        Self { mean: rounded, mean_rest: (mean - f64::from(rounded)) as f32, deviation: deviation as f32, count }
    }
}

/// Moments of a row, or of a part of one, in f64: 24 bytes, in which any number of parts may be merged one after another.
///
/// In f32 each merge rounds the deviation, and a thousand merges, as in a ring of a thousand devices, would use up the whole bound of a
/// row's error. In f64 nothing of it is seen. Kernels take and give [`RowMoments`].
///
/// ```
/// use gpu_layer_norm::{RowMoments, WideMoments};
///
/// let parts = [RowMoments::of(&[1.0]), RowMoments::of(&[2.0]), RowMoments::of(&[4.0, 1.0])];
/// let whole = parts.iter().fold(WideMoments::NONE, |whole, part| whole.merge((*part).into())).round()?;
/// assert_eq!((whole.mean, whole.count), (2.0, 4));
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct WideMoments {
    /// How many elements there are.
    pub count: f64,
    /// Their mean; 0 in RMS normalization.
    pub mean: f64,
    /// Σ(x − mean)².
    pub squares: f64,
}

impl WideMoments {
    /// Those of no elements, with which a merge changes nothing. All their bytes are 0.
    pub const NONE: Self = Self { count: 0.0, mean: 0.0, squares: 0.0 };

    /// Those of the elements of both, by the formula of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing
    /// sample variances", 1979). With δ the difference of the means of a and b elements,
    ///
    /// mean = (a · mean_a + b · mean_b) / (a + b),  squares = squares_a + squares_b + δ² · a · b / (a + b)
    ///
    /// Which of the two comes first makes no difference, to the last bit of a number, so that devices that merge in other orders of two
    /// have the same.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if other.count == 0.0 {
            return self;
        }
        if self.count == 0.0 {
            return other;
        }
        let count = self.count + other.count;
        let difference = self.mean - other.mean;
        // The mean of equal ones is what it was, in every bit, however many elements there are.
        let mean = if difference == 0.0 {
            (self.mean + other.mean) / 2.0
        } else {
            (self.count * self.mean + other.count * other.mean) / count
        };
        let between = difference * difference * (self.count * other.count / count);
        Self { count, mean, squares: (self.squares + other.squares) + between }
    }

    /// What the kernels take: rounded to f32, the mean to two of them. The count must be a whole number.
    ///
    /// # Errors
    /// [`Error::Width`] if the elements are more than u32 can count.
    pub fn round(self) -> Result<RowMoments, Error> {
        if self.count == 0.0 {
            return Ok(RowMoments::NONE);
        }
        // A float that is too large becomes the largest integer. What is no number must not pass for no elements: its deviation is NaN.
        let width = (self.count as u64).max(1);
        let count = u32::try_from(width).map_err(|_| Error::Width { width, max: u32::MAX.into() })?;
        Ok(RowMoments::rounded(self.mean, (self.squares / self.count).sqrt(), count))
    }
}

impl From<RowMoments> for WideMoments {
    fn from(moments: RowMoments) -> Self {
        let count = f64::from(moments.count);
        Self { count, mean: moments.mean(), squares: count * moments.variance() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_merge_to_the_whole_wherever_they_are_cut() {
        for (mean, deviation) in [(0.0, 1.0), (1e6, 1.0), (-3e30, 1e28), (1e-30, 1e-33)] {
            // Numbers without a pattern that a cut could meet.
            let values: Vec<f32> = (0..1000_u32)
                .map(|i| mean + deviation * ((i.wrapping_mul(2_654_435_761) >> 20) as f32 / 1024.0 - 2.0))
                .collect();
            let (whole, squares) = (RowMoments::of(&values), RowMoments::of_squares(&values));
            for cut in [0, 1, 13, 500, 999, 1000] {
                let (a, b) = values.split_at(cut);
                let merged = RowMoments::of(a).merge(RowMoments::of(b)).expect("few elements");
                assert_eq!(merged, RowMoments::of(b).merge(RowMoments::of(a)).expect("few elements"));
                let spread = whole.variance().sqrt();
                assert_eq!(merged.count, 1000);
                assert!(
                    (merged.mean() - whole.mean()).abs() < 1e-7 * spread + 1e-13 * whole.mean().abs(),
                    "{merged:?} {whole:?}"
                );
                assert!((merged.variance().sqrt() - spread).abs() < 2e-7 * spread, "{merged:?} {whole:?}");
                let merged = RowMoments::of_squares(a).merge(RowMoments::of_squares(b)).expect("few elements");
                assert!(
                    (merged.variance() - squares.variance()).abs() < 4e-7 * squares.variance() && merged.mean() == 0.0
                );
            }
        }
    }

    #[test]
    fn equal_elements_have_no_deviation_however_many_merge() {
        for value in [0.1_f32, 1e37, f32::MAX, -1e-30] {
            let part = RowMoments { mean: value, count: 87_654_321, ..RowMoments::NONE };
            let all = (0..40).try_fold(RowMoments::NONE, |all, _| all.merge(part)).expect("3.5e9 elements");
            assert_eq!(all, RowMoments { count: 40 * 87_654_321, ..part });
        }
    }

    /// Of values that are kept in f64, as those of a row that no part of has been rounded.
    fn exact(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let rough = values.iter().sum::<f64>() / n;
        let mean = rough + values.iter().map(|x| x - rough).sum::<f64>() / n;
        (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n)
    }

    /// Close to a normal distribution.
    fn bell(count: usize, mean: f64) -> Vec<f32> {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1_u64 << 24) as f64
        };
        (0..count).map(|_| (mean + 4.0 * (uniform() + uniform() + uniform() - 1.5)) as f32).collect()
    }

    #[test]
    fn thousands_of_parts_one_after_another_lose_nothing_that_counts_in_f64_and_the_bound_in_f32() {
        let row = bell(4096 * 24, 1e6);
        let parts: Vec<RowMoments> = row.chunks(24).map(RowMoments::of).collect();
        let (mean, variance) = exact(&row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let off =
            |whole: RowMoments| ((whole.variance() / variance).sqrt() - 1.0, (whole.mean() - mean) / variance.sqrt());
        let wide = parts.iter().fold(WideMoments::NONE, |whole, part| whole.merge((*part).into()));
        let (deviation, mean) = off(wide.round().expect("few elements"));
        // Each part's own deviation is off by up to 2^-24, to either side; the bound of x̂ leaves 5e-7 for all.
        assert!(deviation.abs() < 1e-7 && mean.abs() < 1e-7, "{deviation:e} {mean:e}");
        let narrow = parts.iter().try_fold(RowMoments::NONE, |whole, part| whole.merge(*part)).expect("few elements");
        let (deviation, _) = off(narrow);
        assert!(deviation.abs() > 2e-7, "{deviation:e}");
    }

    #[test]
    fn merging_in_f64_is_symmetric_in_bits_and_nothing_is_neutral() {
        let row = bell(300, -7.3);
        for cut in [0, 1, 7, 150, 299] {
            let (a, b) = row.split_at(cut);
            let [a, b] = [a, b].map(|part| WideMoments::from(RowMoments::of(part)));
            assert_eq!(bytemuck::bytes_of(&a.merge(b)), bytemuck::bytes_of(&b.merge(a)), "cut at {cut}");
        }
        let [a, b] = [0.0, -0.0].map(|mean| WideMoments { count: 3.0, mean, squares: 1.0 });
        assert_eq!(bytemuck::bytes_of(&a.merge(b)), bytemuck::bytes_of(&b.merge(a)));
        assert_eq!(bytemuck::bytes_of(&WideMoments::from(RowMoments::NONE)), [0; 24]);
        assert_eq!(WideMoments::NONE.round(), Ok(RowMoments::NONE));
        let part = WideMoments { count: 123_456_789.0, mean: f64::from(0.1_f32), squares: 0.0 };
        assert_eq!(WideMoments::NONE.merge(part), part);
        let whole = (0..30).fold(WideMoments::NONE, |whole, _| whole.merge(part));
        let expected = RowMoments { mean: 0.1, count: 30 * 123_456_789, ..RowMoments::NONE };
        assert_eq!(whole.round(), Ok(expected));
        let spoilt = WideMoments { count: f64::NAN, ..part }.round().expect("a count");
        assert!(spoilt.count > 0 && spoilt.deviation.is_nan());
        let too_many = (0..35).fold(WideMoments::NONE, |whole, _| whole.merge(part));
        assert_eq!(too_many.round(), Err(Error::Width { width: 35 * 123_456_789, max: u32::MAX.into() }));
    }

    #[test]
    fn large_and_small_magnitudes_neither_overflow_nor_vanish() {
        for scale in [1e-18_f32, 1.0, 1e37] {
            let row = [3.0, -4.0, 0.5, 1.5].map(|x: f32| x * scale / 4.0);
            let [a, b] = [&row[..1], &row[1..]].map(|part| WideMoments::from(RowMoments::of(part)));
            let whole = a.merge(b).round().expect("four elements");
            let (mean, variance) = exact(&row.map(f64::from));
            assert!((whole.mean() - mean).abs() <= 1e-7 * variance.sqrt(), "{scale:e}");
            assert!((whole.variance() / variance - 1.0).abs() <= 1e-6, "{scale:e}");
        }
    }

    #[test]
    fn more_elements_than_can_be_counted_are_refused_and_what_is_no_number_stays() {
        let half = RowMoments { count: 1 << 31, ..RowMoments::NONE };
        assert_eq!(half.merge(half), Err(Error::Width { width: 1 << 32, max: u32::MAX.into() }));
        let ordinary = RowMoments::of(&[1.0, 2.0]);
        for value in [f32::NAN, f32::INFINITY] {
            let merged = ordinary.merge(RowMoments::of(&[1.0, value])).expect("few elements");
            assert!(merged.deviation.is_nan(), "{merged:?}");
        }
        let merged = ordinary.merge(RowMoments::of_squares(&[f32::INFINITY])).expect("few elements");
        assert_eq!(merged.deviation, f32::INFINITY);
    }
}
