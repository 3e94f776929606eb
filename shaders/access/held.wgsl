// Access: the span is read once and held in registers, TURNS units in each lane.

// A loop body may look past the last turn, to find that this lane has no unit there.
const HELD: u32 = (TURNS + STEP - 1u) / STEP * STEP;

var<private> held: array<Unit, HELD * SPANS_PER_LANE>;

fn span_read() {
    for (var turn = 0u; turn < HELD; turn++) {
        held[slot * HELD + turn] = read_unit(turn);
    }
}

// A constant, so that the loops are unrolled and the array becomes registers.
fn span_turns() -> u32 {
    return TURNS;
}

fn span_unit(turn: u32) -> Unit {
    return held[slot * HELD + turn];
}

// The mean, but for its rounding error: a first pass over the registers. It adds up x − origin, origin being the span's first
// element: a constant span then has exactly its own value as shift.
fn span_shift(scale: f32) -> f32 {
    let origin = read_origin() * scale;
    var sum = Unit(0.0);
    for (var turn = 0u; turn < TURNS; turn += STEP) {
        sum += step_sums(turn, scale, origin).differences;
    }
    return origin + span_sum(vec2<f32>(unit_sum(sum), 0.0)).x / f32(span_units * UNIT);
}
