use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::nn;
use burn::tensor::{Device, Tensor, assert_shape};
use gpu_layer_norm::Normalization;

use crate::normalized::normalized;

/// Configuration of a [`LayerNorm`], as [`burn::nn::LayerNormConfig`].
#[derive(Debug, Config)]
pub struct LayerNormConfig {
    /// The size of the last dimension, which is normalized.
    pub d_model: usize,
    /// Added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there is a bias. Default: true
    #[config(default = true)]
    pub bias: bool,
}

impl LayerNormConfig {
    /// A layer whose weight is 1 and whose bias is 0.
    pub fn init(&self, device: &Device) -> LayerNorm {
        LayerNorm {
            gamma: Initializer::Ones.init([self.d_model], device),
            beta: self.bias.then(|| Initializer::Zeros.init([self.d_model], device)),
            epsilon: self.epsilon,
        }
    }
}

/// Layer normalization over the last dimension, as [`burn::nn::LayerNorm`], whose records it loads and which loads its records:
///
/// y = (x − mean) / sqrt(variance + epsilon) · γ + β
///
/// ```no_run
/// use burn::tensor::{Device, Tensor};
/// use gpu_layer_norm_burn::LayerNormConfig;
///
/// let device = Device::default();
/// let layer = LayerNormConfig::new(768).init(&device);
/// let output = layer.forward(Tensor::<3>::ones([8, 128, 768], &device));
/// assert_eq!(output.dims(), [8, 128, 768]);
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct LayerNorm {
    /// The weight γ.
    pub gamma: Param<Tensor<1>>,
    /// The bias β, if there is one.
    pub beta: Option<Param<Tensor<1>>>,
    epsilon: f64,
}

impl LayerNorm {
    /// Normalizes the last dimension, `d_model`, of a tensor of any rank. The output has the dtype of the input; γ and β may have another
    /// one of f32, f16 and bf16, and sums are f32.
    ///
    /// # Panics
    /// If the last dimension is not `d_model`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let gamma = self.gamma.val();
        let [d_model] = gamma.dims();
        assert_shape!(input, [.., d_model]);
        let beta = self.beta.as_ref().map(|beta| beta.val());
        match normalized(&input, gamma, beta, Normalization::LayerNorm, self.epsilon) {
            Some(output) => output,
            None => self.burns_own(d_model, &input.device()).forward(input),
        }
    }

    /// Burn's layer with the same parameters.
    fn burns_own(&self, d_model: usize, device: &Device) -> nn::LayerNorm {
        let config = nn::LayerNormConfig { d_model, epsilon: self.epsilon, bias: self.beta.is_some() };
        let mut layer = config.init(device);
        layer.gamma = self.gamma.clone();
        layer.beta = self.beta.clone();
        layer
    }
}

impl ModuleDisplay for LayerNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.shape().dims();
        let content = content.add("d_model", &d_model).add("epsilon", &self.epsilon);
        content.add("bias", &self.beta.is_some()).optional()
    }
}
