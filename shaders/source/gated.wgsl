// What is normalized: residual + gate · input in f32, with the gate of the row's condition. The sum is what is held between
// passes, so a Source is a Unit.

alias Source = Unit;

fn source_load(span: Span, position: u32) -> Source {
    let gate = gate_unit(gate_load(span.condition, span.row, position));
    let residual = residual_unit(residual_load(span.row, position));
    return unit_product_sum(gate, input_unit(input_load(span.row, position)), residual);
}

fn source_unit(source: Source) -> Unit {
    return source;
}
