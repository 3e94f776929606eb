// Storage type f16: IEEE 754 binary16. Works on bits, so that every adapter has it and rounds alike: unpack2x16float may
// flush subnormals, pack2x16float may round in any direction and knows no overflow. Multiplications do for shifts to the left,
// as in bf16.

fn decode_f16(bits: QuadBits) -> Quad {
    let sign = (bits & QuadBits(0x8000u)) * 65536u;
    let exponent = bits & QuadBits(0x7c00u);
    let magnitude = (bits & QuadBits(0x7fffu)) * 8192u;
    // From exponent bias 15 to 127; infinity and NaN as far again.
    let normal = magnitude + select(QuadBits(0x38000000u), QuadBits(0x70000000u), exponent == QuadBits(0x7c00u));
    // A subnormal is its digits times 2^-24, and a normal f32.
    let subnormal = bitcast<QuadBits>(Quad(bits & QuadBits(0x3ffu)) * 5.9604644775390625e-8);
    return bitcast<Quad>(sign | select(normal, subnormal, exponent == QuadBits(0u)));
}

// To nearest, ties to even, in the upper half of the result. What is too large becomes infinity; a NaN stays one.
fn encode_f16(value: Quad) -> QuadBits {
    let bits = bitcast<QuadBits>(value);
    let sign = bits & QuadBits(0x80000000u);
    let magnitude = bits & QuadBits(0x7fffffffu);

    // From 2^-14 on: exponent bias from 127 to 15, ten digits of 23. A carry goes into the exponent, as it should.
    let half = select(QuadBits(0xfffu), QuadBits(0x1000u), (magnitude & QuadBits(0x2000u)) != QuadBits(0u));
    let normal = ((magnitude - 0x38000000u + half) & QuadBits(0x0fffe000u)) * 8u;

    // Below: digits in units of 2^-24, which are the last ones of f32 numbers from 0.5 on. The sum rounds to them.
    let subnormal = (bitcast<QuadBits>(bitcast<Quad>(magnitude) + 0.5) - 0x3f000000u) * 65536u;

    var result = select(normal, subnormal, magnitude < QuadBits(0x38800000u));
    // 65,520 lies halfway between the largest number and the next there would be.
    result = select(result, QuadBits(0x7c000000u), magnitude >= QuadBits(0x477ff000u));
    result = select(result, QuadBits(0x7e000000u), magnitude > QuadBits(0x7f800000u));
    return sign | result;
}
