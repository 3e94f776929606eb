//! What follows from a geometry in the backward pass: its kernels, and how many walks over the rows they take.
//!
//! Strategy resident is one kernel that holds rows in registers, as it does in the forward pass. Streaming is two: one finds out what
//! the gradient of each row takes from the row as a whole, the other walks over the rows by column. Split puts a third between them,
//! because the first has cut the rows into segments. Before them, the forward pass's kernels measure the rows, where the statistics
//! are not given; after them, one adds up what the walks have left for the gradients of scale, shift and gate, condition by condition,
//! and one for those of weight and bias.

use super::geometry::{kernels, max_invocations, only_read, slots_of};
use super::{
    Access, AdapterClass, Capabilities, ColumnSums, Entry, Kernel, Modulation, Normalization, Place, Problem,
    Reduction, Role, Slot, Unit, ranking,
};
use crate::{Error, StorageType};

/// Scratch memory for the sums of all walks, and that for the rows of a chunk, in bytes. The former is exceeded only where the
/// sums of a single walk are longer.
const SCRATCH_BYTES: u64 = 32 << 20;

/// The most rows of a walk: so many terms are added up without looking after what they lose to rounding.
const MAX_WALK: u32 = 512;

/// Rows that each walk should have before a workgroup takes more walks.
const SHORT_WALK: u64 = 8;

/// The most turns of all loops of an invocation together, below where llvmpipe ends them (see [`super::MAX_TURNS`]).
const MAX_WALK_TURNS: u32 = 60_000;

/// The most walks: one invocation may add up what all of them have left, twice.
const MAX_WALKS: u64 = MAX_WALK_TURNS as u64 / 2;

/// The kernels of a backward pass, in the order in which they run; `kernel` is what the geometry makes of the problem.
pub(super) fn gradient_kernels(
    problem: &Problem,
    capabilities: &Capabilities,
    kernel: Kernel,
) -> Result<Vec<Kernel>, Error> {
    check_access(&kernel)?;
    let refuse = |reason: &str| Err(Error::Geometry { reason: reason.into() });
    let is_held = kernel.access == Access::Held;
    let causal = problem.sequence_rows().is_some();
    if causal && is_held {
        return refuse("rows are not held in the backward pass of causal layer normalization; Reread would do");
    }
    if problem.channel_gradients().is_some() && is_held {
        return refuse(
            "rows are not held where positions share weight and bias, whose gradients are asked for; Reread would do",
        );
    }
    let mut all = Vec::new();
    if causal {
        all.extend(super::causal::measuring_kernels(problem, capabilities, kernel)?);
    } else if !problem.has_statistics()? {
        all.extend(statistics_kernels(problem, capabilities)?);
    }
    // A statistic that is not given is read from where the kernels before have left it.
    let statistic = |role: Role| {
        let measured = !causal && (role == Role::Rstd || problem.statistics().layout(role).is_some());
        let slot = Slot { storage: StorageType::F32, place: Place::Own };
        kernel.slot(role).or(measured.then_some(slot))
    };
    let mut kernel = kernel;
    for role in [Role::Mean, Role::Rstd] {
        kernel.slots[role as usize] = statistic(role);
    }
    if is_held {
        all.push(Kernel { entry: Entry::Gradient, slots: without(&kernel, &OF_PARAMETERS), ..kernel });
        all.extend(added_up(problem, capabilities, &kernel));
        return Ok(all);
    }
    all.extend(row_sum_kernels(&kernel));
    if causal {
        all.extend(super::causal::gradient_scans(problem, capabilities, kernel));
    }
    all.extend(column_kernels(problem, capabilities, &kernel)?);
    Ok(all)
}

/// The kernels that find the sums over parts of rows, of which the moments are given.
pub(super) fn gradient_sum_kernels(kernel: Kernel) -> Result<Vec<Kernel>, Error> {
    check_reread(&kernel)?;
    Ok(row_sum_kernels(&kernel))
}

