// Unit of access: one element. For widths and offsets that no vector divides.

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
