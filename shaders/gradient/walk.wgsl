// A walk: an invocation goes over rows in steps, always in the same columns, so that it can add up by column what it finds there.
// `params.groups` walks share the rows; the one of group i has the rows i, i + groups, i + 2 · groups, …
//
// Precondition: where words of two elements are stored (`turns/pairs`), groups is even, so that the rows of a walk begin in the
// same half of a word.

const EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % LANES == 0u;

fn walk_group(place: Place) -> u32 {
    if SEGMENTS == 1u {
        return place.first_span;
    }
    return place.first_span / SEGMENTS;
}

// The span of one round. Past the last row, where those that walk together may come, it is that row, which is then not owned.
fn walk_at(place: Place, round: u32) -> Span {
    let group = walk_group(place);
    let index = group + round * params.groups;
    let row = min(index, params.rows - 1u);
    let begin = (place.first_span - group * SEGMENTS) * SEGMENT_UNITS;
    let units = min(SEGMENT_UNITS, ROW_UNITS - begin);
    return Span(row, begin, units, place.lane, first_unit(row, place.lane), index < params.rows);
}
