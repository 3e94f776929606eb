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
fn scaled(value: Quad, exponent: i32) -> Quad {
    let bits = bitcast<QuadBits>(value);
    let sign = bits & QuadBits(SIGN_BIT);
    let field = (bits >> QuadBits(23u)) & QuadBits(255u);
    // Wraps around below 0.
    let target_field = field + QuadBits(bitcast<u32>(exponent));
    let moved = bits + QuadBits(bitcast<u32>(exponent) << 23u);
    let normal = select(sign, moved, target_field - QuadBits(1u) < QuadBits(254u));
    let bounded = select(normal, sign | QuadBits(EXPONENT_BITS), target_field - QuadBits(255u) < QuadBits(MAGNITUDE_BITS - 255u));
    let known = select(bounded, sign, field == QuadBits(0u));
    return bitcast<Quad>(select(known, bits, (field == QuadBits(255u)) | (QuadBits(bitcast<u32>(exponent)) == QuadBits(0u))));
}

fn scaled_scalar(value: f32, exponent: i32) -> f32 {
    return quad_first(scaled(Quad(value), exponent));
}

// floor(log2(|value|)); −127 for zero and what counts as zero, 128 for infinity and NaN.
fn exponent_of(value: f32) -> i32 {
    return i32((bitcast<u32>(value) & EXPONENT_BITS) >> 23u) - 127;
}
