//! Causal normalization: the statistics of a position are those of all that came before it in its sequence and of itself, so that
//! an output depends on nothing that is yet to come. "Cumulative layer normalization" in its source, Luo and Mesgarani,
//! "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech Separation", 2019, section II-D.
//!
//! All is linear in the length of a sequence: statistics go forward from position to position, gradients back.

use super::statistics::{RowStatistics, reciprocal_root, row_statistics};
use super::{Gradients, at, check_output_gradient, check_parameter, check_rows, exact};

/// Mean and rstd at each position of one sequence, positions of `width` elements one after another: over all N = (t + 1) · width
/// elements of positions 0 to t,
///
/// mean = Σx / N,  rstd = 1 / sqrt(Σ(x − mean)² / N + eps)
///
/// with N − 1 for the second N if the variance is the unbiased one; of a single element that has no value, and the result is NaN.
///
/// The moments of each position are taken by themselves and merged with those before by Chan's formula, about the mean of the first
/// position: so no mean, however large or wherever it moves to, cancels. (It cannot lie further from the first position's mean than
/// √(t + 1) standard deviations, for the first position is among what the standard deviation is of.)
///
/// Position 1 3 has mean 2 and variance 1, and 1 3 5 7 mean 4 and variance (9 + 1 + 1 + 9) / 4 = 5:
/// ```
/// use gpu_layer_norm::reference::causal_statistics;
///
/// let statistics = causal_statistics(&[1.0, 3.0, 5.0, 7.0], 2, 0.0, false);
/// assert_eq!((statistics[0].mean, statistics[0].rstd), (2.0, 1.0));
/// assert_eq!((statistics[1].mean, statistics[1].rstd), (4.0, 1.0 / 5.0_f64.sqrt()));
/// ```
///
/// # Panics
/// If `width` is 0 or does not divide the length.
pub fn causal_statistics<T: Copy + Into<f64>>(
    sequence: &[T],
    width: usize,
    eps: f64,
    unbiased: bool,
) -> Vec<RowStatistics> {
    check_rows(sequence, width);
    let Measured { origin, statistics, .. } = measure(sequence, width, eps, unbiased);
    let whole = |position: RowStatistics| RowStatistics { mean: origin + position.mean, ..position };
    statistics.into_iter().map(whole).collect()
}

/// A sequence, with `origin` taken off every element, and the statistics of what remains.
struct Measured {
    origin: f64,
    values: Vec<f64>,
    statistics: Vec<RowStatistics>,
}

fn measure<T: Copy + Into<f64>>(sequence: &[T], width: usize, eps: f64, unbiased: bool) -> Measured {
    let origin = sequence.chunks_exact(width).next().map_or(0.0, |first| row_statistics(first, 0.0, false).mean);
    let values: Vec<f64> = sequence.iter().map(|&x| x.into() - origin).collect();
    let n = width as f64;
    let (mut mean, mut sum_of_squares) = (0.0, 0.0);
    let mut statistics = Vec::with_capacity(values.len() / width);
    for (t, position) in values.chunks_exact(width).enumerate() {
        let position_mean = position.iter().sum::<f64>() / n;
        let own: f64 = position.iter().map(|x| (x - position_mean).powi(2)).sum();
        // Chan, Golub and LeVeque, 1979, for `before` elements and `n` more.
        let (before, count) = (t as f64 * n, elements(t, width));
        let apart = position_mean - mean;
        mean += apart * n / count;
        sum_of_squares += own + apart.powi(2) * before * n / count;
        let variance = sum_of_squares / divisor(t, width, unbiased);
        statistics.push(RowStatistics { mean, rstd: reciprocal_root(variance + eps) });
    }
    Measured { origin, values, statistics }
}

/// As [`measure`], of the root mean square: origin and means are 0.
fn measure_root_mean_square<T: Copy + Into<f64>>(sequence: &[T], width: usize, eps: f64) -> Measured {
    let values = exact(sequence);
    let mut sum_of_squares = 0.0;
    let position = |(t, position): (usize, &[f64])| {
        sum_of_squares += position.iter().map(|x| x.powi(2)).sum::<f64>();
        RowStatistics { mean: 0.0, rstd: reciprocal_root(sum_of_squares / elements(t, width) + eps) }
    };
    let statistics = values.chunks_exact(width).enumerate().map(position).collect();
    Measured { origin: 0.0, values, statistics }
}

/// Elements of positions 0 to t.
fn elements(t: usize, width: usize) -> f64 {
    ((t + 1) * width) as f64
}

