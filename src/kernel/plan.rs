use std::fmt;
use std::ops::Range;

use super::backward::{Walks, condition_rows, most_rows, walks};
use super::causal::{TILE, most_rows as most_rows_of_scans};
use super::geometry::{check_capabilities, check_kernel, check_storage_buffers, kernels};
use super::{
    AdapterClass, BindingRole, Capabilities, Dialect, Entry, Geometry, Grid, Kernel, Operation, Params, Problem, Role,
    Strategy, Variance, ranking,
};
use crate::Error;

/// The most chunks that a plan may have: each is some bind groups and dispatches.
const MAX_CHUNKS: u64 = 1 << 17;

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

/// Rows that one set of bindings covers, and the dispatches that work on them, in order.
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
    /// The dispatches that work on the first `rows` rows of the problem only: as many as [`dispatches`](Self::dispatches), in the same
    /// order, with other workgroups and other parameters. Where none of these rows are the chunk's, they have no workgroups, but for those
    /// that keep theirs however few the rows are, such as those that write the gradients of parameters: of no rows these are 0.
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
/// To run a plan, bind for each chunk the parts of the tensors' buffers that [`Chunk::tensors`] names, and the buffers of
/// [`Plan::scratch`], to the numbers that [`Kernel::bindings`] names; then run the dispatches in order. `examples/embed_plan.rs` does so
/// with bare wgpu calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    problem: Problem,
    geometry: Geometry,
    kernels: Vec<Kernel>,
    chunks: Vec<Chunk>,
    scratch: Vec<(BindingRole, u64)>,
}

impl Plan {
    /// The plan that ranks first for this problem on such a device.
    ///
    /// # Errors
    /// [`Error::BufferSize`] if a tensor does not fit a buffer, [`Error::RowSize`] if a row does not fit a binding,
    /// [`Error::Overlap`] if what is written overlaps another tensor, [`Error::SharedRange`] for tensors too close for a browser,
    /// [`Error::Needs`] for a tensor without another that it needs, as a gate needs a residual, [`Error::Statistics`] for a backward pass
    /// with one of mean and rstd alone, [`Error::Parts`] for parts of causal rows, [`Error::DeviceTooSmall`] if the device binds too few
    /// buffers, [`Error::Geometry`] if no candidate can run.
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
        for geometry in ranking::candidates(problem, capabilities) {
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
        for (role, _) in problem.tensors() {
            let bytes = problem.byte_range(role)?.end;
            if bytes > capabilities.max_buffer_bytes {
                return Err(Error::BufferSize { bytes, max: capabilities.max_buffer_bytes });
            }
        }
        let kernels = kernels(problem, capabilities, geometry)?;
        let rows_per_chunk = rows_per_chunk(problem, capabilities, &kernels)?;
        let (rows_per_chunk, within) = whole_chunks(problem, rows_per_chunk)?;
        let count = match within {
            u64::MAX => problem.rows().div_ceil(rows_per_chunk),
            _ => problem.rows().div_ceil(within).saturating_mul(within.div_ceil(rows_per_chunk)),
        };
        let count = count.min(problem.rows());
        if count > MAX_CHUNKS {
            return Err(Error::Geometry {
                reason: format!(
                    "{count} chunks of {rows_per_chunk} rows, the most is {MAX_CHUNKS}; larger bindings would do"
                ),
            });
        }
        let longest = rows_per_chunk.min(problem.rows());
        let walks = walks(problem, capabilities, &kernels, longest)?;
        let mut chunks = Vec::new();
        let mut first = 0;
        // The gradients of parameters are written even where there are no rows.
        while first < problem.rows() || chunks.is_empty() && kernels.iter().any(outlives_rows) {
            let end_of_condition = (first / within + 1).saturating_mul(within);
            let last = problem.rows().min(first + rows_per_chunk).min(end_of_condition);
            chunks.push(chunk(problem, capabilities, &kernels, first..last, walks)?);
            first = last;
        }
        let carry = u64::from(problem.has_conditions() && chunks.len() > 1);
        let mut scratch = scratch_of(&kernels, longest, u64::from(walks.all) + carry);
        // No binding is empty.
        scratch.iter_mut().for_each(|(_, bytes)| *bytes = (*bytes).max(16));
        Ok(Self { problem: *problem, geometry, kernels, chunks, scratch })
    }

