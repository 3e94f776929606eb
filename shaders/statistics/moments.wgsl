// The statistics of a row that is a part of a longer one: the mean in f32, the rest of it that f32 cannot hold, the standard
// deviation, and the number of elements. There is no eps, and the field `rstd` of a Scaling holds the standard deviation.

// √number for a number from 1 to 4, rounded once: the upper 12 digits of it, whose square is exact, and a step that takes what is missing,
// number − square, into account up to its square (see `inverse_root`). With m = (number − root²) / √number, it is
// √number − root = m · (1/2 + m / (8 · √number)) but for the third power of m.
fn square_root(number: f32) -> f32 {
    let inverse = inverseSqrt(number);
    let root = upper_digits(number * inverse);
    let missing = kept_scalar(number - root * root) * inverse;
    return root + kept_scalar(missing * fma(0.125 * missing, inverse, 0.5));
}

// √variance, where `squares` is the sum of squares that it comes from. NaN of NaN, infinity of infinity.
fn factor_of(variance: f32, eps: f32, squares: f32) -> f32 {
    let number = bitcast<u32>(variance);
    // Rounding may have made it negative.
    let numbers = select(number, 0u, number >= SIGN_BIT);
    // Where `squares` is infinite or NaN, the result is too, because arithmetic on the way to the variance need not have kept
    // that.
    let is_end = exponent_of(squares) == 128;
    let half = exponent_of(bitcast<f32>(numbers)) >> 1u;
    let root = square_root(bitcast<f32>(numbers - (bitcast<u32>(half) << 24u)));
    let deviation = bitcast<u32>(root) + (bitcast<u32>(half) << 23u);
    let known = select(deviation, 0u, numbers < 0x800000u);
    return bitcast<f32>(select(known, bitcast<u32>(squares) & MAGNITUDE_BITS, is_end));
}

fn store_statistics(row: u32, scaling: Scaling) {
    let by = -scaling.exponent;
    // The mean as f32 has it, and what that leaves of shift + correction, as in `loss`.
    let mean = kept_scalar(scaling.shift + scaling.correction);
    let added = kept_scalar(mean - scaling.shift);
    let old = kept_scalar(mean - added);
    let rest = kept_scalar(scaling.shift - old) + kept_scalar(scaling.correction - added);
    let both = vec2<f32>(scaled(mean, by), scaled(rest, by));
    moments_set(row, vec4<u32>(bitcast<vec2<u32>>(both), bitcast<u32>(scaled(scaling.rstd, by)), WIDTH));
}
