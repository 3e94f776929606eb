use super::{reduction_for, segment_width};
use crate::kernel::geometry::{MAX_TURNS, max_invocations, unit_of};
use crate::kernel::unroll::MOST_TURNS;
use crate::kernel::{Access, Capabilities, Geometry, Problem, Role, Unit};

/// What a class of GPUs has in common.
pub(super) struct Traits {
    /// Workgroups that fill the device.
    pub(super) fill: u64,
    /// Invocations of a workgroup in which several rows lie.
    pub(super) workgroup: u32,
}

/// An H100 has 132 multiprocessors, and four workgroups for each hide its memory's latency. Workgroups of 256 were 4 % faster
/// there than those of 128.
pub(super) const DISCRETE: Traits = Traits { fill: 512, workgroup: 256 };

/// An integrated GPU has 2 to 16 cores, so fewer rows fill it, and rows need not be shared by many lanes, nor split, as soon; its
/// memory is the processor's, so that it waits for bytes rather than for workgroups, and smaller ones leave each invocation more
/// registers. From what such GPUs are; none was at hand.
pub(super) const INTEGRATED: Traits = Traits { fill: 64, workgroup: 128 };

/// Registers (32 bits) of the row in each invocation, where they are as they should be: enough loads are under way, and enough
/// subgroups fit beside each other.
const REGISTERS: u32 = 32;
/// The largest workgroup that has so many registers to an invocation, and others beside.
const RESIDENT: u32 = 512;
/// The largest workgroup that a row is given.
const LARGEST: u32 = 1024;
/// Few rows: latency counts, not bytes. This many units to an invocation, not more.
const FEW: u32 = 4;
/// A row shorter than this is not split: the second pass costs more than one workgroup loses.
const LONG: u32 = 100_000;
const SPLIT_LANES: u32 = 256;

/// The largest workgroup where subgroups may be of 8 or fewer (`is_narrow`).
const NARROW: u32 = 256;

/// The largest workgroup that leaves its invocations registers enough, a power of two.
///
/// Intel's GPUs before Xe2 have registers for 128 numbers to each invocation of a subgroup of 8, for 64 in one of 16, and for 32 in one
/// of 32. A workgroup can have only so many subgroups, so that the compiler has to make those of a large workgroup wide: those of 1,024
/// invocations become subgroups of 16 or 32. Kernels that hold a row in registers then spill, by Mesa's compiler. In workgroups of 256
/// they do not.
pub(super) fn largest_workgroup(capabilities: &Capabilities) -> u32 {
    let max = 1 << max_invocations(capabilities).max(1).ilog2();
    if is_narrow(capabilities) { NARROW.min(max) } else { max }
}

/// Whether subgroups may be of 8 invocations or fewer: on Intel's GPUs before Xe2, whose subgroups are of 8, 16 or 32, and on Metal, where
/// wgpu gives 4 to 64 for every GPU. On Apple's, too, larger workgroups leave each invocation fewer registers; none was at hand.
pub(super) fn is_narrow(capabilities: &Capabilities) -> bool {
    capabilities.subgroups.is_some_and(|sizes| sizes.min <= 8)
}

