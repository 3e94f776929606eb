// Mean and variance of values that may have any mean and any magnitude.
//
// Values are multiplied by `scale`, a power of two, so nothing is rounded. In that unit the mean is
// shift + correction, kept apart because their sum has more digits than an f32 holds, and `variance` is the
// biased one about that mean.

struct Moments {
    shift: f32,
    correction: f32,
    variance: f32,
    scale: f32,
}

const SIGN_BIT: u32 = 0x80000000u;
const EXPONENT_BITS: u32 = 0x7f800000u;
// Below this variance the squares may have lost digits to underflow (f32 ends at 2^-126) …
const LOW_VARIANCE: f32 = 8.077935669463161e-28; // 2^-90
// … which matters only where eps does not drown what was lost.
const LOW_EPS: f32 = 1.3552527156068805e-20; // 2^-66

// Whether the moments must be taken again in another unit. `squares` is the sum of squares they come from. Looks at bits
// because a compiler may assume that there are no infinities.
fn moments_suspect(squares: f32, variance: f32) -> bool {
    // Also where eps is so large that only the sum is too large.
    let divisor = variance * params.variance_factor + params.eps;
    let overflowed = exponent_of(squares) == 128 || exponent_of(divisor) == 128;
    return overflowed || (variance < LOW_VARIANCE && params.eps < LOW_EPS);
}

// 0 for a variance that rounding made negative. Looks at bits because max would lose a NaN, and a compiler may make max of a
// comparison.
fn at_least_zero(variance: f32) -> f32 {
    let bits = bitcast<u32>(variance);
    return select(variance, 0.0, bits >= SIGN_BIT && bits < (SIGN_BIT | EXPONENT_BITS));
}

// floor(log2(|value|)); −127 for zero, 128 for infinity and NaN.
fn exponent_of(value: f32) -> i32 {
    return i32((bitcast<u32>(value) & EXPONENT_BITS) >> 23u) - 127;
}

// 2^exponent, for exponents from −126 to 127.
fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(exponent + 127) << 23u);
}

// The scale that brings values below 2^(exponent + 1) to about 1. Bounded above so that eps · scale² does not overflow.
fn rescue_exponent(exponent: i32) -> i32 {
    return clamp(-exponent, -126, (100 - exponent_of(params.eps)) / 2);
}
