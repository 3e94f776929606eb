use super::{reduction_for, segment_width};
use crate::kernel::geometry::{MAX_MERGE_TURNS, MAX_TURNS, max_invocations, unit_of};
use crate::kernel::{Access, Capabilities, Geometry, Problem};

/// On a processor a barrier costs more than the arithmetic: one invocation takes a row or a segment, or the lanes of one
/// subgroup share it. An access of memory costs far more too, because it is done lane by lane: several rows at once share
/// those of weight and bias. What needs barriers stands last, for devices that leave nothing else.
pub(super) fn candidates(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    // Invocations of a workgroup that takes a row each.
    const GROUP: u32 = 16;
    // A longer row leaves the caches too soon where every invocation has one of its own.
    const LONG: u32 = 4096;
    // Registers are an array in memory: only the shortest rows gain from them, and long arrays take long to compile.
    const SHORT: u32 = 8;
    const HELD: u32 = 16;

    let (width, rows) = (problem.width(), problem.rows());
    let max = max_invocations(capabilities);
    // No machine has more; a larger number would only overflow.
    let cores = u64::from(capabilities.cores.clamp(1, 1 << 16));
    let subgroup = capabilities.subgroups.map(|sizes| sizes.min);
    let whole = |access, lanes: u32, spans_per_lane| {
        let size = if lanes == 1 { GROUP.min(max) } else { lanes };
        let (reduction, groups) = reduction_for(lanes, size, capabilities.subgroups);
        let spans_per_workgroup = groups * spans_per_lane;
        Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width: None }
    };
    // More spans a lane are better as long as there is work for every core.
    let several = |access, lanes| {
        let geometries = [4, 2, 1].map(|spans_per_lane| whole(access, lanes, spans_per_lane));
        let fit = |geometry: &Geometry| rows >= cores.saturating_mul(geometry.spans_per_workgroup.into());
        let (mut first, too_few): (Vec<_>, Vec<_>) = geometries.into_iter().partition(fit);
        first.extend(too_few.into_iter().rev());
        first
    };
    let own_row = several(Access::Reread, 1);
    let shared_row = subgroup.map_or(Vec::new(), |lanes| several(Access::Reread, lanes));
    let many = rows >= 2 * cores * 4 * u64::from(GROUP);
    let streaming = if width <= LONG && many { [own_row, shared_row].concat() } else { [shared_row, own_row].concat() };
    let lanes = [Some(1), subgroup].into_iter().flatten();
    let split: Vec<_> = lanes
        .clone()
        .map(|lanes| {
            // Enough segments for every core, none longer than the longest loop.
            let unit = unit_of(problem).elements();
            let wanted = (32 * cores).div_ceil(rows.max(1)).clamp(2, u64::from(MAX_MERGE_TURNS / 2 * lanes)) as u32;
            let segments = wanted.max(width.div_ceil(MAX_TURNS / 2 * lanes * unit));
            Geometry { segment_width: Some(segment_width(width, segments, lanes)), ..whole(Access::Reread, lanes, 1) }
        })
        .collect();
    let resident = lanes.chain([64, 256]).map(|lanes| whole(Access::Held, lanes, 1));
    let (mut resident, crowded): (Vec<_>, Vec<_>) =
        resident.into_iter().partition(|geometry| width.div_ceil(geometry.lanes) <= HELD);
    if width <= SHORT {
        resident.splice(0..1, several(Access::Held, 1));
    }
    let mut barriers = [64, 256].map(|lanes| whole(Access::Reread, lanes, 1)).to_vec();
    // For who asks for that strategy.
    let turns = unit_of(problem).turns();
    let partly = |lanes| {
        let access = Access::Partly { registers: turns, shared: turns };
        Geometry { spans_per_workgroup: 1, ..whole(access, lanes, 1) }
    };
    barriers.extend([64, 256].map(partly));

    // Too few rows to keep every core busy with whole ones.
    let few = rows < 2 * cores * u64::from(if subgroup.is_some() { 1 } else { GROUP });
    let first = if few && width > LONG {
        [split, streaming, resident]
    } else if width <= SHORT {
        [resident, streaming, split]
    } else {
        [streaming, split, resident]
    };
    [first.concat(), crowded, barriers].concat()
}
