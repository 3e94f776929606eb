// The moments of one span as almost all spans are: straight, in the unit 1.

fn span_moments(span: Span, slot: u32) -> Moments {
    span_read(span, slot);
    // The same number wherever it is used, however it came about.
    let shift = kept_scalar(shift_of(span, slot));
    let sums = span_sums(span, slot, shift);
    return Moments(shift, sums.x, sums.y, 0);
}
