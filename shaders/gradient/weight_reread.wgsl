// g = dy · weight, the weight read for each row.

fn hold_weight(span: Span) {}

fn gradient_of(span: Span, turn: u32, output_gradient: Unit) -> Unit {
    return unit_multiply(output_gradient, weight_unit(weight_load(0u, position_at(span, turn, EVEN))));
}
