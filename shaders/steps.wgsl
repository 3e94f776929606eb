// How loops over a span that is read from memory go about it.

// Turns that a loop body takes at once. Where the row is held in registers, this is only for rows that are measured again, and
// the code had better be short.
const STEP: u32 = select(1u, select(select(1u, 2u, TURNS >= 2u), 4u, TURNS >= 4u), REREAD);
// Every lane has a unit in every turn that a loop body takes, so nothing need be masked.
const EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % (LANES * STEP) == 0u;

// Turns that are added up as they come, before the sum of all takes them in with what that loses. Equal numbers are rounded alike, so
// that the errors of a plain sum grow with its terms: those of about ten cost rstd 1e-7 at most. A turn of one unit brings one term,
// that of eight elements two; where STEP turns are added up pairwise, they bring one.
const BLOCK: u32 = select(8u / ((UNIT + 3u) / 4u), select(32u, 16u, UNIT == 1u), REREAD);
