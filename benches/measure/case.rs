//! What is timed: an operation, a storage type, a shape.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use std::fmt;

use gpu_layer_norm::{LayerNormConfig, StorageType};

/// Rows that share a condition: samples of so many positions.
pub(super) const ROWS_PER_CONDITION: usize = 128;

/// Positions of a sequence, where there are so many rows.
const SEQUENCE_LENGTH: usize = 1024;

/// Pixels of an image, where there are so many rows.
const PIXELS: usize = 32 * 32;

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
    /// Adaptive layer normalization: with weight and bias, and scale and shift of each sample of 128 rows.
    Modulated,
    /// The same of residual + gate · input, where the gate is of each sample too; the sum is written too.
    Gated,
    /// The backward pass of [`Modulated`](Self::Modulated): the gradients of input, weight, bias, scale and shift, from saved
    /// statistics.
    ModulatedBackward,
    /// Causal layer normalization with weight and bias, in sequences of 1024 positions, or of all rows where they are fewer.
    Causal,
    /// Its backward pass: the gradients of input, weight and bias. It measures the positions again.
    CausalBackward,
    /// Layer normalization with weight and bias over the channels of images of 32 × 32 pixels, channels first, as a tensor
    /// `[rows / 1024, width, 32, 32]`; where the rows are no multiple of 1024, of one image of so many pixels.
    ChannelsFirst,
}

impl Operation {
    pub const ALL: [Self; 10] = [
        Self::Plain,
        Self::Residual,
        Self::Rms,
        Self::Backward,
        Self::Modulated,
        Self::Gated,
        Self::ModulatedBackward,
        Self::Causal,
        Self::CausalBackward,
        Self::ChannelsFirst,
    ];

    /// Those that are not measured beside another.
    pub const ALONE: [Self; 4] = [Self::Plain, Self::Residual, Self::Rms, Self::Backward];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "layer_norm",
            Self::Residual => "residual",
            Self::Rms => "rms_norm",
            Self::Backward => "backward",
            Self::Modulated => "modulated",
            Self::Gated => "gated",
            Self::ModulatedBackward => "modulated_backward",
            Self::Causal => "causal",
            Self::CausalBackward => "causal_backward",
            Self::ChannelsFirst => "channels_first",
        }
    }

    /// The operation without conditions, sequences and images beside which this one is measured.
    pub const fn counterpart(self) -> Option<Self> {
        match self {
            Self::Plain | Self::Residual | Self::Rms | Self::Backward => None,
            Self::Modulated | Self::Causal | Self::ChannelsFirst => Some(Self::Plain),
            Self::Gated => Some(Self::Residual),
            Self::ModulatedBackward | Self::CausalBackward => Some(Self::Backward),
        }
    }

    pub(super) const fn is_backward(self) -> bool {
        matches!(self, Self::Backward | Self::ModulatedBackward | Self::CausalBackward)
    }

    pub(super) const fn is_causal(self) -> bool {
        matches!(self, Self::Causal | Self::CausalBackward)
    }

    pub(super) const fn has_residual(self) -> bool {
        matches!(self, Self::Residual | Self::Gated)
    }

    pub(super) const fn has_conditions(self) -> bool {
        matches!(self, Self::Modulated | Self::Gated | Self::ModulatedBackward)
    }

    /// Whether a forward pass has to save statistics for it.
    pub(super) const fn reads_statistics(self) -> bool {
        matches!(self, Self::Backward | Self::ModulatedBackward)
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
    /// Of all tensors but the statistics and the gradients of weight, bias, scale and shift, which are f32.
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

    /// Rows of scale, shift and gate.
    pub(super) fn conditions(&self) -> usize {
        self.rows.div_ceil(ROWS_PER_CONDITION)
    }

    /// Rows of a sequence.
    pub(super) fn sequence_length(&self) -> usize {
        self.rows.clamp(1, SEQUENCE_LENGTH)
    }

    /// Images, channels and pixels, where rows are pixels.
    pub(super) fn image_shape(&self) -> [usize; 3] {
        let pixels = if self.rows.is_multiple_of(PIXELS) { PIXELS.min(self.rows.max(1)) } else { self.rows };
        [self.rows / pixels.max(1), self.width, pixels]
    }

    /// Bytes that it has to move: each tensor once. Those of weight and bias, of what conditions have, of the gradients of these
    /// and of statistics are not counted.
    pub fn bytes(&self) -> u64 {
        let tensors = match (self.operation.is_backward(), self.operation.has_residual()) {
            (true, _) => 3,
            (_, true) => 4,
            _ => 2,
        };
        self.tensor_bytes() * tensors
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
            Operation::Rms => LayerNormConfig::rms(self.width),
            Operation::ChannelsFirst => LayerNormConfig::new(self.width).axes([1]),
            _ => LayerNormConfig::new(self.width).causal(self.operation.is_causal()),
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
