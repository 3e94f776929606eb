// g = dy · factor (`factor_at`), the factor read once for all rows of an invocation: a walk does not leave its condition.

var<private> held_factor: array<Unit, TURNS>;

fn hold_factor(span: Span) {
    for (var turn = 0u; turn < TURNS; turn++) { // unrolled
        held_factor[turn] = factor_at(span, position_at(span, turn, EVEN));
    }
}

fn gradient_of(span: Span, turn: u32, output_gradient: Unit) -> Unit {
    return unit_multiply(output_gradient, held_factor[turn]);
}
