// g = dy · factor (`factor_at`), the factor read for each row.

fn hold_factor(span: Span) {}

fn gradient_of(span: Span, turn: u32, output_gradient: Unit) -> Unit {
    return unit_multiply(output_gradient, factor_at(span, position_at(span, turn, EVEN)));
}
