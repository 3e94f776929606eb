//! A process that is a rank: from the initialization of MPI to its end, whatever that is.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mpi::Threading;
use mpi::topology::SimpleCommunicator;
use mpi::traits::Communicator;

use crate::Error;
use crate::ranks::say;

/// Initializes MPI, runs `work` with the communicator of all ranks, and finalizes MPI. Where `work` panics or returns an error, the
/// processes of all ranks are ended, after a message on standard error that names the rank: without that the others would wait for
/// one that does not come any more.
///
/// ```no_run
/// use gpu_layer_norm_mpi::mpi::traits::Communicator;
///
/// fn main() -> Result<(), gpu_layer_norm_mpi::Error> {
///     gpu_layer_norm_mpi::run(|world| {
///         println!("rank {} of {}", world.rank(), world.size());
///         Ok::<(), gpu_layer_norm_mpi::Error>(())
///     })
/// }
/// ```
///
/// # Errors
/// [`Error::Initialized`]. What `work` returns does not come back: the process ends with status 1, or with 101 after a panic.
pub fn run<E: Display>(work: impl FnOnce(&SimpleCommunicator) -> Result<(), E>) -> Result<(), Error> {
    // Drivers and wgpu may have threads of their own, none of which calls MPI.
    let (universe, _) = mpi::initialize_with_threading(Threading::Funneled).ok_or(Error::Initialized)?;
    let world = universe.world();
    let (rank, size) = (world.rank(), world.size());
    match catch_unwind(AssertUnwindSafe(|| work(&world))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            say(format_args!("rank {rank} of {size} ends all ranks, because of an error: {error}"));
            world.abort(1)
        }
        Err(panic) if size == 1 => resume_unwind(panic),
        Err(_) => {
            say(format_args!("rank {rank} of {size} ends all ranks, because it panicked"));
            world.abort(101)
        }
    }
}
