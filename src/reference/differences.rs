//! Slopes by central differences.

/// Compares a gradient with what central differences say of a function: (f(x + h) − f(x − h)) / 2h, element by element. Returns the
/// largest difference, relative to the largest element of either.
///
/// For f of the size of 1, h = 1e-5 leaves a difference of about 1e-9: h² from the third derivative and 1e-16 / h from rounding.
///
/// ```
/// use gpu_layer_norm::reference::{gradient_difference, layer_norm, layer_norm_backward};
///
/// // Of a loss that takes the outputs so many times each.
/// let (x, share) = ([0.3, -1.0, 2.0, 0.7, 0.1, -0.2], [1.0, 0.5, -2.0, 0.0, 3.0, 1.0]);
/// let loss = |x: &[f64]| -> f64 {
///     layer_norm(x, 3, None, None, 1e-5, false).iter().zip(share).map(|(y, share)| y * share).sum()
/// };
/// let gradients = layer_norm_backward(&x, &share, 3, None, 1e-5, false);
/// assert!(gradient_difference(loss, &x, &gradients.input, 1e-5) < 1e-8);
/// ```
///
/// # Panics
/// If `gradient` has another length than `x`.
pub fn gradient_difference(f: impl Fn(&[f64]) -> f64, x: &[f64], gradient: &[f64], h: f64) -> f64 {
    assert!(gradient.len() == x.len(), "{} values of a gradient in place of {}", gradient.len(), x.len());
    let mut at = x.to_vec();
    let (mut largest, mut difference) = (0.0_f64, 0.0_f64);
    for (i, &gradient) in gradient.iter().enumerate() {
        let [above, below] = [x[i] + h, x[i] - h].map(|moved| {
            at[i] = moved;
            f(&at)
        });
        at[i] = x[i];
        let slope = (above - below) / (2.0 * h);
        largest = largest.max(slope.abs()).max(gradient.abs());
        // f64::max would pass over a NaN.
        let found = (slope - gradient).abs();
        if found.is_nan() || found > difference {
            difference = found;
        }
    }
    if largest == 0.0 { difference } else { difference / largest }
}
