// Rows that are not as almost all rows are: their squares leave the range of f32, or they hold what is no number, or a sample of
// them was more than a standard deviation off their mean. They are measured again, from memory, in a unit in which their
// elements spread over about 1. Ordinary rows pass by with one branch.

// What a span shows in some unit about some shift: the largest magnitude of x · factor − shift, as bits, and its sums.
struct Look {
    largest: u32,
    parts: vec3<f32>,
}

// One unit in each turn, because the code had better be short.
fn look_at(span: Span, shift: f32, factor: f32) -> Look {
    var largest = 0u;
    var block = Sums();
    var total = Total();
    var turn = 0u;
    loop {
        let difference = memory_difference(span, turn, shift, factor);
        largest = max(largest, unit_largest(difference));
        block = add_unit(block, difference);
        turn++;
        if TURNS > SINGLE_BLOCK && (turn % SINGLE_BLOCK == 0u || turn >= params.turns) {
            total = add_block(total, block);
            block = Sums();
        }
        if turn >= params.turns {
            break;
        }
    }
    if TURNS > SINGLE_BLOCK {
        return Look(largest, total_of(total));
    }
    return Look(largest, sums_of(block));
}

// Measures a span in four rounds of one loop body. turns is at least 1, so there are always four; a driver cannot see that, and
// does not unroll them. It is read from the binding, because a browser takes the private copy to differ from lane to lane, and
// the rounds have barriers.
fn measure_again(span: Span) -> Moments {
    let limit = eps_limit();
    let origin = origin_of(span);
    var exponent = 0;
    var shift = 0.0;
    var first_largest = 0u;
    var sums = vec2<f32>(0.0);
    for (var round = 0u; round < min(bound_params.turns + 3u, 4u); round++) {
        let look = look_at(span, shift, power_of_two(exponent));
        if round < 2u {
            // Round 0 finds the largest magnitude, and by it a unit in which no element is above 4, so that no difference
            // overflows. Round 1 finds in that unit the largest distance from the origin, and by it the unit in which this
            // distance is about 1; it is at most 2^24 times smaller than the first one. Where all elements equal the origin, the
            // unit is 1.
            let largest = span_max(look.largest);
            let by = -exponent_of(bitcast<f32>(largest));
            if round == 0u {
                first_largest = largest;
                exponent = clamp(by, -126, min(126, limit));
            } else {
                exponent = select(min(exponent + clamp(by, 0, 24), limit), 0, largest < 0x800000u);
            }
            shift = scaled(origin, exponent);
        } else {
            // The sums about the first element, then about the mean that these give.
            sums = span_sums_of(look.parts);
            if round == 2u {
                shift = kept_scalar(shift_again(shift, sums.x / span_count(span)));
            }
        }
    }
    let squares = select(sums.y, bitcast<f32>(squares_of_no_number(first_largest)), first_largest >= EXPONENT_BITS);
    return Moments(shift, sums.x, squares, exponent);
}
