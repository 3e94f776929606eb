// RMS normalization: the mean square, in the place of a variance about the mean 0.

fn shift_of(scale: f32) -> f32 {
    return 0.0;
}

fn correction_of(difference: f32) -> f32 {
    return 0.0;
}
