// Which units of a span a lane has: in each turn the LANES lanes have LANES units that follow one another, so that neighbouring
// lanes touch neighbouring memory.

// Whether every lane has a unit in every turn before the last one.
const WHOLE_TURNS: bool = true;

// Whether every lane is known to have a unit in this turn, as in all turns of a whole row but the last. Where the turn is a
// constant, as it is for what is held in registers, nothing is then compared with the end of the row. Where rows are read again
// in each pass (REREAD), turns are no constants, and the answer is always false.
fn is_whole(turn: u32) -> bool {
    return !REREAD & (SEGMENTS == 1u) & (turn + 1u < TURNS);
}

// The unit that a lane has in turn 0.
fn first_unit(row: u32, lane: u32) -> u32 {
    return lane;
}

fn unit_index(span: Span, turn: u32) -> u32 {
    return turn * LANES + span.first_unit;
}
