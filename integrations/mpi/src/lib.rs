#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod agreement;
mod data_parallel;
mod device;
mod error;
mod job;
pub mod model;
mod moments;
mod options;
mod parts;
mod pipeline;
mod ranks;
mod readback;
mod sharded;

pub use data_parallel::DataParallel;
pub use device::local_device;
pub use error::{Error, Found};
pub use job::run;
/// The `mpi` that this crate is built on, so that a caller has the same one.
pub use mpi;
pub use options::Options;
pub use sharded::ShardedLayerNorm;
