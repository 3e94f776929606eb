// What is normalized: the input.

fn source_at(position: u32) -> Unit {
    return input_at(position);
}
