// Rows that are not as almost all rows are: their squares leave the range of f32, or they hold what is no number, or a sample of
// them was more than a standard deviation off their mean. They are measured again, from memory, in a unit in which their
// elements spread over about 1. Ordinary rows pass by with one branch.

// The largest magnitude of x · 2^exponent − shift in the span, as bits.
fn largest_difference(span: Span, shift: f32, exponent: i32) -> u32 {
    var largest = 0u;
    var turn = 0u;
    loop {
        largest = max(largest, unit_largest(memory_difference(span, turn, shift, exponent)));
        turn++;
        if turn >= params.turns {
            break;
        }
    }
    return span_max(largest);
}

fn measure_again(span: Span) -> Moments {
    let limit = eps_limit();
    // In a unit in which no element is above 4, so that no difference overflows, how far elements are from the first one …
    let largest = largest_difference(span, 0.0, 0);
    let small = clamp(-exponent_of(bitcast<f32>(largest)), -126, min(126, limit));
    let spread = largest_difference(span, scaled_scalar(origin_of(span), small), small);
    // … and the unit in which that is about 1, even if the elements are up to 2^24 there. Where all are equal, their own.
    let more = clamp(-exponent_of(bitcast<f32>(spread)), 0, 24);
    let exponent = select(min(small + more, limit), 0, spread < 0x800000u);

    let first = scaled_scalar(origin_of(span), exponent);
    let about_first = memory_sums(span, first, exponent);
    let shift = shift_again(first, about_first.x / span_count(span));
    let sums = memory_sums(span, shift, exponent);
    let squares = select(sums.y, bitcast<f32>(squares_of_no_number(largest)), largest >= EXPONENT_BITS);
    return Moments(shift, sums.x, squares, exponent);
}
