// Sums of dy · x̂ and of dy over the positions of each channel of each row, for the gradients of weight and bias where positions share
// them (group normalization). A channel is a segment of its row.
//
// LANES invocations share a channel, SPANS_PER_WORKGROUP channels share a workgroup.
// Bindings: 0 params, those of the tensors that are read, 42 the rows' coefficients, 47 the sums, one vector each, rows outermost.

@group(0) @binding(42) var<storage, read> coefficients: array<vec4<f32>>;
@group(0) @binding(47) var<storage, read_write> channel_sums: array<vec2<f32>>;

fn kernel(place: Place) {
    let span = span_at(place, 0u);
    let row = coefficients[2u * span.row];
    let statistics = Statistics(row.x, row.y, coefficients[2u * span.row + 1u].y);
    let sums = row_sums(span_parts(span, statistics, row_mask(statistics)));
    if span.owned && span.lane == 0u {
        // Of (x − mean) · rstd − offset.
        let products = fma(-row.z, sums.x, sums.y);
        channel_sums[span.row * SEGMENTS + span.begin / SEGMENT_UNITS] = vec2<f32>(products, sums.x);
    }
}
