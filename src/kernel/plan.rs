use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::{
    Access, AdapterClass, BindingRole, Capabilities, Dialect, Entry, Kernel, Params, Place, Problem, Reduction, Role,
    Slot, SubgroupSizes, Unit,
};
use crate::Error;

/// The most turns that a plan lets loops over a span take, those over all spans of an invocation together.
///
/// Mesa's llvmpipe ends an invocation's loops, all taken together, after 65,534 turns and goes on with a wrong result (22.3:
/// of two loops of 40,000 turns the second ran 25,534). A kernel measures a span up to four times, four turns at once, looks for
/// its largest element up to three times, and goes over it once more to normalize it: five and a half times this at most.
pub const MAX_TURNS: u32 = 8192;

/// The most segments of a row that one invocation merges; six loops over them and one over the span stay below 65,534.
const MAX_MERGE_TURNS: u32 = 4096;

/// Elements that one invocation may hold in registers.
const MAX_HELD: u32 = 128;

/// How the rows are worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// A row is read once and held in registers.
    Resident,
    /// A row is read again in each pass over it, from cache.
    Streaming,
    /// A row is cut into segments that are measured apart, then merged and normalized in a second pass.
    Split,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resident => "resident",
            Self::Streaming => "streaming",
            Self::Split => "split",
        })
    }
}

/// The choices that a plan makes, apart from what they follow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Registers or memory. In strategy split, for the first pass; the second always reads from memory.
    pub access: Access,
    /// Sums across invocations.
    pub reduction: Reduction,
    /// Invocations that share a span; a power of two.
    pub lanes: u32,
    /// Spans that one invocation takes part in, so that it reads weight and bias once for all of them; 1, 2 or 4, and 1 where
    /// rows are split.
    pub spans_per_lane: u32,
    /// Spans in a workgroup, a multiple of `spans_per_lane`.
    pub spans_per_workgroup: u32,
    /// Elements of a segment, a multiple of 4 · lanes; `None` leaves rows whole.
    pub segment_width: Option<u32>,
}

impl Geometry {
    /// The strategy that this geometry belongs to.
    pub const fn strategy(&self) -> Strategy {
        match (self.segment_width, self.access) {
            (Some(_), _) => Strategy::Split,
            (None, Access::Held) => Strategy::Resident,
            (None, Access::Reread) => Strategy::Streaming,
        }
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width } = self;
        write!(
            f,
            "{access:?} {reduction:?} {lanes} {spans_per_lane} {spans_per_workgroup} {}",
            segment_width.unwrap_or(0)
        )
    }
}

impl FromStr for Geometry {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes: access, reduction, lanes, spans a lane, spans a workgroup, segment width or
    /// 0, with a space between them. Whether a device can run it is [`Plan::with_geometry`]'s to say.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let words: Vec<_> = text.split(' ').collect();
            let [access, reduction, numbers @ ..] = words.as_slice() else { return None };
            let numbers = numbers.iter().map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()?;
            let [lanes, spans_per_lane, spans_per_workgroup, segment_width] = numbers.try_into().ok()?;
            let access = [Access::Held, Access::Reread].into_iter().find(|it| format!("{it:?}") == *access)?;
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

/// One dispatch of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dispatch {
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// Workgroups along x, y and z.
    pub workgroups: [u32; 3],
    /// The content of binding 0.
    pub params: Params,
}

/// Rows that one set of bindings covers, and the dispatches that normalize them, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The rows.
    pub rows: Range<u64>,
    /// The part of each tensor's buffer to bind: bytes, the start aligned as the device asks, the length a multiple of 4.
    pub tensors: Vec<(Role, Range<u64>)>,
    /// What to run.
    pub dispatches: Vec<Dispatch>,
}

