// Unit of access: a vector of four elements (16 bytes in f32).
//
// Precondition: the width and every base offset are multiples of four elements.

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
