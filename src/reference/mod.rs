//! The scalar f64 reference: the formulas, written to be read. It shares no code with the kernels.
//!
//! Values go in as f32, which the kernels have, or as f64.
//!
//! * [`layer_norm`] and [`rms_norm`], each with its backward pass, and [`row_statistics`];
//! * [`modulated_layer_norm`] and [`modulated_rms_norm`], whose scale and shift come with a [`Condition`], the
//!   [`gated_residual`] sum before them, and [`project`], which makes such parameters out of a condition's vector;
//! * [`causal_layer_norm`] and [`causal_rms_norm`], whose statistics see what came before and nothing that comes after;
//! * [`group_norm`], and with as many groups as channels instance normalization;
//! * [`gradient_difference`], which checks any gradient by central differences.

mod causal;
mod differences;
mod group;
mod layer_norm;
mod modulation;
mod statistics;

pub use causal::{
    causal_layer_norm, causal_layer_norm_backward, causal_rms_norm, causal_rms_norm_backward, causal_statistics,
};
pub use differences::gradient_difference;
pub use group::{group_norm, group_norm_backward};
pub use layer_norm::{Gradients, layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
pub use modulation::{
    Condition, ModulatedGradients, gated_residual, gated_residual_backward, modulated_layer_norm,
    modulated_layer_norm_backward, modulated_rms_norm, modulated_rms_norm_backward, project,
};
pub use statistics::{RowStatistics, root_mean_square_rstd, row_statistics};

/// Element `i` of a parameter, or what stands for an absent one.
fn at<T: Copy + Into<f64>>(parameter: Option<&[T]>, i: usize, absent: f64) -> f64 {
    parameter.map_or(absent, |parameter| parameter[i].into())
}

fn exact<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

fn check_rows<T>(input: &[T], width: usize) {
    assert!(width > 0 && input.len().is_multiple_of(width), "{} values are no rows of {width}", input.len());
}

fn check_parameter<T>(name: &str, parameter: Option<&[T]>, values: usize) {
    assert!(parameter.is_none_or(|parameter| parameter.len() == values), "the {name} must have {values} values");
}

fn check_output_gradient<T, G>(input: &[T], output_gradient: &[G]) {
    let (values, expected) = (output_gradient.len(), input.len());
    assert!(values == expected, "{values} values of the output's gradient in place of {expected}");
}
