// RMS normalization: the mean square, in the place of a variance about the mean 0.

fn shift_of(span: Span, slot: u32) -> f32 {
    return 0.0;
}

fn shift_again(origin: f32, difference: f32) -> f32 {
    return 0.0;
}

fn origin_of(span: Span) -> f32 {
    return 0.0;
}

fn correction_of(differences: f32) -> f32 {
    return 0.0;
}

// The bits of the sum of squares of a row with an infinity or a NaN, of which the largest magnitude has these bits: the same.
fn squares_of_no_number(largest: u32) -> u32 {
    return largest;
}
