//! What the gradients of a backward pass are, and how far off others may be.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use gpu_layer_norm::reference::{self, Condition, Gradients, ModulatedGradients, RowStatistics};

use super::largest;

/// eps of all of them.
const EPS: f32 = 1e-5;

/// What x̂ counts for at least where errors are shares of sums of |dy · x̂|: an error of 1e-5 of such a sum is 1e-6 in x̂ itself then,
/// which in f32 is off by about as much when it is near 0 as when it is 1. With few rows that shows.
const LEAST: f64 = 0.1;

/// The gradients of rows by the f64 reference, eps 1e-5, and what errors in them are shares of.
pub struct ExactGradients {
    width: usize,
    /// Those of scale and shift are empty where there are no conditions.
    gradients: ModulatedGradients,
    /// rstd · max |g| of each row, where g is the gradient by x̂; in a sequence also the sizes of what the statistics of later
    /// positions add up.
    input_scale: Vec<f64>,
    /// Σ |dy · (1 + scale)| · (|x̂| + 0.1) of each column.
    weight_scale: Vec<f64>,
    /// Σ |dy · (1 + scale)| of each column.
    bias_scale: Vec<f64>,
    /// Σ |dy| · (|weight| · (|x̂| + 0.1) + |bias|) of each column of each condition.
    scale_scale: Vec<f64>,
    /// Σ |dy| of each column of each condition.
    shift_scale: Vec<f64>,
}

impl ExactGradients {
    /// Of rows of `width` elements one after another. An absent weight is 1.
    pub fn new(input: &[f32], output_gradient: &[f32], width: usize, weight: Option<&[f32]>) -> Self {
        let gradients = reference::layer_norm_backward(input, output_gradient, width, weight, EPS.into(), false);
        let mut exact = Self::unmeasured(without_conditions(gradients), width);
        for (row, output_gradient) in input.chunks_exact(width).zip(output_gradient.chunks_exact(width)) {
            let statistics = reference::row_statistics(row, EPS.into(), false);
            exact.measure(row, output_gradient, statistics, |i| at(weight, i), |_| 1.0);
        }
        exact
    }

