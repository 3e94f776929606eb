// Storage type bf16: the upper half of an f32. Works on bits, so that every adapter has it and rounds alike.

fn decode_bf16(bits: UnitBits) -> Unit {
    return bitcast<Unit>(bits << UnitBits(16u));
}

// To nearest, ties to even. What is too large becomes infinity; a NaN stays one.
fn encode_bf16(value: Unit) -> UnitBits {
    let bits = bitcast<UnitBits>(value);
    let upper = bits >> UnitBits(16u);
    let rounded = (bits + 0x7fffu + (upper & UnitBits(1u))) >> UnitBits(16u);
    // A NaN would lose the bits that make it one, or round over to zero.
    let is_nan = (bits & UnitBits(0x7fffffffu)) > UnitBits(0x7f800000u);
    return select(rounded, upper | UnitBits(0x40u), is_nan);
}
