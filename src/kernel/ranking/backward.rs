use super::{gpu, reduction_for, segment_width};
use crate::kernel::geometry::{MAX_TURNS, max_invocations, unit_of};
use crate::kernel::{Access, AdapterClass, Capabilities, Geometry, Problem, Unit};

/// The backward pass. On a GPU rows are held in registers where they fit: x, dy, and the sums for the gradients of weight and bias of
/// the same columns, 8 to 16 elements of each to an invocation. Longer rows are read twice, and rows that are few and long are split.
/// On a processor registers are memory, so rows are read twice whatever their width.
pub(super) fn candidates(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    let (width, rows) = (problem.width(), problem.rows());
    let unit = unit_of(problem);
    let units = width.div_ceil(unit.elements());
    let max = 1 << max_invocations(capabilities).max(1).ilog2();
    let is_cpu = capabilities.class == AdapterClass::Cpu;
    let traits = match capabilities.class {
        AdapterClass::Integrated => gpu::INTEGRATED,
        _ => gpu::DISCRETE,
    };
    let subgroup = capabilities.subgroups.map(|sizes| sizes.min);
    let fill = if is_cpu { 2 * u64::from(capabilities.cores.clamp(1, 1 << 16)) } else { traits.fill };

    let geometry = |access, lanes: u32, workgroup: u32| {
        let (reduction, groups) = reduction_for(lanes, workgroup.max(lanes).min(max), capabilities.subgroups);
        Geometry { access, reduction, lanes, spans_per_lane: 1, spans_per_workgroup: groups, segment_width: None }
    };
    let at_most = |turns: u32| units.div_ceil(turns).next_power_of_two().min(max);
    let held_turns = |elements: u32| (elements / unit.elements()).max(1);
    // A row may begin with half a pair, which takes another lane.
    let spare = if unit == Unit::Pair { 2 } else { 1 };
    let resident =
        [at_most(held_turns(16)), at_most(held_turns(8)), at_most(held_turns(16)) * 2, at_most(held_turns(32))]
            .map(|lanes| geometry(Access::Held, (lanes * spare).min(max), traits.workgroup));
    // Whole rows of which each invocation has one, or a subgroup shares one, or a workgroup.
    let lanes: Vec<u32> = if is_cpu {
        [Some(1), subgroup, Some(64)].into_iter().flatten().collect()
    } else {
        [at_most(8).min(256), 256, 64, 1].to_vec()
    };
    let workgroup = if is_cpu { 16 } else { traits.workgroup };
    let size = |lanes: u32| if is_cpu && lanes > 1 { lanes } else { workgroup };
    let fits = lanes.iter().copied().filter(|&lanes| lanes <= max);
    let streaming: Vec<_> = fits.clone().map(|lanes| geometry(Access::Reread, lanes, size(lanes))).collect();
    let split: Vec<_> = fits
        .map(|lanes| {
            let wanted = (4 * fill).div_ceil(rows.max(1)).clamp(2, 4096) as u32;
            let needed = width.div_ceil(MAX_TURNS / 2 * lanes * unit.elements());
            let segment_width = Some(segment_width(width, wanted.max(needed), lanes));
            Geometry { segment_width, ..geometry(Access::Reread, lanes, size(lanes)) }
        })
        .collect();
    // Rows that are fewer than what fills the device, and long enough that parts of them are worth a pass of their own.
    let few = rows < fill && width >= 8192;
    match (is_cpu, few) {
        (true, true) => [split, streaming, resident.to_vec()].concat(),
        (true, false) => [streaming, split, resident.to_vec()].concat(),
        (false, true) => [split, resident.to_vec(), streaming].concat(),
        (false, false) => [resident.to_vec(), streaming, split].concat(),
    }
}
