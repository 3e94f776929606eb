// f32 numbers by their bits.
//
// WGSL lets a compiler reassociate, factor, distribute and contract float expressions, flush subnormal numbers to zero, and take
// it that there are neither infinities nor NaNs. What must not depend on that is done on the bits, which it leaves alone.

const SIGN_BIT: u32 = 0x80000000u;
const EXPONENT_BITS: u32 = 0x7f800000u;
const MAGNITUDE_BITS: u32 = 0x7fffffffu;

// The value itself where `mask` is params.all_bits, 0 where it is 0. A compiler cannot see which, so nothing that is added to or
// multiplied with the result is moved into what made it: Σ (x − shift) does not become Σ x − n · shift, which would lose
// all digits where the shift is large.
fn kept(value: Quad, mask: u32) -> Quad {
    return bitcast<Quad>(bitcast<QuadBits>(value) & QuadBits(mask));
}

fn kept_scalar(value: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(value) & params.all_bits);
}

// value · 2^exponent, exactly; 0 where that is below the normal numbers, infinity where it is above. Zeros, infinities and NaNs
// stay what they are.
fn scaled(value: f32, exponent: i32) -> f32 {
    let bits = bitcast<u32>(value);
    let sign = bits & SIGN_BIT;
    let field = i32((bits & EXPONENT_BITS) >> 23u);
    let moved = bits + (bitcast<u32>(exponent) << 23u);
    let small = select(moved, sign, field + exponent < 1);
    let bounded = select(small, sign | EXPONENT_BITS, field + exponent > 254);
    let known = select(bounded, sign, field == 0);
    return bitcast<f32>(select(known, bits, (field == 255) | (exponent == 0)));
}

// 2^exponent, for exponents from −126 to 127. What is multiplied by it is kept, so that the product stays where it is.
fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(exponent + 127) << 23u);
}

// The upper 12 of the 24 digits.
fn upper_digits(value: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(value) & 0xfffff000u);
}

// floor(log2(|value|)); −127 for zero and what counts as zero, 128 for infinity and NaN.
fn exponent_of(value: f32) -> i32 {
    return i32((bitcast<u32>(value) & EXPONENT_BITS) >> 23u) - 127;
}
