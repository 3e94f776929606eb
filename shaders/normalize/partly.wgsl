// Normalizes what was read last first: from memory, from workgroup memory, from registers.
//
// Precondition: REGISTERS and SHARED are multiples of WRITE_STEP.

fn span_normalize(place: Place) {
    let span = span_at(place, 0u);
    if !span.owned {
        return;
    }
    for (var end = params.turns; end > REGISTERS; end -= WRITE_STEP) {
        let turn = end - WRITE_STEP;
        if has_turn(span, turn, HELD_EVEN) {
            let second = unit_beyond(span, end - 1u);
            write_sources(span, turn, unit_beyond(span, turn), second, scalings[0], false);
        }
    }
    for (var turn = 0u; turn < REGISTERS; turn += WRITE_STEP) { // unrolled
        if has_turn(span, turn, HELD_EVEN) {
            write_sources(span, turn, held_source(0u, turn), held_source(0u, turn + WRITE_STEP - 1u), scalings[0], false);
        }
    }
}