impl Chunk {
    /// The dispatches where only the first `rows` rows of the problem are to be worked on. Never more than the chunk's own;
    /// where none of its rows are among them, they have no workgroups.
    pub fn dispatches_for(&self, rows: u64) -> impl Iterator<Item = Dispatch> {
        let rows = rows.clamp(self.rows.start, self.rows.end) - self.rows.start;
        self.dispatches.iter().map(move |dispatch| {
            // No more than there were, which fit.
            let params = dispatch.params.with_rows(rows as u32);
            Dispatch { params, workgroups: params.dispatch(), ..*dispatch }
        })
    }

    /// The part to bind of one tensor's buffer; `None` if the tensor takes no part.
    pub fn bytes(&self, role: Role) -> Option<Range<u64>> {
        self.tensors.iter().find(|(other, _)| *other == role).map(|(_, bytes)| bytes.clone())
    }
}

/// How a problem is solved on a device: kernels, and for each chunk of rows the dispatches with their parameters.
///
/// To run a plan, bind for each chunk the parts of the tensors' buffers that [`Chunk::tensors`] names, and a scratch buffer of
/// [`Plan::scratch_bytes`] as [`BindingRole::Partials`], to the numbers that [`Kernel::bindings`] names; then run the
/// dispatches in order. `examples/embed_plan.rs` does so with bare wgpu calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    problem: Problem,
    geometry: Geometry,
    kernels: Vec<Kernel>,
    chunks: Vec<Chunk>,
    scratch_bytes: u64,
}

impl Plan {
    /// The plan that ranks first for this problem on such a device.
    ///
    /// # Errors
    /// [`Error::BufferSize`] if a tensor does not fit a buffer, [`Error::RowSize`] if a row does not fit a binding,
    /// [`Error::Overlap`] if what is written overlaps another tensor, [`Error::DeviceTooSmall`] if the device binds too few
    /// buffers, [`Error::Geometry`] if no candidate can run, [`Error::SharedRange`] for tensors too close for a browser.
    pub fn new(problem: &Problem, capabilities: &Capabilities) -> Result<Self, Error> {
        Self::first(problem, capabilities, |_| true)
    }

    /// The plan that ranks first among those of one strategy.
    ///
    /// # Errors
    /// [`Error::Strategy`] if none of them can run, and as [`Plan::new`].
    pub fn with_strategy(problem: &Problem, capabilities: &Capabilities, strategy: Strategy) -> Result<Self, Error> {
        let fits = |geometry: &Geometry| geometry.strategy() == strategy;
        Self::first(problem, capabilities, fits).map_err(|error| match error {
            Error::Geometry { reason } => Error::Strategy { strategy, width: problem.width(), reason },
            other => other,
        })
    }

