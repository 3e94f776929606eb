// Unit of access: one element. For widths, bases and strides that no vector divides.
//
// Elements of 16 bits lie two to a word, and the two may belong to different rows, or one of them to somebody else. Each is
// therefore written by two atomic operations that leave the other half alone.

alias Unit = f32;
alias UnitBits = u32;
const UNIT: u32 = 1u;

// The unit's first element in memory order.
fn unit_first(value: Unit) -> f32 {
    return value;
}

fn unit_sum(value: Unit) -> f32 {
    return value;
}

fn unit_max(value: UnitBits) -> u32 {
    return value;
}

// The half of its word that element `index` has; the first in memory is the low one.
fn half_of(word: u32, index: u32) -> UnitBits {
    return (word >> (index % 2u * 16u)) & 0xffffu;
}

// The upper half of `bits` where element `index` has its own.
fn half_to(bits: UnitBits, index: u32) -> u32 {
    return select(bits >> 16u, bits & 0xffff0000u, index % 2u == 1u);
}
