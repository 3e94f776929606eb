//! From a problem to a plan, without a GPU.
//!
//! A [`Problem`] says what is to be computed, [`Capabilities`] what the adapter offers. [`Plan::new`] turns the two into
//! a [`Plan`]: plain data that can be printed, compared, or run by an engine with a dispatcher of its own. Nothing here
//! touches a wgpu object.
//!
//! ```
//! use gpu_layer_norm::kernel::{Affine, Capabilities, Plan, Problem, Strategy};
//!
//! let problem = Problem::new(4096, 768)?.affine(Affine::WeightAndBias);
//! let plan = Plan::new(&problem, &Capabilities::webgpu_baseline())?;
//! assert_eq!(plan.strategy(), Strategy::Resident);
//! println!("{plan}");
//! println!("{}", plan.kernels()[0].wgsl());
//! # Ok::<(), gpu_layer_norm::Error>(())
//! ```

mod backward;
mod capabilities;
mod causal;
mod geometry;
mod grid;
mod params;
mod plan;
mod problem;
mod projection;
mod ranking;
mod source;
mod tunings;
mod unroll;

pub use capabilities::{AdapterClass, Capabilities, Dialect, SubgroupSizes};
pub use geometry::{Geometry, MAX_TURNS, Strategy};
pub use grid::{Dimension, Grid};
pub use params::Params;
pub use plan::{Chunk, Dispatch, Plan};
pub use problem::{
    Affine, ColumnSums, Layout, MAX_WIDTH, Modulation, Normalization, Operation, Problem, Role, Variance,
};
pub use projection::Activation;
#[cfg(test)]
pub(crate) use projection::all_projection_kernels;
pub(crate) use projection::{
    Finish, MAX_ELEMENTS, Picked, ProjectionBinding, ProjectionKernel, ProjectionParams, Sharing,
};
pub use source::{
    ARGUMENTS_WGSL, Access, Binding, BindingRole, ENTRY_POINT, Entry, Kernel, Place, Reduction, Slot, Unit,
};
pub use tunings::Tunings;
