// How loops over a span that is read from memory go about it.

// Turns that a loop body takes at once. Where the row is held in registers, this is only for rows that are measured again, and
// the code had better be short.
const STEP: u32 = select(1u, select(select(1u, 2u, TURNS >= 2u), 4u, TURNS >= 4u), REREAD);
// Every lane has a unit in every turn that a loop body takes, so nothing need be masked.
const EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % (LANES * STEP) == 0u;

// Turns that are added up as they come, STEP of them pairwise, before the sum of all takes them in with what that loses.
const BLOCK: u32 = select(32u, 16u, UNIT == 1u);
