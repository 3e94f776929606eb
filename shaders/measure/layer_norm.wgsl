// Layer normalization: mean and variance by the corrected two-pass algorithm (Chan, Golub and LeVeque, "Algorithms for
// computing the sample variance", 1983): shift ≈ mean, then d = x − shift, correction = mean(d),
// variance = mean(d²) − correction². The correction takes out the rounding error of the shift, so the error does not grow
// with |mean| / std.
//
// The first pass adds up x − origin, origin being the span's first element: a constant span then has exactly
// its own value as shift, and d = 0.

fn measure_scaled(scale: f32) -> Measured {
    let count = f32(span_units * UNIT);
    let origin = read_origin() * scale;
    var sum = Unit(0.0);
    for (var turn = 0u; turn < span_turns(); turn += STEP) {
        sum += step_sums(turn, scale, origin).differences;
    }
    let shift = origin + span_sum(vec2<f32>(unit_sum(sum), 0.0)).x / count;

    let sums = sums_about(shift, scale);
    let correction = sums.x / count;
    let variance = sums.y / count - correction * correction;
    return Measured(shift, correction, sums.y, at_least_zero(variance));
}
