// Normalizes what was read once, from registers.

fn span_normalize(place: Place) {
    let span = span_at(place, 0u);
    if !span.owned {
        return;
    }
    for (var turn = 0u; turn < TURNS; turn += WRITE_STEP) { // unrolled
        write_turn(place, span, turn, HELD_EVEN);
    }
}

fn span_source(span: Span, slot: u32, turn: u32) -> Source {
    return held_source(slot, turn);
}
