// The sums of the segments of a row, for `gradient_merge`.

@group(0) @binding(41) var<storage, read_write> segment_sums: array<vec4<f32>>;

fn store_row(span: Span, statistics: Statistics, sums: vec4<f32>) {
    segment_sums[span.row * SEGMENTS + span.begin / SEGMENT_UNITS] = sums;
}
