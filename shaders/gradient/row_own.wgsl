// A row is all there is: its sums give its coefficients at once.

fn store_whole(row: u32, statistics: Statistics, sums: vec4<f32>) {
    store_coefficients(row, coefficients_of(statistics, sums));
}
