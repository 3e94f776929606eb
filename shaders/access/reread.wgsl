// Access: the span is read again each time it is needed, from cache where it fits one.

fn span_read() {}

// Not the constant: unrolled loops would gain little here, and llvmpipe takes far longer to compile them.
fn span_turns() -> u32 {
    return params.turns;
}

fn span_unit(turn: u32) -> Unit {
    return read_unit(turn);
}
