//! What is timed: an operation, a storage type, a shape.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use std::fmt;

use gpu_layer_norm::{LayerNormConfig, StorageType};

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Layer normalization with weight and bias.
    Plain,
    /// The same of input + residual; the sum is written too.
    Residual,
    /// RMS normalization with weight.
    Rms,
    /// The backward pass of layer normalization with weight and bias: the gradients of input, weight and bias from that of the
    /// output, and from the statistics that a forward pass saved.
    Backward,
}

impl Operation {
    pub const ALL: [Self; 4] = [Self::Plain, Self::Residual, Self::Rms, Self::Backward];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "layer_norm",
            Self::Residual => "residual",
            Self::Rms => "rms_norm",
            Self::Backward => "backward",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub operation: Operation,
    /// Of all tensors but the statistics and the gradients of weight and bias, which are f32.
    pub storage: StorageType,
    pub rows: usize,
    pub width: usize,
}

impl Case {
    pub fn elements(&self) -> usize {
        self.rows * self.width
    }

    /// Bytes of one tensor.
    pub(super) fn tensor_bytes(&self) -> u64 {
        self.elements() as u64 * self.storage.bytes()
    }

    /// Bytes that it has to move: each tensor once. Those of weight and bias, of their gradients and of statistics are not
    /// counted.
    pub fn bytes(&self) -> u64 {
        self.tensor_bytes()
            * match self.operation {
                Operation::Plain | Operation::Rms => 2,
                Operation::Residual => 4,
                Operation::Backward => 3,
            }
    }

    /// Half a unit in the last place of what is stored, as a share of it.
    pub(super) fn rounding(&self) -> f64 {
        match self.storage {
            StorageType::F32 => 0.0,
            StorageType::F16 => 2.0_f64.powi(-11),
            StorageType::Bf16 => 2.0_f64.powi(-8),
        }
    }

    pub(super) fn config(&self) -> LayerNormConfig {
        let config = match self.operation {
            Operation::Plain | Operation::Residual | Operation::Backward => LayerNormConfig::new(self.width),
            Operation::Rms => LayerNormConfig::rms(self.width),
        };
        config.parameter_storage(self.storage).expect_nothing()
    }

    pub fn weight(&self) -> Vec<f32> {
        (0..self.width).map(|i| 1.0 + (i % 5) as f32 / 8.0).collect()
    }

    pub fn bias(&self) -> Vec<f32> {
        (0..self.width).map(|i| (i % 3) as f32 / 4.0 - 0.25).collect()
    }
}
