//! What follows from a geometry in causal layer normalization: its kernels.
//!
//! The rows are measured as the first pass of strategy split measures segments. Then a scan over the positions of each sequence finds
//! what normalizes each of them (`shaders/causal/scan.wgsl`), and a last kernel normalizes them. In the backward pass the rows' sums are
//! found as in strategy streaming, and a scan the other way finds what each position's gradient takes from those after it.

use super::geometry::{max_invocations, measuring, slots_of};
use super::{Access, Capabilities, ColumnSums, Entry, Geometry, Kernel, Modulation, Problem, Reduction, Role, Unit};
use crate::Error;

/// Rows of a tile, as `shaders/causal/scan.wgsl` has them.
pub(super) const TILE: u64 = 64;

/// The most tiles of a sequence in one dispatch: loops of an invocation must stay below where llvmpipe ends them (see
/// [`super::MAX_TURNS`]).
pub(super) const MAX_TILES: u64 = 60_000;

/// Rows that a chunk may have as far as the scans are concerned.
pub(super) fn most_rows(problem: &Problem) -> u64 {
    if problem.sequence_rows().is_some_and(|rows| rows > MAX_TILES * TILE) { MAX_TILES * TILE } else { u64::MAX }
}

/// The kernels of a forward pass, in the order in which they run; `kernel` is what the geometry makes of the problem.
pub(super) fn causal_kernels(
    problem: &Problem,
    capabilities: &Capabilities,
    geometry: Geometry,
    kernel: Kernel,
) -> Result<Vec<Kernel>, Error> {
    if matches!(geometry.access, Access::Partly { .. }) {
        let reason = "rows are not partly held in causal layer normalization; Held or Reread would do";
        return Err(Error::Geometry { reason: reason.into() });
    }
    let mut all = measuring_kernels(problem, capabilities, kernel)?;
    let mut slots = kernel.slots;
    for role in [Role::Mean, Role::Rstd, Role::State] {
        slots[role as usize] = None;
    }
    all.push(Kernel {
        entry: Entry::NormalizeKnown,
        access: Access::Reread,
        slots,
        // A row is normalized as a whole, by those who have measured it or its segments.
        segment_width: kernel.width,
        ..kernel
    });
    Ok(all)
}

/// The kernels that find what normalizes each position.
///
/// # Errors
/// [`Error::Geometry`] if rows have so many segments that a tile of them would take too long a loop.
pub(super) fn measuring_kernels(
    problem: &Problem,
    capabilities: &Capabilities,
    kernel: Kernel,
) -> Result<Vec<Kernel>, Error> {
    let segments = u64::from(kernel.segments());
    if segments * TILE > MAX_TILES {
        return Err(Error::Geometry {
            reason: format!(
                "{segments} segments of a row, the most in causal layer normalization is {}",
                MAX_TILES / TILE
            ),
        });
    }
    let spans_per_workgroup = kernel.spans_per_workgroup / kernel.spans_per_lane;
    let partial = Kernel {
        entry: Entry::Partial,
        unit: kernel.unit.read_only(),
        spans_per_lane: 1,
        spans_per_workgroup,
        column_sums: ColumnSums::default(),
        ..measuring(kernel)
    };
    let mut all = vec![partial];
    let carries = has_carries(problem, capabilities);
    let scan = |entry, roles: &[Role]| scan(capabilities, kernel, carries, entry, roles);
    if carries {
        all.extend([scan(Entry::CausalTiles, &[]), scan(Entry::CausalCarries, &[Role::State])]);
    }
    all.push(scan(Entry::CausalRows, &[Role::Mean, Role::Rstd]));
    Ok(all)
}

/// Whether a position takes up more than the rows of its own tile, or may: a tensor that does not fit a binding is taken in chunks, which
/// may lie within a sequence.
fn has_carries(problem: &Problem, capabilities: &Capabilities) -> bool {
    // A chunk takes its place among the bytes of a binding, and so that it is aligned.
    let most = capabilities.max_binding_bytes / 2;
    let is_long = |(role, _)| problem.byte_range(role).is_ok_and(|bytes| bytes.end - bytes.start > most);
    problem.layout(Role::State).is_some()
        || problem.sequence_rows().is_some_and(|rows| rows.min(problem.rows()) > TILE)
        || problem.tensors().any(is_long)
}

/// The kernels that find what the gradient of each position takes from those after it.
pub(super) fn gradient_scans(problem: &Problem, capabilities: &Capabilities, kernel: Kernel) -> Vec<Kernel> {
    let carries = has_carries(problem, capabilities);
    let scan = |entry| scan(capabilities, kernel, carries, entry, &[]);
    let rows = scan(Entry::CausalGradientRows);
    if carries { vec![scan(Entry::CausalGradientTiles), scan(Entry::CausalGradientCarries), rows] } else { vec![rows] }
}

/// A kernel of a scan: one invocation for each tile or sequence, which waits for no other.
fn scan(capabilities: &Capabilities, kernel: Kernel, carries: bool, entry: Entry, roles: &[Role]) -> Kernel {
    let slots = slots_of(&kernel, roles);
    let workgroup = 1_u32 << 32.min(max_invocations(capabilities)).max(1).ilog2();
    Kernel {
        entry,
        unit: Unit::Scalar,
        access: Access::Reread,
        reduction: Reduction::Lane,
        zero_centred_weight: false,
        modulation: Modulation::default(),
        conditions: false,
        carries,
        rows_first: false,
        column_sums: ColumnSums::default(),
        slots,
        lanes: 1,
        spans_per_lane: 1,
        spans_per_workgroup: workgroup,
        subgroup_size: 0,
        ..kernel
    }
}
