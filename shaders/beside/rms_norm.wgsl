// RMS normalization: no mean is taken off.

fn mean_part(value: f32) -> f32 {
    return 0.0;
}

fn mean_bits() -> u32 {
    return 0u;
}

// The bits of the sums of squares of rows with an infinity or a NaN, of which the largest magnitudes have these bits: the same.
fn squares_of_no_number(largest: QuadBits) -> QuadBits {
    return largest;
}
