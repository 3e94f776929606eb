// g = dy

fn hold_factor(span: Span) {}

fn gradient_of(span: Span, turn: u32, output_gradient: Unit) -> Unit {
    return output_gradient;
}
