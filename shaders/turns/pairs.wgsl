// Which units of a span a lane has, where units are single elements and elements of 16 bits are written: in an even turn and the
// next one, two elements that lie in one word of the output. The lane stores that word whole. Only the first and the last word of
// a span may hold an element of another span, or of somebody else.
//
// A span whose first element is the upper half of its word begins with half a pair: the lane that has it has no unit in turn 0.

const WHOLE_TURNS: bool = false;

// Before the first unit it is −1, wrapped: no unit of the span, as those past its end are none.
fn unit_index(span: Span, turn: u32) -> u32 {
    return (turn / 2u * LANES + span.lane) * 2u + turn % 2u - first_half(span.row);
}
