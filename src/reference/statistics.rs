//! Mean and rstd of a row.

/// Mean and reciprocal standard deviation of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowStatistics {
    /// Mean of the row.
    pub mean: f64,
    /// 1 / sqrt(variance + eps); 0 where variance + eps is 0, so that a constant row gives the bias.
    pub rstd: f64,
}

/// Mean and rstd of one row, for the biased variance (divided by n) or the unbiased one (divided by n − 1).
///
/// The variance is taken about the mean in a second pass, and the mean itself is corrected by the mean of what remains,
/// so that f64 rounding stays far below f32's whatever the row's mean.
///
/// By hand, the row 1 2 4 1: mean 2, deviations −1 0 2 −1, biased variance 6 / 4 = 1.5, so rstd = 1 / √1.5 with eps 0:
/// ```
/// use gpu_layer_norm::reference::row_statistics;
///
/// let row = row_statistics(&[1.0, 2.0, 4.0, 1.0], 0.0, false);
/// assert_eq!(row.mean, 2.0);
/// assert_eq!(row.rstd, 1.0 / 1.5_f64.sqrt());
/// ```
pub fn row_statistics<T: Copy + Into<f64>>(row: &[T], eps: f64, unbiased: bool) -> RowStatistics {
    let n = row.len() as f64;
    let rough_mean = row.iter().map(|&x| x.into()).sum::<f64>() / n;
    let mean = rough_mean + row.iter().map(|&x| x.into() - rough_mean).sum::<f64>() / n;
    let sum_of_squares: f64 = row.iter().map(|&x| (x.into() - mean).powi(2)).sum();
    let variance = sum_of_squares / if unbiased { n - 1.0 } else { n };
    RowStatistics { mean, rstd: reciprocal_root(variance + eps) }
}

/// 1 / sqrt(mean(x²) + eps) of one row; 0 where that divides by 0, so that a row of zeros gives the bias.
///
/// ```
/// use gpu_layer_norm::reference::root_mean_square_rstd;
///
/// // (9 + 16 + 0 + 0) / 4 = 6.25
/// assert_eq!(root_mean_square_rstd(&[3.0, -4.0, 0.0, 0.0], 0.0), 1.0 / 2.5);
/// ```
pub fn root_mean_square_rstd<T: Copy + Into<f64>>(row: &[T], eps: f64) -> f64 {
    let mean_square = row.iter().map(|&x| x.into().powi(2)).sum::<f64>() / row.len() as f64;
    reciprocal_root(mean_square + eps)
}

/// 1 / √x, and 0 in place of 1 / 0.
pub(super) fn reciprocal_root(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { 1.0 / x.sqrt() }
}
