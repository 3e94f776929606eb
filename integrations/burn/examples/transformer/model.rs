use burn::module::{Module, ModuleDisplay};
use burn::nn;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor};

const MODEL: usize = 64;
const HEADS: usize = 4;
const BLOCKS: usize = 2;

/// A layer norm of any origin.
pub trait Norm: Module + ModuleDisplay {
    fn new(d_model: usize, device: &Device) -> Self;
    fn normalize(&self, input: Tensor<3>) -> Tensor<3>;
}

impl Norm for nn::LayerNorm {
    fn new(d_model: usize, device: &Device) -> Self {
        nn::LayerNormConfig::new(d_model).init(device)
    }

    fn normalize(&self, input: Tensor<3>) -> Tensor<3> {
        self.forward(input)
    }
}

impl Norm for gpu_layer_norm_burn::LayerNorm {
    fn new(d_model: usize, device: &Device) -> Self {
        gpu_layer_norm_burn::LayerNormConfig::new(d_model).init(device)
    }

    fn normalize(&self, input: Tensor<3>) -> Tensor<3> {
        self.forward(input)
    }
}

/// A pre-norm transformer that sees no later position.
#[derive(Module, Debug)]
pub struct Transformer<N: Module + ModuleDisplay> {
    symbols: Embedding,
    positions: Embedding,
    blocks: Vec<Block<N>>,
    norm: N,
    output: Linear,
}

#[derive(Module, Debug)]
struct Block<N: Module + ModuleDisplay> {
    attention_norm: N,
    attention: MultiHeadAttention,
    hidden_norm: N,
    hidden: Linear,
    output: Linear,
}

impl<N: Norm> Transformer<N> {
    /// With random parameters.
    pub fn new(symbols: usize, length: usize, device: &Device) -> Self {
        Self {
            symbols: EmbeddingConfig::new(symbols, MODEL).init(device),
            positions: EmbeddingConfig::new(length, MODEL).init(device),
            blocks: (0..BLOCKS).map(|_| Block::new(device)).collect(),
            norm: N::new(MODEL, device),
            output: LinearConfig::new(MODEL, symbols).init(device),
        }
    }

    /// For each position the logits of the symbol that follows.
    pub fn forward(&self, symbols: Tensor<2, Int>) -> Tensor<3> {
        let ([_, length], device) = (symbols.dims(), symbols.device());
        let positions = Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze::<2>();
        let stream = self.symbols.forward(symbols) + self.positions.forward(positions);
        let stream = self.blocks.iter().fold(stream, |stream, block| block.forward(stream));
        self.output.forward(self.norm.normalize(stream))
    }
}

impl<N: Norm> Block<N> {
    fn new(device: &Device) -> Self {
        Self {
            attention_norm: N::new(MODEL, device),
            attention: MultiHeadAttentionConfig::new(MODEL, HEADS).with_dropout(0.0).init(device),
            hidden_norm: N::new(MODEL, device),
            hidden: LinearConfig::new(MODEL, 4 * MODEL).init(device),
            output: LinearConfig::new(4 * MODEL, MODEL).init(device),
        }
    }

    fn forward(&self, stream: Tensor<3>) -> Tensor<3> {
        let [batch, length, _] = stream.dims();
        let mask = generate_autoregressive_mask(batch, length, &stream.device());
        let attention = MhaInput::self_attn(self.attention_norm.normalize(stream.clone())).mask_attn(mask);
        let stream = stream + self.attention.forward(attention).context;
        let hidden = gelu(self.hidden.forward(self.hidden_norm.normalize(stream.clone())));
        stream + self.output.forward(hidden)
    }
}
