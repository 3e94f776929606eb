//! What the gradients of a backward pass are, and how far off others may be.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use gpu_layer_norm::reference::{self, Gradients, RowStatistics};

use super::largest;

/// The gradients of rows by the f64 reference, eps 1e-5, and what errors in them are shares of.
pub struct ExactGradients {
    width: usize,
    gradients: Gradients,
    /// rstd · max |dy · weight| of each row.
    input_scale: Vec<f64>,
    /// Σ |dy| · (|x̂| + 0.1) of each column: an error of 1e-5 of it is 1e-5 of the sum of |dy · x̂|, and 1e-6 in x̂ itself, which in
    /// f32 is off by about as much when it is near 0 as when it is 1. With few rows that shows.
    weight_scale: Vec<f64>,
    /// Σ |dy| of each column.
    bias_scale: Vec<f64>,
}

impl ExactGradients {
    /// Of rows of `width` elements one after another. An absent weight is 1.
    pub fn new(input: &[f32], output_gradient: &[f32], width: usize, weight: Option<&[f32]>) -> Self {
        let eps = f64::from(1e-5_f32);
        let gradients = reference::layer_norm_backward(input, output_gradient, width, weight, eps, false);
        let mut input_scale = Vec::with_capacity(input.len() / width);
        let (mut weight_scale, mut bias_scale) = (vec![0.0; width], vec![0.0; width]);
        for (row, output_gradient) in input.chunks_exact(width).zip(output_gradient.chunks_exact(width)) {
            let RowStatistics { mean, rstd } = reference::row_statistics(row, eps, false);
            let mut most = 0.0_f64;
            for (i, (&x, &dy)) in row.iter().zip(output_gradient).enumerate() {
                let dy = f64::from(dy).abs();
                most = most.max(dy * weight.map_or(1.0, |weight| f64::from(weight[i]).abs()));
                weight_scale[i] += dy * ((f64::from(x) - mean).abs() * rstd + 0.1);
                bias_scale[i] += dy;
            }
            input_scale.push(rstd * most);
        }
        Self { width, gradients, input_scale, weight_scale, bias_scale }
    }

    /// The largest error of an input gradient as a share of rstd · max |dy · weight| of its row, after `rounding`, a share of
    /// the exact number, was taken off; NaN if one is.
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
    /// for x̂ itself), of the bias's of that of |dy|; NaN if one is.
    pub fn parameter_error(&self, weight: &[f32], bias: &[f32]) -> f64 {
        assert_eq!([weight.len(), bias.len()], [self.width; 2], "a gradient of weight or bias has another size");
        let weight = weight.iter().zip(&self.gradients.weight).zip(&self.weight_scale);
        let bias = bias.iter().zip(&self.gradients.bias).zip(&self.bias_scale);
        largest(weight.chain(bias).map(|((&found, exact), &scale)| share((f64::from(found) - exact).abs(), scale)))
    }
}

/// 0 of what is 0 and exact.
fn share(error: f64, scale: f64) -> f64 {
    error / scale.max(f64::MIN_POSITIVE)
}
