// The statistics of a row of causal layer normalization: those of all positions up to it (`causal_rows`).

@group(0) @binding(45) var<storage, read> row_scalings: array<vec4<f32>>;

fn mean_get(row: u32) -> f32 {
    let scaling = row_scalings[row];
    return scaled(scaling.x, -i32(scaling.w));
}

fn rstd_get(row: u32) -> f32 {
    let scaling = row_scalings[row];
    return scaled(scaling.z, i32(scaling.w));
}
