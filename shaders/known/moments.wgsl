// What normalizes a row of which the moments are given.

fn known_scaling(row: u32) -> Scaling {
    let moments = moments_get(row);
    let known = known_rstd(moments);
    let mean = bitcast<vec2<f32>>(moments.xy);
    return Scaling(scaled(mean.x, known.exponent), scaled(mean.y, known.exponent), known.rstd, known.exponent);
}
