// A unit, which is what one access of memory moves, is one vector of four elements here (`unit/one`), or two (`unit/two`). A Quad
// is one such vector. In `beside` its elements are those that four neighbouring rows have at one position.
//
// Precondition: the width and every base and stride are multiples of the unit. In `beside` that is not so of the width.

alias Quad = vec4<f32>;
alias QuadBits = vec4<u32>;

// The first element in memory order.
fn quad_first(value: Quad) -> f32 {
    return value.x;
}

fn quad_sum(value: Quad) -> f32 {
    return (value.x + value.z) + (value.y + value.w);
}

fn quad_max(value: QuadBits) -> u32 {
    return max(max(value.x, value.z), max(value.y, value.w));
}

// Four elements of 16 bits in two words; the first in memory is in the low half.
fn unpack(words: vec2<u32>) -> QuadBits {
    return vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
}

// Four elements of 16 bits, each in the upper half of its number, brought into two words.
fn pack(bits: QuadBits) -> vec2<u32> {
    return vec2<u32>((bits.x >> 16u) | (bits.y & 0xffff0000u), (bits.z >> 16u) | (bits.w & 0xffff0000u));
}
