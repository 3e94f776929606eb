use std::fmt;
use std::str::FromStr;

use super::backward::{given_gradient_kernels, gradient_kernels, gradient_sum_kernels};
use super::causal::causal_kernels;
use super::{
    Access, AdapterClass, Capabilities, ColumnSums, Dialect, Entry, Grid, Kernel, Layout, Modulation, Operation, Place,
    Problem, Reduction, Role, Slot, Unit,
};
use crate::{Error, StorageType};

/// The most turns that a plan lets loops over a span take, those over all spans of an invocation together.
///
/// Mesa's llvmpipe ends an invocation's loops, all taken together, after 65,534 turns and goes on with a wrong result (22.3:
/// of two loops of 40,000 turns the second ran 25,534). It goes through both arms of a branch: a row is measured, measured again in
/// four rounds, and gone over twice to normalize it. That is seven times this and what outer loops add, and not eight.
pub const MAX_TURNS: u32 = 8192;

/// The same where four rows are taken at once, whose outer loops add more.
const MAX_TURNS_OF_ROWS: u32 = 6144;

/// The most segments of a row that one invocation merges; six loops over them and one over the span stay below 65,534.
pub(super) const MAX_MERGE_TURNS: u32 = 4096;

/// Rows that one invocation takes at most where they lie side by side.
pub(super) const MOST_ROWS: u32 = 32;

/// Elements that one invocation may hold in registers.
const MAX_HELD: u64 = 128;

/// A segment is a multiple of this many elements for each lane, the largest unit.
pub(super) const SEGMENT_STEP: u32 = 8;

/// How the rows are worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// A row is read once and held in registers.
    Resident,
    /// A row is read once, but for what a workgroup cannot hold of it.
    PartlyResident,
    /// A row is read again in each pass over it, from cache.
    Streaming,
    /// A row is cut into segments that are measured apart, then merged and normalized in a second pass.
    Split,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resident => "resident",
            Self::PartlyResident => "partly-resident",
            Self::Streaming => "streaming",
            Self::Split => "split",
        })
    }
}

/// How a plan divides the work among invocations. All else in the plan follows from this, the problem and the device.
///
/// A span is what the invocations that share a sum work on together: a whole row, or one segment of it where rows are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Registers or memory. In strategy split, for the first pass; the second always reads from memory.
    pub access: Access,
    /// Sums across invocations.
    pub reduction: Reduction,
    /// Invocations that share a span; a power of two.
    pub lanes: u32,
    /// Spans that one invocation takes part in, so that it reads weight and bias once for all of them: 1, 2 or 4; up to 32 where it has
    /// whole rows to itself that lie side by side in memory (channels first); 1 where rows are split and in the backward pass.
    pub spans_per_lane: u32,
    /// Spans in a workgroup, a multiple of `spans_per_lane`.
    pub spans_per_workgroup: u32,
    /// Elements of a segment, a multiple of 8 · lanes; `None` leaves rows whole.
    pub segment_width: Option<u32>,
}

impl Geometry {
    /// The strategy that this geometry belongs to.
    pub const fn strategy(&self) -> Strategy {
        match (self.segment_width, self.access) {
            (Some(_), _) => Strategy::Split,
            (None, Access::Held) => Strategy::Resident,
            (None, Access::Partly { .. }) => Strategy::PartlyResident,
            (None, Access::Reread) => Strategy::Streaming,
        }
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width } = self;
        write!(
            f,
            "{access} {reduction:?} {lanes} {spans_per_lane} {spans_per_workgroup} {}",
            segment_width.unwrap_or(0)
        )
    }
}

