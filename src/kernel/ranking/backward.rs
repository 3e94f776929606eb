use super::{gpu, reduction_for, segment_width};
use crate::kernel::geometry::{MAX_TURNS, max_invocations, unit_of};
use crate::kernel::{Access, AdapterClass, Capabilities, Geometry, Problem, Unit};

/// Elements of a row in each invocation that holds it. There are four tensors of as many: x, dy, and the sums for the gradients of
/// weight and bias, so 16 take 64 registers besides what else there is.
const HELD: u32 = 16;
/// The same for workgroups of more than 512, which have 64 registers to an invocation; for devices whose subgroups are all of 64
/// (AMD's GCN), where more leave room for two subgroups only; for elements of 16 bits on devices whose subgroups may be larger still
/// (AMD's RDNA), where the compiler decodes all of them at once, and spills; and for rows of up to 2,048 elements where subgroups may be
/// of 8 (`gpu::is_narrow`).
const TIGHT: u32 = 8;
/// A row shorter than this is not split.
const LONG: u32 = 8192;

/// The backward pass on a GPU: rows are held in registers where they fit. Longer rows are read twice, and rows that are few and long
/// are split.
pub(super) fn on_gpu(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    let (width, rows) = (problem.width(), problem.rows());
    let unit = unit_of(problem);
    let units = width.div_ceil(unit.elements());
    let traits = match capabilities.class {
        AdapterClass::Integrated => gpu::INTEGRATED,
        _ => gpu::DISCRETE,
    };
    let max = gpu::largest_workgroup(capabilities);
    let subgroups = capabilities.subgroups;
    let tight = subgroups.is_some_and(|sizes| sizes.min >= 64);
    let whole = |access, lanes: u32, workgroup: u32| geometry(capabilities, access, lanes, workgroup);

    // Lanes that hold so many elements each; 8 at least where rows are short, so that neighbours touch neighbouring memory.
    let lanes_of = |elements: u32| {
        let turns = (elements / unit.elements()).max(1);
        // A row may begin with half a pair.
        let spare = u32::from(unit == Unit::Pair);
        let short = units.div_ceil(2).next_power_of_two().min(8);
        (units + spare).div_ceil(turns).next_power_of_two().max(short)
    };
    let larger = subgroups.is_some_and(|sizes| sizes.max > sizes.min);
    let narrow = gpu::is_narrow(capabilities);
    let few = tight || !narrow && larger && matches!(unit, Unit::Octet | Unit::Pair);
    let many = lanes_of(if few || narrow { TIGHT } else { HELD });
    // Few rows: latency counts, not bytes.
    let first = if rows < traits.fill { lanes_of(4) } else { many };
    let fits = |&lanes: &u32| {
        let most = if few || lanes > 512 { TIGHT } else { HELD };
        lanes <= if tight { max.min(512) } else { max } && units.div_ceil(lanes) * unit.elements() <= most
    };
    // Before each row the invocations of a workgroup wait for one another, so it is no larger than a subgroup where it need not be.
    let workgroup = subgroups.map_or(traits.workgroup, |sizes| sizes.max);
    let resident: Vec<_> = [first, many, many * 2, lanes_of(HELD)]
        .into_iter()
        .filter(fits)
        .map(|lanes| whole(Access::Held, lanes, workgroup))
        .collect();
    // Twice as many elements to an invocation: where there are registers enough, better than reading a row twice.
    let crowded = Some(lanes_of(2 * HELD)).filter(|&lanes| !few && lanes <= max.min(512));
    let crowded = crowded.map(|lanes| whole(Access::Held, lanes, workgroup));

    let lanes = [256, 64, 512, 1].into_iter().filter(|&lanes| lanes <= max);
    let widest = Some(512).filter(|&lanes| max < lanes && lanes <= max_invocations(capabilities));
    let streaming = lanes.clone().chain(widest).map(|lanes| whole(Access::Reread, lanes, traits.workgroup));
    let split = lanes.map(|lanes| {
        let wanted = (2 * traits.fill).div_ceil(rows.max(1)).clamp(2, 4096) as u32;
        Geometry {
            segment_width: Some(segments(problem, width.div_ceil(wanted).max(4096).min(width.div_ceil(2)), lanes)),
            ..whole(Access::Reread, lanes, traits.workgroup)
        }
    });
    if rows < traits.fill && width >= LONG {
        split.chain(resident).chain(streaming).chain(crowded).collect()
    } else {
        resident.into_iter().chain(streaming).chain(split).chain(crowded).collect()
    }
}

/// The backward pass on a processor: registers are memory, so rows are read twice whatever their width. As in the forward pass each
/// invocation takes rows of its own, or the lanes of a subgroup share one.
pub(super) fn on_cpu(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    // Invocations of a workgroup that takes a row each.
    const GROUP: u32 = 16;
    // A longer row leaves the caches too soon where every invocation has one of its own.
    const OWN_ROW: u32 = 4096;
    let (width, rows) = (problem.width(), problem.rows());
    let cores = u64::from(capabilities.cores.clamp(1, 1 << 16));
    let subgroup = capabilities.subgroups.map(|sizes| sizes.min);
    let group = |lanes: u32| if lanes == 1 { GROUP.min(max_invocations(capabilities)) } else { lanes };
    let whole = |access, lanes: u32| geometry(capabilities, access, lanes, group(lanes));

    let many = rows >= 2 * cores * 4 * u64::from(GROUP);
    let lanes = if width <= OWN_ROW && many { [Some(1), subgroup] } else { [subgroup, Some(1)] }.into_iter().flatten();
    let streaming: Vec<_> = lanes.clone().map(|lanes| whole(Access::Reread, lanes)).collect();
    let split: Vec<_> = lanes
        .map(|lanes| {
            let wanted = (32 * cores).div_ceil(rows.max(1)).clamp(2, 4096) as u32;
            let segment_width = Some(segments(problem, width.div_ceil(wanted), lanes));
            Geometry { segment_width, ..whole(Access::Reread, lanes) }
        })
        .collect();
    let resident = [Some(1), subgroup].into_iter().flatten().map(|lanes| whole(Access::Held, lanes)).collect();
    // What has barriers stands last, for who asks for that strategy.
    let barriers = [64, 256].map(|lanes| whole(Access::Held, lanes)).to_vec();
    // Too few rows to keep every core busy with whole ones.
    let few = rows < 2 * cores * u64::from(if subgroup.is_some() { 1 } else { GROUP });
    let (first, second) = if few && width > OWN_ROW { (split, streaming) } else { (streaming, split) };
    [first, second, resident, barriers].concat()
}

fn geometry(capabilities: &Capabilities, access: Access, lanes: u32, workgroup: u32) -> Geometry {
    let max = 1 << max_invocations(capabilities).max(1).ilog2();
    let (reduction, groups) = reduction_for(lanes, workgroup.max(lanes).min(max), capabilities.subgroups);
    Geometry { access, reduction, lanes, spans_per_lane: 1, spans_per_workgroup: groups, segment_width: None }
}

/// The width of segments of about so many elements, none longer than the longest loop.
fn segments(problem: &Problem, elements: u32, lanes: u32) -> u32 {
    let longest = u64::from(MAX_TURNS / 2) * u64::from(lanes) * u64::from(unit_of(problem).elements());
    let elements = u64::from(elements).min(longest).max(1) as u32;
    segment_width(problem.width(), problem.width().div_ceil(elements), lanes)
}
