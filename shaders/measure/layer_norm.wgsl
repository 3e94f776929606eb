// Layer normalization: mean and variance about a shift by the corrected algorithm of `moments`.

fn shift_of(span: Span, slot: u32) -> f32 {
    return span_shift(span, slot);
}

// The shift of a span that is measured again, from its first element and the mean of x less that.
fn shift_again(origin: f32, difference: f32) -> f32 {
    return origin + difference;
}

// The first element of a span; the shift about which its mean is looked for.
fn origin_of(span: Span) -> f32 {
    return span_first(span);
}

fn correction_of(differences: f32) -> f32 {
    return differences;
}

// The bits of the sum of squares of a row with an infinity or a NaN, of which the largest magnitude has these bits: a NaN.
fn squares_of_no_number(largest: u32) -> u32 {
    return largest | MAGNITUDE_BITS;
}