impl FromStr for Geometry {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes: access (`Held`, `Reread`, or `Partly` with the units in registers and in
    /// workgroup memory, as `Partly4+2`), reduction, lanes, spans a lane, spans a workgroup, segment width or
    /// 0, with a space between them. Whether a device can run it is [`Plan::with_geometry`](super::Plan::with_geometry)'s to say.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let words: Vec<_> = text.split(' ').collect();
            let [access, reduction, numbers @ ..] = words.as_slice() else { return None };
            let numbers = numbers.iter().map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()?;
            let [lanes, spans_per_lane, spans_per_workgroup, segment_width] = numbers.try_into().ok()?;
            let access = match access.strip_prefix("Partly").and_then(|numbers| numbers.split_once('+')) {
                Some((registers, shared)) => {
                    Access::Partly { registers: registers.parse().ok()?, shared: shared.parse().ok()? }
                }
                None => [Access::Held, Access::Reread].into_iter().find(|it| it.to_string() == *access)?,
            };
            let reductions =
                [Reduction::Lane, Reduction::Subgroup, Reduction::SubgroupThenWorkgroup, Reduction::Workgroup];
            let reduction = reductions.into_iter().find(|it| format!("{it:?}") == *reduction)?;
            let segment_width = (segment_width > 0).then_some(segment_width);
            Some(Self { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width })
        };
        parse().ok_or_else(|| Error::Geometry {
            reason: format!("\"{text}\" is none; one would be \"Held Subgroup 32 1 4 0\""),
        })
    }
}

/// Invocations in a workgroup. No device has more than 2^16; a larger number would only overflow.
pub(super) fn max_invocations(capabilities: &Capabilities) -> u32 {
    capabilities.max_invocations_per_workgroup.min(1 << 16)
}

/// That the capabilities are some that a device may have: they may be hand-made.
pub(super) fn check_capabilities(capabilities: &Capabilities) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Geometry { reason });
    let Capabilities { subgroups, storage_offset_alignment: alignment, .. } = *capabilities;
    if capabilities.max_workgroups_per_dimension == 0 {
        return refuse("the device allows no workgroups in a dispatch".into());
    }
    if !alignment.is_power_of_two() || alignment > 1 << 16 {
        return refuse(format!(
            "bindings begin at multiples of {alignment} bytes; a power of two up to 65536 would do"
        ));
    }
    match subgroups.filter(|sizes| !sizes.is_usable()) {
        Some(sizes) => refuse(format!("{sizes:?}; powers of two from 4 to 128 would do, or None")),
        None => Ok(()),
    }
}

/// The kernels of a geometry, in the order in which they run, each of them fit for the device.
pub(super) fn kernels(
    problem: &Problem,
    capabilities: &Capabilities,
    geometry: Geometry,
) -> Result<Vec<Kernel>, Error> {
    for (what, needs) in [
        (Role::Gate, Role::Residual),
        (Role::ResidualGradient, Role::Residual),
        (Role::GateGradient, Role::Gate),
        (Role::ScaleGradient, Role::Scale),
    ] {
        if problem.layout(what).is_some() && problem.layout(needs).is_none() {
            return Err(Error::Needs { what: what.name(), needs: needs.name() });
        }
    }
    if problem.layout(Role::State).is_some() && problem.sequence_rows().is_none() {
        return Err(Error::Needs { what: Role::State.name(), needs: "causal normalization" });
    }
    if problem.sequence_rows().is_some() && problem.operation().is_of_parts() {
        return Err(Error::Parts { what: "causal normalization" });
    }
    let kernel = first_kernel(problem, capabilities, geometry)?;
    let mut kernels = match problem.operation() {
        Operation::Forward if problem.sequence_rows().is_some() => {
            causal_kernels(problem, capabilities, geometry, kernel)?
        }
        Operation::Forward | Operation::Moments => forward_kernels(kernel, geometry),
        Operation::Normalize => vec![known_kernel(kernel)?],
        Operation::Backward => gradient_kernels(problem, capabilities, kernel)?,
        Operation::GradientSums => gradient_sum_kernels(kernel)?,
        Operation::Gradients => given_gradient_kernels(problem, capabilities, kernel)?,
    };
    for kernel in &mut kernels {
        kernel.forget_what_does_not_matter();
        let f16 = |written| {
            let is_f16 = |role: Role| kernel.slot(role).is_some_and(|slot| slot.storage == StorageType::F16);
            Role::ALL.into_iter().any(|role| kernel.writes(role) == written && is_f16(role))
        };
        (kernel.unpack_f16, kernel.pack_f16) =
            (capabilities.exact_unpack_f16 && f16(false), capabilities.exact_pack_f16 && f16(true));
        check_kernel(kernel, capabilities)?;
    }
    check_storage_buffers(&kernels, capabilities).map_err(|error| {
        // Whether another strategy needs fewer: rows that are not split, and backward those that are not held.
        let is_held = problem.operation().is_backward() && geometry.access == Access::Held;
        if geometry.segment_width.is_some() || is_held { Error::Geometry { reason: error.to_string() } } else { error }
    })?;
    Ok(kernels)
}

