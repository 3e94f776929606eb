#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

#[cfg(feature = "autodiff")]
mod autodiff;
mod capabilities;
mod kernel;
mod launch;
mod layer;
mod layer_norm;
mod layout;
mod normalized;
mod ops;
mod rms_norm;

pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use rms_norm::{RmsNorm, RmsNormConfig};
