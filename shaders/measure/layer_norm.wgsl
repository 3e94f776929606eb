// Layer normalization: mean and variance about a shift by the corrected algorithm of `measure`.

fn shift_of(scale: f32) -> f32 {
    return span_shift(scale);
}

// From the mean of x − shift.
fn correction_of(difference: f32) -> f32 {
    return difference;
}
