// What is normalized: input + residual, added in f32. The sum is what is held between passes, so a Source is a Unit.

alias Source = Unit;

fn source_load(span: Span, position: u32) -> Source {
    return unit_add(input_unit(input_load(span.row, position)), residual_unit(residual_load(span.row, position)));
}

fn source_unit(source: Source) -> Unit {
    return source;
}
