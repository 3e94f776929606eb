//! The only layer that knows wgpu objects: the device, tensors in its memory, compiled pipelines, recorded passes.

mod device;
mod dispatch;
mod pipelines;
mod tensor;

pub use device::{GpuDevice, GpuDeviceBuilder};
pub(crate) use dispatch::Buffers;
pub use dispatch::PreparedPlan;
pub use tensor::GpuTensor;
