// Storage type f16: IEEE 754 binary16. Works on bits, so that every adapter has it and rounds alike: unpack2x16float may
// flush subnormals, pack2x16float may round in any direction and knows no overflow.

fn decode_f16(bits: UnitBits) -> Unit {
    let sign = (bits & UnitBits(0x8000u)) << UnitBits(16u);
    let exponent = bits & UnitBits(0x7c00u);
    let magnitude = (bits & UnitBits(0x7fffu)) << UnitBits(13u);
    // From exponent bias 15 to 127; infinity and NaN as far again.
    let normal = magnitude + select(UnitBits(0x38000000u), UnitBits(0x70000000u), exponent == UnitBits(0x7c00u));
    // A subnormal is its digits times 2^-24, and a normal f32.
    let subnormal = bitcast<UnitBits>(Unit(bits & UnitBits(0x3ffu)) * 5.9604644775390625e-8);
    return bitcast<Unit>(sign | select(normal, subnormal, exponent == UnitBits(0u)));
}

// To nearest, ties to even. What is too large becomes infinity; a NaN stays one.
fn encode_f16(value: Unit) -> UnitBits {
    let bits = bitcast<UnitBits>(value);
    let sign = (bits >> UnitBits(16u)) & UnitBits(0x8000u);
    let magnitude = bits & UnitBits(0x7fffffffu);

    // From 2^-14 on: exponent bias from 127 to 15, ten digits of 23. A carry goes into the exponent, as it should.
    let normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> UnitBits(13u)) & UnitBits(1u))) >> UnitBits(13u);

    // Below: digits in units of 2^-24. Shifted by more than 24 nothing is left of them.
    let digits = (magnitude & UnitBits(0x7fffffu)) | UnitBits(0x800000u);
    let shift = clamp(UnitBits(126u) - (magnitude >> UnitBits(23u)), UnitBits(1u), UnitBits(25u));
    let half = (UnitBits(1u) << (shift - 1u)) - 1u;
    let subnormal = (digits + half + ((digits >> shift) & UnitBits(1u))) >> shift;

    var result = select(normal, subnormal, magnitude < UnitBits(0x38800000u));
    // 65,520 lies halfway between the largest number and the next there would be.
    result = select(result, UnitBits(0x7c00u), magnitude >= UnitBits(0x477ff000u));
    result = select(result, UnitBits(0x7e00u), magnitude > UnitBits(0x7f800000u));
    return sign | result;
}
