//! Moments of rows on their way from rank to rank, and the all-reduce that merges them.

use std::ffi::{c_int, c_void};

use gpu_layer_norm::WideMoments;
use mpi::ffi::MPI_Datatype;

use crate::ranks::{Reduction, vectors};

/// How many f64 the moments of a row are.
pub(crate) const WORDS: usize = size_of::<WideMoments>() / size_of::<f64>();

/// The reduction that merges them.
pub(crate) fn reduction() -> Reduction {
    // Safety: the function keeps to the elements that it is told of.
    unsafe { Reduction::of::<WORDS>(merge_all) }
}

/// As MPI calls it.
unsafe extern "C" fn merge_all(first: *mut c_void, second: *mut c_void, len: *mut c_int, _: *mut MPI_Datatype) {
    // Safety: MPI calls this with vectors of the datatype that the reduction was made with, which is that of these moments.
    let (first, second) = unsafe { vectors::<WideMoments>(first, second, len) };
    for (other, moments) in first.iter().zip(second) {
        *moments = moments.merge(*other);
    }
}
