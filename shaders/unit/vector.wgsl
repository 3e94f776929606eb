// Unit of access: a vector of four elements (16 bytes in f32, 8 in f16 and bf16).
//
// Precondition: the width and every base and stride are multiples of four elements.

alias Unit = vec4<f32>;
alias UnitBits = vec4<u32>;
const UNIT: u32 = 4u;

// The unit's first element in memory order.
fn unit_first(value: Unit) -> f32 {
    return value.x;
}

fn unit_sum(value: Unit) -> f32 {
    return (value.x + value.z) + (value.y + value.w);
}

fn unit_max(value: UnitBits) -> u32 {
    return max(max(value.x, value.z), max(value.y, value.w));
}

// Four elements of 16 bits in two words; the first in memory is in the low half.
fn unpack(words: vec2<u32>) -> UnitBits {
    return vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
}

// Of each element the upper half counts.
fn pack(bits: UnitBits) -> vec2<u32> {
    return vec2<u32>((bits.x >> 16u) | (bits.y & 0xffff0000u), (bits.z >> 16u) | (bits.w & 0xffff0000u));
}
