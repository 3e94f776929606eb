// Storage type bf16: the upper half of an f32. Works on bits, so that every adapter has it and rounds alike. A multiplication
// does for a shift to the left: some adapters shift vectors one element at a time, and those that shift better know how.

fn decode_bf16(bits: QuadBits) -> Quad {
    return bitcast<Quad>(bits * 65536u);
}

// To nearest, ties to even, in the upper half of the result. What is too large becomes infinity; a NaN stays one.
fn encode_bf16(value: Quad) -> QuadBits {
    let bits = bitcast<QuadBits>(value);
    let rounded = bits + ((bits >> QuadBits(16u)) & QuadBits(1u)) + QuadBits(0x7fffu);
    // A NaN would lose the bits that make it one, or round over to zero.
    return select(rounded, QuadBits(0x7fc00000u), (bits & QuadBits(0x7fffffffu)) > QuadBits(0x7f800000u));
}