/// That no kernel binds more storage buffers than the device allows.
pub(super) fn check_storage_buffers(kernels: &[Kernel], capabilities: &Capabilities) -> Result<(), Error> {
    // All but the `Params` block.
    let needed = kernels.iter().map(|kernel| kernel.bindings().len() - 1).max().unwrap_or(0) as u64;
    let actual = u64::from(capabilities.max_storage_buffers);
    if needed > actual {
        return Err(Error::DeviceTooSmall { what: "storage buffers a shader", needed, actual });
    }
    Ok(())
}

/// The kernel that the others of a geometry follow from.
fn first_kernel(problem: &Problem, capabilities: &Capabilities, geometry: Geometry) -> Result<Kernel, Error> {
    let refuse = |reason: String| Err(Error::Geometry { reason });
    let Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width } = geometry;
    if !lanes.is_power_of_two() {
        return refuse(format!("{lanes} lanes; a power of two would do"));
    }
    let most_spans_per_lane = match segment_width {
        Some(_) => 1,
        None if access == Access::Reread && lanes == 1 && divides_rows(problem) => MOST_ROWS,
        None => 4,
    };
    if !spans_per_lane.is_power_of_two() || spans_per_lane > most_spans_per_lane {
        return refuse(format!("{spans_per_lane} spans a lane; a power of two up to {most_spans_per_lane} would do"));
    }
    if spans_per_workgroup == 0 || !spans_per_workgroup.is_multiple_of(spans_per_lane) {
        return refuse(format!(
            "{spans_per_workgroup} spans a workgroup; a multiple of the {spans_per_lane} spans a lane would do"
        ));
    }
    let max = max_invocations(capabilities);
    if lanes.checked_mul(spans_per_workgroup / spans_per_lane).is_none_or(|size| size > max) {
        return refuse(format!(
            "{lanes} lanes × {spans_per_workgroup} spans, {spans_per_lane} a lane, is over {max} invocations a workgroup"
        ));
    }
    let fits = match (reduction, capabilities.subgroups) {
        (Reduction::Lane, _) => lanes == 1,
        (Reduction::Workgroup, _) => true,
        (_, None) => false,
        (Reduction::Subgroup, Some(sizes)) => lanes <= sizes.min,
        (Reduction::SubgroupThenWorkgroup, Some(sizes)) => spans_per_workgroup == spans_per_lane && lanes >= sizes.max,
    };
    if !fits {
        return refuse(format!(
            "reduction {reduction:?} does not do for {lanes} lanes and {spans_per_workgroup} spans with subgroups {:?}",
            capabilities.subgroups
        ));
    }
    let whole = |segment_width: u32| {
        segment_width == 0 || !segment_width.is_multiple_of(SEGMENT_STEP * lanes) || segment_width >= problem.width()
    };
    if segment_width.is_some_and(whole) {
        return refuse(format!(
            "segments of {segment_width:?} elements must be a multiple of {} and below the width {}",
            SEGMENT_STEP * lanes,
            problem.width()
        ));
    }
    let kernel = Kernel {
        access,
        reduction,
        segment_width: segment_width.unwrap_or(problem.width()),
        lanes,
        spans_per_lane,
        spans_per_workgroup,
        rows_first: matches!(reduction, Reduction::Workgroup)
            && problem.grid_of_rows().is_some_and(Grid::has_rows_side_by_side),
        subgroup_size: match (reduction, capabilities.subgroups) {
            (Reduction::SubgroupThenWorkgroup, Some(sizes)) => sizes.min,
            _ => 0,
        },
        dialect: capabilities.dialect,
        // A browser does not tell a processor from a GPU.
        written_out: capabilities.class != AdapterClass::Cpu && capabilities.dialect != Dialect::Browser,
        ..plain_kernel(problem)?
    };
    let kernel = match geometry {
        Geometry { access: Access::Reread, lanes: 1, spans_per_lane: 4.., .. } if divides_rows(problem) => {
            Kernel { unit: Unit::Rows, rows_first: false, ..kernel }
        }
        _ => kernel,
    };
    if let Access::Partly { registers, shared } = access {
        if segment_width.is_some() || spans_per_workgroup != 1 {
            return refuse("a row is partly held by a whole workgroup or not at all".into());
        }
        if registers == 0 || u64::from(registers) + u64::from(shared) >= u64::from(kernel.turns()) {
            return refuse(format!(
                "{registers} units in registers and {shared} in workgroup memory; at least 1 and fewer than the {} of an \
                 invocation would do",
                kernel.turns()
            ));
        }
    }
    if spans_per_lane > 1 && problem.grid_of_rows().is_some_and(Grid::has_parameters_by_row) {
        return refuse(format!(
            "{spans_per_lane} spans a lane share their parameters; 1 would do for rows that do not"
        ));
    }
    if kernel.conditions && !problem.condition_rows().is_multiple_of(spans_per_lane.into()) {
        return refuse(format!(
            "{spans_per_lane} spans a lane share a condition; a divisor of {} rows a condition would do",
            problem.condition_rows()
        ));
    }
    if kernel.unit == Unit::Pair {
        if spans_per_lane > 1 {
            return refuse(format!(
                "{spans_per_lane} spans a lane; where words of two elements are stored, 1 would do"
            ));
        }
        let is_even = match access {
            Access::Partly { registers, shared } => registers.is_multiple_of(2) && shared.is_multiple_of(2),
            Access::Held | Access::Reread => true,
        };
        if !is_even {
            return refuse(format!("{access}; where words of two elements are stored, even numbers would do"));
        }
    }
    Ok(kernel)
}

