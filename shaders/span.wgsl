// A span: the elements that LANES invocations, its lanes, work on together. It is a whole row, or, where a row is split, one
// segment of it. It is cut into units, of which one access of memory moves one (`unit/`). Loops over a span go in turns: in each
// turn every lane has one unit or none (`turns/`), and TURNS turns reach all units.
//
// An invocation may take part in several spans. Its slots, from 0 to SPANS_PER_LANE − 1, number them.
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
    // False where there is no such span: spans may not fill the last workgroup, nor rows the last round of a walk. Another span
    // then stands in its place, and nothing is written.
    owned: bool,
}

// The span that this invocation has in a slot.
fn span_at(place: Place, slot: u32) -> Span {
    let index = min(place.first_span + slot, params.spans - 1u);
    let owned = place.first_span + slot < params.spans;
    if SEGMENTS == 1u {
        // A case of its own, because SwiftShader would divide by the constant 1.
        return Span(index, 0u, ROW_UNITS, place.lane, first_unit(index, place.lane), condition_of(index), owned);
    }
    let begin = (index % SEGMENTS) * SEGMENT_UNITS;
    let row = index / SEGMENTS;
    let units = min(SEGMENT_UNITS, ROW_UNITS - begin);
    return Span(row, begin, units, place.lane, first_unit(row, place.lane), condition_of(row), owned);
}

// The condition of a row, both counted within the dispatch. A division will do, because the host cuts rows into chunks, one a
// dispatch, that begin with the first row of a condition or lie within one.
fn condition_of(row: u32) -> u32 {
    if CONDITIONS {
        return row / params.condition_rows;
    }
    return 0u;
}

// Whether this lane has a unit of the span in this turn; it has none in turns from TURNS on. `even` says that every lane has one
// in every turn that is asked for (EVEN, HELD_EVEN), so that nothing need be compared.
fn in_span(span: Span, turn: u32, even: bool) -> bool {
    return even | is_whole(turn) | (unit_index(span, turn) < span.units);
}

// The mask of what a lane has loaded in a turn: all bits where it is a unit of the span. Where the lane has none, it has loaded
// the span's last unit once more (`position_at`), which must not count: no bits.
fn unit_mask(span: Span, turn: u32, even: bool) -> u32 {
    return select(0u, params.all_bits, in_span(span, turn, even));
}

// The position of this lane's unit in this turn, in units from the beginning of the row. A lane that has none gets that of the
// span's last unit. There is no branch, because lanes that take different ways may not have met again when a subgroup adds up.
fn position_at(span: Span, turn: u32, even: bool) -> u32 {
    let index = unit_index(span, turn);
    return span.begin + select(min(index, span.units - 1u), index, even | is_whole(turn));
}

// The unit at that position, in the form in which it is held (`source/`).
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
