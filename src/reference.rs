//! The scalar f64 reference: the formula, written to be read. It shares no code with the kernels.

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
pub fn row_statistics(row: &[f32], eps: f64, unbiased: bool) -> RowStatistics {
    let n = row.len() as f64;
    let rough_mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let mean = rough_mean + row.iter().map(|&x| f64::from(x) - rough_mean).sum::<f64>() / n;
    let sum_of_squares: f64 = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    let variance = sum_of_squares / if unbiased { n - 1.0 } else { n };
    RowStatistics { mean, rstd: reciprocal_root(variance + eps) }
}

/// Layer normalization of `input`, rows of `width` elements one after another, by the formula
/// y = (x − mean) · rstd · weight + bias; an absent weight is 1, an absent bias 0. Returns as many values as `input` has.
///
/// The first source's example, `[[1, 2, 3], [4, 5, 6]]` as one row of six: mean 3.5, variance 35 / 12, so the first
/// element becomes −2.5 / √(35 / 12) = −1.46385:
/// ```
/// use gpu_layer_norm::reference::layer_norm;
///
/// let y = layer_norm(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 6, None, None, 0.0, false);
/// assert!((y[0] + 2.5 / (35.0_f64 / 12.0).sqrt()).abs() < 1e-15);
/// assert_eq!(y[0], -y[5]);
/// ```
///
/// # Panics
/// If `width` is 0 or does not divide the length, or weight or bias have another length than `width`.
pub fn layer_norm(
    input: &[f32],
    width: usize,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f64,
    unbiased: bool,
) -> Vec<f64> {
    apply(input, width, weight, bias, |row| row_statistics(row, eps, unbiased))
}

/// 1 / sqrt(mean(x²) + eps) of one row; 0 where that divides by 0, so that a row of zeros gives the bias.
///
/// ```
/// use gpu_layer_norm::reference::root_mean_square_rstd;
///
/// // (9 + 16 + 0 + 0) / 4 = 6.25
/// assert_eq!(root_mean_square_rstd(&[3.0, -4.0, 0.0, 0.0], 0.0), 1.0 / 2.5);
/// ```
pub fn root_mean_square_rstd(row: &[f32], eps: f64) -> f64 {
    let mean_square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / row.len() as f64;
    reciprocal_root(mean_square + eps)
}

fn reciprocal_root(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { 1.0 / x.sqrt() }
}

/// RMS normalization of `input`, rows of `width` elements one after another, by the formula
/// y = x / sqrt(mean(x²) + eps) · weight + bias; an absent weight is 1, an absent bias 0. Returns as many values as `input`
/// has.
///
/// ```
/// use gpu_layer_norm::reference::rms_norm;
///
/// assert_eq!(rms_norm(&[2.0, -2.0, 2.0, 2.0], 4, None, None, 0.0), [1.0, -1.0, 1.0, 1.0]);
/// ```
///
/// # Panics
/// As [`layer_norm`].
pub fn rms_norm(input: &[f32], width: usize, weight: Option<&[f32]>, bias: Option<&[f32]>, eps: f64) -> Vec<f64> {
    apply(input, width, weight, bias, |row| RowStatistics { mean: 0.0, rstd: root_mean_square_rstd(row, eps) })
}

fn apply(
    input: &[f32],
    width: usize,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    statistics: impl Fn(&[f32]) -> RowStatistics,
) -> Vec<f64> {
    assert!(width > 0 && input.len().is_multiple_of(width), "{} values are no rows of {width}", input.len());
    assert!(weight.is_none_or(|weight| weight.len() == width), "the weight must have {width} values");
    assert!(bias.is_none_or(|bias| bias.len() == width), "the bias must have {width} values");
    let mut output = Vec::with_capacity(input.len());
    for row in input.chunks_exact(width) {
        let RowStatistics { mean, rstd } = statistics(row);
        for (i, &x) in row.iter().enumerate() {
            let normalized = (f64::from(x) - mean) * rstd;
            let weight = weight.map_or(1.0, |weight| f64::from(weight[i]));
            let bias = bias.map_or(0.0, |bias| f64::from(bias[i]));
            output.push(normalized * weight + bias);
        }
    }
    output
}
