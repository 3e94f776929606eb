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
}

impl Operation {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Residual, Self::Rms];
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "layer_norm",
            Self::Residual => "residual",
            Self::Rms => "rms_norm",
        })
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub operation: Operation,
    /// Of all tensors.
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

    /// Bytes that it has to move: each tensor once. Those of weight and bias are not counted.
    pub fn bytes(&self) -> u64 {
        self.tensor_bytes() * if self.operation == Operation::Residual { 4 } else { 2 }
    }

    pub(super) fn config(&self) -> LayerNormConfig {
        let config = match self.operation {
            Operation::Plain | Operation::Residual => LayerNormConfig::new(self.width),
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
