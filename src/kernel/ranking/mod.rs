//! Which geometries are tried first on which class of adapter.

mod backward;
mod cpu;
mod gpu;

use super::geometry::SEGMENT_STEP;
use super::{AdapterClass, Capabilities, Geometry, Operation, Problem, Reduction, SubgroupSizes};

/// How many workgroups of so many invocations fill a device, for kernels whose number of workgroups does not follow from that of the
/// rows.
pub(super) fn fill(capabilities: &Capabilities, workgroup: u32) -> u64 {
    let traits = match capabilities.class {
        AdapterClass::Cpu => return u64::from(8 * capabilities.cores.clamp(1, 1 << 10)),
        AdapterClass::Integrated => gpu::INTEGRATED,
        AdapterClass::Discrete | AdapterClass::Other => gpu::DISCRETE,
    };
    traits.fill * u64::from((traits.workgroup / workgroup.max(1)).max(1))
}

/// The geometries that may run a problem, best first. Not all of them can; `geometry::kernels` tells.
pub(super) fn candidates(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    match (problem.operation(), capabilities.class) {
        (Operation::Forward, AdapterClass::Cpu) => cpu::candidates(problem, capabilities),
        (Operation::Forward, AdapterClass::Integrated) => gpu::candidates(problem, capabilities, &gpu::INTEGRATED),
        (Operation::Forward, _) => gpu::candidates(problem, capabilities, &gpu::DISCRETE),
        (Operation::Backward, AdapterClass::Cpu) => backward::on_cpu(problem, capabilities),
        (Operation::Backward, _) => backward::on_gpu(problem, capabilities),
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
