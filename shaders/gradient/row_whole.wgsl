// A row, or what there is of it, is one span.

fn store_row(span: Span, statistics: Statistics, sums: vec4<f32>) {
    store_whole(span.row, statistics, sums);
}
