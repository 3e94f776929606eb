//! Layer normalization and RMS normalization with one weight and one bias, and their gradients.

use super::statistics::{RowStatistics, root_mean_square_rstd, row_statistics};
use super::{at, check_output_gradient, check_parameter, check_rows};

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
pub fn layer_norm<T: Copy + Into<f64>>(
    input: &[T],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: f64,
    unbiased: bool,
) -> Vec<f64> {
    apply(input, width, weight, bias, |row| row_statistics(row, eps, unbiased))
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
pub fn rms_norm<T: Copy + Into<f64>>(
    input: &[T],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: f64,
) -> Vec<f64> {
    apply(input, width, weight, bias, |row| RowStatistics { mean: 0.0, rstd: root_mean_square_rstd(row, eps) })
}

fn apply<T: Copy + Into<f64>>(
    input: &[T],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    statistics: impl Fn(&[T]) -> RowStatistics,
) -> Vec<f64> {
    check_rows(input, width);
    check_parameter("weight", weight, width);
    check_parameter("bias", bias, width);
    let mut output = Vec::with_capacity(input.len());
    for row in input.chunks_exact(width) {
        let RowStatistics { mean, rstd } = statistics(row);
        for (i, &x) in row.iter().enumerate() {
            let normalized = (x.into() - mean) * rstd;
            output.push(normalized * at(weight, i, 1.0) + at(bias, i, 0.0));
        }
    }
    output
}

/// The gradients of a loss by what a layer takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// By the input, as many values as it has.
    pub input: Vec<f64>,
    /// By the weight, `width` values: Σ dy · x̂ over the rows.
    pub weight: Vec<f64>,
    /// By the bias, `width` values: Σ dy over the rows.
    pub bias: Vec<f64>,
}

/// The backward pass of [`layer_norm`]: from the gradient of a loss by its output, dy, to those by its input, weight and bias. With
/// g = dy · weight,
///
/// dx = rstd · (g − Σg / n − x̂ · Σ(g · x̂) / n)
///
/// where the sums are over the row, and the second n is n − 1 for the unbiased variance. Where rstd is 0 (see [`RowStatistics`]), so is
/// dx.
///
/// Whatever is added to all of a row, the output does not change, so the gradient of a row sums to 0:
/// ```
/// use gpu_layer_norm::reference::layer_norm_backward;
///
/// let gradients = layer_norm_backward(&[1.0, 2.0, 4.0, 1.0], &[1.0, 0.0, 0.0, 0.0], 4, None, 0.0, false);
/// assert!(gradients.input.iter().sum::<f64>().abs() < 1e-15);
/// assert_eq!(gradients.bias, [1.0, 0.0, 0.0, 0.0]);
/// ```
///
/// # Panics
/// If `width` is 0 or does not divide the length, `output_gradient` has another length than `input`, or the weight has another length
/// than `width`.
pub fn layer_norm_backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    width: usize,
    weight: Option<&[T]>,
    eps: f64,
    unbiased: bool,
) -> Gradients {
    let n = width as f64;
    let divisor = if unbiased { n - 1.0 } else { n };
    backward(input, output_gradient, width, weight, |row, gradient| {
        let RowStatistics { mean, rstd } = row_statistics(row, eps, unbiased);
        let normalized: Vec<f64> = row.iter().map(|&x| (x.into() - mean) * rstd).collect();
        let gradient_mean = gradient.iter().sum::<f64>() / n;
        (normalized, rstd, gradient_mean, divisor)
    })
}

/// The backward pass of [`rms_norm`]: dx = rstd · (g − x̂ · Σ(g · x̂) / n), as [`layer_norm_backward`] has it but without a mean.
///
/// ```
/// use gpu_layer_norm::reference::rms_norm_backward;
///
/// // x̂ is 1, −1, 1, 1 and rstd 1/2; the loss is the first output.
/// let gradients = rms_norm_backward(&[2.0, -2.0, 2.0, 2.0], &[1.0, 0.0, 0.0, 0.0], 4, None, 0.0);
/// assert_eq!(gradients.input, [0.375, 0.125, -0.125, -0.125]);
/// assert_eq!(gradients.weight, [1.0, 0.0, 0.0, 0.0]);
/// ```
///
/// # Panics
/// As [`layer_norm_backward`].
pub fn rms_norm_backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    width: usize,
    weight: Option<&[T]>,
    eps: f64,
) -> Gradients {
    backward(input, output_gradient, width, weight, |row, _| {
        let rstd = root_mean_square_rstd(row, eps);
        (row.iter().map(|&x| x.into() * rstd).collect(), rstd, 0.0, width as f64)
    })
}

/// `row` tells of a row and its g: x̂, rstd, what is taken off each g, and what Σ(g · x̂) is divided by.
fn backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    width: usize,
    weight: Option<&[T]>,
    row: impl Fn(&[T], &[f64]) -> (Vec<f64>, f64, f64, f64),
) -> Gradients {
    check_rows(input, width);
    check_parameter("weight", weight, width);
    check_output_gradient(input, output_gradient);
    let mut gradients =
        Gradients { input: Vec::with_capacity(input.len()), weight: vec![0.0; width], bias: vec![0.0; width] };
    for (x, dy) in input.chunks_exact(width).zip(output_gradient.chunks_exact(width)) {
        let g: Vec<f64> = dy.iter().enumerate().map(|(i, &dy)| dy.into() * at(weight, i, 1.0)).collect();
        let (normalized, rstd, gradient_mean, divisor) = row(x, &g);
        let slope = g.iter().zip(&normalized).map(|(g, x)| g * x).sum::<f64>() / divisor;
        for (i, (g, x)) in g.iter().zip(&normalized).enumerate() {
            gradients.input.push(rstd * (g - gradient_mean - x * slope));
            gradients.weight[i] += dy[i].into() * x;
            gradients.bias[i] += dy[i].into();
        }
    }
    gradients
}
