// What the gradient of a position s takes from its own position and all later ones of its sequence. Let μ_t and r_t be the mean
// and rstd of position t, N_t the number of elements of all positions up to and including t, D_t the same number, or one less for
// the unbiased variance, and Σ the sum over the row of position t. Then
//     dx = r_s · g + Σ_{t ≥ s} (a_t + c_t · (x − μ_t)),   a_t = −r_t · Σg / N_t,   c_t = −r_t² · Σ(g · x̂) / D_t
// because x is part of the mean and the variance of all of them. The sum over t is kept as A + C · (x − origin), the origin being the mean
// of the first position in it, so that it does not cancel at any mean.

// A · 2^−exponent and C · 2^(−2 · exponent), the exponent being that of r at the first position, so that neither leaves f32's range; the
// origin in the unit that its position was measured in, 2^−origin_exponent.
struct Suffix {
    sum: Double,
    factor: Double,
    exponent: i32,
    origin: Double,
    origin_exponent: i32,
    // 0 where there are no positions yet.
    rows: u32,
}

fn no_suffix() -> Suffix {
    return Suffix(Double(0.0, 0.0), Double(0.0, 0.0), 0, Double(0.0, 0.0), 0, 0u);
}

struct StoredSuffix {
    sums: vec4<u32>,
    origin: vec4<u32>,
}

// Added to exponents, two of which share a word.
const EXPONENT_BIAS: i32 = 4096;

fn stored_suffix(suffix: Suffix) -> StoredSuffix {
    let sums = vec4<f32>(suffix.sum.value, suffix.sum.rest, suffix.factor.value, suffix.factor.rest);
    let origin = bitcast<vec2<u32>>(vec2<f32>(suffix.origin.value, suffix.origin.rest));
    let exponents = u32(suffix.exponent + EXPONENT_BIAS) | (u32(suffix.origin_exponent + EXPONENT_BIAS) << 16u);
    return StoredSuffix(bitcast<vec4<u32>>(sums), vec4<u32>(origin, exponents, suffix.rows));
}

fn suffix_from(stored: StoredSuffix) -> Suffix {
    let sums = bitcast<vec4<f32>>(stored.sums);
    let origin = bitcast<vec2<f32>>(stored.origin.xy);
    let exponent = i32(stored.origin.z & 0xffffu) - EXPONENT_BIAS;
    let origin_exponent = i32(stored.origin.z >> 16u) - EXPONENT_BIAS;
    let rows = stored.origin.w;
    return Suffix(
        Double(sums.x, sums.y), Double(sums.z, sums.w), exponent, Double(origin.x, origin.y), origin_exponent, rows,
    );
}

// The position that comes first and all after it together: about the origin and in the unit of the former.
fn prepend(first: Suffix, following: Suffix) -> Suffix {
    if following.rows == 0u {
        return first;
    }
    // How far the origin moves, times r of what follows: in the coarser of the two units nothing overflows.
    let unit = min(first.origin_exponent, following.origin_exponent);
    let own = scaled_double(first.origin, unit - first.origin_exponent);
    let origin = scaled_double(following.origin, unit - following.origin_exponent);
    let distance = kept_scalar(own.value - origin.value) + kept_scalar(own.rest - origin.rest);
    let moved = scaled(distance, following.exponent - unit);
    let about = add_to(following.sum, kept_scalar(following.factor.value * moved), following.factor.rest * moved);
    let by = following.exponent - first.exponent;
    let sum = scaled_double(about, by);
    let factor = scaled_double(following.factor, 2 * by);
    return Suffix(
        add_to(first.sum, sum.value, sum.rest),
        add_to(first.factor, factor.value, factor.rest),
        first.exponent,
        first.origin,
        first.origin_exponent,
        first.rows + following.rows,
    );
}
