// What is particular to the gradient of RMS normalization: there is no mean, neither of x nor of g.

fn row_mask(statistics: Statistics) -> u32 {
    return params.all_bits;
}

// Over all invocations that share a span.
fn row_sums(parts: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(0.0, span_sum(parts.y), 0.0, 0.0);
}

fn coefficients_of(statistics: Statistics, sums: vec4<f32>) -> Coefficients {
    return Coefficients(0.0, statistics.rstd, statistics.double_rstd, 0.0, 0.0, sums.y * params.variance_share);
}
