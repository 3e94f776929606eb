//! Tensors on one device that all tests of a binary share.

use std::sync::OnceLock;

use gpu_layer_norm::{GpuDevice, GpuTensor, Tensor};

pub fn device() -> GpuDevice {
    static DEVICE: OnceLock<GpuDevice> = OnceLock::new();
    DEVICE.get_or_init(|| GpuDevice::new().expect("an adapter; scripts/test installs one")).clone()
}

pub fn tensor(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Tensor {
    Tensor::from_f32(shape, values).expect("a whole tensor")
}

pub fn upload(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> GpuTensor {
    GpuTensor::upload(&device(), &tensor(shape, values)).expect("an upload")
}

pub fn zeros(shape: impl Into<Vec<usize>>) -> GpuTensor {
    GpuTensor::zeros(&device(), shape).expect("a tensor")
}

pub fn values(tensor: &GpuTensor) -> Vec<f32> {
    tensor.download().expect("a download").into_values()
}

/// Numbers that repeat after a while, and differ.
pub fn some(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + i / 7) % 101) as f32 / 25.0 - 2.0).collect()
}
