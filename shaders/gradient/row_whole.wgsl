// A row is one span: its sums give its coefficients at once.

fn store_row(span: Span, statistics: Statistics, sums: vec4<f32>) {
    store_coefficients(span.row, statistics, sums);
}
