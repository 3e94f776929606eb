// Access: the span is read once and held in registers, TURNS units in each lane, as they are stored.
//
// Every loop has a constant length, and every index is a constant once it is unrolled: an array indexed by anything else lies in
// memory, or becomes a tree of selections.

const HELD_EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % LANES == 0u;

var<private> held: array<Source, TURNS * SPANS_PER_LANE>;

fn span_read(span: Span, slot: u32) {
    for (var turn = 0u; turn < TURNS; turn++) {
        held[slot * TURNS + turn] = unit_load(span, turn, HELD_EVEN);
    }
}

fn held_difference(span: Span, slot: u32, turn: u32, shift: f32) -> Unit {
    return unit_difference(source_unit(held[slot * TURNS + turn]), shift, unit_mask(span, turn, HELD_EVEN));
}

// The mean, but for its rounding error. It adds up x − origin, origin being the span's first element: a constant span then has
// exactly its own value as shift.
fn span_shift(span: Span, slot: u32) -> f32 {
    let origin = span_first(span);
    var sum = Quad(0.0);
    for (var turn = 0u; turn < TURNS; turn++) {
        sum += unit_sum(held_difference(span, slot, turn, origin));
    }
    return origin + span_sum(quad_sum(sum)) / span_count(span);
}

fn span_sums(span: Span, slot: u32, shift: f32) -> vec2<f32> {
    var total = Total();
    // In blocks; which turn ends one is known when the loop is unrolled.
    var block = Sums();
    for (var turn = 0u; turn < TURNS; turn++) {
        block = add_unit(block, held_difference(span, slot, turn, shift));
        if turn % BLOCK == BLOCK - 1u || turn == TURNS - 1u {
            total = add_indexed_block(total, block, turn / BLOCK);
            block = Sums();
        }
    }
    if TURNS <= PLAIN_BLOCKS * BLOCK {
        return span_sums_of(sums_of(total.sums));
    }
    return span_sums_of(total_of(total));
}

// The shift is the mean.
fn shift_is_off(moments: Moments, share: f32) -> bool {
    return false;
}

// Whether any of the spans is to be measured again. Written out, so that the slot is a constant.
fn measure_all(place: Place) -> bool {
    var again = measure(place, 0u);
    if SPANS_PER_LANE >= 2u {
        again = again | measure(place, 1u);
    }
    if SPANS_PER_LANE == 4u {
        again = again | measure(place, 2u);
        again = again | measure(place, 3u);
    }
    return again;
}
