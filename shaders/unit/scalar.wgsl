// A unit, which is what one access of memory moves, is one element here. This is for widths, bases and strides that no vector
// divides. A Quad is what an operation takes at once: a vector of four elements in `unit/vector`, one element here in spite of
// its name.
//
// Elements of 16 bits lie two to a word, and the two may belong to different rows, or one of them to somebody else. Where only one
// is to be written, that takes two atomic operations, which leave the other half alone.

alias Quad = f32;
alias QuadBits = u32;
const UNIT: u32 = 1u;

// The first element in memory order.
fn quad_first(value: Quad) -> f32 {
    return value;
}

fn quad_sum(value: Quad) -> f32 {
    return value;
}

fn quad_max(value: QuadBits) -> u32 {
    return value;
}

// The half of its word that element `index` has; the first in memory is the low one.
fn half_of(word: u32, index: u32) -> QuadBits {
    return (word >> (index % 2u * 16u)) & 0xffffu;
}

// The upper half of `bits`, brought to the half of a word that element `index` has. The other half is 0.
fn half_to(bits: QuadBits, index: u32) -> u32 {
    return select(bits >> 16u, bits & 0xffff0000u, index % 2u == 1u);
}
