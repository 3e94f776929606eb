// What is normalized: the input. It is held as it is stored, so two elements of 16 bits take one register.

alias Source = InputRaw;

fn source_load(span: Span, position: u32) -> Source {
    return input_load(span.row, position);
}

fn source_unit(source: Source) -> Unit {
    return input_unit(source);
}
