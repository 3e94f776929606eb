// Writes two units at a time: those of an even turn and the next one, which `turns/pairs` makes neighbours.

const WRITE_STEP: u32 = 2u;

fn has_turn(span: Span, turn: u32, even: bool) -> bool {
    return in_span(span, turn, even) | in_span(span, turn + 1u, even);
}

// Precondition: span.owned.
fn write_sources(span: Span, turn: u32, first: Source, second: Source, scaling: Scaling, again: bool) {
    let a = written(first, scaling, parameters_at(span, position_at(span, turn, false)), again);
    let b = written(second, scaling, parameters_at(span, position_at(span, turn + 1u, false)), again);
    let position = span.begin + unit_index(span, turn);
    let has_first = in_span(span, turn, false);
    let has_second = in_span(span, turn + 1u, false);
    sum_set_pair(span.row, position, a.sum, b.sum, has_first, has_second);
    output_set_pair(span.row, position, a.output, b.output, has_first, has_second);
}
