// g = dy · weight, the weight read once for all rows of an invocation.

var<private> held_weight: array<Unit, TURNS>;

fn hold_weight(span: Span) {
    for (var turn = 0u; turn < TURNS; turn++) {
        held_weight[turn] = weight_unit(weight_load(0u, position_at(span, turn, EVEN)));
    }
}

fn gradient_of(span: Span, turn: u32, output_gradient: Unit) -> Unit {
    return unit_multiply(output_gradient, held_weight[turn]);
}
