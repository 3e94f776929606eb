// From the moments of a row to its output, the sum with the residual, and its statistics, as far as they are asked for.
//
// The output or the sum may take the place of the input or the residual: each invocation writes only units that it alone
// reads from here on, and has read before.

// Turns that the loop body takes at once.
const NORMALIZE_STEP: u32 = max(STEP / SPANS_PER_LANE, 1u);

// 1 / sqrt(variance + eps) in the moments' unit. A constant row with eps = 0 has none; 0 then makes it the bias. NaN of NaN.
fn rstd_of(moments: Moments) -> f32 {
    let variance = moments.variance * params.variance_factor + params.eps * moments.scale * moments.scale;
    // inverseSqrt may be a rough estimate; each step of Newton's method doubles its good bits.
    var estimate = inverseSqrt(variance);
    estimate += 0.5 * estimate * fma(-variance * estimate, estimate, 1.0);
    estimate += 0.5 * estimate * fma(-variance * estimate, estimate, 1.0);
    // Newton's method turns the 0 of an infinity into NaN.
    let is_end = variance == 0.0 || bitcast<u32>(variance) == EXPONENT_BITS;
    return select(estimate, 0.0, is_end);
}

// What brings a span's elements to normalized ones.
struct Scaling {
    scale: f32,
    shift: f32,
    rstd: f32,
    offset: f32,
}

var<private> scalings: array<Scaling, SPANS_PER_LANE>;

// Takes the moments of the span at hand.
fn span_measured(moments: Moments) {
    let rstd = rstd_of(moments);
    scalings[slot] = Scaling(moments.scale, moments.shift, rstd, -moments.correction * rstd);
    if span_owned && lane == 0u && span_begin == 0u {
        let mean = (moments.shift + moments.correction) * power_of_two(-exponent_of(moments.scale));
        // A row with an infinity has no mean either, wherever the shift came from.
        mean_set(select(mean, moments.variance, exponent_of(moments.variance) == 128));
        rstd_set(rstd * moments.scale);
    }
}

fn write_unit(index: u32, turn: u32, position: u32, parameters: Parameters) {
    span_enter(index);
    if span_owned {
        let scaling = scalings[index];
        let source = span_unit(turn);
        let normalized = fma(source * scaling.scale - scaling.shift, Unit(scaling.rstd), Unit(scaling.offset));
        sum_set(position, source);
        output_set(position, affine(normalized, parameters));
    }
}

fn write_turn(turn: u32) {
    if in_span(turn) {
        let position = span_begin + unit_index(turn);
        let parameters = parameters_at(position);
        write_unit(0u, turn, position, parameters);
        if SPANS_PER_LANE >= 2u {
            write_unit(1u, turn, position, parameters);
        }
        if SPANS_PER_LANE == 4u {
            write_unit(2u, turn, position, parameters);
            write_unit(3u, turn, position, parameters);
        }
    }
}

// Precondition: the moments of all spans of this invocation were taken.
fn span_normalize() {
    var turn = 0u;
    loop {
        write_turn(turn);
        if NORMALIZE_STEP >= 2u {
            write_turn(turn + 1u);
        }
        if NORMALIZE_STEP == 4u {
            write_turn(turn + 2u);
            write_turn(turn + 3u);
        }
        turn += NORMALIZE_STEP;
        if turn >= span_turns() {
            break;
        }
    }
}
