// Layer normalization takes the mean off. The difference is kept as it is: Σ (x − mean) · rstd does not become Σ x · rstd − n · mean ·
// rstd, which would lose all digits where the mean is large.

fn centred_unit(source: Source, mean: f32) -> Unit {
    return unit_difference(source_unit(source), mean, params.all_bits);
}