/// The kernels that find the gradients of parts of rows, of which the moments and the sums of whole rows are given.
pub(super) fn given_gradient_kernels(
    problem: &Problem,
    capabilities: &Capabilities,
    kernel: Kernel,
) -> Result<Vec<Kernel>, Error> {
    check_reread(&kernel)?;
    let workgroup = 1_u32 << 64.min(max_invocations(capabilities)).max(1).ilog2();
    let coefficients = Kernel {
        entry: Entry::GradientCoefficients,
        unit: Unit::Scalar,
        reduction: Reduction::Lane,
        normalization: Normalization::default(),
        zero_centred_weight: false,
        conditions: false,
        rows_first: false,
        column_sums: ColumnSums::default(),
        slots: only_read(&kernel, &[Role::Moments, Role::GradientSums]),
        // It has none of the row's elements.
        width: 1,
        segment_width: 1,
        lanes: 1,
        spans_per_workgroup: workgroup,
        subgroup_size: 0,
        ..kernel
    };
    let mut all = vec![coefficients];
    all.extend(column_kernels(problem, capabilities, &kernel)?);
    Ok(all)
}

/// That the backward pass takes rows as this kernel does.
fn check_access(kernel: &Kernel) -> Result<(), Error> {
    let refuse = |reason: &str| Err(Error::Geometry { reason: reason.into() });
    if matches!(kernel.access, Access::Partly { .. }) {
        return refuse("rows are not partly held in the backward pass; Held or Reread would do");
    }
    if kernel.access == Access::Held && kernel.segments() > 1 {
        return refuse("segments are not held in the backward pass; Reread would do");
    }
    if kernel.spans_per_lane > 1 {
        return refuse("an invocation takes several spans at once in the backward pass; 1 span a lane would do");
    }
    Ok(())
}

/// The same, where rows are parts of others.
fn check_reread(kernel: &Kernel) -> Result<(), Error> {
    if kernel.access == Access::Held {
        let reason = "rows that are parts of others are not held in the backward pass; Reread would do";
        return Err(Error::Geometry { reason: reason.into() });
    }
    check_access(kernel)
}

/// What the kernels that walk over rows have nothing to do with.
const OF_PARAMETERS: [Role; 6] = [
    Role::Bias,
    Role::WeightGradient,
    Role::BiasGradient,
    Role::ScaleGradient,
    Role::ShiftGradient,
    Role::GateGradient,
];

/// What is known of rows as a whole.
const OF_ROWS: [Role; 4] = [Role::Mean, Role::Rstd, Role::Moments, Role::GradientSums];

/// The tensors of a kernel but for these.
fn without(kernel: &Kernel, roles: &[Role]) -> [Option<Slot>; Role::ALL.len()] {
    Role::ALL.map(|role| kernel.slot(role).filter(|_| !roles.contains(&role)))
}

/// The kernels that find what the gradient of each row takes from the row as a whole, or of a part of a row its sums.
fn row_sum_kernels(kernel: &Kernel) -> Vec<Kernel> {
    let is_split = kernel.segments() > 1;
    let mut read = vec![
        Role::Input,
        Role::Residual,
        Role::Gate,
        Role::Weight,
        Role::Scale,
        Role::OutputGradient,
        Role::Mean,
        Role::Rstd,
        Role::Moments,
    ];
    // Which kernel of these writes the sums of parts, and so binds what shares their buffer for writing too.
    let writes_sums = kernel.slot(Role::GradientSums).is_some();
    let slots = |roles: &[Role], is_last: bool| match writes_sums && is_last {
        true => slots_of(kernel, roles),
        false => only_read(kernel, roles),
    };
    if !is_split {
        read.push(Role::GradientSums);
    }
    let sums = Kernel {
        entry: Entry::GradientSums,
        unit: kernel.unit.read_only(),
        column_sums: ColumnSums::default(),
        slots: slots(&read, !is_split),
        ..*kernel
    };
    if !is_split || kernel.causal {
        return vec![sums];
    }
    let merge = Kernel {
        entry: Entry::GradientMerge,
        unit: Unit::Scalar,
        zero_centred_weight: false,
        column_sums: ColumnSums::default(),
        slots: slots(&OF_ROWS, true),
        ..*kernel
    };
    vec![sums, merge]
}

