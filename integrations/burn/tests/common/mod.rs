//! Devices, tensors and comparisons of the tests.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use burn::tensor::{DType, Device, DeviceKind, Tensor, TensorData};

/// Burn's wgpu device: the best adapter there is.
pub fn device() -> Device {
    Device::wgpu(DeviceKind::DefaultDevice)
}

/// Values that look random, of mean 3 and deviation 2, others for each seed; the same on every machine.
pub fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    // The sum of three is of deviation 1/2.
    (0..count).map(|_| 3.0 + 4.0 * (uniform() + uniform() + uniform() - 1.5)).collect()
}

pub fn tensor<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    tensor_as(seed, shape, DType::F32, device)
}

/// Rounded to a dtype on the host: the device need not be able to.
pub fn tensor_as<const D: usize>(seed: u64, shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    let data = TensorData::new(values(seed, shape.iter().product()), shape).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

/// The values as f32.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert_dtype(DType::F32).try_to_vec().expect("f32")
}

/// The largest difference as a share of `unit`, or of the largest expected value where that is more. NaN if one is.
pub fn difference(actual: &[f32], expected: &[f32], unit: f32) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let unit = expected.iter().fold(unit, |unit, value| unit.max(value.abs()));
    let differences = actual.iter().zip(expected).map(|(a, b)| (a - b).abs() / unit);
    // f32::max would pass over a NaN.
    differences.fold(0.0, |largest: f32, next| if largest.is_nan() || next <= largest { largest } else { next })
}

/// That two agree within `tolerance` of the largest value, or of 1 where that is more.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) {
    let difference = difference(actual, expected, 1.0);
    assert!(difference <= tolerance, "{what}: off by {difference:.1e}, {tolerance:.1e} are allowed");
}
