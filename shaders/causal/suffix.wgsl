// What a position's gradient takes from its own position and all later ones of its sequence. With mean μ and rstd r of position t, N and
// D elements before and with it (D is one less for the unbiased variance), and sums over its row,
//     dx = r_s · g + Σ_{t ≥ s} (a_t + c_t · (x − μ_t)),   a_t = −r_t · Σg / N_t,   c_t = −r_t² · Σ(g · x̂) / D_t
// because x is part of the mean and the variance of all of them. The sum over t is kept as A + C · (x − origin), the origin being the mean
// of the first position in it, so that it does not cancel at any mean.

// In the unit in which r is from 1 to 2 at the first position: A · 2^−exponent, C · 2^(−2 · exponent), origin · 2^exponent.
struct Suffix {
    sum: Double,
    factor: Double,
    origin: Double,
    exponent: i32,
    // 0 where there are no positions yet.
    rows: u32,
}

fn no_suffix() -> Suffix {
    return Suffix(Double(0.0, 0.0), Double(0.0, 0.0), Double(0.0, 0.0), 0, 0u);
}

struct StoredSuffix {
    sums: vec4<u32>,
    origin: vec4<u32>,
}

fn stored_suffix(suffix: Suffix) -> StoredSuffix {
    let sums = vec4<f32>(suffix.sum.value, suffix.sum.rest, suffix.factor.value, suffix.factor.rest);
    let origin = bitcast<vec2<u32>>(vec2<f32>(suffix.origin.value, suffix.origin.rest));
    return StoredSuffix(bitcast<vec4<u32>>(sums), vec4<u32>(origin, bitcast<u32>(suffix.exponent), suffix.rows));
}

fn suffix_from(stored: StoredSuffix) -> Suffix {
    let sums = bitcast<vec4<f32>>(stored.sums);
    let origin = bitcast<vec2<f32>>(stored.origin.xy);
    let exponent = bitcast<i32>(stored.origin.z);
    return Suffix(Double(sums.x, sums.y), Double(sums.z, sums.w), Double(origin.x, origin.y), exponent, stored.origin.w);
}

// What position comes before and all after it together: about the origin and in the unit of the former.
fn prepend(first: Suffix, following: Suffix) -> Suffix {
    if following.rows == 0u {
        return first;
    }
    let by = following.exponent - first.exponent;
    let sum = scaled_double(following.sum, by);
    let factor = scaled_double(following.factor, 2 * by);
    let origin = scaled_double(following.origin, -by);
    let moved = kept_scalar(first.origin.value - origin.value) + kept_scalar(first.origin.rest - origin.rest);
    var total = add_to(first.sum, sum.value, sum.rest);
    total = add_to(total, kept_scalar(factor.value * moved), factor.rest * moved);
    return Suffix(total, add_to(first.factor, factor.value, factor.rest), first.origin, first.exponent, first.rows + following.rows);
}
