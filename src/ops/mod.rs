//! What a user calls. Each operation checks its arguments, asks for a plan, and hands it to the gpu layer.

mod layer_norm;

pub use layer_norm::GpuLayerNorm;
