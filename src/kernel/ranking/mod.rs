//! Which geometries are tried first on which class of adapter.

mod backward;
mod cpu;
mod gpu;

use super::geometry::SEGMENT_STEP;
use super::{AdapterClass, Capabilities, Geometry, Operation, Problem, Reduction, SubgroupSizes};

/// Workgroups that fill a device, for kernels that choose their number themselves.
pub(super) fn fill(capabilities: &Capabilities) -> u32 {
    match capabilities.class {
        AdapterClass::Cpu => 8 * capabilities.cores.clamp(1, 1 << 10),
        AdapterClass::Discrete | AdapterClass::Other => gpu::DISCRETE.fill as u32,
        AdapterClass::Integrated => gpu::INTEGRATED.fill as u32,
    }
}

/// The geometries that may run a problem, best first. Not all of them can; `geometry::kernels` tells.
pub(super) fn candidates(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    if problem.operation() == Operation::Backward {
        return backward::candidates(problem, capabilities);
    }
    match capabilities.class {
        AdapterClass::Cpu => cpu::candidates(problem, capabilities),
        AdapterClass::Discrete | AdapterClass::Other => gpu::candidates(problem, capabilities, &gpu::DISCRETE),
        AdapterClass::Integrated => gpu::candidates(problem, capabilities, &gpu::INTEGRATED),
    }
}

/// The reduction that costs least for so many lanes in a workgroup of `size`, and the groups of lanes that may share it.
fn reduction_for(lanes: u32, size: u32, subgroups: Option<SubgroupSizes>) -> (Reduction, u32) {
    let groups = (size / lanes).max(1);
    match subgroups {
        _ if lanes == 1 => (Reduction::Lane, groups),
        Some(sizes) if lanes <= sizes.min => (Reduction::Subgroup, groups),
        Some(sizes) if lanes >= sizes.max => (Reduction::SubgroupThenWorkgroup, 1),
        _ => (Reduction::Workgroup, groups),
    }
}

/// The width of so many segments, rounded up so that vectors and lanes come out even.
fn segment_width(width: u32, segments: u32, lanes: u32) -> u32 {
    width.div_ceil(segments).next_multiple_of(SEGMENT_STEP * lanes)
}
