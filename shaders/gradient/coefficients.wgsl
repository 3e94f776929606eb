// The coefficients of the rows, two vectors each: half the mean, rstd, offset, summand; slope, twice rstd.

@group(0) @binding(42) var<storage, read_write> coefficients: array<vec4<f32>>;

fn store_coefficients(row: u32, found: Coefficients) {
    coefficients[2u * row] = vec4<f32>(found.half_mean, found.rstd, found.offset, found.summand);
    coefficients[2u * row + 1u] = vec4<f32>(found.slope, found.double_rstd, 0.0, 0.0);
}
