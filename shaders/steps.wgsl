// How loops over a span that is read from memory go about it.

// Turns that a loop body takes at once, in strategies that read the span in each pass.
const STEP: u32 = select(1u, select(select(1u, 2u, TURNS >= 2u), 4u, TURNS >= 4u), REREAD);
// Every lane has a unit in every turn that a loop body takes, so nothing need be masked.
const EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % (LANES * STEP) == 0u;

// Turns that are added up as they come, before the sum of all takes them in with what that loses. A plain sum is rounded at each term,
// next to the square of an outlier by as much as half of its last digit, and equal numbers are rounded alike: with few terms that is
// little. A turn of eight elements brings two terms. Where the span is held, more blocks would take more registers.
const REREAD_BLOCK: u32 = select(16u, 8u, UNIT == 8u);
const HELD_BLOCK: u32 = select(4u, 8u, UNIT == 4u);
const BLOCK: u32 = select(HELD_BLOCK, REREAD_BLOCK, REREAD);
// The same where a loop body takes one turn.
const SINGLE_BLOCK: u32 = 4u;
