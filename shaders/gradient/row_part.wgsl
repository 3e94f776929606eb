// A row is a part of another: its sums are left for those of the other parts to be added.

fn store_whole(row: u32, statistics: Statistics, sums: vec4<f32>) {
    let products = fma(-known_offset(row, statistics.rstd), sums.x, sums.y);
    gradient_sums_set(row, vec2<f32>(sums.x, products));
}
