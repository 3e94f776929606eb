//! Modulation: normalization whose scale and shift are not learned values but come, row by row or sample by sample, from
//! elsewhere: from a time step, a class, a style, a speaker. And the gate that stands before the residual sum.
//!
//! The two forms, with their sources, are [`Modulation`]'s.

use super::{at, check_output_gradient, check_parameter, check_rows, exact};
use super::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use crate::Modulation;

/// What a layer's rows are modulated by.
///
/// A condition is one row of `width` values of scale and one of shift. Row r of the input is under condition
/// r / `rows_per_condition`, so that as many conditions are needed as the quotient rounded up; the last may have fewer rows.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a, T> {
    /// How scale and shift go together with weight and bias.
    pub modulation: Modulation,
    /// Rows one after another that share a condition: 1 for one condition for each row, the length of a sequence for one for each
    /// sample.
    pub rows_per_condition: usize,
    /// Conditions × width values; absent, it is 0.
    pub scale: Option<&'a [T]>,
    /// Conditions × width values; absent, it is 0.
    pub shift: Option<&'a [T]>,
}

impl<T: Copy + Into<f64>> Condition<'_, T> {
    /// The values that the conditions of so many elements have.
    fn values(&self, elements: usize, width: usize) -> usize {
        condition_values(elements, width, self.rows_per_condition)
    }
}

/// Where the condition's value for an element of the input is.
fn condition_index(element: usize, width: usize, rows_per_condition: usize) -> usize {
    let (row, column) = (element / width, element % width);
    row / rows_per_condition * width + column
}

fn condition_values(elements: usize, width: usize, rows_per_condition: usize) -> usize {
    assert!(rows_per_condition > 0, "a condition must have rows");
    (elements / width).div_ceil(rows_per_condition) * width
}

/// Layer normalization, modulated. With x̂ = (x − mean) · rstd as [`layer_norm`] has it, and scale and shift of the row's
/// [`Condition`],
///
/// adaptive: y = (x̂ · weight + bias) · (1 + scale) + shift
///
/// conditional: y = x̂ · (weight + scale) + (bias + shift)
///
/// An absent weight is 1, an absent bias 0; with neither both are the same.
///
/// The rows 1 3 and 2 6, each under a condition of its own, normalize to −1 1. The first element of each, with weight 2, bias 10:
/// ```
/// use gpu_layer_norm::Modulation;
/// use gpu_layer_norm::reference::{Condition, modulated_layer_norm};
///
/// let (scale, shift) = ([0.5, 0.0, 3.0, 0.0], [100.0, 0.0, 200.0, 0.0]);
/// let modulated = |modulation| {
///     let condition = Condition { modulation, rows_per_condition: 1, scale: Some(&scale[..]), shift: Some(&shift[..]) };
///     let (weight, bias) = ([2.0, 1.0], [10.0, 0.0]);
///     let y = modulated_layer_norm(&[1.0, 3.0, 2.0, 6.0], 2, Some(&weight), Some(&bias), &condition, 0.0, false);
///     [y[0], y[2]]
/// };
/// assert_eq!(modulated(Modulation::Adaptive), [(-2.0 + 10.0) * 1.5 + 100.0, (-2.0 + 10.0) * 4.0 + 200.0]);
/// assert_eq!(modulated(Modulation::Conditional), [-2.5 + 110.0, -5.0 + 210.0]);
/// ```
///
/// # Panics
/// As [`layer_norm`], and if `rows_per_condition` is 0 or scale or shift have another length than conditions × width.
pub fn modulated_layer_norm<T: Copy + Into<f64>>(
    input: &[T],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    condition: &Condition<T>,
    eps: f64,
    unbiased: bool,
) -> Vec<f64> {
    modulate(&layer_norm(input, width, None, None, eps, unbiased), width, weight, bias, condition)
}

