// Last pass of the backward pass where positions share weight and bias: adds up the sums of each channel over all samples, and writes the
// gradients of weight and bias. No float atomics, so the same input gives the same bits.
//
// One invocation has one of the WIDTH channels. They are cut into SEGMENTS groups of SEGMENT_WIDTH; a sample has a row for each group.
// Bindings: 0 params, the gradients, the scale where it is needed, 47 the sums of the channels of each row.

@group(0) @binding(47) var<storage, read> channel_sums: array<vec2<f32>>;

fn kernel(place: Place) {
    let channel = place.first_span;
    if channel >= WIDTH {
        return;
    }
    let group = channel / SEGMENT_WIDTH;
    var total = Total();
    for (var row = group; row < params.rows; row += SEGMENTS) {
        let sums = channel_sums[row * SEGMENT_WIDTH + (channel - group * SEGMENT_WIDTH)];
        // Adaptive normalization multiplies x̂ · weight + bias by 1 + scale, so dy is multiplied by that in the gradients of
        // both.
        var factor = 1.0;
        if ADAPTIVE {
            factor = 1.0 + scale_at(row / params.condition_rows, 0u, channel);
        }
        total = add_block(total, Sums(sums.y * factor, sums.x * factor));
    }
    weight_gradient_add(0u, channel, total.sums.squares + total.lost.squares);
    bias_gradient_add(0u, channel, total.sums.differences + total.lost.differences);
}