/// The kernels that walk over the rows, of which it is known what their gradients take from each as a whole, and those that add up what
/// the walks leave.
fn column_kernels(problem: &Problem, capabilities: &Capabilities, kernel: &Kernel) -> Result<Vec<Kernel>, Error> {
    let mut all = Vec::new();
    if let Some(channels) = problem.channel_gradients() {
        let samples = problem.rows() / u64::from(channels[0]);
        if samples > u64::from(MAX_WALK_TURNS) {
            let reason = "the gradients of channels are added up over at most 60,000 samples at once";
            return Err(Error::Geometry { reason: reason.into() });
        }
        // Before the gradient by the input, which may take the place of what the sums are made of.
        all.push(channel_sums(capabilities, kernel, channels));
    }
    let slots = without(kernel, &[&OF_PARAMETERS[..], &OF_ROWS].concat());
    all.push(columns(capabilities, Kernel { entry: Entry::GradientColumns, slots, ..*kernel }));
    all.extend(added_up(problem, capabilities, kernel));
    Ok(all)
}

/// The kernels that add up what those before have left for the gradients that are sums over rows.
fn added_up(problem: &Problem, capabilities: &Capabilities, kernel: &Kernel) -> Vec<Kernel> {
    let channels = problem.channel_gradients();
    let of_conditions = [Role::ScaleGradient, Role::ShiftGradient, Role::GateGradient];
    let is_scaled = kernel.slot(Role::ScaleGradient).is_some() && kernel.modulation == Modulation::Adaptive;
    let read: &[Role] = if is_scaled { &[Role::Weight, Role::Bias] } else { &[] };
    let of_conditions = Some([&of_conditions, read].concat()).filter(|roles| has_sum(kernel, roles));
    let of_parameters = [Role::WeightGradient, Role::BiasGradient];
    // Of no rows nothing counts, and there may be no scale to bind.
    let is_scaled = kernel.modulation == Modulation::Adaptive && problem.rows() > 0;
    let read: &[Role] = if is_scaled { &[Role::Scale] } else { &[] };
    let of_parameters = Some([&of_parameters, read].concat()).filter(|roles| has_sum(kernel, roles));
    let added_up = |entry, roles: &Vec<Role>| match channels {
        Some(channels) => channels_added_up(capabilities, kernel, channels, entry, roles),
        None => sums(problem, capabilities, kernel, entry, roles),
    };
    let (by_condition, by_parameter) = match channels {
        Some(_) => (Entry::GradientChannelConditions, Entry::GradientChannels),
        None => (Entry::GradientConditions, Entry::GradientParameters),
    };
    let of_conditions = of_conditions.map(|roles| added_up(by_condition, &roles));
    let of_parameters = of_parameters.map(|roles| added_up(by_parameter, &roles));
    of_conditions.into_iter().chain(of_parameters).collect()
}

