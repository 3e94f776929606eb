// Layer normalization takes the mean off. The difference is kept as it is: Σ (x − mean) · rstd does not become Σ x · rstd − n · mean ·
// rstd, which would lose all digits where the mean is large.

fn half_centred(source: Source, half_mean: f32) -> Unit {
    return unit_kept(unit_fma(source_unit(source), 0.5, -half_mean), params.all_bits);
}
