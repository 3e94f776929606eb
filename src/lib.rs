#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod dependence;
mod error;
mod gpu;
pub mod kernel;
mod moments;
mod ops;
pub mod reference;
mod tensor;

pub use config::{LayerNormConfig, NormalizedShape};
pub use dependence::Dependence;
pub use error::Error;
pub use gpu::{GpuDevice, GpuDeviceBuilder, GpuTensor, PreparedPlan, Region, Tuning};
/// The `half` that this crate is built on, for f16 and bf16 tensors.
pub use half;
pub use kernel::{Activation, Affine, Capabilities, Modulation, Normalization, Operation, Plan, Strategy, Variance};
pub use moments::{RowMoments, WideMoments};
pub use ops::{
    Bindings, ConditionalGradients, ConditionalLayerNormConfig, GpuCondition, GpuConditionalLayerNorm, GpuLayerNorm,
    GpuMoments, GpuStatistics, HostCondition, LayerNormGradients, PreparedConditional,
};
pub use tensor::{MAX_RANK, StorageType, Tensor};
/// The wgpu that this crate is built on, so that a caller has the same one.
pub use wgpu;
