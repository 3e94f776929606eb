// RMS normalization takes no mean off.

fn half_centred(source: Source, half_mean: f32) -> Unit {
    return unit_scaled(source_unit(source), 0.5);
}
