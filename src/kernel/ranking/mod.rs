//! Which geometries are tried first on which class of adapter.

mod backward;
mod cpu;
mod gpu;

use super::geometry::{MOST_ROWS, SEGMENT_STEP, max_invocations};
use super::{Access, AdapterClass, Capabilities, Geometry, Operation, Problem, Reduction, SubgroupSizes};

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
    let mut candidates = match problem.grid_of_rows() {
        Some(grid) if grid.has_rows_side_by_side() => side_by_side(problem, capabilities),
        _ => Vec::new(),
    };
    candidates.extend(of_whole_rows(problem, capabilities));
    // Backward, rows of sequences and of channels are never held. That they are not is no reason to tell where none of the others can run.
    if problem.sequence_rows().is_some() || problem.channel_gradients().is_some() {
        candidates.retain(|it| !problem.operation().is_backward() || it.access != Access::Held);
    }
    match problem.operation() {
        // All that is left to it walks by column, as it does by any geometry.
        Operation::Gradients => vec![Geometry {
            access: Access::Reread,
            reduction: Reduction::Lane,
            lanes: 1,
            spans_per_lane: 1,
            spans_per_workgroup: 1,
            segment_width: None,
        }],
        Operation::GradientSums => reread(candidates),
        Operation::Normalize => {
            let known = reread(candidates);
            // No second pass is to be paid for: rows that are too few to fill a GPU are split as soon as there is enough of them.
            let few = problem.rows() < fill(capabilities, 256) && problem.width() >= 2 * WORTH_A_WORKGROUP;
            if capabilities.class == AdapterClass::Cpu || !few {
                return known;
            }
            let (split, whole): (Vec<_>, Vec<_>) = known.into_iter().partition(|it| it.segment_width.is_some());
            [split, whole].concat()
        }
        _ => candidates,
    }
}

/// Elements of a segment that are worth a workgroup of their own.
const WORTH_A_WORKGROUP: u32 = 4096;

/// The same geometries for kernels that hold no rows: as many lanes as if they were to hold a row, which are as many as keep memory busy.
fn reread(candidates: Vec<Geometry>) -> Vec<Geometry> {
    let mut all: Vec<Geometry> = Vec::new();
    for candidate in candidates {
        let geometry = Geometry { access: Access::Reread, ..candidate };
        if !all.contains(&geometry) {
            all.push(geometry);
        }
    }
    all
}

/// Neighbouring rows, not neighbouring elements, are neighbours in memory (`Grid::has_rows_side_by_side`): a workgroup has some rows, so
/// that it reads what lies together, and on a GPU several invocations share each.
fn side_by_side(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    // Neighbours in memory: 128 bytes of f32, or where a workgroup would be larger than one that leaves its invocations registers enough
    // to hold elements in, 64 bytes.
    const ROWS: u32 = 32;
    const HOLDING: u32 = 512;
    let max = 1_u32 << max_invocations(capabilities).max(1).ilog2();
    let geometry = |access, lanes: u32, workgroup: u32| {
        let reduction = if lanes == 1 { Reduction::Lane } else { Reduction::Workgroup };
        let spans_per_workgroup = (workgroup / lanes).max(1);
        Geometry { access, reduction, lanes, spans_per_lane: 1, spans_per_workgroup, segment_width: None }
    };
    if capabilities.class == AdapterClass::Cpu {
        let one = geometry(Access::Reread, 1, ROWS.min(max));
        // Four rows at once, whose elements at one position are one access; and more, where there are enough for every core.
        let several = |rows| Geometry { spans_per_lane: rows, spans_per_workgroup: rows * (ROWS / 2).min(max), ..one };
        let cores = u64::from(capabilities.cores.clamp(1, 1 << 16));
        let is_enough = |geometry: &Geometry| {
            geometry.spans_per_lane == 4 || problem.rows() >= 4 * cores * u64::from(geometry.spans_per_workgroup)
        };
        return [MOST_ROWS, MOST_ROWS / 2, MOST_ROWS / 4, 4]
            .map(several)
            .into_iter()
            .filter(is_enough)
            .chain([one])
            .collect();
    }
    let max = gpu::largest_workgroup(capabilities);
    // Elements that an invocation holds; in the backward pass there are four tensors of them.
    let held = if problem.operation().is_backward() { 8 } else { 32 };
    let lanes_of = |elements: u32| problem.width().div_ceil(elements).next_power_of_two();
    let held = [(held / 2, ROWS), (held, ROWS), (held, ROWS / 2)].map(|(elements, rows)| (lanes_of(elements), rows));
    let resident = held.into_iter().filter(|(lanes, rows)| *lanes <= HOLDING.min(max) / rows);
    let resident = resident.map(|(lanes, rows)| geometry(Access::Held, lanes, (lanes * rows).max(256).min(max)));
    let lanes = lanes_of(8).min((max / ROWS).max(1));
    resident.chain([geometry(Access::Reread, lanes, (lanes * ROWS).max(256).min(max))]).collect()
}

fn of_whole_rows(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    match (problem.operation().is_backward(), capabilities.class) {
        (false, AdapterClass::Cpu) => cpu::candidates(problem, capabilities),
        (false, AdapterClass::Integrated) => gpu::candidates(problem, capabilities, &gpu::INTEGRATED),
        (false, _) => gpu::candidates(problem, capabilities, &gpu::DISCRETE),
        (true, AdapterClass::Cpu) => backward::on_cpu(problem, capabilities),
        (true, _) => backward::on_gpu(problem, capabilities),
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
