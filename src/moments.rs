use crate::Error;

/// Mean and standard deviation of a row, or of a part of one: 16 bytes, of which those of parts merge.
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
    /// What is to be added to it.
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

    /// Those of the elements of both: the formula of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing
    /// sample variances", 1979) in f64, rounded to f32 in the end. With δ the difference of the means of a and b elements,
    ///
    /// mean = (a · mean_a + b · mean_b) / (a + b),  variance = (a · variance_a + b · variance_b + δ² · a · b / (a + b)) / (a + b)
    ///
    /// Which of the two comes first makes no difference, to the last bit. Each merge rounds the deviation once, by up to 6e-8 of it, so
    /// merge many parts as a tree rather than one after another.
    ///
    /// # Errors
    /// [`Error::Width`] if the elements of both are more than u32 can count.
    pub fn merge(self, other: Self) -> Result<Self, Error> {
        let width = u64::from(self.count) + u64::from(other.count);
        let count = u32::try_from(width).map_err(|_| Error::Width { width, max: u32::MAX.into() })?;
        match (self.count, other.count) {
            (0, _) => return Ok(other),
            (_, 0) => return Ok(self),
            _ => {}
        }
        let (a, b, n) = (f64::from(self.count), f64::from(other.count), f64::from(count));
        let difference = self.mean() - other.mean();
        // The mean of equal ones is what it was, in every bit.
        let mean = if difference == 0.0 { self.mean() } else { (a * self.mean() + b * other.mean()) / n };
        let within = a * self.variance() + b * other.variance();
        let variance = (within + difference * difference * (a * b / n)) / n;
        Ok(Self::rounded(mean, variance.sqrt(), count as usize))
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
        Self::rounded(mean, (squares / values.len() as f64).sqrt(), values.len())
    }

    fn rounded(mean: f64, deviation: f64, count: usize) -> Self {
        let rounded = mean as f32;
        Self {
            mean: rounded,
            mean_rest: (mean - f64::from(rounded)) as f32,
            deviation: deviation as f32,
            count: u32::try_from(count).unwrap_or(u32::MAX),
        }
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