    /// The same, causal in sequences of `length` rows; the last may have fewer.
    pub fn causal(input: &[f32], output_gradient: &[f32], length: usize, width: usize, weight: Option<&[f32]>) -> Self {
        let none = Gradients { input: Vec::new(), weight: vec![0.0; width], bias: vec![0.0; width] };
        let mut exact = Self::unmeasured(without_conditions(none), width);
        let sequence = length * width;
        for (input, output_gradient) in input.chunks(sequence).zip(output_gradient.chunks(sequence)) {
            let (length, eps) = (input.len() / width, EPS.into());
            let of_sequence =
                reference::causal_layer_norm_backward(input, output_gradient, length, width, weight, eps, false);
            exact.gradients.input.extend(of_sequence.input);
            for (sum, more) in
                [(&mut exact.gradients.weight, of_sequence.weight), (&mut exact.gradients.bias, of_sequence.bias)]
            {
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
            let statistics = reference::causal_statistics(input, width, eps, false);
            let first = exact.input_scale.len();
            for (position, &statistics) in statistics.iter().enumerate() {
                let row = position * width..(position + 1) * width;
                exact.measure(&input[row.clone()], &output_gradient[row], statistics, |i| at(weight, i), |_| 1.0);
            }
            // The sums over this and all later positions of rstd · Σ|g| / N and of rstd² · Σ|g · x̂| / N, N being the elements that the
            // statistics are of; the second is multiplied by x less a mean.
            let (mut means, mut slopes) = (0.0, 0.0);
            for (position, &RowStatistics { mean, rstd }) in statistics.iter().enumerate().rev() {
                let row = position * width..(position + 1) * width;
                let elements = ((position + 1) * width) as f64;
                let mut farthest = 0.0_f64;
                for (i, (&x, &dy)) in input[row.clone()].iter().zip(&output_gradient[row]).enumerate() {
                    let (away, g) = ((f64::from(x) - mean).abs(), f64::from(dy).abs() * at(weight, i));
                    means += rstd * g / elements;
                    slopes += rstd.powi(3) * g * away / elements;
                    farthest = farthest.max(away);
                }
                exact.input_scale[first + position] += means + farthest * slopes;
            }
        }
        exact
    }

    /// Of rows of adaptive layer normalization, the first of which is the first of a condition.
    pub fn modulated(
        input: &[f32],
        output_gradient: &[f32],
        width: usize,
        weight: &[f32],
        bias: &[f32],
        condition: &Condition<'_, f32>,
    ) -> Self {
        let gradients = reference::modulated_layer_norm_backward(
            input,
            output_gradient,
            width,
            Some(weight),
            Some(bias),
            condition,
            EPS.into(),
            false,
        );
        let sums = gradients.scale.len();
        let mut exact = Self::unmeasured(gradients, width);
        (exact.scale_scale, exact.shift_scale) = (vec![0.0; sums], vec![0.0; sums]);
        let rows = input.chunks_exact(width).zip(output_gradient.chunks_exact(width));
        for (r, (row, output_gradient)) in rows.enumerate() {
            let first = r / condition.rows_per_condition * width;
            let factor = |i: usize| 1.0 + condition.scale.map_or(0.0, |scale| f64::from(scale[first + i]));
            let statistics = reference::row_statistics(row, EPS.into(), false);
            exact.measure(row, output_gradient, statistics, |i| at(Some(weight), i), |i| factor(i).abs());
            for (i, (&x, &dy)) in row.iter().zip(output_gradient).enumerate() {
                let normalized = (f64::from(x) - statistics.mean).abs() * statistics.rstd;
                let dy = f64::from(dy).abs();
                let slope = at(Some(weight), i) * (normalized + LEAST) + f64::from(bias[i]).abs();
                exact.scale_scale[first + i] += dy * slope;
                exact.shift_scale[first + i] += dy;
            }
        }
        exact
    }

    /// The gradients, with what errors are shares of still to be found.
    fn unmeasured(gradients: ModulatedGradients, width: usize) -> Self {
        let (weight_scale, bias_scale) = (vec![0.0; width], vec![0.0; width]);
        let (scale_scale, shift_scale) = (Vec::new(), Vec::new());
        Self { width, gradients, input_scale: Vec::new(), weight_scale, bias_scale, scale_scale, shift_scale }
    }

    /// Takes in the next row. What comes of weight and bias is multiplied by `factor`; it and the weight are given as magnitudes.
    fn measure(
        &mut self,
        row: &[f32],
        output_gradient: &[f32],
        RowStatistics { mean, rstd }: RowStatistics,
        weight: impl Fn(usize) -> f64,
        factor: impl Fn(usize) -> f64,
    ) {
        let mut most = 0.0_f64;
        for (i, (&x, &dy)) in row.iter().zip(output_gradient).enumerate() {
            let by_affine = f64::from(dy).abs() * factor(i);
            most = most.max(by_affine * weight(i));
            self.weight_scale[i] += by_affine * ((f64::from(x) - mean).abs() * rstd + LEAST);
            self.bias_scale[i] += by_affine;
        }
        self.input_scale.push(rstd * most);
    }

    /// The largest error of an input gradient as a share of rstd · max |g| of its row (in a sequence of more), g being dy times all
    /// that x̂ is multiplied by, after `rounding`, a share of the exact number, was taken off; NaN if one is.
    pub fn input_error(&self, found: &[f32], rounding: f64) -> f64 {
        let exact = &self.gradients.input;
        assert_eq!(found.len(), exact.len(), "an input gradient has another size");
        let rows = found.chunks_exact(self.width).zip(exact.chunks_exact(self.width)).zip(&self.input_scale);
        largest(rows.flat_map(|((found, exact), &scale)| {
            found.iter().zip(exact).map(move |(&found, exact)| {
                let error = (f64::from(found) - exact).abs();
                share(error - exact.abs() * rounding, scale)
            })
        }))
    }

    /// The largest error of the gradients of weight and bias: of the weight's as a share of the sum of |dy · x̂| (with a little
    /// for x̂ itself), of the bias's of that of |dy|; NaN if one is. Where there is a scale, dy counts 1 + scale times.
    pub fn parameter_error(&self, weight: &[f32], bias: &[f32]) -> f64 {
        assert_eq!([weight.len(), bias.len()], [self.width; 2], "a gradient of weight or bias has another size");
        let weight = shares(weight, &self.gradients.weight, &self.weight_scale);
        largest(weight.chain(shares(bias, &self.gradients.bias, &self.bias_scale)))
    }

    /// The same of the gradients of scale and shift: of the scale's as a share of the sum of |dy · (x̂ · weight + bias)| (with a
    /// little for x̂ itself), of the shift's of that of |dy|.
    pub fn condition_error(&self, scale: &[f32], shift: &[f32]) -> f64 {
        let values = self.scale_scale.len();
        assert_eq!([scale.len(), shift.len()], [values; 2], "a gradient of scale or shift has another size");
        let scale = shares(scale, &self.gradients.scale, &self.scale_scale);
        largest(scale.chain(shares(shift, &self.gradients.shift, &self.shift_scale)))
    }
}

fn without_conditions(Gradients { input, weight, bias }: Gradients) -> ModulatedGradients {
    ModulatedGradients { input, weight, bias, scale: Vec::new(), shift: Vec::new() }
}

/// The magnitude of a weight.
fn at(weight: Option<&[f32]>, i: usize) -> f64 {
    weight.map_or(1.0, |weight| f64::from(weight[i]).abs())
}

/// The error of each element as a share of its scale.
fn shares(found: &[f32], exact: &[f64], scales: &[f64]) -> impl Iterator<Item = f64> {
    let error = |((&found, exact), &scale): ((&f32, &f64), &f64)| share((f64::from(found) - exact).abs(), scale);
    found.iter().zip(exact).zip(scales).map(error)
}

/// 0 of what is 0 and exact.
fn share(error: f64, scale: f64) -> f64 {
    error / scale.max(f64::MIN_POSITIVE)
}
