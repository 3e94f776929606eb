// How loops over a span that is read from memory go about it.

// Turns that a loop body takes at once, in strategies that read the span in each pass.
const STEP: u32 = select(1u, select(select(1u, 2u, TURNS >= 2u), 4u, TURNS >= 4u), REREAD);
// Every lane has a unit in every turn that a loop body takes, so nothing need be masked.
const EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % (LANES * STEP) == 0u;

// The turns of a block. The terms of a block are added up plainly; what is lost when its sum is added to those of the others is
// kept (`Total` in `sums`). A plain sum is rounded at each term, next to the square of an outlier by as much as half of the
// square's last digit, and equal numbers are all rounded alike; that is little as long as a block has few terms. A turn brings
// one term, or two where a unit has eight elements. Where the span is held, more and shorter blocks would take more registers.
const REREAD_BLOCK: u32 = select(16u, 8u, UNIT == 8u);
const HELD_BLOCK: u32 = select(4u, 8u, UNIT == 4u);
const BLOCK: u32 = select(HELD_BLOCK, REREAD_BLOCK, REREAD);
// The turns of a block in loops whose body takes one turn.
const SINGLE_BLOCK: u32 = 4u;
