// Mean and rstd of rows of which the moments are given.

fn mean_get(row: u32) -> f32 {
    return bitcast<f32>(moments_get(row).x);
}

fn rstd_get(row: u32) -> f32 {
    let known = known_rstd(moments_get(row));
    return scaled(known.rstd, known.exponent);
}

// What the mean above leaves of the row's, in deviations: x̂ = (x − mean) · rstd − offset.
fn known_offset(row: u32, rstd: f32) -> f32 {
    return bitcast<f32>(moments_get(row).y) * rstd;
}
