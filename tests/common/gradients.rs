//! What the gradients of a backward pass are, and how far off they may be.

use gpu_layer_norm::Normalization;
use gpu_layer_norm::kernel::Role;
use gpu_layer_norm::reference::{self, Gradients};

use super::{error_bound, normalize, scale};

pub fn is_gradient(role: Role) -> bool {
    matches!(
        role,
        Role::OutputGradient | Role::SumGradient | Role::InputGradient | Role::WeightGradient | Role::BiasGradient
    )
}

/// The exact gradients, and for each element how far off it may be, as `GpuLayerNorm::backward` promises; besides the rounding of
/// results to what they are stored as.
pub struct Bounds {
    pub exact: Gradients,
    pub input: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
}

impl Bounds {
    /// Of a normalization with its eps, its variance unbiased or not.
    pub fn new(
        (normalization, eps, unbiased): (Normalization, f64, bool),
        width: usize,
        input: &[f32],
        output_gradient: &[f32],
        weight: Option<&[f32]>,
    ) -> Self {
        let exact = match normalization {
            Normalization::LayerNorm => {
                reference::layer_norm_backward(input, output_gradient, width, weight, eps, unbiased)
            }
            Normalization::RmsNorm => reference::rms_norm_backward(input, output_gradient, width, weight, eps),
        };
        let normalized = normalize(normalization, input, width, eps as f32, unbiased);
        let rows = input.len() / width;
        // Wider rows have twice the bound in x̂ too.
        let wide = error_bound(width) / 1e-6;
        let chain = 1e-6 * wide + 3e-8 * rows.min(512) as f64;
        let mut bounds = Self { exact, input: Vec::new(), weight: vec![0.0; width], bias: vec![0.0; width] };
        for (x, dy) in input.chunks(width).zip(output_gradient.chunks(width)) {
            let rstd = match normalization {
                Normalization::LayerNorm => reference::row_statistics(x, eps, unbiased).rstd,
                Normalization::RmsNorm => reference::root_mean_square_rstd(x, eps),
            };
            let g = |(i, dy): (usize, &f32)| f64::from(*dy * weight.map_or(1.0, |weight| weight[i])).abs();
            let largest = dy.iter().enumerate().map(g).fold(0.0, f64::max);
            // What is subnormal on the way may be 0.
            let flushed = 4.0 * f64::from(f32::MIN_POSITIVE);
            bounds.input.extend(std::iter::repeat_n(2e-6 * wide * rstd * largest + flushed, width));
        }
        for (i, (&dy, &normalized)) in output_gradient.iter().zip(&normalized).enumerate() {
            bounds.weight[i % width] += chain * f64::from(dy).abs() * scale(normalized);
            bounds.bias[i % width] += chain * f64::from(dy).abs();
        }
        bounds
    }
}
