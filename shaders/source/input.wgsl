// What is normalized: the input. A Source is a unit of it in the form in which it is held between passes, a Unit the same in f32
// for arithmetic. Here a Source is what was loaded, so that in vectors two elements of 16 bits take one register.

alias Source = InputRaw;

fn source_load(span: Span, position: u32) -> Source {
    return input_load(span.row, position);
}

fn source_unit(source: Source) -> Unit {
    return input_unit(source);
}