fn forward_kernels(kernel: Kernel, geometry: Geometry) -> Vec<Kernel> {
    if geometry.segment_width.is_none() {
        return vec![kernel];
    }
    let partial = Kernel { entry: Entry::Partial, unit: kernel.unit.read_only(), ..measuring(kernel) };
    vec![partial, Kernel { entry: Entry::Merge, access: Access::Reread, ..kernel }]
}

/// The kernel that normalizes rows of which the moments are given. Each segment of a row is on its own.
fn known_kernel(kernel: Kernel) -> Result<Kernel, Error> {
    if kernel.access != Access::Reread {
        let reason = format!("{}; rows whose moments are given are read once, Reread would do", kernel.access);
        return Err(Error::Geometry { reason });
    }
    Ok(Kernel { entry: Entry::NormalizeKnown, ..kernel })
}

/// These tensors of a kernel, for one that gets at them as it does.
pub(super) fn slots_of(kernel: &Kernel, roles: &[Role]) -> [Option<Slot>; Role::ALL.len()] {
    Role::ALL.map(|role| kernel.slot(role).filter(|_| roles.contains(&role)))
}

/// A kernel that measures rows, without what has no part in that.
pub(super) fn measuring(kernel: Kernel) -> Kernel {
    Kernel {
        zero_centred_weight: false,
        modulation: Modulation::default(),
        conditions: kernel.slot(Role::Gate).is_some(),
        causal: false,
        slots: only_read(&kernel, &[Role::Input, Role::Residual, Role::Gate]),
        ..kernel
    }
}

/// These tensors of a kernel, for one that writes none of them: what a pass does not depend on is left out of its key.
pub(super) fn only_read(kernel: &Kernel, roles: &[Role]) -> [Option<Slot>; Role::ALL.len()] {
    let read = |role| kernel.slot(role).map(|slot| Slot { place: Place::Own, ..slot });
    Role::ALL.map(|role| if roles.contains(&role) { read(role) } else { None })
}

