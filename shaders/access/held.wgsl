// Access: the span is read once and held in registers (`access/registers`), all TURNS units of each lane.

fn span_read(span: Span, slot: u32) {
    registers_read(span, slot);
}

// The mean, but for its rounding error. It adds up x − origin, origin being the span's first element: a constant span then has
// exactly its own value as shift.
fn span_shift(span: Span, slot: u32) -> f32 {
    let origin = span_first(span);
    return origin + span_sum(registers_sum(span, slot, origin)) / span_count(span);
}

fn span_sums(span: Span, slot: u32, shift: f32) -> vec2<f32> {
    let total = registers_total(span, slot, shift);
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
