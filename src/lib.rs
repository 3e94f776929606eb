#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod error;
mod gpu;
pub mod kernel;
mod ops;
pub mod reference;
mod tensor;

pub use config::{LayerNormConfig, NormalizedShape};
pub use error::Error;
pub use gpu::{GpuDevice, GpuDeviceBuilder, GpuTensor, PreparedPlan};
pub use kernel::{Affine, Capabilities, Plan, Strategy, Variance};
pub use ops::GpuLayerNorm;
pub use tensor::{MAX_RANK, Tensor};
/// The wgpu that this crate is built on, so that a caller has the same one.
pub use wgpu;
