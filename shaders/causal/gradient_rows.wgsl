// What single positions bring to the gradients of the positions before them.

@group(0) @binding(45) var<storage, read> row_scalings: array<vec4<f32>>;
@group(0) @binding(41) var<storage, read> segment_sums: array<vec4<f32>>;

// r without its power of two; 0 where the positions up to this one have no deviation, or none that f32 can hold.
fn rstd_digits(scaling: vec4<f32>) -> f32 {
    let exponent = exponent_of(scaling.z);
    return select(scaled(scaling.z, -exponent), 0.0, exponent == -127);
}

// Its power of two, in the unit 1. Where there is none, the same as those positions have that follow.
fn rstd_exponent(scaling: vec4<f32>, following: Suffix) -> i32 {
    let exponent = exponent_of(scaling.z);
    return select(exponent + i32(scaling.w), following.exponent, exponent == -127);
}

// Position `position` of a sequence alone.
fn suffix_of_row(row: u32, position: u32, following: Suffix) -> Suffix {
    let scaling = row_scalings[row];
    var sums = vec2<f32>(0.0);
    for (var segment = 0u; segment < SEGMENTS; segment++) {
        sums += segment_sums[row * SEGMENTS + segment].xy;
    }
    let rstd = rstd_digits(scaling);
    let exponent = rstd_exponent(scaling, following);
    // sums.x is Σg. For sums.y, which is to be Σ(g · x̂), only the first part of the mean was taken off x; here the rest is, too.
    let offset = scaling.y * scaling.z;
    let products = fma(-offset, sums.x, sums.y);
    let share = reciprocal(f32(position + 1u)).value * params.mean_share;
    let elements = f32(position + 1u) * f32(WIDTH);
    let factor = -rstd * rstd * products * (share * (1.0 + params.unbiased / max(elements - 1.0, 1.0)));
    let sum = Double(mean_part(-rstd * sums.x * share), 0.0);
    return Suffix(sum, Double(factor, 0.0), exponent, Double(scaling.x, scaling.y), i32(scaling.w), 1u);
}