    /// The plans that may be the fastest for this problem on such a device, by rank: first [`Plan::new`]'s, then those that
    /// measuring may find to be better on a device that is not like the others of its class.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn candidates(problem: &Problem, capabilities: &Capabilities) -> Result<Vec<Self>, Error> {
        let uses_barriers = |plan: &Self| plan.kernels.iter().any(Kernel::uses_barriers);
        let pick = Self::new(problem, capabilities)?;
        // On a processor they are far behind, and there only for what cannot do without.
        let barriers = capabilities.class != AdapterClass::Cpu || uses_barriers(&pick);
        let mut plans = vec![pick];
        for geometry in candidates(problem, capabilities) {
            if let Ok(plan) = Self::with_geometry(problem, capabilities, geometry) {
                if !plans.contains(&plan) && (barriers || !uses_barriers(&plan)) {
                    plans.push(plan);
                }
            }
        }
        Ok(plans)
    }

    /// The plan with this geometry.
    ///
    /// # Errors
    /// [`Error::Geometry`] if the geometry cannot run this problem on such a device, and as [`Plan::new`].
    pub fn with_geometry(problem: &Problem, capabilities: &Capabilities, geometry: Geometry) -> Result<Self, Error> {
        check_capabilities(capabilities)?;
        // Also keeps the number of chunks within reason.
        for (role, _) in problem.tensors() {
            let bytes = problem.byte_range(role)?.end;
            if bytes > capabilities.max_buffer_bytes {
                return Err(Error::BufferSize { bytes, max: capabilities.max_buffer_bytes });
            }
        }
        let kernels = kernels(problem, capabilities, geometry)?;
        let segments = u64::from(kernels[0].segments());
        let rows_per_chunk = rows_per_chunk(problem, capabilities, &kernels)?;
        let mut chunks = Vec::new();
        let mut first = 0;
        while first < problem.rows() {
            let last = problem.rows().min(first + rows_per_chunk);
            chunks.push(chunk(problem, capabilities, &kernels, first..last)?);
            first = last;
        }
        let scratch_bytes = if segments > 1 { rows_per_chunk.min(problem.rows()) * segments * 16 } else { 0 };
        Ok(Self { problem: *problem, geometry, kernels, chunks, scratch_bytes })
    }

    fn first(problem: &Problem, capabilities: &Capabilities, fits: impl Fn(&Geometry) -> bool) -> Result<Self, Error> {
        check_capabilities(capabilities)?;
        let mut reason = String::from("no geometry of this strategy fits the row");
        for geometry in candidates(problem, capabilities).into_iter().filter(fits) {
            match Self::with_geometry(problem, capabilities, geometry) {
                Err(Error::Geometry { reason: found }) => reason = found,
                decided => return decided,
            }
        }
        Err(Error::Geometry { reason })
    }

    /// Whether the plan runs on a device with these capabilities, which need not be those it was made for.
    ///
    /// # Errors
    /// [`Error::Geometry`] with what the device lacks, [`Error::DeviceTooSmall`] if it binds too few buffers.
    pub fn check(&self, capabilities: &Capabilities) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::Geometry { reason });
        if kernels(&self.problem, capabilities, self.geometry)? != self.kernels {
            return refuse(format!("its WGSL is not in the dialect {:?}", capabilities.dialect));
        }
        let alignment = u64::from(capabilities.storage_offset_alignment);
        let max_bytes = capabilities.max_binding_bytes;
        let max_workgroups = capabilities.max_workgroups_per_dimension;
        if self.scratch_bytes > max_bytes {
            return refuse(format!("{} bytes of scratch, the device binds {max_bytes}", self.scratch_bytes));
        }
        for chunk in &self.chunks {
            for (role, bytes) in &chunk.tensors {
                let size = bytes.end - bytes.start;
                if size > max_bytes || !bytes.start.is_multiple_of(alignment) {
                    return refuse(format!(
                        "a binding of {size} bytes at {} of the {role}; the device binds {max_bytes} at multiples of \
                         {alignment}",
                        bytes.start
                    ));
                }
            }
            let workgroups = chunk.dispatches.iter().flat_map(|dispatch| dispatch.workgroups).max().unwrap_or(0);
            if workgroups > max_workgroups {
                return refuse(format!("{workgroups} workgroups in a dimension, the device has {max_workgroups}"));
            }
        }
        Ok(())
    }

    /// What the plan computes.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The choices it rests on.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// How it works on the rows.
    pub fn strategy(&self) -> Strategy {
        self.geometry.strategy()
    }

    /// The kernels it runs; [`Dispatch::kernel`] is an index into this.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The chunks of rows, in order; none if there are no rows.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Bytes of the scratch buffer for the moments of segments; 0 if the plan needs none. Chunks may share it.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, .. } = self.geometry;
        let kernel = &self.kernels[0];
        write!(
            f,
            "{}: {}; {lanes} lanes a span, {spans_per_workgroup} spans a workgroup, {spans_per_lane} a lane, {access:?}, \
             reduction {reduction:?}, {:?} access, {} turns",
            self.strategy(),
            self.problem,
            kernel.unit,
            kernel.turns(),
        )?;
        if kernel.segments() > 1 {
            write!(f, "; {} segments of {} elements", kernel.segments(), kernel.segment_width)?;
        }
        for chunk in &self.chunks {
            write!(f, "\n  rows {}..{}:", chunk.rows.start, chunk.rows.end)?;
            for (i, dispatch) in chunk.dispatches.iter().enumerate() {
                let [x, y, z] = dispatch.workgroups;
                let entry = self.kernels[dispatch.kernel].entry;
                write!(f, "{} {entry:?} {x}×{y}×{z}", if i == 0 { "" } else { " then" })?;
            }
        }
        Ok(())
    }
}

