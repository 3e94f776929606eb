// What x̂ is multiplied by in conditional layer normalization: weight + scale.

fn factor_at(span: Span, position: u32) -> Unit {
    return unit_add(weight_at(span.row, position), scale_at(span.condition, span.row, position));
}
