//! What a user calls. Each operation checks its arguments, asks for a plan, and hands it to the gpu layer.

mod bindings;
mod layer_norm;

pub use bindings::Bindings;
pub use layer_norm::{GpuLayerNorm, GpuStatistics, LayerNormGradients};
