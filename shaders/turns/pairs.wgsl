// Which units of a span a lane has, where units are single elements and elements of 16 bits are written: in an even turn and the
// next one, two elements that lie in one word of the output. The lane stores that word whole. Only the first and the last word of
// a span may hold an element of another span, or of somebody else.
//
// A span whose first element is the upper half of its word begins with half a pair: the lane that has it has no unit in turn 0.

const WHOLE_TURNS: bool = false;

// Whether every lane is known to have a unit in this turn, as in all turns of a whole row but the first two and the last two;
// otherwise as in `straight`.
fn is_whole(turn: u32) -> bool {
    return !REREAD & (SEGMENTS == 1u) & (turn >= 2u) & (turn + 2u < TURNS);
}

// The unit that a lane has in turn 0. Where the span begins with half a pair, that of lane 0 is −1, which wraps to 2^32 − 1. This
// lies past the end of the span, and so is no unit of it.
fn first_unit(row: u32, lane: u32) -> u32 {
    return 2u * lane - first_half(row);
}

fn unit_index(span: Span, turn: u32) -> u32 {
    return turn / 2u * (2u * LANES) + turn % 2u + span.first_unit;
}
