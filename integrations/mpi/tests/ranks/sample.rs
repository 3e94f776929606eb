//! Values by formula, which every rank can make of any row, and shards of them.

use std::ops::Range;

use gpu_layer_norm::{GpuDevice, GpuTensor, StorageType, Tensor};

/// A number of deviation 1 and mean 0 for each place, between −3.5 and 3.5, the same on every machine.
pub fn noise(seed: u64, row: u64, column: u64) -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ row.wrapping_mul(0xd1b5_4a32_d192_ed03) ^ column;
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = state.wrapping_add(column.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^= state >> 31;
    // The sum of four 16-bit numbers is of deviation 1/√3 of their range.
    let sum: f64 = (0..4).map(|i| ((state >> (16 * i)) & 0xffff) as f64 / 65536.0).sum();
    (sum - 2.0) * 3.0_f64.sqrt()
}

/// The elements of a row that a rank has where they are dealt out evenly.
pub fn even(width: usize, rank: usize, ranks: usize) -> Range<usize> {
    width * rank / ranks..width * (rank + 1) / ranks
}

/// The same where the first rank has most of them.
pub fn uneven(width: usize, rank: usize, ranks: usize) -> Range<usize> {
    if ranks == 1 {
        return 0..width;
    }
    let first = width * 5 / 8;
    match rank {
        0 => 0..first,
        _ => {
            let rest = even(width - first, rank - 1, ranks - 1);
            first + rest.start..first + rest.end
        }
    }
}

/// The columns of some rows.
pub fn columns(values: &[f32], width: usize, columns: &Range<usize>) -> Vec<f32> {
    values.chunks_exact(width.max(1)).flat_map(|row| &row[columns.clone()]).copied().collect()
}

pub fn upload(
    device: &GpuDevice,
    shape: &[usize],
    values: &[f32],
    storage: StorageType,
) -> Result<GpuTensor, gpu_layer_norm::Error> {
    GpuTensor::upload(device, &Tensor::from_f32(shape, values)?.to_storage(storage))
}

/// Rounded to a storage type.
pub fn rounded(values: Vec<f32>, storage: StorageType) -> Result<Vec<f32>, gpu_layer_norm::Error> {
    Ok(Tensor::from_f32([values.len()], values)?.to_storage(storage).into_values())
}

/// What rounding to a storage type may change.
pub fn rounding(storage: StorageType, value: f64) -> f64 {
    match storage {
        StorageType::F16 => value.abs() * 2.0_f64.powi(-11) + 2.0_f64.powi(-25),
        StorageType::Bf16 => value.abs() * 2.0_f64.powi(-8),
        _ => value.abs() * 2.0_f64.powi(-24),
    }
}

/// The worst of some errors, each as a share of what it may be. NaN where one is, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Worst {
    pub share: f64,
}

impl Worst {
    /// Where NaN is expected, NaN is right and anything else is not.
    pub fn see(&mut self, actual: f64, expected: f64, bound: f64) {
        let share = match (actual.is_nan(), expected.is_nan()) {
            (true, true) => 0.0,
            (false, false) if actual == expected => 0.0,
            (false, false) => (actual - expected).abs() / bound,
            _ => f64::INFINITY,
        };
        // f64::max would pass over a NaN.
        if share.is_nan() || share > self.share {
            self.share = if share.is_nan() { f64::INFINITY } else { share };
        }
    }

    pub fn check(self, what: &str) -> Result<(), String> {
        if self.share <= 1.0 { Ok(()) } else { Err(format!("{what}: {:.2} times what is allowed", self.share)) }
    }
}
