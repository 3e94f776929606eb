// Writes from where `span_source` says; where an invocation takes part in several spans, it reads weight and bias once for all of
// them. Precondition: such spans share their condition, if rows have any.

// What lies at the same position in all spans of this invocation, of which `span` is the first. Precondition: span.owned.
fn write_turn(place: Place, span: Span, turn: u32, even: bool) {
    if !has_turn(span, turn, even) {
        return;
    }
    if SPANS_PER_LANE == 1u {
        let second = span_source(span, 0u, turn + WRITE_STEP - 1u);
        write_sources(span, turn, span_source(span, 0u, turn), second, scalings[0], false);
        return;
    }
    let position = span.begin + unit_index(span, turn);
    let parameters = parameters_at(span, position);
    write(span, position, written(span_source(span, 0u, turn), scalings[0], parameters, false));
    if SPANS_PER_LANE >= 2u {
        write_slot(span_at(place, 1u), 1u, turn, position, parameters);
    }
    if SPANS_PER_LANE == 4u {
        write_slot(span_at(place, 2u), 2u, turn, position, parameters);
        write_slot(span_at(place, 3u), 3u, turn, position, parameters);
    }
}

fn write_slot(span: Span, slot: u32, turn: u32, position: u32, parameters: Parameters) {
    if span.owned {
        write(span, position, written(span_source(span, slot, turn), scalings[slot], parameters, false));
    }
}