/// On a GPU: 16 bytes an access, 4 to 16 accesses an invocation, held in registers while the row fits a workgroup's, one workgroup
/// a row that holds a part of it beyond, several workgroups a row where the rows are long and too few to fill the device.
/// It follows what was measured with such kernels on an H100; adapters that are otherwise have `GpuLayerNorm::tune`.
pub(super) fn candidates(problem: &Problem, capabilities: &Capabilities, traits: &Traits) -> Vec<Geometry> {
    let (width, rows) = (problem.width(), problem.rows());
    let unit = unit_of(problem);
    let units = width.div_ceil(unit.elements());
    // 32-bit registers of a unit: compilers decode elements of 16 bits as soon as they have them.
    let of_unit = unit.elements();
    // And as it is held: packed, unless it is the sum with a residual.
    let of_held = match unit {
        Unit::Octet if problem.layout(Role::Residual).is_none() => 4,
        other => other.elements(),
    };
    // A second tensor's loads take registers too.
    let tensors = if problem.layout(Role::Residual).is_some() { 2 } else { 1 };
    let max = largest_workgroup(capabilities);
    let at_most = |turns: u32| units.div_ceil(turns).next_power_of_two();
    let subgroup = capabilities.subgroups.map_or(32, |sizes| sizes.min);
    // Subgroups of 64 and nothing else (AMD's GCN): registers are fewer, and a workgroup of 1,024 makes RADV spill.
    let tight = subgroup >= 64;
    let largest = if tight { RESIDENT } else { LARGEST };
    // Single elements of two tensors have twice as many addresses.
    let addresses = if tight && matches!(unit, Unit::Scalar | Unit::Pair) { tensors } else { 1 };
    // Elements that are stored by twos take the most code, because a word may have to be shared with another row.
    let most_turns = if unit == Unit::Pair { 8 } else { 16 };
    let turns = (REGISTERS / of_unit / tensors / addresses).clamp(1, most_turns);

    let whole = |access, lanes: u32| {
        let (reduction, groups) = reduction_for(lanes, traits.workgroup.max(lanes).min(max), capabilities.subgroups);
        Geometry { access, reduction, lanes, spans_per_lane: 1, spans_per_workgroup: groups, segment_width: None }
    };
    // Very short rows leave a lane less than it could take.
    let many = at_most(turns).max(at_most(2).min(8));
    // One subgroup is worth twice as many registers: no barrier. Not where subgroups may be larger still (AMD's), so that two rows
    // lie in one, and not for eight elements at once: both make the code of such a kernel long.
    let larger = capabilities.subgroups.is_some_and(|sizes| sizes.max > sizes.min);
    let doubled = match unit {
        Unit::Octet => !larger,
        Unit::Vector => true,
        Unit::Pair | Unit::Scalar | Unit::Rows => false,
    };
    let many = if many == 2 * subgroup && doubled && !tight { subgroup } else { many };
    let first = if rows < traits.fill { at_most(FEW).max(many) } else { many };
    let most_registers = |lanes: u32| match lanes {
        _ if tight => REGISTERS / tensors / addresses,
        _ if is_narrow(capabilities) => 2 * REGISTERS / tensors,
        0..=256 => 2 * REGISTERS,
        _ => REGISTERS,
    };
    // A row that only the largest workgroup holds, in turns that are still written out.
    let crowded = Some(largest.min(max)).filter(|&lanes| units.div_ceil(lanes) <= MOST_TURNS);
    let resident: Vec<_> = [first, many, many * 2, many / 2, at_most(FEW)]
        .into_iter()
        .chain(crowded.filter(|_| !tight))
        .filter(|&lanes| {
            0 < lanes
                && lanes <= max
                && (lanes <= RESIDENT || lanes <= largest && units.div_ceil(lanes) * of_unit <= REGISTERS / 2)
        })
        .filter(|&lanes| units.div_ceil(lanes) * of_unit <= most_registers(lanes))
        .map(|lanes| whole(Access::Held, lanes))
        .collect();
    // On GCN a workgroup lies on the four SIMD units of one compute unit. Eight elements of two tensors leave registers for three subgroups
    // on each unit. A workgroup of 512 is two on each, so that no second one fits beside it; of 256, three workgroups fit.
    let largest_partly = if tight && unit == Unit::Octet && tensors > 1 { 256 } else { largest };
    let partly = [largest_partly, RESIDENT, 256, 128, 64].into_iter().filter(|&lanes| lanes <= max).flat_map(|lanes| {
        let of_lane = units.div_ceil(lanes);
        // In units of 16 bytes. A workgroup of 1,024 has 64 registers to an invocation in all, of which a residual's loads take some.
        // Elements one by one take more code each, and all of it should fit an instruction cache beside what else runs.
        let registers = if tight {
            if of_unit > of_held { 1 } else { 2 / tensors }
        } else if of_unit == 1 {
            4 / tensors
        } else if lanes <= RESIDENT && of_unit <= 4 {
            if is_narrow(capabilities) { 8 / tensors } else { 8 }
        } else if of_lane * of_held <= 32 || of_held == 8 || tensors == 2 {
            4
        } else {
            6
        };
        let shared = [2, 0]
            .map(|shared| Access::Partly { registers: (registers * 4 / of_held).max(1), shared: shared * 4 / of_held });
        shared.map(|access| Geometry { spans_per_workgroup: 1, ..whole(access, lanes) })
    });
    // The widest rows need the largest workgroup there is, however few its registers.
    let widest = Some(LARGEST).filter(|&lanes| max < lanes && lanes <= max_invocations(capabilities));
    let streaming = [LARGEST, 256, 64, 1].into_iter().filter(|&lanes| lanes <= max).chain(widest);
    let streaming = streaming.map(|lanes| whole(Access::Reread, lanes));
    let split = [SPLIT_LANES, 128, 32, 8].into_iter().filter(|&lanes| lanes <= max).flat_map(|lanes| {
        let wanted = traits.fill.div_ceil(rows.max(1)).max(2) as u32;
        let longest = turns * lanes * unit.elements();
        // Segments that a workgroup holds in registers, but not more of them than do good.
        let segments = wanted.max(width.div_ceil(longest)).min((width / 4096).max(2));
        // None longer than the longest loop.
        let needed = width.div_ceil(MAX_TURNS * lanes * unit.elements());
        let segment_width = segment_width(width, segments.max(needed), lanes);
        [Access::Held, Access::Reread]
            .map(|access| Geometry { segment_width: Some(segment_width), ..whole(access, lanes) })
    });
    // On GCN it leaves registers for two subgroups only, so it stands last.
    let crowded = crowded.filter(|&lanes| tight && units.div_ceil(lanes) * of_unit <= REGISTERS);
    let crowded = crowded.map(|lanes| whole(Access::Held, lanes));
    if width > LONG && rows < traits.fill / 4 {
        split.chain(resident).chain(partly).chain(streaming).chain(crowded).collect()
    } else {
        resident.into_iter().chain(partly).chain(streaming).chain(split).chain(crowded).collect()
    }
}
