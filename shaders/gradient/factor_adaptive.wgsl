// What x̂ is multiplied by in adaptive layer normalization: weight · (1 + scale).

fn factor_at(span: Span, position: u32) -> Unit {
    return unit_multiply(weight_at(span.row, position), unit_add(unit_of(1.0), scale_at(span.condition, span.row, position)));
}
