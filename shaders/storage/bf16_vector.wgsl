// Four elements of storage type bf16 in two words, decoded.

fn unpack_bf16(words: vec2<u32>) -> Quad {
    let low = words * 65536u;
    let high = words & vec2<u32>(0xffff0000u);
    return bitcast<Quad>(QuadBits(low.x, high.x, low.y, high.y));
}