/// RMS normalization, modulated: as [`modulated_layer_norm`] has it, with x̂ = x / sqrt(mean(x²) + eps) as [`rms_norm`] has it.
///
/// ```
/// use gpu_layer_norm::Modulation;
/// use gpu_layer_norm::reference::{Condition, modulated_rms_norm};
///
/// // Both rows under one condition; x̂ is 1, −1 and −1, −1.
/// let (modulation, shift) = (Modulation::Adaptive, None);
/// let condition = Condition { modulation, rows_per_condition: 2, scale: Some(&[1.0, 0.5][..]), shift };
/// let y = modulated_rms_norm(&[2.0, -2.0, -3.0, -3.0], 2, None, None, &condition, 0.0);
/// assert_eq!(y, [2.0, -1.5, -2.0, -1.5]);
/// ```
///
/// # Panics
/// As [`modulated_layer_norm`].
pub fn modulated_rms_norm<T: Copy + Into<f64>>(
    input: &[T],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    condition: &Condition<T>,
    eps: f64,
) -> Vec<f64> {
    modulate(&rms_norm(input, width, None, None, eps), width, weight, bias, condition)
}

fn modulate<T: Copy + Into<f64>>(
    normalized: &[f64],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    condition: &Condition<T>,
) -> Vec<f64> {
    check_modulation(normalized.len(), width, weight, bias, condition);
    let element = |(i, x): (usize, &f64)| {
        let c = condition_index(i, width, condition.rows_per_condition);
        let (weight, bias) = (at(weight, i % width, 1.0), at(bias, i % width, 0.0));
        let (scale, shift) = (at(condition.scale, c, 0.0), at(condition.shift, c, 0.0));
        match condition.modulation {
            Modulation::Adaptive => (x * weight + bias) * (1.0 + scale) + shift,
            Modulation::Conditional => x * (weight + scale) + (bias + shift),
        }
    };
    normalized.iter().enumerate().map(element).collect()
}

/// The gradients of a loss by what a modulated layer takes. Each is there whether or not the layer has the parameter: it is the gradient
/// at the value that stands for an absent one.
#[derive(Clone, Debug, PartialEq)]
pub struct ModulatedGradients {
    /// By the input, as many values as it has.
    pub input: Vec<f64>,
    /// By the weight, `width` values.
    pub weight: Vec<f64>,
    /// By the bias, `width` values.
    pub bias: Vec<f64>,
    /// By the scale, conditions × width values.
    pub scale: Vec<f64>,
    /// By the shift, conditions × width values.
    pub shift: Vec<f64>,
}

/// The backward pass of [`modulated_layer_norm`], from the gradient of a loss by its output, dy. Summed over a condition's rows for
/// scale and shift, over all rows for weight and bias:
///
/// | | adaptive | conditional |
/// |---|---|---|
/// | g | dy · weight · (1 + scale) | dy · (weight + scale) |
/// | scale | Σ dy · (x̂ · weight + bias) | Σ dy · x̂ |
/// | shift | Σ dy | Σ dy |
/// | weight | Σ dy · (1 + scale) · x̂ | Σ dy · x̂ |
/// | bias | Σ dy · (1 + scale) | Σ dy |
///
/// and the input's gradient follows from g as in [`layer_norm_backward`].
///
/// ```
/// use gpu_layer_norm::Modulation;
/// use gpu_layer_norm::reference::{Condition, modulated_layer_norm_backward};
///
/// // Two rows with x̂ = −1, 1, each under a condition of its own; the loss is the sum of their first elements.
/// let (x, dy) = ([1.0, 3.0, 2.0, 6.0], [1.0, 0.0, 1.0, 0.0]);
/// let (modulation, shift) = (Modulation::Adaptive, None);
/// let condition = Condition { modulation, rows_per_condition: 1, scale: Some(&[0.5, 0.0, 3.0, 0.0][..]), shift };
/// let (weight, bias) = (Some(&[2.0, 1.0][..]), Some(&[10.0, 0.0][..]));
/// let gradients = modulated_layer_norm_backward(&x, &dy, 2, weight, bias, &condition, 0.0, false);
/// assert_eq!(gradients.scale, [8.0, 0.0, 8.0, 0.0]);
/// assert_eq!(gradients.shift, dy);
/// assert_eq!(gradients.weight, [-1.5 - 4.0, 0.0]);
/// assert_eq!(gradients.bias, [1.5 + 4.0, 0.0]);
/// ```
///
/// # Panics
/// As [`modulated_layer_norm`], and if `output_gradient` has another length than `input`.
#[expect(clippy::too_many_arguments, reason = "one for each thing that the formulas name")]
pub fn modulated_layer_norm_backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    condition: &Condition<T>,
    eps: f64,
    unbiased: bool,
) -> ModulatedGradients {
    let normalized = layer_norm(input, width, None, None, eps, unbiased);
    modulated_backward(&normalized, output_gradient, width, weight, bias, condition, |g| {
        layer_norm_backward(&exact(input), g, width, None, eps, unbiased).input
    })
}

