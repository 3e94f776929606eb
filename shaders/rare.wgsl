// Rows that are not as almost all rows are: their squares leave the range of f32, or they hold what is no number, or a sample of
// them was more than a standard deviation off their mean. They are measured again, from memory, in a unit in which their
// elements spread over about 1. Ordinary rows pass by with one branch.

// The largest magnitude of x · factor − shift in the span, as bits.
fn largest_difference(span: Span, shift: f32, factor: f32) -> u32 {
    var largest = 0u;
    var turn = 0u;
    loop {
        largest = max(largest, unit_largest(memory_difference(span, turn, shift, factor)));
        turn++;
        if turn >= params.turns {
            break;
        }
    }
    return span_max(largest);
}

fn measure_again(span: Span) -> Moments {
    let limit = eps_limit();
    let origin = origin_of(span);
    // The unit in which no element is above 4, so that no difference overflows; in it how far elements are from the first one, and
    // the unit in which that is about 1, even if the elements are up to 2^24 there. Where all are equal, their own.
    var exponent = 0;
    var about = 0.0;
    var first_largest = 0u;
    // Two rounds of one loop body, whose number a driver cannot see; by the binding, because a browser takes the private copy for
    // one that differs from lane to lane, and the rounds have barriers.
    for (var round = 0u; round < min(bound_params.turns + 1u, 2u); round++) {
        let largest = largest_difference(span, about, power_of_two(exponent));
        let by = -exponent_of(bitcast<f32>(largest));
        if round == 0u {
            first_largest = largest;
            exponent = clamp(by, -126, min(126, limit));
            about = scaled(origin, exponent);
        } else {
            exponent = select(min(exponent + clamp(by, 0, 24), limit), 0, largest < 0x800000u);
        }
    }
    // About the first element, then about the mean that this gives.
    let factor = power_of_two(exponent);
    var shift = scaled(origin, exponent);
    var sums = vec2<f32>(0.0);
    for (var round = 0u; round < min(bound_params.turns + 1u, 2u); round++) {
        shift = kept_scalar(shift_again(shift, sums.x / span_count(span)));
        sums = memory_sums(span, shift, factor);
    }
    let squares = select(sums.y, bitcast<f32>(squares_of_no_number(first_largest)), first_largest >= EXPONENT_BITS);
    return Moments(shift, sums.x, squares, exponent);
}
