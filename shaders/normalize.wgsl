// From the moments of a row to its output, the sum with the residual, and its statistics, as far as they are asked for.
//
// The output or the sum may take the place of the input or the residual: each invocation writes only units that it alone
// reads from here on, and has read before.

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

fn write_unit(turn: u32, moments: Moments, rstd: f32) {
    if in_span(turn) {
        let position = span_begin + unit_index(turn);
        let source = span_unit(turn);
        let difference = source * moments.scale - moments.shift;
        let normalized = fma(difference, Unit(rstd), Unit(-moments.correction * rstd));
        sum_set(position, source);
        output_set(position, affine(normalized, position));
    }
}

fn span_normalize(moments: Moments) {
    if !span_owned {
        return;
    }
    let rstd = rstd_of(moments);
    if lane == 0u && span_begin == 0u {
        mean_set((moments.shift + moments.correction) * power_of_two(-exponent_of(moments.scale)));
        rstd_set(rstd * moments.scale);
    }
    for (var turn = 0u; turn < span_turns(); turn += STEP) {
        write_unit(turn, moments, rstd);
        if STEP >= 2u {
            write_unit(turn + 1u, moments, rstd);
        }
        if STEP == 4u {
            write_unit(turn + 2u, moments, rstd);
            write_unit(turn + 3u, moments, rstd);
        }
    }
}
