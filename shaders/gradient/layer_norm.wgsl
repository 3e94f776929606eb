// What is particular to the gradient of layer normalization.

// No bits where the row has no deviation that f32 can hold: it was constant, or its elements lie so far apart that their differences
// from the mean may overflow. Such a row counts as constant.
fn row_mask(statistics: Statistics) -> u32 {
    return select(params.all_bits, 0u, exponent_of(statistics.rstd) == -127);
}

// Over all invocations that share a span.
fn row_sums(parts: vec4<f32>) -> vec4<f32> {
    return span_sum_each(parts);
}

fn coefficients_of(statistics: Statistics, sums: vec4<f32>) -> Coefficients {
    let offset = sums.z * params.mean_share;
    let products = fma(-offset, sums.x, sums.y);
    let summand = -statistics.rstd * (sums.x * params.mean_share);
    let slope = products * params.variance_share;
    return Coefficients(statistics.half_mean, statistics.rstd, statistics.double_rstd, offset, summand, slope);
}