/// That the capabilities are some that a device may have: they may be hand-made.
fn check_capabilities(capabilities: &Capabilities) -> Result<(), Error> {
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

/// The kernels of a geometry, each of them fit for the device.
fn kernels(problem: &Problem, capabilities: &Capabilities, geometry: Geometry) -> Result<Vec<Kernel>, Error> {
    let refuse = |reason: String| Err(Error::Geometry { reason });
    let Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width } = geometry;
    if !lanes.is_power_of_two() {
        return refuse(format!("{lanes} lanes; a power of two would do"));
    }
    let most_spans_per_lane = if segment_width.is_some() { 1 } else { 4 };
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
        segment_width == 0 || !segment_width.is_multiple_of(4 * lanes) || segment_width >= problem.width()
    };
    if segment_width.is_some_and(whole) {
        return refuse(format!(
            "segments of {segment_width:?} elements must be a multiple of {} and below the width {}",
            4 * lanes,
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
        dialect: capabilities.dialect,
        ..plain_kernel(problem)?
    };
    let kernels = if segment_width.is_some() {
        // What a pass does not depend on is left out of its key.
        let read = |role| kernel.slot(role).map(|slot| Slot { place: Place::Own, ..slot });
        let partial = Kernel {
            entry: Entry::Partial,
            zero_centred_weight: false,
            slots: Role::ALL.map(|role| if matches!(role, Role::Input | Role::Residual) { read(role) } else { None }),
            ..kernel
        };
        // Moments merge alike, whatever they are moments of.
        let normalization = super::Normalization::LayerNorm;
        vec![partial, Kernel { entry: Entry::Merge, access: Access::Reread, normalization, ..kernel }]
    } else {
        vec![kernel]
    };
    let held = kernel.turns() * kernel.unit.elements() * spans_per_lane;
    if access == Access::Held && held > MAX_HELD {
        return refuse(format!("an invocation would hold {held} elements, it can hold {MAX_HELD}"));
    }
    let turns = u64::from(kernel.turns()) * u64::from(spans_per_lane);
    if turns > u64::from(MAX_TURNS) {
        return refuse(format!("loops of {turns} turns over {spans_per_lane} spans, the most is {MAX_TURNS}"));
    }
    if kernel.segments().div_ceil(lanes) > MAX_MERGE_TURNS {
        return refuse(format!(
            "{} segments for {lanes} lanes, the most a lane is {MAX_MERGE_TURNS}",
            kernel.segments()
        ));
    }
    if kernel.workgroup_storage() > capabilities.max_workgroup_storage {
        return refuse(format!(
            "{} bytes of workgroup memory, the device has {}",
            kernel.workgroup_storage(),
            capabilities.max_workgroup_storage
        ));
    }
    // All but the `Params` block are storage buffers.
    let storage = kernels.iter().map(|kernel| kernel.bindings().len() - 1).max().unwrap_or(0) as u32;
    let allowed = capabilities.max_storage_buffers;
    if storage > allowed {
        if segment_width.is_none() {
            return Err(Error::DeviceTooSmall {
                what: "storage buffers a shader",
                needed: storage.into(),
                actual: allowed.into(),
            });
        }
        return refuse(format!("{storage} storage buffers, the device allows {allowed} a shader"));
    }
    Ok(kernels)
}

/// One invocation for each row.
fn plain_kernel(problem: &Problem) -> Result<Kernel, Error> {
    Ok(Kernel {
        entry: Entry::Row,
        unit: unit_of(problem),
        access: Access::Reread,
        reduction: Reduction::Lane,
        normalization: problem.normalization_kind(),
        zero_centred_weight: problem.has_zero_centred_weight() && problem.affine_kind().has_weight(),
        slots: slots(problem)?,
        width: problem.width(),
        segment_width: problem.width(),
        lanes: 1,
        spans_per_lane: 1,
        spans_per_workgroup: 1,
        dialect: Dialect::default(),
    })
}

/// What a tuning is for: everything that the best geometry depends on. Rows count to the next power of two.
pub(super) fn task(problem: &Problem) -> Result<String, Error> {
    let rows = problem.rows().checked_next_power_of_two().unwrap_or(u64::MAX);
    Ok(format!("{} rows of {}", rows, plain_kernel(problem)?.task()))
}

/// The widest unit that divides rows, offsets and strides.
fn unit_of(problem: &Problem) -> Unit {
    let whole = |count: u64| count.is_multiple_of(4);
    let fits = |(role, layout): (Role, &super::Layout)| {
        let strides_matter = !role.is_parameter() && problem.rows() > 1;
        role.is_statistic()
            || whole(layout.offset) && layout.row_stride.is_none_or(|stride| !strides_matter || whole(stride))
    };
    if whole(problem.width().into()) && problem.tensors().all(fits) { Unit::Vector } else { Unit::Scalar }
}

/// How the kernels get at each tensor.
fn slots(problem: &Problem) -> Result<[Option<Slot>; Role::ALL.len()], Error> {
    let mut slots = [None; Role::ALL.len()];
    for (role, layout) in problem.tensors() {
        let written_too = |(other, other_layout): (Role, &super::Layout)| {
            other.is_written() && layout.buffer.is_some() && other_layout.buffer == layout.buffer
        };
        let place = if role.is_written() {
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

/// What the start of every binding is a multiple of.
fn alignment(capabilities: &Capabilities) -> u64 {
    u64::from(capabilities.storage_offset_alignment.max(16))
}

/// Rows that one set of bindings can cover.
fn rows_per_chunk(problem: &Problem, capabilities: &Capabilities, kernels: &[Kernel]) -> Result<u64, Error> {
    let kernel = &kernels[0];
    let segments = u64::from(kernel.segments());
    // A chunk begins anywhere, its binding at the aligned place before; it ends with a whole word.
    let slack = alignment(capabilities) + 4;
    let room = capabilities.max_binding_bytes.saturating_sub(slack);
    // Unit indices, and span indices rounded up to whole workgroups, are u32.
    let dimension = u64::from(dispatch_dimension(capabilities));
    let most = u64::from(u32::MAX) - dimension;
    let mut rows = u64::MAX;
    for (role, layout) in problem.tensors() {
        let row_bytes = problem.row_elements(role) * layout.storage.bytes();
        if row_bytes > room {
            return Err(Error::RowSize { bytes: row_bytes + slack, max: capabilities.max_binding_bytes });
        }
        if let Some(last_row) = (room - row_bytes).checked_div(problem.row_stride_bytes(role)) {
            let unit = if role.is_statistic() { 1 } else { u64::from(kernel.unit.elements()) };
            let stride = problem.row_stride_bytes(role) / (layout.storage.bytes() * unit);
            let last_index = (most - slack - u64::from(problem.width())) / stride.max(1);
            rows = rows.min(last_row.min(last_index) + 1);
        }
    }
    let spans_per_workgroup = u64::from(kernel.spans_per_workgroup);
    let spans = most.min(dimension.saturating_mul(dimension).saturating_mul(spans_per_workgroup)) - spans_per_workgroup;
    let by_spans = spans / segments;
    let by_scratch = if segments > 1 { capabilities.max_binding_bytes / (segments * 16) } else { u64::MAX };
    match rows.min(by_spans).min(by_scratch) {
        0 => Err(Error::Geometry {
            reason: format!("{segments} segments of one row are over what the device can dispatch or bind at once"),
        }),
        rows => Ok(rows),
    }
}

/// Invocations in a workgroup. No device has more than 2^16; a larger number would only overflow.
fn max_invocations(capabilities: &Capabilities) -> u32 {
    capabilities.max_invocations_per_workgroup.min(1 << 16)
}

/// Workgroups along x at most. A second dimension rounds their number up by less than this, which must not overflow u32.
fn dispatch_dimension(capabilities: &Capabilities) -> u32 {
    capabilities.max_workgroups_per_dimension.min(1 << 20)
}

fn chunk(problem: &Problem, capabilities: &Capabilities, kernels: &[Kernel], rows: Range<u64>) -> Result<Chunk, Error> {
    let kernel = &kernels[0];
    let count = (rows.end - rows.start) as u32;
    let mut params = Params {
        max_workgroups_x: dispatch_dimension(capabilities),
        first_row: u32::try_from(rows.start).unwrap_or(u32::MAX),
        segments: kernel.segments(),
        spans_per_workgroup: kernel.spans_per_workgroup,
        turns: kernel.turns(),
        eps: problem.eps_value(),
        variance_factor: problem.variance_factor(),
        ..Params::default()
    }
    .with_rows(count);
    let mut tensors = Vec::new();
    for (role, layout) in problem.tensors() {
        let element = layout.storage.bytes();
        let stride = problem.row_stride_bytes(role);
        let row_bytes = problem.row_elements(role) * element;
        let first = layout.offset * element + if role.is_parameter() { 0 } else { rows.start * stride };
        let last = first + u64::from(count - 1) * stride;
        let start = first - first % alignment(capabilities);
        tensors.push((role, start..(last + row_bytes).next_multiple_of(4)));

        let unit = if role.is_statistic() { element } else { element * u64::from(kernel.unit.elements()) };
        let base = ((first - start) / unit) as u32;
        // A chunk of one row has no use for the stride, however long it is.
        let stride = if count > 1 { (stride / unit) as u32 } else { 0 };
        match role {
            Role::Input => (params.input_base, params.input_stride) = (base, stride),
            Role::Residual => (params.residual_base, params.residual_stride) = (base, stride),
            Role::Weight => params.weight_base = base,
            Role::Bias => params.bias_base = base,
            Role::Output => (params.output_base, params.output_stride) = (base, stride),
            Role::Sum => (params.sum_base, params.sum_stride) = (base, stride),
            Role::Mean => (params.mean_base, params.mean_stride) = (base, stride),
            Role::Rstd => (params.rstd_base, params.rstd_stride) = (base, stride),
        }
    }
    if capabilities.dialect == Dialect::Browser {
        check_ranges(problem, kernels, &tensors, alignment(capabilities))?;
    }
    let dispatches =
        (0..kernels.len()).map(|kernel| Dispatch { kernel, workgroups: params.dispatch(), params }).collect();
    Ok(Chunk { rows, tensors, dispatches })
}

/// A browser refuses two bindings of one buffer whose ranges overlap if one of them is writable, even where no element is in
/// both.
fn check_ranges(
    problem: &Problem,
    kernels: &[Kernel],
    tensors: &[(Role, Range<u64>)],
    alignment: u64,
) -> Result<(), Error> {
    for kernel in kernels {
        let bound = kernel.bindings().into_iter().filter_map(|binding| match binding.role {
            BindingRole::Tensor(role) => {
                let (_, bytes) = tensors.iter().find(|(other, _)| *other == role)?;
                Some((role, binding.writable, problem.layout(role)?.buffer?, bytes))
            }
            BindingRole::Params | BindingRole::Partials => None,
        });
        let bound: Vec<_> = bound.collect();
        for (i, (first, writable, buffer, bytes)) in bound.iter().enumerate() {
            for (second, other_writable, other_buffer, other_bytes) in &bound[i + 1..] {
                let overlap = bytes.start < other_bytes.end && other_bytes.start < bytes.end;
                if buffer == other_buffer && overlap && (*writable || *other_writable) {
                    return Err(Error::SharedRange { first: first.name(), second: second.name(), alignment });
                }
            }
        }
    }
    Ok(())
}

/// The geometries that may run a problem, best first. Not all of them can; [`kernels`] tells.
fn candidates(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    match capabilities.class {
        AdapterClass::Cpu => cpu_candidates(problem, capabilities),
        AdapterClass::Discrete | AdapterClass::Integrated | AdapterClass::Other => {
            gpu_candidates(problem, capabilities)
        }
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

/// On a processor a barrier costs more than the arithmetic: one invocation takes a row or a segment, or the lanes of one
/// subgroup share it. An access of memory costs far more too, because it is done lane by lane: several rows at once share
/// those of weight and bias. What needs barriers stands last, for devices that leave nothing else.
fn cpu_candidates(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
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
    let barriers = [64, 256].map(|lanes| whole(Access::Reread, lanes, 1)).to_vec();

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

/// On a GPU: lanes by width as NVIDIA's best practice has them, registers while the row fits, several workgroups a row
/// where the rows are too few to fill the device.
fn gpu_candidates(problem: &Problem, capabilities: &Capabilities) -> Vec<Geometry> {
    const WORKGROUP: u32 = 128;
    // Workgroups that fill the largest device.
    const FILL: u64 = 512;
    // A row longer than this is worth cutting when there are too few of them.
    const LONG: u32 = 16_384;
    const SPLIT_LANES: u32 = 256;

    let width = problem.width();
    let max = max_invocations(capabilities);
    let first: u32 = match width {
        0..=64 => 8,
        65..=128 => 16,
        129..=3072 => 32,
        3073..=6144 => 64,
        6145..=16_384 => 128,
        _ => 256,
    };
    let first = if first <= max { first } else { 1 << max.max(1).ilog2() };
    let ladder = || std::iter::successors(Some(first), |lanes| Some(lanes * 2)).take_while(move |&lanes| lanes <= max);
    let several = |access, lanes: u32, spans_per_lane| {
        let (reduction, groups) = reduction_for(lanes, WORKGROUP.max(lanes).min(max), capabilities.subgroups);
        let spans_per_workgroup = groups * spans_per_lane;
        Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width: None }
    };
    let whole = |access, lanes| several(access, lanes, 1);
    let resident = ladder().filter(|&lanes| lanes <= 256).map(|lanes| whole(Access::Held, lanes));
    let streaming = ladder().map(|lanes| whole(Access::Reread, lanes));
    // What measuring may prefer: fewer lanes, several rows at once.
    let others = [(first / 2, 1), (first / 2, 2), (first, 2), (first, 4)].into_iter().filter(|&(lanes, _)| lanes > 0);
    let others = others.map(|(lanes, spans)| several(Access::Held, lanes, spans));
    let split = [SPLIT_LANES, WORKGROUP, 32, 8].into_iter().filter(|&lanes| lanes <= max).flat_map(|lanes| {
        let wanted = FILL.div_ceil(problem.rows().max(1)).max(2) as u32;
        // Segments shorter than this spend more on merging than they save.
        let worthwhile = (width / 4096).max(2);
        // None longer than the longest loop.
        let needed = width.div_ceil(MAX_TURNS * lanes * unit_of(problem).elements());
        let segment_width = segment_width(width, wanted.min(worthwhile).max(needed), lanes);
        [Access::Held, Access::Reread]
            .map(|access| Geometry { segment_width: Some(segment_width), ..whole(access, lanes) })
    });
    if width > LONG && problem.rows() < FILL / 2 {
        split.chain(resident).chain(streaming).chain(others).collect()
    } else {
        resident.chain(streaming).chain(split).chain(others).collect()
    }
}

/// The width of so many segments, rounded up so that vectors and lanes come out even.
fn segment_width(width: u32, segments: u32, lanes: u32) -> u32 {
    width.div_ceil(segments).next_multiple_of(4 * lanes)
}
