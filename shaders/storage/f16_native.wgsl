// Storage type f16 by the conversions of the language, for adapters on which they were found to be exact.

fn unpack_f16(words: vec2<u32>) -> Quad {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn pack_f16(value: Quad) -> vec2<u32> {
    return vec2<u32>(pack2x16float(value.xy), pack2x16float(value.zw));
}
