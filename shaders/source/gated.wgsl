// What is normalized: residual + gate · input, in f32, the gate that of the row's condition.

alias Source = Unit;

fn source_load(span: Span, position: u32) -> Source {
    let gate = gate_unit(gate_load(span.condition, span.row, position));
    let residual = residual_unit(residual_load(span.row, position));
    return unit_product_sum(gate, input_unit(input_load(span.row, position)), residual);
}

fn source_unit(source: Source) -> Unit {
    return source;
}
