//! The only layer that knows wgpu objects: the device, tensors in its memory, compiled pipelines, recorded passes.

mod device;
mod dispatch;
mod f16;
mod pipelines;
mod projection;
mod region;
mod tensor;
mod tune;

pub use device::{GpuDevice, GpuDeviceBuilder};
pub use dispatch::PreparedPlan;
pub(crate) use dispatch::RowCount;
pub(crate) use projection::{Categories, Matrix, Product, Step, TableGradient, check_matrix, matrix};
pub use region::Region;
pub(crate) use region::check_buffer;
pub use tensor::GpuTensor;
pub use tune::Tuning;
