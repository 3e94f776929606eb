// Storage type f16 by the conversions of the language, one element at a time, for adapters on which they were found to be exact.

fn unpack_f16(half: u32) -> f32 {
    return unpack2x16float(half).x;
}

// In both halves of the result.
fn pack_f16(value: f32) -> u32 {
    return pack2x16float(vec2<f32>(value));
}