    fn first(problem: &Problem, capabilities: &Capabilities, fits: impl Fn(&Geometry) -> bool) -> Result<Self, Error> {
        check_capabilities(capabilities)?;
        let mut first_reason = None;
        for geometry in ranking::candidates(problem, capabilities).into_iter().filter(fits) {
            match Self::with_geometry(problem, capabilities, geometry) {
                // Why the best of them cannot run says most.
                Err(Error::Geometry { reason }) => {
                    first_reason.get_or_insert(reason);
                }
                decided => return decided,
            }
        }
        let reason = first_reason.unwrap_or_else(|| "no geometry of this strategy fits the row".into());
        Err(Error::Geometry { reason })
    }

    /// Whether the plan runs on a device with these capabilities, which need not be those it was made for.
    ///
    /// # Errors
    /// [`Error::Geometry`] with what the device lacks, [`Error::DeviceTooSmall`] if it binds too few buffers.
    pub fn check(&self, capabilities: &Capabilities) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::Geometry { reason });
        self.kernels.iter().try_for_each(|kernel| check_kernel(kernel, capabilities))?;
        check_storage_buffers(&self.kernels, capabilities)?;
        let alignment = u64::from(capabilities.storage_offset_alignment);
        let max_bytes = capabilities.max_binding_bytes;
        let max_workgroups = capabilities.max_workgroups_per_dimension;
        if let Some((_, bytes)) = self.scratch.iter().find(|(_, bytes)| *bytes > max_bytes) {
            return refuse(format!("{bytes} bytes of scratch, the device binds {max_bytes}"));
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

    /// The chunks of rows, in order; none if there are no rows, unless gradients of parameters are to be written: then one of no rows.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The buffers that hold what one pass leaves for the next, with their bytes; none if there is one pass. Chunks share them.
    /// Mean and rstd are among them where the backward pass measures them itself.
    ///
    /// In the backward pass they have 64 MiB at most in all, and more only for rows of more than 2^21 elements: then 32 MiB, and as much
    /// as four rows of f32; and where rows belong together, as those of a sequence and of groups of channels do, some tens of bytes for
    /// each of these. In the forward pass each is at most as long as a binding may be.
    pub fn scratch(&self) -> &[(BindingRole, u64)] {
        &self.scratch
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, .. } = self.geometry;
        // That of the pass itself, not what measures its rows.
        let own = |kernel: &&Kernel| kernel.entry.is_backward() == self.problem.operation().is_backward();
        let kernel = self.kernels.iter().find(own).unwrap_or(&self.kernels[0]);
        write!(
            f,
            "{}: {}; {lanes} lanes a span, {spans_per_workgroup} spans a workgroup, {spans_per_lane} a lane, {access}, \
             reduction {reduction:?}, {:?} access, {} turns",
            self.strategy(),
            self.problem,
            kernel.unit,
            kernel.turns(),
        )?;
        if let Some(segment_width) = self.geometry.segment_width {
            write!(f, "; {} segments of {segment_width} elements", self.problem.width().div_ceil(segment_width))?;
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

/// What the start of every binding is a multiple of: what the device asks for, and at least the largest unit of f32.
fn alignment(capabilities: &Capabilities) -> u64 {
    u64::from(capabilities.storage_offset_alignment.max(32))
}

/// The scratch buffers of kernels, with their bytes, for so many rows and walks over the rows.
pub(super) fn scratch_of(kernels: &[Kernel], rows: u64, walks: u64) -> Vec<(BindingRole, u64)> {
    let mut scratch = Vec::new();
    for kernel in kernels {
        for binding in kernel.bindings().iter().filter(|binding| binding.writable) {
            let bytes = match binding.role {
                BindingRole::Partials | BindingRole::SegmentSums => rows * u64::from(kernel.segments()) * 16,
                BindingRole::Coefficients => rows * 32,
                BindingRole::Scalings => rows * 16,
                BindingRole::ChannelSums => rows * u64::from(kernel.segments()) * 8,
                // No more tiles, and no more sequences, than rows.
                BindingRole::Prefixes | BindingRole::Carry => rows * 32,
                BindingRole::ColumnSums => walks * u64::from(kernel.column_sums.count()) * u64::from(kernel.width) * 4,
                // Statistics that another kernel of the plan reads are not the caller's.
                BindingRole::Tensor(role @ (Role::Mean | Role::Rstd)) if kernel.writes(role) => {
                    let is_read = |other: &Kernel| !other.writes(role) && other.slot(role).is_some();
                    if kernels.iter().any(is_read) { rows * 4 } else { continue }
                }
                BindingRole::Params | BindingRole::Tensor(_) => continue,
            };
            if !scratch.contains(&(binding.role, bytes)) {
                scratch.push((binding.role, bytes));
            }
        }
    }
    scratch
}

/// Whether a kernel runs even where there are no rows.
fn outlives_rows(kernel: &Kernel) -> bool {
    matches!(kernel.entry, Entry::GradientParameters | Entry::GradientChannels)
}

/// Rows that one set of bindings can cover.
fn rows_per_chunk(problem: &Problem, capabilities: &Capabilities, kernels: &[Kernel]) -> Result<u64, Error> {
    // A chunk begins anywhere, its binding at the aligned place before; it ends with a whole word.
    let slack = alignment(capabilities) + 4;
    let room = capabilities.max_binding_bytes.saturating_sub(slack);
    // Unit indices, and span indices rounded up to whole workgroups, are u32.
    let dimension = u64::from(dispatch_dimension(capabilities));
    let most = u64::from(u32::MAX) - dimension;
    let mut rows = most_rows(problem, capabilities, kernels).min(most_rows_of_scans(problem));
    for (role, layout) in problem.tensors() {
        let row_bytes = problem.row_elements(role) * layout.storage.bytes();
        if row_bytes > room {
            return Err(Error::RowSize { bytes: row_bytes + slack, max: capabilities.max_binding_bytes });
        }
        if let Some(last_row) = (room - row_bytes).checked_div(problem.row_stride_bytes(role)) {
            let smallest =
                kernels.iter().filter(|kernel| kernel.slot(role).is_some()).map(|kernel| kernel.unit.elements());
            let unit = if role.words().is_some() { 1 } else { smallest.min().unwrap_or(1).into() };
            let stride = problem.row_stride_bytes(role) / (layout.storage.bytes() * unit);
            let last_index = (most - slack - u64::from(problem.width())) / stride.max(1);
            let tensor_rows = last_row.min(last_index) + 1;
            rows = rows.min(tensor_rows.saturating_mul(rows_of_each(problem, role)));
        }
    }
    for kernel in kernels {
        let spans_per_workgroup = u64::from(kernel.spans_per_workgroup);
        let spans =
            most.min(dimension.saturating_mul(dimension).saturating_mul(spans_per_workgroup)) - spans_per_workgroup;
        rows = rows.min(spans / u64::from(kernel.segments()));
    }
    for (_, bytes) in scratch_of(kernels, 1, 0) {
        rows = rows.min(capabilities.max_binding_bytes / bytes.max(1));
    }
    let segments = kernels.iter().map(Kernel::segments).max().unwrap_or(1);
    match rows {
        0 => Err(Error::Geometry {
            reason: format!("{segments} segments of one row are over what the device can dispatch or bind at once"),
        }),
        rows => Ok(rows),
    }
}

/// Rows of a chunk that is no longer than that and made of whole conditions and sequences, or lies within one of them: then of how many
/// rows that is.
fn whole_chunks(problem: &Problem, rows_per_chunk: u64) -> Result<(u64, u64), Error> {
    let sequence = problem.sequence_rows().unwrap_or(u64::MAX);
    // One condition of all rows cannot be cut wrongly, and those of the same rows as the sequences only as these.
    let counts = |rows: &u64| *rows < problem.rows() && *rows != sequence;
    let condition = Some(condition_rows(problem)).filter(counts).unwrap_or(u64::MAX);
    if rows_per_chunk < problem.rows() {
        if let Some(grid) = problem.grid_of_rows() {
            return grid_chunks(problem, grid, rows_per_chunk);
        }
    }
    if rows_per_chunk >= problem.rows() || condition.min(sequence) == u64::MAX {
        return Ok((rows_per_chunk, u64::MAX));
    }
    let (inner, outer) = match (condition.min(sequence), condition.max(sequence)) {
        (inner, u64::MAX) => (1, inner),
        (inner, outer) => (inner, outer),
    };
    let refuse = |reason: String| Err(Error::Geometry { reason });
    if !outer.is_multiple_of(inner) {
        return refuse(format!(
            "{} rows in chunks of {rows_per_chunk}, and sequences of {sequence} rows with conditions of {condition}; one of these a \
             multiple of the other would do",
            problem.rows()
        ));
    }
    if rows_per_chunk >= outer {
        return Ok((rows_per_chunk - rows_per_chunk % outer, u64::MAX));
    }
    if sequence == outer && problem.operation().is_backward() {
        return refuse(format!(
            "sequences of {sequence} rows, of which the device binds {rows_per_chunk} at once; the backward pass takes sequences as a \
             whole"
        ));
    }
    let step = if sequence == outer && inner == 1 { TILE.min(rows_per_chunk) } else { inner };
    match rows_per_chunk - rows_per_chunk % step {
        0 => refuse(format!("{inner} rows that belong together, of which the device binds {rows_per_chunk} at once")),
        rows => Ok((rows, outer)),
    }
}

/// As [`whole_chunks`], where rows lie in a grid: a chunk is made of whole places of the outermost dimension.
fn grid_chunks(problem: &Problem, grid: &Grid, rows_per_chunk: u64) -> Result<(u64, u64), Error> {
    // One condition of all rows cannot be cut wrongly.
    let conditions = Some(condition_rows(problem)).filter(|rows| *rows < problem.rows()).unwrap_or(1);
    let block = grid.block_rows().filter(|rows| rows.is_multiple_of(conditions) || conditions.is_multiple_of(*rows));
    // Sums of channels are not kept from one chunk to the next.
    let block = block.filter(|_| problem.channel_gradients().is_none());
    match block.map(|rows| rows.max(conditions)).filter(|rows| *rows <= rows_per_chunk) {
        Some(rows) => Ok((rows_per_chunk - rows_per_chunk % rows, u64::MAX)),
        None => {
            let why = match problem.channel_gradients() {
                Some(_) => "are taken at once for the gradients of channels",
                None => "do not lie one after another, or have parameters of their own",
            };
            let rows = problem.rows();
            let reason = format!("{rows} rows that {why}, and {rows_per_chunk} at once are what the device can do");
            Err(Error::Geometry { reason })
        }
    }
}

/// Workgroups along x at most. A second dimension rounds their number up by less than this, which must not overflow u32.
fn dispatch_dimension(capabilities: &Capabilities) -> u32 {
    capabilities.max_workgroups_per_dimension.min(1 << 20)
}

fn chunk(
    problem: &Problem,
    capabilities: &Capabilities,
    kernels: &[Kernel],
    rows: Range<u64>,
    walks: Walks,
) -> Result<Chunk, Error> {
    let tensors = tensors(problem, capabilities, &rows);
    if capabilities.dialect == Dialect::Browser {
        check_ranges(problem, kernels, &tensors, alignment(capabilities))?;
    }
    let is_last = rows.end == problem.rows();
    let ends_conditions = is_last || rows.end.is_multiple_of(condition_rows(problem));
    let mut dispatches = Vec::new();
    for (i, kernel) in kernels.iter().enumerate() {
        // What the walks have left is added up after all rows, or all of some conditions.
        let is_due = ends_conditions || !kernel.entry.adds_up();
        let runs = is_due && (!rows.is_empty() || outlives_rows(kernel));
        if !runs {
            continue;
        }
        let params = params(problem, capabilities, kernel, &rows, &tensors, walks);
        let workgroups = params.dispatch();
        let most = capabilities.max_workgroups_per_dimension;
        if workgroups.iter().any(|count| *count > most) {
            return Err(Error::Geometry {
                reason: format!("{} workgroups, the device has {most} in a dimension", params.workgroups),
            });
        }
        dispatches.push(Dispatch { kernel: i, workgroups, params });
    }
    Ok(Chunk { rows, tensors, dispatches })
}

/// The part of each tensor's buffer that belongs to these rows. Only what all rows share, where there are none.
fn tensors(problem: &Problem, capabilities: &Capabilities, rows: &Range<u64>) -> Vec<(Role, Range<u64>)> {
    let mut tensors = Vec::new();
    for (role, _) in problem.tensors().filter(|(role, _)| role.is_parameter() || !rows.is_empty()) {
        let (first, row_bytes) = first_row(problem, role, rows);
        let last = first + tensor_rows(problem, role, rows).saturating_sub(1) * problem.row_stride_bytes(role);
        let start = first - first % alignment(capabilities);
        tensors.push((role, start..(last + row_bytes).next_multiple_of(4)));
    }
    tensors
}

/// The rows that a tensor has of these rows of the problem.
fn tensor_rows(problem: &Problem, role: Role, rows: &Range<u64>) -> u64 {
    if role.is_parameter() {
        1
    } else {
        let of_each = rows_of_each(problem, role);
        rows.end.div_ceil(of_each) - rows.start / of_each
    }
}

/// The rows of the problem that share one of a tensor.
fn rows_of_each(problem: &Problem, role: Role) -> u64 {
    match role {
        _ if role.is_condition() => problem.condition_rows(),
        Role::State => problem.sequence_rows().unwrap_or(u64::MAX),
        _ => 1,
    }
}

/// The byte at which the first of these rows of a tensor begins, and the bytes of a row.
fn first_row(problem: &Problem, role: Role, rows: &Range<u64>) -> (u64, u64) {
    let layout = problem.layout(role).copied().unwrap_or_default();
    let element = layout.storage.bytes();
    let rows_before = rows.start / rows_of_each(problem, role);
    let before = if role.is_parameter() { 0 } else { rows_before * problem.row_stride_bytes(role) };
    (layout.offset * element + before, problem.row_elements(role) * element)
}

/// The parameters of one dispatch.
fn params(
    problem: &Problem,
    capabilities: &Capabilities,
    kernel: &Kernel,
    rows: &Range<u64>,
    tensors: &[(Role, Range<u64>)],
    walks: Walks,
) -> Params {
    let count = (rows.end - rows.start) as u32;
    let condition_rows = condition_rows(problem);
    let conditions = u64::from(count).div_ceil(condition_rows).max(1) as u32;
    // Moments are those of the row alone.
    let is_plain = problem.operation() == Operation::Moments;
    let divisor = if is_plain { problem.width().into() } else { problem.variance_divisor() };
    let variance_share = 1.0 / divisor;
    // Workgroups whose number does not depend on that of the rows.
    let columns = kernel.width.div_ceil(kernel.unit.elements() * kernel.spans_per_workgroup);
    let sequence_rows = problem.sequence_rows().unwrap_or(u64::MAX);
    let sequences = u64::from(count).div_ceil(sequence_rows).max(1) as u32;
    let tiles = sequence_rows.min(count.into()).div_ceil(TILE).max(1) as u32;
    let groups = match kernel.entry {
        Entry::CausalCarries | Entry::CausalGradientCarries => sequences,
        entry if entry.scans() => sequences * tiles,
        _ => walks.all,
    };
    let fixed = match kernel.entry {
        Entry::GradientChannels => Some(kernel.width.div_ceil(kernel.spans_per_workgroup)),
        Entry::GradientChannelConditions => Some((kernel.width * conditions).div_ceil(kernel.spans_per_workgroup)),
        entry if entry.scans() => Some(groups.div_ceil(kernel.spans_per_workgroup)),
        Entry::GradientParameters => Some(columns),
        Entry::GradientConditions => Some(columns * conditions),
        entry if entry.walks() => Some((walks.all * kernel.segments()).div_ceil(kernel.spans_per_workgroup)),
        _ => None,
    };
    let mut params = Params {
        max_workgroups_x: dispatch_dimension(capabilities),
        first_row: u32::try_from(rows.start).unwrap_or(u32::MAX),
        segments: if fixed.is_some() { 0 } else { kernel.spans_per_row() },
        spans_per_workgroup: kernel.spans_per_workgroup,
        least_workgroups: fixed.unwrap_or(0),
        most_workgroups: fixed.unwrap_or(u32::MAX),
        groups,
        accumulate: match kernel.entry {
            Entry::GradientConditions | Entry::GradientChannelConditions | Entry::GradientChannels => {
                problem.accumulates().into()
            }
            Entry::GradientParameters => {
                let (has_carry, leaves_carry) = (rows.start >= condition_rows, rows.end < problem.rows());
                u32::from(problem.accumulates()) + 2 * u32::from(has_carry) + 4 * u32::from(leaves_carry)
            }
            Entry::CausalCarries => {
                u32::from(kernel.slot(Role::State).is_some() || !rows.start.is_multiple_of(sequence_rows))
            }
            _ => (!rows.start.is_multiple_of(condition_rows)).into(),
        },
        condition_rows: u32::try_from(condition_rows).unwrap_or(u32::MAX),
        conditions,
        walks: walks.per_condition,
        sequence_rows: u32::try_from(sequence_rows).unwrap_or(u32::MAX),
        tiles,
        unbiased: if problem.variance_kind() == Variance::Unbiased && !is_plain { 1.0 } else { 0.0 },
        turns: kernel.turns(),
        all_bits: u32::MAX,
        eps: if is_plain { 0.0 } else { problem.eps_value() },
        mean_share: (1.0 / f64::from(problem.width())) as f32,
        variance_share: variance_share as f32,
        variance_share_rest: (variance_share - f64::from(variance_share as f32)) as f32,
        variance_factor: (variance_share * f64::from(problem.width())) as f32,
        // Of statistics that lie in scratch memory.
        mean_stride: 1,
        rstd_stride: 1,
        // And of a state that does.
        state_stride: 8,
        ..Params::default()
    }
    .with_rows(count);
    for (role, bytes) in tensors.iter().filter(|(role, _)| kernel.slot(*role).is_some()) {
        let element = problem.layout(*role).copied().unwrap_or_default().storage.bytes();
        let unit = element * u64::from(kernel.elements_of_access(*role));
        let base = ((first_row(problem, *role, rows).0 - bytes.start) / unit) as u32;
        // A chunk of one row has no use for the stride, however long it is.
        let has_next = tensor_rows(problem, *role, rows) > 1;
        let stride = if has_next { (problem.row_stride_bytes(*role) / unit) as u32 } else { 0 };
        match role {
            Role::Input => (params.input_base, params.input_stride) = (base, stride),
            Role::Residual => (params.residual_base, params.residual_stride) = (base, stride),
            Role::Weight => params.weight_base = base,
            Role::Bias => params.bias_base = base,
            Role::Output => (params.output_base, params.output_stride) = (base, stride),
            Role::Sum => (params.sum_base, params.sum_stride) = (base, stride),
            Role::Mean => (params.mean_base, params.mean_stride) = (base, stride),
            Role::Rstd => (params.rstd_base, params.rstd_stride) = (base, stride),
            Role::OutputGradient => (params.output_gradient_base, params.output_gradient_stride) = (base, stride),
            Role::SumGradient => (params.sum_gradient_base, params.sum_gradient_stride) = (base, stride),
            Role::InputGradient => (params.input_gradient_base, params.input_gradient_stride) = (base, stride),
            Role::WeightGradient => params.weight_gradient_base = base,
            Role::BiasGradient => params.bias_gradient_base = base,
            Role::Scale => (params.scale_base, params.scale_stride) = (base, stride),
            Role::Shift => (params.shift_base, params.shift_stride) = (base, stride),
            Role::Gate => (params.gate_base, params.gate_stride) = (base, stride),
            Role::ResidualGradient => {
                (params.residual_gradient_base, params.residual_gradient_stride) = (base, stride);
            }
            Role::ScaleGradient => (params.scale_gradient_base, params.scale_gradient_stride) = (base, stride),
            Role::ShiftGradient => (params.shift_gradient_base, params.shift_gradient_stride) = (base, stride),
            // Never in one problem.
            Role::State | Role::Moments => (params.state_base, params.state_stride) = (base, stride),
            Role::GradientSums => (params.rstd_base, params.rstd_stride) = (base, stride),
            Role::GateGradient => (params.gate_gradient_base, params.gate_gradient_stride) = (base, stride),
        }
    }
    params
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
            _ => None,
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
