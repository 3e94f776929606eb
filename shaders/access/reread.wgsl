// Access: the span is read again each time it is needed, from cache where it fits one.

fn span_read() {}

fn span_unit(turn: u32) -> Unit {
    return read_unit(turn);
}
