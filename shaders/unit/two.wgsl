// Arithmetic on a unit that is two vectors of four: eight elements, 16 bytes in f16 and bf16.

struct Unit {
    low: Quad,
    high: Quad,
}

// The same value in all elements.
fn unit_of(value: f32) -> Unit {
    return Unit(Quad(value), Quad(value));
}

fn unit_first(unit: Unit) -> f32 {
    return quad_first(unit.low);
}

fn unit_add(a: Unit, b: Unit) -> Unit {
    return Unit(a.low + b.low, a.high + b.high);
}

fn unit_multiply(a: Unit, b: Unit) -> Unit {
    return Unit(a.low * b.low, a.high * b.high);
}

fn unit_fma(a: Unit, factor: f32, summand: f32) -> Unit {
    return Unit(fma(a.low, Quad(factor), Quad(summand)), fma(a.high, Quad(factor), Quad(summand)));
}

// a · factor + summand, element by element.
fn unit_fma_unit(a: Unit, factor: f32, summand: Unit) -> Unit {
    return Unit(fma(a.low, Quad(factor), summand.low), fma(a.high, Quad(factor), summand.high));
}

// a · b + summand, element by element.
fn unit_product_sum(a: Unit, b: Unit, summand: Unit) -> Unit {
    return Unit(fma(a.low, b.low, summand.low), fma(a.high, b.high, summand.high));
}

// The value itself where `mask` has all bits, 0 where it has none.
fn unit_kept(unit: Unit, mask: u32) -> Unit {
    return Unit(kept(unit.low, mask), kept(unit.high, mask));
}

// unit · factor, a power of two.
fn unit_scaled(unit: Unit, factor: f32) -> Unit {
    return Unit(kept(unit.low * factor, params.all_bits), kept(unit.high * factor, params.all_bits));
}

// unit − shift where `mask` has all bits, 0 where it has none.
fn unit_difference(unit: Unit, shift: f32, mask: u32) -> Unit {
    return Unit(kept(unit.low - shift, mask), kept(unit.high - shift, mask));
}

fn unit_sum(unit: Unit) -> Quad {
    return unit.low + unit.high;
}

// The sums with one unit more.
fn add_unit(sums: Sums, unit: Unit) -> Sums {
    let squares = fma(unit.high, unit.high, fma(unit.low, unit.low, sums.squares));
    return Sums(sums.differences + (unit.low + unit.high), squares);
}

// The bits of the largest magnitude.
fn unit_largest(unit: Unit) -> u32 {
    let low = bitcast<QuadBits>(unit.low) & QuadBits(MAGNITUDE_BITS);
    return quad_max(max(low, bitcast<QuadBits>(unit.high) & QuadBits(MAGNITUDE_BITS)));
}
