// The moments of one span as almost all spans are: straight, in the unit 1.

fn span_moments(span: Span, slot: u32) -> Moments {
    span_read(span, slot);
    let shift = shift_of(span, slot);
    let sums = span_sums(span, slot, shift);
    return Moments(shift, sums.x, sums.y, 0);
}
