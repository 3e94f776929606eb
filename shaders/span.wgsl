// A span: the elements that LANES invocations work on together. It is a whole row, or, where a row is split, one segment of it.
// Each of them has one unit in each turn (`turns/`).
//
// Precondition: the host has checked that every row of the dispatch lies inside the bound buffers.

const ROW_UNITS: u32 = WIDTH / UNIT;
const SEGMENT_UNITS: u32 = SEGMENT_WIDTH / UNIT;

struct Span {
    // The row within the dispatch.
    row: u32,
    // Where the span begins within its row, and its length, both in units.
    begin: u32,
    units: u32,
    // Which of the LANES invocations this one is.
    lane: u32,
    // The unit of the span that it has in turn 0.
    first_unit: u32,
    // False in spans that only fill up the last workgroup: they repeat the last span and write nothing.
    owned: bool,
}

// The spans of an invocation.
struct Place {
    first_span: u32,
    lane: u32,
    local_index: u32,
}

// False where the whole workgroup has nothing to do; uniform over the workgroup.
fn has_work(workgroup_id: vec3<u32>) -> bool {
    // Not from the copy: a browser's analysis takes a private variable for one that differs from invocation to invocation.
    return workgroup_id.y * bound_params.workgroups_x + workgroup_id.x < bound_params.workgroups;
}

fn place_of(workgroup_id: vec3<u32>, local_index: u32) -> Place {
    params = bound_params;
    let workgroup = workgroup_id.y * bound_params.workgroups_x + workgroup_id.x;
    let first_span = workgroup * SPANS_PER_WORKGROUP + local_index / LANES * SPANS_PER_LANE;
    return Place(first_span, local_index % LANES, local_index);
}

// One of the spans of this invocation.
fn span_at(place: Place, slot: u32) -> Span {
    let index = min(place.first_span + slot, params.spans - 1u);
    let owned = place.first_span + slot < params.spans;
    if SEGMENTS == 1u {
        // Not left to the compiler: SwiftShader divides.
        return Span(index, 0u, ROW_UNITS, place.lane, first_unit(index, place.lane), owned);
    }
    let begin = (index % SEGMENTS) * SEGMENT_UNITS;
    let row = index / SEGMENTS;
    return Span(row, begin, min(SEGMENT_UNITS, ROW_UNITS - begin), place.lane, first_unit(row, place.lane), owned);
}

// False past the end of the span, also for turns from TURNS on.
fn in_span(span: Span, turn: u32, even: bool) -> bool {
    return even || unit_index(span, turn) < span.units;
}

// All bits for the units of the span, none past its end.
fn unit_mask(span: Span, turn: u32, even: bool) -> u32 {
    return select(0u, params.all_bits, in_span(span, turn, even));
}

// The unit of this lane in this turn; past the end of the span, the span's last one. No branch: lanes that part for one may not
// have met again where a subgroup adds up.
fn unit_load(span: Span, turn: u32, even: bool) -> Source {
    let index = unit_index(span, turn);
    return source_load(span.row, span.begin + select(min(index, span.units - 1u), index, even));
}

// The span's first element, the same for all its lanes.
fn span_first(span: Span) -> f32 {
    return unit_first(source_unit(source_load(span.row, span.begin)));
}

fn span_count(span: Span) -> f32 {
    return f32(span.units * UNIT);
}
