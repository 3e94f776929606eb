// Writes one unit at a time.

// Turns that are written together.
const WRITE_STEP: u32 = 1u;

// Whether this lane has anything to write in a turn.
fn has_turn(span: Span, turn: u32, even: bool) -> bool {
    return in_span(span, turn, even);
}

// From sources that were loaded; with WRITE_STEP = 1 the second is the first. Preconditions: span.owned, has_turn.
fn write_sources(span: Span, turn: u32, first: Source, second: Source, scaling: Scaling, again: bool) {
    let position = span.begin + unit_index(span, turn);
    write(span, position, written(first, scaling, parameters_at(span, position), again));
}
