// From a variance to 1 / sqrt(variance + eps), and where f32's range ends for the sum of squares that it comes from.

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

// 1 / √sum, where `sum` is a variance plus eps, and `squares` the sum of squares that the variance comes from; all in the same
// unit. It is 0 where the sum is 0, as for a constant row with eps = 0, which thereby becomes the bias, and where the sum is
// infinite. It is NaN where the sum is NaN.
fn rstd_of(sum: f32, eps: f32, squares: f32) -> f32 {
    let variance = bitcast<u32>(sum);
    // Rounding may have made it less than eps, even negative.
    let is_negative = variance >= SIGN_BIT;
    let numbers = select(variance, bitcast<u32>(eps), is_negative);
    // Where `squares` is infinite or NaN, its own bits decide, because arithmetic on the way to the sum need not have kept that.
    let bits = select(numbers, bitcast<u32>(squares) & MAGNITUDE_BITS, exponent_of(squares) == 128);

    // In a unit in which it is from 1 to 4, so that no product of Newton's method leaves f32's range, however it is formed.
    let half = exponent_of(bitcast<f32>(bits)) >> 1u;
    let unit = bitcast<f32>(bits - (bitcast<u32>(half) << 24u));
    let root = inverse_root(unit);
    let rstd = bitcast<f32>(bitcast<u32>(root) - (bitcast<u32>(half) << 23u));
    let is_end = (bits < 0x800000u) | (bits == EXPONENT_BITS);
    let is_nan = bits > EXPONENT_BITS;
    let ended = select(rstd, 0.0, is_end);
    return select(ended, bitcast<f32>(bits), is_nan);
}
