use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::nn;
use burn::tensor::{Device, Tensor, assert_shape};
use gpu_layer_norm::Normalization;

use crate::normalized::normalized;

/// Configuration of an [`RmsNorm`], as [`burn::nn::RmsNormConfig`].
#[derive(Debug, Config)]
pub struct RmsNormConfig {
    /// The size of the last dimension, which is normalized.
    pub d_model: usize,
    /// Added to the mean of the squares. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

impl RmsNormConfig {
    /// A layer whose weight is 1.
    ///
    /// # Panics
    /// If `epsilon` is not positive.
    pub fn init(&self, device: &Device) -> RmsNorm {
        assert!(self.epsilon > 0.0, "epsilon must be positive.");
        RmsNorm { gamma: Initializer::Ones.init([self.d_model], device), epsilon: self.epsilon }
    }
}

/// RMS normalization over the last dimension, as [`burn::nn::RmsNorm`], whose records it loads and which loads its records:
///
/// y = x / sqrt(mean(x²) + epsilon) · γ
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct RmsNorm {
    /// The weight γ.
    pub gamma: Param<Tensor<1>>,
    /// Added to the mean of the squares.
    pub epsilon: f64,
}

impl RmsNorm {
    /// Normalizes the last dimension, `d_model`, of a tensor of any rank. The output has the dtype of the input; γ may have another one of
    /// f32, f16 and bf16, and sums are f32.
    ///
    /// # Panics
    /// If the last dimension is not `d_model`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let gamma = self.gamma.val();
        let [d_model] = gamma.dims();
        assert_shape!(input, [.., d_model]);
        match normalized(&input, gamma, None, Normalization::RmsNorm, self.epsilon) {
            Some(output) => output,
            None => nn::RmsNorm { gamma: self.gamma.clone(), epsilon: self.epsilon }.forward(input),
        }
    }
}

impl ModuleDisplay for RmsNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.shape().dims();
        content.add("d_model", &d_model).add("epsilon", &self.epsilon).optional()
    }
}
