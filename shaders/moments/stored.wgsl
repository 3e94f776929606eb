// Moments of a row as they are given: the mean, the rest of it that f32 cannot hold, the standard deviation, and the number of
// elements.

// A standard deviation whose exponent is HIGH_DEVIATION or more, or below LOW_DEVIATION, has a square that may leave f32's range.
const HIGH_DEVIATION: i32 = 50;
const LOW_DEVIATION: i32 = -45;

// 1 / √(variance + eps) in the unit 2^−exponent: what is multiplied by it is multiplied by 2^exponent first.
struct KnownRstd {
    rstd: f32,
    exponent: i32,
}

fn known_rstd(moments: vec4<u32>) -> KnownRstd {
    let deviation = bitcast<f32>(moments.z);
    let size = exponent_of(deviation);
    // A small deviation does not matter beside an ordinary eps, and one of 0, of a constant row, needs no other unit.
    let drowned = (exponent_of(params.eps) >= LOW_EPS_EXPONENT) | (size == -127);
    let ordinary = (size < HIGH_DEVIATION) & ((size >= LOW_DEVIATION) | drowned);
    // An ordinary deviation is taken as it is. For any other the unit is that in which it is about 1, or the nearest in which
    // neither eps nor the mean overflows.
    let limit = min(eps_limit(), 100 - exponent_of(bitcast<f32>(moments.x)));
    let exponent = select(clamp(-size, -126, min(126, limit)), 0, ordinary);
    let own = scaled(deviation, exponent);
    let eps = scaled(params.eps, 2 * exponent);
    // 1 for the biased variance, n / (n − 1) for the unbiased one.
    let factor = 1.0 + params.unbiased / f32(max(moments.w, 2u) - 1u);
    let square = own * own;
    return KnownRstd(rstd_of(fma(square, factor, eps), eps, square), exponent);
}
