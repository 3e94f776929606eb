use std::fmt;
use std::ops::Range;

use super::geometry::{check_capabilities, kernels};
use super::{
    AdapterClass, BindingRole, Capabilities, Dialect, Geometry, Kernel, Params, Problem, Role, Strategy, ranking,
};
use crate::Error;

/// The most chunks that a plan may have: each is a bind group and one or two dispatches.
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
        let segments = u64::from(kernels[0].segments());
        let rows_per_chunk = rows_per_chunk(problem, capabilities, &kernels)?;
        let count = problem.rows().div_ceil(rows_per_chunk);
        if count > MAX_CHUNKS {
            return Err(Error::Geometry {
                reason: format!(
                    "{count} chunks of {rows_per_chunk} rows, the most is {MAX_CHUNKS}; larger bindings would do"
                ),
            });
        }
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
        // What was not known when the plan was made, it does without.
        let actual = Capabilities {
            exact_unpack_f16: capabilities.exact_unpack_f16 && self.kernels.iter().any(|kernel| kernel.unpack_f16),
            exact_pack_f16: capabilities.exact_pack_f16 && self.kernels.iter().any(|kernel| kernel.pack_f16),
            ..*capabilities
        };
        if kernels(&self.problem, &actual, self.geometry)? != self.kernels {
            return refuse(format!(
                "its WGSL is not for this device: dialect {:?}, exact unpack2x16float {}, exact pack2x16float {}, subgroups {:?}",
                capabilities.dialect,
                capabilities.exact_unpack_f16,
                capabilities.exact_pack_f16,
                capabilities.subgroups
            ));
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
            "{}: {}; {lanes} lanes a span, {spans_per_workgroup} spans a workgroup, {spans_per_lane} a lane, {access}, \
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

/// What the start of every binding is a multiple of: what the device asks for, and at least the largest unit of f32.
fn alignment(capabilities: &Capabilities) -> u64 {
    u64::from(capabilities.storage_offset_alignment.max(32))
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

/// Workgroups along x at most. A second dimension rounds their number up by less than this, which must not overflow u32.
fn dispatch_dimension(capabilities: &Capabilities) -> u32 {
    capabilities.max_workgroups_per_dimension.min(1 << 20)
}

fn chunk(problem: &Problem, capabilities: &Capabilities, kernels: &[Kernel], rows: Range<u64>) -> Result<Chunk, Error> {
    let kernel = &kernels[0];
    let count = (rows.end - rows.start) as u32;
    let variance_share = 1.0 / problem.variance_divisor();
    let mut params = Params {
        max_workgroups_x: dispatch_dimension(capabilities),
        first_row: u32::try_from(rows.start).unwrap_or(u32::MAX),
        segments: kernel.segments(),
        spans_per_workgroup: kernel.spans_per_workgroup,
        all_bits: u32::MAX,
        eps: problem.eps_value(),
        mean_share: (1.0 / f64::from(problem.width())) as f32,
        variance_share: variance_share as f32,
        variance_share_rest: (variance_share - f64::from(variance_share as f32)) as f32,
        variance_factor: (variance_share * f64::from(problem.width())) as f32,
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
    let dispatch = |(i, kernel): (usize, &Kernel)| {
        let params = Params { turns: kernel.turns(), ..params };
        Dispatch { kernel: i, workgroups: params.dispatch(), params }
    };
    let dispatches = kernels.iter().enumerate().map(dispatch).collect();
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