/// The forward pass's kernels for the statistics of the rows, by the geometry that ranks first.
fn statistics_kernels(problem: &Problem, capabilities: &Capabilities) -> Result<Vec<Kernel>, Error> {
    let statistics = problem.statistics();
    let mut last = Err(Error::Geometry { reason: "no geometry measures the rows".into() });
    for geometry in ranking::candidates(&statistics, capabilities) {
        last = kernels(&statistics, capabilities, geometry);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// The kernel that walks over the rows by column: no invocation waits for another, so its lanes need not be those of a row.
fn columns(capabilities: &Capabilities, kernel: Kernel) -> Kernel {
    let unit = kernel.unit.elements();
    let units = kernel.width.div_ceil(unit);
    let max = max_invocations(capabilities);
    // Elements of an invocation, and invocations of a workgroup. On a processor each access costs alike, so that those of a row's
    // coefficients had better be shared by many elements; on a GPU registers for three numbers a column are what counts.
    let (elements, workgroup) = match capabilities.class {
        AdapterClass::Cpu => (32, 8),
        _ => (8, 256),
    };
    let workgroup = 1_u32 << workgroup.min(max).max(1).ilog2();
    let turns = (elements / unit).max(1);
    // A row may begin with half a pair.
    let extra = u32::from(kernel.unit == Unit::Pair);
    let lanes = (units + extra).div_ceil(turns).next_power_of_two().min(workgroup);
    let columns = lanes * turns * unit;
    let segment_width = if columns >= kernel.width + extra { kernel.width } else { columns };
    let walks = if segment_width == kernel.width { workgroup / lanes } else { 1 };
    // What they leave goes into one binding, with a place for the sum of them all.
    let room = (capabilities.max_binding_bytes / sum_bytes(&kernel).max(1)).saturating_sub(1).clamp(1, walks.into());
    let walks = 1 << room.ilog2();
    Kernel {
        access: Access::Reread,
        reduction: Reduction::Lane,
        rows_first: false,
        segment_width,
        lanes,
        spans_per_lane: 1,
        spans_per_workgroup: walks,
        subgroup_size: 0,
        ..kernel
    }
}

/// Whether a kernel has one of these tensors that is added up over rows.
fn has_sum(kernel: &Kernel, roles: &[Role]) -> bool {
    roles.iter().any(|role| role.is_sum() && kernel.slot(*role).is_some())
}

/// The kernel that adds up over positions what the gradients of channels rest on, where positions share their parameters.
fn channel_sums(capabilities: &Capabilities, kernel: &Kernel, [_, _, positions]: [u32; 3]) -> Kernel {
    let max = 1_u32 << max_invocations(capabilities).max(1).ilog2();
    let unit = if positions.is_multiple_of(kernel.unit.elements()) { kernel.unit } else { Unit::Scalar };
    let units = positions / unit.elements();
    // On a processor, one invocation for each channel, unless its loop would be too long.
    let (lanes, workgroup) = match capabilities.class {
        AdapterClass::Cpu => (units.div_ceil(super::MAX_TURNS), 16),
        _ => (units.div_ceil(8).min(256).max(units.div_ceil(super::MAX_TURNS)), 256),
    };
    let lanes = lanes.next_power_of_two().min(max);
    let workgroup = workgroup.min(max).max(lanes);
    Kernel {
        entry: Entry::GradientChannelSums,
        unit,
        access: Access::Reread,
        reduction: if lanes == 1 { Reduction::Lane } else { Reduction::Workgroup },
        // x̂ is got from the rows' coefficients, in which RMS normalization has a mean of 0.
        normalization: Normalization::LayerNorm,
        zero_centred_weight: false,
        conditions: kernel.slot(Role::Gate).is_some(),
        slots: only_read(kernel, &[Role::Input, Role::Residual, Role::Gate, Role::OutputGradient]),
        segment_width: positions,
        lanes,
        spans_per_lane: 1,
        spans_per_workgroup: workgroup / lanes,
        subgroup_size: 0,
        rows_first: false,
        ..*kernel
    }
}

/// A kernel that adds up these sums over rows, and has these tensors.
fn channels_added_up(
    capabilities: &Capabilities,
    kernel: &Kernel,
    [groups, of_group, _]: [u32; 3],
    entry: Entry,
    roles: &[Role],
) -> Kernel {
    let max = 1_u32 << max_invocations(capabilities).max(1).ilog2();
    let slots = slots_of(kernel, roles);
    Kernel {
        entry,
        unit: Unit::Scalar,
        access: Access::Reread,
        reduction: Reduction::Lane,
        normalization: Normalization::LayerNorm,
        zero_centred_weight: kernel.zero_centred_weight && slots[Role::Weight as usize].is_some(),
        conditions: false,
        rows_first: false,
        grid: None,
        slots,
        width: groups * of_group,
        segment_width: of_group,
        lanes: 1,
        spans_per_lane: 1,
        spans_per_workgroup: 64.min(max),
        subgroup_size: 0,
        ..*kernel
    }
}

/// A kernel that adds up what the walks have left, and has these tensors.
fn sums(problem: &Problem, capabilities: &Capabilities, kernel: &Kernel, entry: Entry, roles: &[Role]) -> Kernel {
    let divides = |count: u64| count.is_multiple_of(Unit::Vector.elements().into());
    let fits = |role: Role| {
        let stride_fits = |stride: u64| !role.is_condition() || problem.rows_of(role) <= 1 || divides(stride);
        problem.layout(role).is_none_or(|layout| divides(layout.offset) && layout.row_stride.is_none_or(stride_fits))
    };
    let in_grid = problem.grid_of_rows().is_none_or(|grid| grid.divides_parameters(Unit::Vector));
    let is_vector = in_grid && divides(kernel.width.into()) && roles.iter().copied().all(fits);
    let unit = if is_vector { Unit::Vector } else { Unit::Scalar };
    let max = max_invocations(capabilities);
    // On a GPU, lanes enough to fill it where columns are few.
    let (lanes, workgroup) = match capabilities.class {
        AdapterClass::Cpu => (1, 64),
        _ => ((65_536 / (kernel.width / unit.elements())).clamp(1, 256), 256),
    };
    let workgroup = 1_u32 << workgroup.min(max).max(1).ilog2();
    let lanes = (1_u32 << lanes.ilog2()).min(workgroup);
    let slots = slots_of(kernel, roles);
    let slot = |role: Role| slots[role as usize].is_some();
    Kernel {
        entry,
        unit,
        access: Access::Reread,
        reduction: if lanes == 1 { Reduction::Lane } else { Reduction::Workgroup },
        normalization: Normalization::default(),
        zero_centred_weight: kernel.zero_centred_weight && slot(Role::Weight),
        rows_first: false,
        slots,
        segment_width: kernel.width,
        lanes,
        spans_per_lane: 1,
        spans_per_workgroup: workgroup / lanes,
        subgroup_size: 0,
        ..*kernel
    }
}

/// Walks over the rows of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walks {
    /// All of them; 0 where nothing walks.
    pub(super) all: u32,
    /// Those over the rows of one condition; at least 1. All of them where rows belong to no condition.
    pub(super) per_condition: u32,
}

/// Rows that share a condition, as far as walks are concerned; `u64::MAX` where rows belong to none.
pub(super) fn condition_rows(problem: &Problem) -> u64 {
    if problem.has_conditions() { problem.condition_rows() } else { u64::MAX }
}

/// Walks over the rows of a chunk that is as long as a chunk may be: enough to fill the device, none too long. None in a forward pass,
/// and where there are no rows.
pub(super) fn walks(
    problem: &Problem,
    capabilities: &Capabilities,
    kernels: &[Kernel],
    rows: u64,
) -> Result<Walks, Error> {
    let Some(kernel) = kernels.iter().find(|kernel| kernel.entry.walks()).filter(|_| rows > 0) else {
        return Ok(Walks { all: 0, per_condition: 1 });
    };
    let condition_rows = condition_rows(problem).min(rows);
    let conditions = rows.div_ceil(condition_rows);
    // What the walks of a workgroup are, so that none is without rows where there are no conditions.
    let step = if conditions == 1 { walk_step(kernel) } else { pair_step(kernel) };
    let workgroups = ranking::fill(capabilities, kernel.workgroup_size()).div_ceil(kernel.segments().into());
    // Where several walks share a workgroup, each of some rows, or what they leave would be as much as what they read.
    let some = rows.div_ceil(SHORT_WALK).max(workgroups);
    let fill = (workgroups * u64::from(kernel.spans_per_workgroup)).min(some).div_ceil(conditions);
    let needed = condition_rows.div_ceil(longest_walk(kernel));
    let wanted = fill.max(needed).min(condition_rows).max(1).next_multiple_of(step);
    let most = (most_walks(capabilities, kernel) / conditions / step).max(1) * step;
    let per_condition = wanted.min(most);
    let all = (conditions * per_condition).next_multiple_of(walk_step(kernel));
    // The sum of all walks lies behind them, where there are several chunks.
    let carry = u64::from(kernel.conditions && rows < problem.rows());
    let bytes = (all + carry) * sum_bytes(kernel);
    if bytes > capabilities.max_binding_bytes {
        let (width, most) = (kernel.width, capabilities.max_binding_bytes);
        return Err(Error::Geometry {
            reason: format!("the sums of {all} walks over rows of {width} take {bytes} bytes, the device binds {most}"),
        });
    }
    Ok(Walks { all: all as u32, per_condition: per_condition as u32 })
}

/// What the number of walks over the rows of a condition is a multiple of: two where these are to begin in the same half of a word.
fn pair_step(kernel: &Kernel) -> u64 {
    if kernel.unit == Unit::Pair { 2 } else { 1 }
}

/// What the number of all walks is a multiple of: those of a workgroup, and [`pair_step`].
fn walk_step(kernel: &Kernel) -> u64 {
    let step = u64::from(kernel.spans_per_workgroup);
    if step.is_multiple_of(pair_step(kernel)) { step } else { 2 * step }
}

/// Bytes that one walk leaves.
fn sum_bytes(kernel: &Kernel) -> u64 {
    u64::from(kernel.column_sums.count()) * u64::from(kernel.width) * 4
}

/// Walks for which there is scratch memory; always some. One is left out, whose place is for the sum of them all.
fn most_walks(capabilities: &Capabilities, kernel: &Kernel) -> u64 {
    let bytes = SCRATCH_BYTES.min(capabilities.max_binding_bytes);
    let carry = u64::from(kernel.conditions);
    let most = bytes.checked_div(sum_bytes(kernel)).unwrap_or(u64::MAX).saturating_sub(carry).min(MAX_WALKS);
    (most / walk_step(kernel)).max(1) * walk_step(kernel)
}

/// Rows of a walk at most.
fn longest_walk(kernel: &Kernel) -> u64 {
    (MAX_WALK_TURNS / (1 + 3 * kernel.turns())).clamp(1, MAX_WALK).into()
}

/// Rows of a chunk at most, for kernels of the backward pass.
pub(super) fn most_rows(problem: &Problem, capabilities: &Capabilities, kernels: &[Kernel]) -> u64 {
    if !problem.operation().is_backward() {
        return u64::MAX;
    }
    let row_bytes: u64 = super::plan::scratch_of(kernels, 1, 0).iter().map(|(_, bytes)| bytes).sum();
    // A sequence is taken as a whole, whatever it needs, and so are the rows of a grid that belong together.
    let together = match problem.grid_of_rows() {
        Some(grid) if problem.channel_gradients().is_none() => grid.block_rows().unwrap_or(u64::MAX),
        Some(_) => u64::MAX,
        None => problem.sequence_rows().unwrap_or(1),
    };
    let least = together.min(problem.rows()).max(1);
    let by_scratch = SCRATCH_BYTES.checked_div(row_bytes).unwrap_or(u64::MAX).max(least);
    let Some(kernel) = kernels.iter().find(|kernel| kernel.entry.walks()) else { return by_scratch };
    let (walks, rows) = (most_walks(capabilities, kernel), condition_rows(problem));
    // As many conditions as there are walks for, or as many rows of one.
    let walks_of_condition = rows.div_ceil(longest_walk(kernel)).next_multiple_of(pair_step(kernel));
    let by_walks = match walks / walks_of_condition {
        0 => walks.saturating_mul(longest_walk(kernel)),
        conditions => conditions.saturating_mul(rows),
    };
    by_walks.min(by_scratch)
}
