// The input was multiplied by a gate before the residual was added: its gradient is too, and the gate has one of its own.

struct WrittenGradient {
    residual: Unit,
    input: Unit,
}

fn gated(span: Span, turn: u32, position: u32, gradient: Unit) -> WrittenGradient {
    let gate = gate_unit(gate_load(span.condition, span.row, position));
    let input = unit_kept(input_unit(input_load(span.row, position)), owned_mask(span));
    add_to_gate_sum(turn, unit_kept(gradient, owned_mask(span)), input);
    return WrittenGradient(gradient, unit_multiply(gradient, gate));
}
