// RMS normalization: the mean square, in the place of a variance about the mean 0.

fn measure_scaled(scale: f32) -> Measured {
    let squares = sums_about(0.0, scale).y;
    return Measured(0.0, 0.0, squares, squares / f32(span_units * UNIT));
}