/// That a device can run a kernel, which need not have been made for it.
pub(super) fn check_kernel(kernel: &Kernel, capabilities: &Capabilities) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Geometry { reason });
    // What the kernel does without, the device may have.
    let dialect = !kernel.uses_subgroups() || kernel.dialect == capabilities.dialect;
    let f16 =
        (!kernel.unpack_f16 || capabilities.exact_unpack_f16) && (!kernel.pack_f16 || capabilities.exact_pack_f16);
    let subgroups = match (kernel.reduction, capabilities.subgroups) {
        (Reduction::Lane | Reduction::Workgroup, _) => true,
        (_, None) => false,
        (Reduction::Subgroup, Some(sizes)) => kernel.lanes <= sizes.min,
        (Reduction::SubgroupThenWorkgroup, Some(sizes)) => {
            kernel.subgroup_size <= sizes.min && kernel.lanes >= sizes.max
        }
    };
    if !dialect || !f16 || !subgroups {
        return refuse(format!(
            "its WGSL is not for this device: dialect {:?}, exact unpack2x16float {}, exact pack2x16float {}, subgroups {:?}",
            capabilities.dialect, capabilities.exact_unpack_f16, capabilities.exact_pack_f16, capabilities.subgroups
        ));
    }
    let (size, most) = (kernel.workgroup_size(), max_invocations(capabilities));
    if size > most {
        return refuse(format!("{size} invocations a workgroup, the device has {most}"));
    }
    // Four rows at once are gone over in one loop.
    let loops = if kernel.unit == Unit::Rows { kernel.spans_per_lane / 4 } else { kernel.spans_per_lane };
    let turns = u64::from(kernel.turns()) * u64::from(loops);
    let tensors = if kernel.entry == Entry::Gradient { 2 + kernel.column_sums.count() } else { 1 };
    let held = match kernel.access {
        Access::Held => turns,
        Access::Partly { registers, .. } => registers.into(),
        Access::Reread => 0,
    } * u64::from(kernel.unit.elements() * tensors);
    if held > MAX_HELD {
        return refuse(format!("an invocation would hold {held} elements, it can hold {MAX_HELD}"));
    }
    let most_turns = if kernel.unit == Unit::Rows { MAX_TURNS_OF_ROWS } else { MAX_TURNS };
    if turns > u64::from(most_turns) {
        return refuse(format!(
            "loops of {turns} turns over {} spans, the most is {most_turns}",
            kernel.spans_per_lane
        ));
    }
    let merges = !kernel.entry.walks() && !kernel.entry.is_of_channels();
    if merges && kernel.segments().div_ceil(kernel.lanes) > MAX_MERGE_TURNS {
        return refuse(format!(
            "{} segments for {} lanes, the most a lane is {MAX_MERGE_TURNS}",
            kernel.segments(),
            kernel.lanes
        ));
    }
    if kernel.workgroup_storage() > capabilities.max_workgroup_storage {
        return refuse(format!(
            "{} bytes of workgroup memory, the device has {}",
            kernel.workgroup_storage(),
            capabilities.max_workgroup_storage
        ));
    }
    Ok(())
}

/// One invocation for each row.
fn plain_kernel(problem: &Problem) -> Result<Kernel, Error> {
    Ok(Kernel {
        entry: match problem.operation() {
            Operation::Forward | Operation::Moments | Operation::Normalize => Entry::Row,
            Operation::Backward | Operation::GradientSums | Operation::Gradients => Entry::Gradient,
        },
        unit: unit_of(problem),
        access: Access::Reread,
        reduction: Reduction::Lane,
        normalization: problem.normalization_kind(),
        zero_centred_weight: problem.has_zero_centred_weight() && problem.layout(Role::Weight).is_some(),
        // Without either of what they go together with, both forms are one.
        modulation: match problem.layout(Role::Scale).or(problem.layout(Role::Shift)) {
            Some(_) if problem.affine_kind().has_weight() => problem.modulation_kind(),
            _ => Modulation::default(),
        },
        conditions: problem.has_conditions(),
        causal: problem.sequence_rows().is_some(),
        carries: false,
        grid: problem.grid_of_rows().copied(),
        rows_first: false,
        column_sums: match problem.operation() {
            Operation::Backward | Operation::Gradients => problem.column_sums(),
            _ => ColumnSums::default(),
        },
        slots: slots(problem)?,
        width: problem.width(),
        segment_width: problem.width(),
        lanes: 1,
        spans_per_lane: 1,
        spans_per_workgroup: 1,
        subgroup_size: 0,
        unpack_f16: false,
        pack_f16: false,
        dialect: Dialect::default(),
        written_out: false,
    })
}