/// The backward pass of [`modulated_rms_norm`]: as [`modulated_layer_norm_backward`] has it, with the input's gradient from g as in
/// [`rms_norm_backward`].
///
/// ```
/// use gpu_layer_norm::Modulation;
/// use gpu_layer_norm::reference::{Condition, modulated_rms_norm_backward};
///
/// // x̂ is 1, −1, 1, 1 and rstd 1/2; the loss is the first output, which scale makes twice as large.
/// let (modulation, shift) = (Modulation::Conditional, None);
/// let condition = Condition { modulation, rows_per_condition: 1, scale: Some(&[1.0, 0.0, 0.0, 0.0][..]), shift };
/// let (x, dy) = ([2.0, -2.0, 2.0, 2.0], [1.0, 0.0, 0.0, 0.0]);
/// let gradients = modulated_rms_norm_backward(&x, &dy, 4, None, None, &condition, 0.0);
/// assert_eq!(gradients.input, [0.75, 0.25, -0.25, -0.25]);
/// assert_eq!(gradients.scale, [1.0, 0.0, 0.0, 0.0]);
/// ```
///
/// # Panics
/// As [`modulated_layer_norm_backward`].
pub fn modulated_rms_norm_backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    condition: &Condition<T>,
    eps: f64,
) -> ModulatedGradients {
    let normalized = rms_norm(input, width, None, None, eps);
    modulated_backward(&normalized, output_gradient, width, weight, bias, condition, |g| {
        rms_norm_backward(&exact(input), g, width, None, eps).input
    })
}

/// `input_gradient` makes it from g, the gradient by x̂.
fn modulated_backward<T: Copy + Into<f64>>(
    normalized: &[f64],
    output_gradient: &[T],
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    condition: &Condition<T>,
    input_gradient: impl Fn(&[f64]) -> Vec<f64>,
) -> ModulatedGradients {
    check_modulation(normalized.len(), width, weight, bias, condition);
    check_output_gradient(normalized, output_gradient);
    let mut g = Vec::with_capacity(normalized.len());
    let (mut by_weight, mut by_bias) = (vec![0.0; width], vec![0.0; width]);
    let mut by_scale = vec![0.0; condition.values(normalized.len(), width)];
    let mut by_shift = by_scale.clone();
    for (i, (x, &dy)) in normalized.iter().zip(output_gradient).enumerate() {
        let dy: f64 = dy.into();
        let (column, c) = (i % width, condition_index(i, width, condition.rows_per_condition));
        let (weight, bias) = (at(weight, column, 1.0), at(bias, column, 0.0));
        let scale = at(condition.scale, c, 0.0);
        // The gradient by x̂ · weight + bias, and the output's slope by scale.
        let (by_affine, slope) = match condition.modulation {
            Modulation::Adaptive => (dy * (1.0 + scale), x * weight + bias),
            Modulation::Conditional => (dy, *x),
        };
        g.push(match condition.modulation {
            Modulation::Adaptive => by_affine * weight,
            Modulation::Conditional => dy * (weight + scale),
        });
        by_weight[column] += by_affine * x;
        by_bias[column] += by_affine;
        by_scale[c] += dy * slope;
        by_shift[c] += dy;
    }
    ModulatedGradients { input: input_gradient(&g), weight: by_weight, bias: by_bias, scale: by_scale, shift: by_shift }
}

fn check_modulation<T: Copy + Into<f64>>(
    elements: usize,
    width: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    condition: &Condition<T>,
) {
    check_parameter("weight", weight, width);
    check_parameter("bias", bias, width);
    let values = condition.values(elements, width);
    check_parameter("scale", condition.scale, values);
    check_parameter("shift", condition.shift, values);
}

