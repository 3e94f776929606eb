// Access: the span is read once and held in registers, TURNS units in each lane.

// A loop body may look past the last turn, to find that this lane has no unit there.
const HELD: u32 = (TURNS + STEP - 1u) / STEP * STEP;

var<private> held: array<Unit, HELD>;

fn span_read() {
    for (var turn = 0u; turn < HELD; turn++) {
        held[turn] = read_unit(turn);
    }
}

// A constant, so that the loops are unrolled and the array becomes registers.
fn span_turns() -> u32 {
    return TURNS;
}

fn span_unit(turn: u32) -> Unit {
    return held[turn];
}
