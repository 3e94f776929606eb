// Mean and variance of a row by the corrected two-pass algorithm (Chan, Golub and LeVeque, "Algorithms for computing the sample
// variance", 1983): with shift ≈ mean and d = x − shift,
//     correction = mean(d),   mean = shift + correction,   variance = mean(d²) − correction²
// The correction takes out the error of the shift, so the error does not grow with |mean| / std.

// What a span was measured to be, in the unit 2^−exponent: its elements are multiplied by 2^exponent first. The exponent
// is 0 unless a span was measured again (`rare`).
struct Moments {
    shift: f32,
    // The sums of x − shift and of its square over the span.
    differences: f32,
    squares: f32,
    exponent: i32,
}

// What brings a row's elements to normalized ones: x̂ = (x · 2^exponent − shift − correction) · rstd.
struct Scaling {
    shift: f32,
    correction: f32,
    rstd: f32,
    exponent: i32,
}

// From this exponent on a sum of squares may have met a square that overflowed.
const HIGH_EXPONENT: i32 = 100;
// Below this variance the squares may have lost digits to underflow (f32 ends at 2^-126) …
const LOW_EXPONENT: i32 = -90;
// … which matters only where eps does not drown what was lost.
const LOW_EPS_EXPONENT: i32 = -66;

// Whether a sum of squares may be wrong because of f32's range. Also where it is no number.
fn out_of_range(squares: f32, share: f32) -> bool {
    let high = exponent_of(squares) >= HIGH_EXPONENT;
    return high | ((exponent_of(squares * share) < LOW_EXPONENT) & (exponent_of(params.eps) < LOW_EPS_EXPONENT));
}

// Whether the correction is over a standard deviation: its square then takes digits from the variance. `share` is 1 / the number
// of elements, here and above.
fn off_the_mean(moments: Moments, share: f32) -> bool {
    let correction = correction_of(moments.differences) * share;
    return 2.0 * correction * correction > moments.squares * share;
}

// The exponent of a unit must not be above this, or eps would overflow in it.
fn eps_limit() -> i32 {
    return (100 - exponent_of(params.eps)) / 2;
}

// 1 / √number for a number from 1 to 4, rounded once. inverseSqrt may be off in the last digits; here its upper 12 digits are
// corrected by a step that takes e = 1 − number · root² into account up to its square. e is found to far more digits than f32 has:
// numbers are cut into halves of 12 digits, whose products are exact (Dekker, "A floating-point technique for extending the
// available precision", 1971).
fn inverse_root(number: f32) -> f32 {
    let root = upper_digits(inverseSqrt(number));
    let square = root * root;
    let square_high = upper_digits(square);
    let square_low = kept_scalar(square - square_high);
    let number_high = upper_digits(number);
    let number_low = kept_scalar(number - number_high);
    let e = kept_scalar(1.0 - number_high * square_high) - (number_high * square_low + number_low * square);
    return fma(root, kept_scalar(e * fma(0.375, e, 0.5)), root);
}

// 1 / sqrt(variance + eps), in the moments' unit. A constant row with eps = 0 has none; 0 then makes it the bias. NaN of NaN.
fn scaling_of(moments: Moments) -> Scaling {
    let correction = correction_of(moments.differences) * params.mean_share;
    let eps = scaled(params.eps, 2 * moments.exponent);
    let rest = fma(moments.squares, params.variance_share_rest, fma(-correction, correction * params.variance_factor, eps));
    let variance = bitcast<u32>(fma(moments.squares, params.variance_share, rest));
    // Rounding may have made it less than eps, even negative.
    let is_negative = variance >= SIGN_BIT;
    let numbers = select(variance, bitcast<u32>(eps), is_negative);
    // Of a sum that is infinite or none, no arithmetic.
    let bits = select(numbers, bitcast<u32>(moments.squares) & MAGNITUDE_BITS, exponent_of(moments.squares) == 128);

    // In a unit in which it is from 1 to 4, so that no product of Newton's method leaves f32's range, however it is formed.
    let half = exponent_of(bitcast<f32>(bits)) >> 1u;
    let unit = bitcast<f32>(bits - (bitcast<u32>(half) << 24u));
    let root = inverse_root(unit);
    let rstd = bitcast<f32>(bitcast<u32>(root) - (bitcast<u32>(half) << 23u));
    let is_end = (bits < 0x800000u) | (bits == EXPONENT_BITS);
    let is_nan = bits > EXPONENT_BITS;
    let ended = select(rstd, 0.0, is_end);
    return Scaling(moments.shift, correction, select(ended, bitcast<f32>(bits), is_nan), moments.exponent);
}