/// What the sum of squares of positions 0 to t is divided by.
fn divisor(t: usize, width: usize, unbiased: bool) -> f64 {
    elements(t, width) - if unbiased { 1.0 } else { 0.0 }
}

/// Causal layer normalization of `input`, sequences of `length` positions of `width` elements one after another. At position t, with
/// mean and rstd of the sequence up to there ([`causal_statistics`]),
///
/// y = (x − mean) · rstd · weight + bias
///
/// An absent weight is 1, an absent bias 0; both have `width` values. With a length of 1 this is [`layer_norm`](super::layer_norm()).
///
/// ```
/// use gpu_layer_norm::reference::causal_layer_norm;
///
/// // The second position has mean 4 and variance 5.
/// let y = causal_layer_norm(&[1.0, 3.0, 5.0, 7.0], 2, 2, None, None, 0.0, false);
/// assert_eq!(y, [-1.0, 1.0, 1.0 / 5.0_f64.sqrt(), 3.0 * (1.0 / 5.0_f64.sqrt())]);
/// ```
///
/// # Panics
/// If `length` · `width` is 0 or does not divide the length of `input`, or weight or bias have another length than `width`.
pub fn causal_layer_norm<T: Copy + Into<f64>>(
    input: &[T],
    length: usize,
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: f64,
    unbiased: bool,
) -> Vec<f64> {
    apply(input, length, width, weight, bias, |sequence| measure(sequence, width, eps, unbiased))
}

/// Causal RMS normalization: as [`causal_layer_norm`] has it, with no mean taken off and the mean of the squares in place of the
/// variance,
///
/// y = x / sqrt(Σx² / N + eps) · weight + bias
///
/// over the N = (t + 1) · width elements of positions 0 to t.
///
/// ```
/// use gpu_layer_norm::reference::causal_rms_norm;
///
/// // (4 + 4) / 2 = 4, and (4 + 4 + 9 + 47) / 4 = 16.
/// let y = causal_rms_norm(&[2.0, -2.0, 3.0, 47.0_f64.sqrt()], 2, 2, None, None, 0.0);
/// assert_eq!(y[..3], [1.0, -1.0, 0.75]);
/// ```
///
/// # Panics
/// As [`causal_layer_norm`].
pub fn causal_rms_norm<T: Copy + Into<f64>>(
    input: &[T],
    length: usize,
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: f64,
) -> Vec<f64> {
    apply(input, length, width, weight, bias, |sequence| measure_root_mean_square(sequence, width, eps))
}

fn apply<T: Copy + Into<f64>>(
    input: &[T],
    length: usize,
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    measure: impl Fn(&[T]) -> Measured,
) -> Vec<f64> {
    check_rows(input, length * width);
    check_parameter("weight", weight, width);
    check_parameter("bias", bias, width);
    let mut output = Vec::with_capacity(input.len());
    for sequence in input.chunks_exact(length * width) {
        let Measured { values, statistics, .. } = measure(sequence);
        for (position, RowStatistics { mean, rstd }) in values.chunks_exact(width).zip(statistics) {
            for (i, x) in position.iter().enumerate() {
                output.push((x - mean) * rstd * at(weight, i, 1.0) + at(bias, i, 0.0));
            }
        }
    }
    output
}

/// The backward pass of [`causal_layer_norm`], from the gradient of a loss by its output, dy. What stands at position s is in the
/// statistics of all positions t ≥ s, so that with g = dy · weight and N(t) = (t + 1) · width
///
/// dx(s) = rstd(s) · g(s) − Σ over t ≥ s of [rstd(t) · Σg(t) / N(t) + (x(s) − mean(t)) · rstd(t)² · Σ(g(t) · x̂(t)) / N(t)]
///
/// with N(t) − 1 for the last N(t) if the variance is the unbiased one.
///
/// The sums over t are carried from the end of the sequence to its beginning: that of the first term; that of
/// a(t) = rstd(t)² · Σ(g(t) · x̂(t)) / N(t); and that of (mean(s) − mean(t)) · a(t), which from s + 1 to s grows by
/// mean(s) − mean(s + 1) times the sum of a(t). Then x(s) − mean(t) is x(s) − mean(s), which is as small as the deviations are,
/// and mean(s) − mean(t), so that a large mean does not cancel.
///
/// The gradients by weight and bias are Σ dy · x̂ and Σ dy over all positions of all sequences.
///
/// ```
/// use gpu_layer_norm::reference::causal_layer_norm_backward;
///
/// // Whatever is added to a sequence, the output does not change, so its gradient sums to 0.
/// let x = [1.0, 3.0, 5.0, 7.0, 2.0, 4.0];
/// let gradient = |dy: [f64; 6]| causal_layer_norm_backward(&x, &dy, 3, 2, None, 1e-5, false).input;
/// assert!(gradient([0.0, 0.0, 0.0, 0.0, 1.0, 0.0]).iter().sum::<f64>().abs() < 1e-15);
/// // An output depends on nothing that comes after it.
/// assert_eq!(gradient([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])[4..], [0.0, 0.0]);
/// ```
///
/// # Panics
/// As [`causal_layer_norm`], and if `output_gradient` has another length than `input`.
pub fn causal_layer_norm_backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    length: usize,
    width: usize,
    weight: Option<&[T]>,
    eps: f64,
    unbiased: bool,
) -> Gradients {
    let measure = |sequence: &[T]| measure(sequence, width, eps, unbiased);
    backward(input, output_gradient, length, width, weight, measure, |t, by_mean, by_variance| {
        (by_mean / elements(t, width), by_variance / divisor(t, width, unbiased))
    })
}

