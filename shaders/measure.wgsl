// The moments of one span: the sums that `measure/layer_norm` and `measure/rms_norm` form, and the measuring in another unit
// where they leave the range of f32.

// Turns whose sum goes to an outer sum. STEP turns are added pairwise, BLOCK / STEP such sums one after another, then the
// blocks: the rounding error of a sum of n grows like the root of each of these in place of √n. (Compensated summation
// would do better where it survives, but WGSL lets a compiler simplify the compensation away.)
const BLOCK: u32 = 64u;

struct Measured {
    shift: f32,
    correction: f32,
    squares: f32,
    variance: f32,
}

struct Sums {
    differences: Unit,
    squares: Unit,
}

fn difference(turn: u32, scale: f32, shift: f32) -> Unit {
    return select(Unit(0.0), span_unit(turn) * scale - shift, in_span(turn));
}

// The sums over STEP turns.
fn step_sums(turn: u32, scale: f32, shift: f32) -> Sums {
    let a = difference(turn, scale, shift);
    var sums = Sums(a, a * a);
    if STEP >= 2u {
        let b = difference(turn + 1u, scale, shift);
        sums = Sums(a + b, a * a + b * b);
    }
    if STEP == 4u {
        let c = difference(turn + 2u, scale, shift);
        let d = difference(turn + 3u, scale, shift);
        sums = Sums(sums.differences + (c + d), sums.squares + (c * c + d * d));
    }
    return sums;
}

// The sums of x − shift and of its square over the span.
fn sums_about(shift: f32, scale: f32) -> vec2<f32> {
    var differences = Unit(0.0);
    var squares = Unit(0.0);
    for (var block = 0u; block < span_turns(); block += BLOCK) {
        var sums = Sums();
        for (var turn = block; turn < min(block + BLOCK, span_turns()); turn += STEP) {
            let step = step_sums(turn, scale, shift);
            sums = Sums(sums.differences + step.differences, sums.squares + step.squares);
        }
        differences += sums.differences;
        squares += sums.squares;
    }
    return span_sum(vec2<f32>(unit_sum(differences), unit_sum(squares)));
}

fn largest_bits() -> u32 {
    var largest = UnitBits(0u);
    for (var turn = 0u; turn < span_turns(); turn++) {
        largest = max(largest, bitcast<UnitBits>(span_unit(turn)) & UnitBits(0x7fffffffu));
    }
    return span_max(unit_max(largest));
}

fn measure() -> Moments {
    var kept: Moments;
    var scale = 1.0;
    var suspect = true;
    var again = false;
    // At most twice; a loop, because a second call would be compiled a second time.
    loop {
        let measured = measure_scaled(scale);
        // Spans that only share a workgroup with a suspect one keep what they had, to the bit.
        if suspect {
            kept = Moments(measured.shift, measured.correction, measured.variance, scale);
        }
        suspect = moments_suspect(measured.squares, measured.variance);
        if again || !workgroup_any(suspect) {
            break;
        }
        again = true;
        scale = power_of_two(rescue_exponent(exponent_of(bitcast<f32>(largest_bits()))));
    }
    return kept;
}
