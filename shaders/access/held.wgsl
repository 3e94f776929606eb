// Access: the span is read once and held in registers, TURNS units in each lane.

var<private> held: array<Unit, TURNS>;

fn span_read() {
    for (var turn = 0u; turn < TURNS; turn++) {
        held[turn] = read_unit(turn);
    }
}

fn span_unit(turn: u32) -> Unit {
    return held[turn];
}