/// The backward pass of [`causal_rms_norm`], as [`causal_layer_norm_backward`] has it without a mean:
///
/// dx(s) = rstd(s) · g(s) − x(s) · Σ over t ≥ s of rstd(t)² · Σ(g(t) · x̂(t)) / N(t)
///
/// ```
/// use gpu_layer_norm::reference::causal_rms_norm_backward;
///
/// // The second position, of one element, has rstd = 1 / √((1 + 1) / 2) = 1 and x̂ = −1; the loss is its output.
/// let gradients = causal_rms_norm_backward(&[1.0, -1.0], &[0.0, 1.0], 2, 1, None, 0.0);
/// assert_eq!(gradients.input, [0.5, 0.5]);
/// assert_eq!(gradients.weight, [-1.0]);
/// ```
///
/// # Panics
/// As [`causal_layer_norm_backward`].
pub fn causal_rms_norm_backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    length: usize,
    width: usize,
    weight: Option<&[T]>,
    eps: f64,
) -> Gradients {
    let measure = |sequence: &[T]| measure_root_mean_square(sequence, width, eps);
    backward(input, output_gradient, length, width, weight, measure, |t, _, by_variance| {
        (0.0, by_variance / elements(t, width))
    })
}

/// `share` gives what of rstd(t) · Σg(t) and rstd(t)² · Σ(g(t) · x̂(t)) falls to each element that the
/// statistics of position t are of.
fn backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    length: usize,
    width: usize,
    weight: Option<&[T]>,
    measure: impl Fn(&[T]) -> Measured,
    share: impl Fn(usize, f64, f64) -> (f64, f64),
) -> Gradients {
    check_rows(input, length * width);
    check_parameter("weight", weight, width);
    check_output_gradient(input, output_gradient);
    let mut gradients = Gradients { input: vec![0.0; input.len()], weight: vec![0.0; width], bias: vec![0.0; width] };
    for (b, sequence) in input.chunks_exact(length * width).enumerate() {
        let Measured { values, statistics, .. } = measure(sequence);
        // Sums over t ≥ s: of the means' shares, of a(t), and of (mean(s) − mean(t)) · a(t).
        let (mut means, mut slopes, mut moments) = (0.0, 0.0, 0.0);
        let mut next_mean = None;
        for s in (0..length).rev() {
            let RowStatistics { mean, rstd } = statistics[s];
            let normalized = |i: usize| (values[s * width + i] - mean) * rstd;
            let dy = |i: usize| -> f64 { output_gradient[(b * length + s) * width + i].into() };
            let g = |i: usize| dy(i) * at(weight, i, 1.0);
            let sum: f64 = (0..width).map(g).sum();
            let product: f64 = (0..width).map(|i| g(i) * normalized(i)).sum();
            let (by_mean, slope) = share(s, rstd * sum, rstd.powi(2) * product);
            moments += (mean - next_mean.unwrap_or(mean)) * slopes;
            means += by_mean;
            slopes += slope;
            next_mean = Some(mean);
            for i in 0..width {
                let away = values[s * width + i] - mean;
                gradients.input[(b * length + s) * width + i] = rstd * g(i) - means - (away * slopes + moments);
                gradients.weight[i] += dy(i) * normalized(i);
                gradients.bias[i] += dy(i);
            }
        }
    }
    gradients
}
