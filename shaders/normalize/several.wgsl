// Where an invocation takes part in several spans: it reads weight and bias once for all of them.

// What lies at the same position in all spans of this invocation.
fn write_turn(place: Place, turn: u32, even: bool) {
    let span = span_at(place, 0u);
    if in_span(span, turn, even) {
        let position = span.begin + unit_index(span, turn);
        let parameters = parameters_at(position);
        write_span(place, 0u, position, span_source(span, 0u, turn), parameters);
        if SPANS_PER_LANE >= 2u {
            write_span(place, 1u, position, span_source(span_at(place, 1u), 1u, turn), parameters);
        }
        if SPANS_PER_LANE == 4u {
            write_span(place, 2u, position, span_source(span_at(place, 2u), 2u, turn), parameters);
            write_span(place, 3u, position, span_source(span_at(place, 3u), 3u, turn), parameters);
        }
    }
}
