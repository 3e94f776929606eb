// Layer normalization: the mean is taken off.

fn mean_part(value: f32) -> f32 {
    return value;
}

fn mean_bits() -> u32 {
    return params.all_bits;
}

// The bits of the sums of squares of rows with an infinity or a NaN, of which the largest magnitudes have these bits: NaNs.
fn squares_of_no_number(largest: QuadBits) -> QuadBits {
    return largest | QuadBits(MAGNITUDE_BITS);
}
