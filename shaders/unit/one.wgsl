// Arithmetic on a unit that is one quad: an element, or a vector of four (16 bytes in f32, 8 in f16 and bf16).

alias Unit = Quad;

// The same value in all elements.
fn unit_of(value: f32) -> Unit {
    return Quad(value);
}

fn unit_first(unit: Unit) -> f32 {
    return quad_first(unit);
}

fn unit_add(a: Unit, b: Unit) -> Unit {
    return a + b;
}

fn unit_multiply(a: Unit, b: Unit) -> Unit {
    return a * b;
}

fn unit_fma(a: Unit, factor: f32, summand: f32) -> Unit {
    return fma(a, Quad(factor), Quad(summand));
}

// a · factor + summand, element by element.
fn unit_fma_unit(a: Unit, factor: f32, summand: Unit) -> Unit {
    return fma(a, Quad(factor), summand);
}

// a · b + summand, element by element.
fn unit_product_sum(a: Unit, b: Unit, summand: Unit) -> Unit {
    return fma(a, b, summand);
}

// The value itself where `mask` has all bits, 0 where it has none.
fn unit_kept(unit: Unit, mask: u32) -> Unit {
    return kept(unit, mask);
}

// unit · factor, a power of two.
fn unit_scaled(unit: Unit, factor: f32) -> Unit {
    return kept(unit * factor, params.all_bits);
}

// unit − shift where `mask` has all bits, 0 where it has none.
fn unit_difference(unit: Unit, shift: f32, mask: u32) -> Unit {
    return kept(unit - shift, mask);
}

fn unit_sum(unit: Unit) -> Quad {
    return unit;
}

// The sums with one unit more.
fn add_unit(sums: Sums, unit: Unit) -> Sums {
    return Sums(sums.differences + unit, fma(unit, unit, sums.squares));
}

// The bits of the largest magnitude.
fn unit_largest(unit: Unit) -> u32 {
    return quad_max(bitcast<QuadBits>(unit) & QuadBits(MAGNITUDE_BITS));
}
