//! What a user calls. Each operation checks its arguments, asks for a plan, and hands it to the gpu layer.

mod bindings;
mod conditional;
mod layer_norm;
mod parts;

pub use bindings::Bindings;
pub use conditional::{
    ConditionalGradients, ConditionalLayerNormConfig, GpuCondition, GpuConditionalLayerNorm, HostCondition,
    PreparedConditional,
};
pub use layer_norm::{GpuLayerNorm, GpuStatistics, LayerNormGradients};
pub use parts::GpuMoments;
