// The moments of one span by the corrected two-pass algorithm (Chan, Golub and LeVeque, "Algorithms for computing the sample
// variance", 1983): with shift ≈ mean, d = x − shift, correction = mean(d) and variance = mean(d²) − correction². The
// correction takes out the error of the shift, so the error does not grow with |mean| / std.
//
// Where `access` finds the shift by a sample, it may be far from the mean; and the sums may leave the range of f32. Then the
// span is measured again, about a better shift or in another unit.

// Turns whose sum goes to an outer sum, and turns whose outer sum goes to the last one. STEP turns are added pairwise, and at
// each level one after another: the rounding error of a sum of n grows like the root of their number there, in place of √n.
// (Compensated summation would do better where it survives, but WGSL lets a compiler simplify the compensation away.)
const BLOCK: u32 = 32u;
const OUTER_BLOCK: u32 = 256u;

// What a span wants to be measured for: the first time, …
const FIRST: u32 = 1u;
// … in another unit, …
const ANOTHER_SCALE: u32 = 2u;
// … or about another shift, because the last one was more than a standard deviation off.
const ANOTHER_SHIFT: u32 = 4u;
// A span may need a shift, then a scale, then a shift again.
const MOST_ATTEMPTS: u32 = 4u;

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

// The sums of x − shift and of its square over the span. The loops leave at their ends because llvmpipe runs the body of a
// loop that has no turns left once more, for nobody.
fn sums_about(shift: f32, scale: f32) -> vec2<f32> {
    var sums = Sums();
    if TURNS <= BLOCK {
        sums = block_sums(0u, scale, shift);
    } else {
        var turn = 0u;
        loop {
            var outer = Sums();
            loop {
                outer = add(outer, block_sums(turn, scale, shift));
                turn += BLOCK;
                if turn % OUTER_BLOCK == 0u || turn >= span_turns() {
                    break;
                }
            }
            sums = add(sums, outer);
            if turn >= span_turns() {
                break;
            }
        }
    }
    return span_sum(vec2<f32>(unit_sum(sums.differences), unit_sum(sums.squares)));
}

// The sums over BLOCK turns, or as many as there are.
fn block_sums(begin: u32, scale: f32, shift: f32) -> Sums {
    let end = min(begin + BLOCK, span_turns());
    var sums = Sums();
    var turn = begin;
    loop {
        sums = add(sums, step_sums(turn, scale, shift));
        turn += STEP;
        if turn >= end {
            break;
        }
    }
    return sums;
}

fn add(a: Sums, b: Sums) -> Sums {
    return Sums(a.differences + b.differences, a.squares + b.squares);
}

fn largest_bits() -> u32 {
    var largest = UnitBits(0u);
    var turn = 0u;
    loop {
        largest = max(largest, bitcast<UnitBits>(span_unit(turn)) & UnitBits(0x7fffffffu));
        turn++;
        if turn >= span_turns() {
            break;
        }
    }
    return span_max(unit_max(largest));
}

fn measure() -> Moments {
    let count = f32(span_units * UNIT);
    var kept: Moments;
    var scale = 1.0;
    var shift = 0.0;
    var correction = 0.0;
    var wanted = FIRST;
    var any = FIRST;
    var rescued = false;
    var attempts = 0u;
    loop {
        if (any & ANOTHER_SCALE) != 0u {
            let exponent = rescue_exponent(exponent_of(bitcast<f32>(largest_bits())));
            if wanted == ANOTHER_SCALE {
                scale = power_of_two(exponent);
                rescued = true;
            }
        }
        let fresh = shift_of(scale);
        shift = select(fresh, shift + correction, wanted == ANOTHER_SHIFT);
        let sums = sums_about(shift, scale);
        correction = correction_of(sums.x / count);
        let variance = at_least_zero(sums.y / count - correction * correction);
        // Spans that only share a workgroup with one that is measured again keep what they had, to the bit.
        if wanted != 0u {
            kept = Moments(shift, correction, variance, scale);
            wanted = select(0u, ANOTHER_SHIFT, correction * correction > variance);
            if !rescued && moments_suspect(sums.y, variance) {
                wanted = ANOTHER_SCALE;
            }
        }
        any = workgroup_or(wanted);
        attempts++;
        if any == 0u || attempts == MOST_ATTEMPTS {
            break;
        }
    }
    return kept;
}
