// A span: the elements that LANES invocations work on together. It is a whole row, or, where a row is
// split, one segment of it. Unit `turn × LANES + lane` of the span belongs to `lane`, so neighbouring
// lanes touch neighbouring memory.
//
// Precondition: the host has checked that every row of the dispatch lies inside the bound buffers.

const ROW_UNITS: u32 = WIDTH / UNIT;
const SEGMENT_UNITS: u32 = SEGMENT_WIDTH / UNIT;
// Turns that a loop body takes at once.
const STEP: u32 = select(select(1u, 2u, TURNS >= 2u), 4u, TURNS >= 4u);
// Every lane has a unit in every turn that a loop body takes, so nothing need be masked.
const EVEN: bool = WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % (LANES * STEP) == 0u;

// Which of the LANES invocations this one is.
var<private> lane: u32;
// The first of the spans that this invocation works on, and which of them is at hand.
var<private> first_span: u32;
var<private> slot: u32;
// The span's row within the dispatch.
var<private> row: u32;
// Where the span begins within its row, and its length, both in units.
var<private> span_begin: u32;
var<private> span_units: u32;
// False in spans that only fill up the last workgroup: they repeat the last span and write nothing.
var<private> span_owned: bool;

// False where the whole workgroup has nothing to do; uniform over the workgroup.
fn span_select(workgroup_id: vec3<u32>, local_index: u32) -> bool {
    // Not from the copy: a browser's analysis takes a private variable for one that differs from invocation to invocation.
    let workgroup = workgroup_id.y * bound_params.workgroups_x + workgroup_id.x;
    if workgroup >= bound_params.workgroups {
        return false;
    }
    params = bound_params;
    lane = local_index % LANES;
    first_span = workgroup * SPANS_PER_WORKGROUP + local_index / LANES * SPANS_PER_LANE;
    return true;
}

// Turns to one of the spans of this invocation.
fn span_enter(index: u32) {
    slot = index;
    let span = min(first_span + index, params.spans - 1u);
    span_owned = first_span + index < params.spans;
    if SEGMENTS == 1u {
        // Not left to the compiler: this is done for every unit, and SwiftShader divides.
        row = span;
        span_begin = 0u;
        span_units = ROW_UNITS;
    } else {
        row = span / SEGMENTS;
        span_begin = (span % SEGMENTS) * SEGMENT_UNITS;
        span_units = min(SEGMENT_UNITS, ROW_UNITS - span_begin);
    }
}

// The unit's index within the span.
fn unit_index(turn: u32) -> u32 {
    return turn * LANES + lane;
}

// False past the end of the span, also for turns from TURNS on.
fn in_span(turn: u32) -> bool {
    return EVEN || unit_index(turn) < span_units;
}

// The unit that this lane reads in this turn; zero past the end of the span.
fn read_unit(turn: u32) -> Unit {
    if in_span(turn) {
        return source_at(span_begin + unit_index(turn));
    }
    return Unit(0.0);
}

// The span's first element, the same for all its lanes.
fn read_origin() -> f32 {
    return unit_first(source_at(span_begin));
}