/// What a tuning is for: everything that the best geometry depends on. Rows count to the next power of two.
pub(super) fn task(problem: &Problem) -> Result<String, Error> {
    let rows = problem.rows().checked_next_power_of_two().unwrap_or(u64::MAX);
    Ok(format!("{} rows of {}", rows, plain_kernel(problem)?.task()))
}

/// The widest unit that divides rows, offsets and strides.
pub(super) fn unit_of(problem: &Problem) -> Unit {
    let divides = |unit: Unit| {
        let whole = |count: u64| count.is_multiple_of(unit.elements().into());
        let fits = |(role, layout): (Role, &Layout)| {
            let strides_matter = problem.rows_of(role) > 1;
            let is_shared = problem.grid_of_rows().is_some_and(Grid::has_shared_parameters);
            // Statistics are got at one by one, and gradients that are sums over rows by a kernel of their own.
            role.words().is_some()
                || role.is_sum()
                || is_shared && (role.is_parameter() || role.is_condition())
                || whole(layout.offset) && layout.row_stride.is_none_or(|stride| !strides_matter || whole(stride))
        };
        let grid_divides = problem.grid_of_rows().is_none_or(|grid| grid.divides(unit));
        grid_divides && whole(problem.width().into()) && problem.tensors().all(fits)
    };
    let is_small = |role: Role| problem.layout(role).is_some_and(|layout| layout.storage.bytes() == 2);
    let mut row_tensors = problem.operation().row_tensors().iter().filter(|role| problem.layout(**role).is_some());
    if row_tensors.all(|role| is_small(*role)) && divides(Unit::Octet) {
        Unit::Octet
    } else if divides(Unit::Vector) {
        Unit::Vector
    } else if problem.grid_of_rows().is_some() {
        // Neighbouring elements of a row need not be neighbours in memory.
        Unit::Scalar
    } else if Role::ALL.into_iter().filter(|role| role.is_of_rows()).any(|role| problem.writes(role) && is_small(role))
    {
        Unit::Pair
    } else {
        Unit::Scalar
    }
}

/// Whether the forward pass may take four neighbouring rows at once.
fn divides_rows(problem: &Problem) -> bool {
    let whole = |(role, layout): (Role, &Layout)| !role.is_of_rows() || layout.offset.is_multiple_of(4);
    problem.operation() == Operation::Forward
        && problem.grid_of_rows().is_some_and(|grid| grid.divides_rows() && !grid.has_parameters_by_row())
        && problem.layout(Role::Output).is_some()
        && problem.tensors().all(whole)
}

/// How the kernels get at each tensor.
fn slots(problem: &Problem) -> Result<[Option<Slot>; Role::ALL.len()], Error> {
    let mut slots = [None; Role::ALL.len()];
    for (role, layout) in problem.tensors() {
        let written_too = |(other, other_layout): (Role, &Layout)| {
            problem.writes(other) && layout.buffer.is_some() && other_layout.buffer == layout.buffer
        };
        let place = if problem.writes(role) {
            problem.in_place_of(role)?.map_or(Place::Own, Place::InPlaceOf)
        } else if problem.tensors().any(written_too) {
            Place::Shared
        } else {
            Place::Own
        };
        slots[role as usize] = Some(Slot { storage: layout.storage, place });
    }
    Ok(slots)
}
