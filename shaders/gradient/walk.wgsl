// A walk: an invocation goes over rows in steps, always in the same columns, so that it can add up by column what it finds there.
//
// The rows of a condition are shared by `params.walks` walks, and no walk leaves its condition; where rows belong to no condition, all
// of them are shared by all walks. The one of number i has the rows i, i + walks, i + 2 · walks, … of its condition. Walks are numbered
// condition by condition; there are `params.groups`, of which the last may have no condition and no rows.
//
// Precondition: where words of two elements are stored (`turns/pairs`), `walks` is even, so that the rows of a walk begin in the same
// half of a word.

// As in `steps`, with one turn to a loop body: every lane has a unit in every turn.
const EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % LANES == 0u;

// The number of this invocation's walk, of params.groups. Where rows are split, the segments of a walk follow one another as
// spans.
fn walk_group(place: Place) -> u32 {
    if SEGMENTS == 1u {
        return place.first_span;
    }
    return place.first_span / SEGMENTS;
}

// The condition of a walk.
fn walk_condition(group: u32) -> u32 {
    if CONDITIONS {
        return group / params.walks;
    }
    return 0u;
}

// The span of a walk in one round. Where walks go together (`gradient/walk_together`), some may have rounds past the last row of
// their condition. The span is then in another row, and is not owned.
fn walk_at(place: Place, round: u32) -> Span {
    let group = walk_group(place);
    let condition = walk_condition(group);
    let within = group - condition * params.walks + round * params.walks;
    let index = condition * params.condition_rows + within;
    let owned = (within < params.condition_rows) & (index < params.rows);
    let row = min(index, params.rows - 1u);
    let begin = (place.first_span - group * SEGMENTS) * SEGMENT_UNITS;
    let units = min(SEGMENT_UNITS, ROW_UNITS - begin);
    return Span(row, begin, units, place.lane, first_unit(row, place.lane), min(condition, params.conditions - 1u), owned);
}
