// Normalizes what was read last first: from memory, from workgroup memory, from registers.

fn span_normalize(place: Place) {
    let span = span_at(place, 0u);
    for (var turn = params.turns; turn > REGISTERS + SHARED; turn--) {
        write_source(place, turn - 1u, unit_load(span, turn - 1u, HELD_EVEN), HELD_EVEN);
    }
    for (var turn = REGISTERS; turn < shared_end(); turn++) {
        write_source(place, turn, shared_units[shared_index(span, turn)], true);
    }
    for (var turn = 0u; turn < REGISTERS; turn++) {
        write_source(place, turn, held[turn], true);
    }
}

fn write_source(place: Place, turn: u32, source: Source, even: bool) {
    let span = span_at(place, 0u);
    if in_span(span, turn, even) {
        let position = span.begin + unit_index(span, turn);
        write_span(place, 0u, position, source, parameters_at(position));
    }
}
