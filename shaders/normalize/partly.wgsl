// Normalizes what was read last first: from memory, from workgroup memory, from registers.
//
// Precondition: REGISTERS and SHARED are multiples of WRITE_STEP.

fn span_normalize(place: Place) {
    let span = span_at(place, 0u);
    for (var end = params.turns; end > REGISTERS + SHARED; end -= WRITE_STEP) {
        let turn = end - WRITE_STEP;
        if has_turn(span, turn, HELD_EVEN) {
            let second = unit_load(span, end - 1u, HELD_EVEN);
            write_sources(span, turn, unit_load(span, turn, HELD_EVEN), second, scalings[0], false);
        }
    }
    for (var turn = REGISTERS; turn < shared_end(); turn += WRITE_STEP) {
        if has_turn(span, turn, WHOLE_TURNS) {
            let second = shared_units[shared_index(span, turn + WRITE_STEP - 1u)];
            write_sources(span, turn, shared_units[shared_index(span, turn)], second, scalings[0], false);
        }
    }
    for (var turn = 0u; turn < REGISTERS; turn += WRITE_STEP) {
        if has_turn(span, turn, WHOLE_TURNS) {
            write_sources(span, turn, held[turn], held[turn + WRITE_STEP - 1u], scalings[0], false);
        }
    }
}
