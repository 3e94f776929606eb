// The statistics of a row, as far as they are asked for: mean and 1 / √(variance + eps).

// The factor of a scaling, from a variance plus eps and the sum of squares that it comes from.
fn factor_of(sum: f32, eps: f32, squares: f32) -> f32 {
    return rstd_of(sum, eps, squares);
}

fn store_statistics(row: u32, scaling: Scaling) {
    let mean = scaled(scaling.shift + scaling.correction, -scaling.exponent);
    // A row with an infinity has no mean either, wherever the shift came from.
    mean_set(row, select(mean, scaling.rstd, exponent_of(scaling.rstd) == 128));
    rstd_set(row, scaled(scaling.rstd, scaling.exponent));
}
