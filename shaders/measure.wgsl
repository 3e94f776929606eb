// The moments of one span, measured in the plain way that does for almost all spans: elements are taken as they are, with the
// exponent 0. `rare` measures the others again.

fn span_moments(span: Span, slot: u32) -> Moments {
    span_read(span, slot);
    // Kept, because a compiler might otherwise work it out anew for each use, and not always to the same bits.
    let shift = kept_scalar(shift_of(span, slot));
    let sums = span_sums(span, slot, shift);
    return Moments(shift, sums.x, sums.y, 0);
}
