// What x̂ is multiplied by: the weight.

fn factor_at(span: Span, position: u32) -> Unit {
    return weight_at(span.row, position);
}
