// Normalizes what was read once, from registers.

fn span_normalize(place: Place) {
    for (var turn = 0u; turn < TURNS; turn += WRITE_STEP) {
        write_turn(place, turn, HELD_EVEN);
    }
}

fn span_source(span: Span, slot: u32, turn: u32) -> Source {
    return held[slot * TURNS + turn];
}