/// The sum of a residual and a gated input, which is normalized next: s = residual + gate · input, with the gate of the row's condition
/// (see [`Condition::rows_per_condition`]).
///
/// ```
/// use gpu_layer_norm::reference::gated_residual;
///
/// // Three rows of two; the first two share a gate.
/// let sum = gated_residual(&[1.0; 6], &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0], &[1.0, 0.0, -2.0, 5.0], 2, 2);
/// assert_eq!(sum, [11.0, 20.0, 31.0, 40.0, 48.0, 65.0]);
/// ```
///
/// # Panics
/// If `width` is 0 or does not divide the length, `residual` has another length than `input`, `rows_per_condition` is 0, or the gate
/// has another length than conditions × width.
pub fn gated_residual<T: Copy + Into<f64>>(
    input: &[T],
    residual: &[T],
    gate: &[T],
    width: usize,
    rows_per_condition: usize,
) -> Vec<f64> {
    check_rows(input, width);
    check_parameter("residual", Some(residual), input.len());
    check_parameter("gate", Some(gate), condition_values(input.len(), width, rows_per_condition));
    let gate = |i| gate[condition_index(i, width, rows_per_condition)].into();
    input.iter().zip(residual).enumerate().map(|(i, (&x, &residual))| residual.into() + gate(i) * x.into()).collect()
}

/// The backward pass of [`gated_residual`], from the gradient of a loss by the sum, ds, to those by input and gate: gate · ds, and
/// Σ ds · input over a condition's rows. The gradient by the residual is ds itself.
///
/// ```
/// use gpu_layer_norm::reference::gated_residual_backward;
///
/// let (by_input, by_gate) = gated_residual_backward(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.5, 1.0, 0.5], &[7.0, 8.0], 2, 2);
/// assert_eq!(by_input, [7.0, 4.0, 7.0, 4.0]);
/// assert_eq!(by_gate, [4.0, 3.0]);
/// ```
///
/// # Panics
/// If `width` is 0 or does not divide the length, `sum_gradient` has another length than `input`, `rows_per_condition` is 0, or the gate
/// has another length than conditions × width.
pub fn gated_residual_backward<T: Copy + Into<f64>, G: Copy + Into<f64>>(
    input: &[T],
    sum_gradient: &[G],
    gate: &[T],
    width: usize,
    rows_per_condition: usize,
) -> (Vec<f64>, Vec<f64>) {
    check_rows(input, width);
    check_parameter("sum's gradient", Some(sum_gradient), input.len());
    check_parameter("gate", Some(gate), condition_values(input.len(), width, rows_per_condition));
    let mut by_input = Vec::with_capacity(input.len());
    let mut by_gate = vec![0.0; gate.len()];
    for (i, (&x, &ds)) in input.iter().zip(sum_gradient).enumerate() {
        let c = condition_index(i, width, rows_per_condition);
        by_input.push(gate[c].into() * ds.into());
        by_gate[c] += ds.into() * x.into();
    }
    (by_input, by_gate)
}

/// A linear map of each condition's vector, which makes its scale, shift or gate: y = matrix · c. `conditions` are vectors of
/// `condition_size` values one after another, `matrix` has one row of `condition_size` for each output value. Returns as many values for
/// each condition as the matrix has rows.
///
/// ```
/// use gpu_layer_norm::reference::project;
///
/// // Two conditions of two values; three rows of the matrix.
/// let y = project(&[1.0, 2.0, 10.0, 20.0], 2, &[1.0, 0.0, 0.0, 1.0, 1.0, -1.0]);
/// assert_eq!(y, [1.0, 2.0, -1.0, 10.0, 20.0, -10.0]);
/// ```
///
/// # Panics
/// If `condition_size` is 0 or does not divide the length of both.
pub fn project<T: Copy + Into<f64>>(conditions: &[T], condition_size: usize, matrix: &[T]) -> Vec<f64> {
    check_rows(conditions, condition_size);
    check_rows(matrix, condition_size);
    let mut output = Vec::new();
    for condition in conditions.chunks_exact(condition_size) {
        for row in matrix.chunks_exact(condition_size) {
            output.push(row.iter().zip(condition).map(|(&m, &c)| m.into() * c.into()).sum());
        }
    }
    output
}
