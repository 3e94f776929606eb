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
    // The condition that its row belongs to; 0 where rows belong to none.
    condition: u32,
    // False in spans that only fill up the last workgroup: they repeat the last span and write nothing.
    owned: bool,
}

// One of the spans of this invocation.
fn span_at(place: Place, slot: u32) -> Span {
    let index = min(place.first_span + slot, params.spans - 1u);
    let owned = place.first_span + slot < params.spans;
    if SEGMENTS == 1u {
        // Not left to the compiler: SwiftShader divides.
        return Span(index, 0u, ROW_UNITS, place.lane, first_unit(index, place.lane), condition_of(index), owned);
    }
    let begin = (index % SEGMENTS) * SEGMENT_UNITS;
    let row = index / SEGMENTS;
    let units = min(SEGMENT_UNITS, ROW_UNITS - begin);
    return Span(row, begin, units, place.lane, first_unit(row, place.lane), condition_of(row), owned);
}

// A chunk begins with a condition, or lies within one.
fn condition_of(row: u32) -> u32 {
    if CONDITIONS {
        return row / params.condition_rows;
    }
    return 0u;
}

// False past the end of the span, also for turns from TURNS on.
fn in_span(span: Span, turn: u32, even: bool) -> bool {
    return even | is_whole(turn) | (unit_index(span, turn) < span.units);
}

// All bits for the units of the span, none past its end.
fn unit_mask(span: Span, turn: u32, even: bool) -> u32 {
    return select(0u, params.all_bits, in_span(span, turn, even));
}

// Where the unit of this lane in this turn lies in its row; past the end of the span, where the span's last one does. No branch:
// lanes that part for one may not have met again where a subgroup adds up.
fn position_at(span: Span, turn: u32, even: bool) -> u32 {
    let index = unit_index(span, turn);
    return span.begin + select(min(index, span.units - 1u), index, even | is_whole(turn));
}

// That unit.
fn unit_load(span: Span, turn: u32, even: bool) -> Source {
    return source_load(span, position_at(span, turn, even));
}

// The span's first element, the same for all its lanes.
fn span_first(span: Span) -> f32 {
    return unit_first(source_unit(source_load(span, span.begin)));
}

fn span_count(span: Span) -> f32 {
    return f32(span.units * UNIT);
}
