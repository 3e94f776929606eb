// A pass of the backward pass where positions share their parameters. It adds up the sums of each channel over the rows of each
// condition, and writes the gradients of scale and shift.
//
//     dscale = Σ dy · x̂, in adaptive layer normalization weight · Σ dy · x̂ + bias · Σ dy,   dshift = Σ dy
//
// One invocation has one of the WIDTH channels of one condition. The channels are cut into SEGMENTS groups of SEGMENT_WIDTH
// channels. Row r has the channels of group r % SEGMENTS.
// Bindings: 0 params, the gradients, weight and bias where they are needed, 47 the sums of the channels of each row.

@group(0) @binding(47) var<storage, read> channel_sums: array<vec2<f32>>;

fn kernel(place: Place) {
    let condition = place.first_span / WIDTH;
    let channel = place.first_span % WIDTH;
    if condition >= params.conditions {
        return;
    }
    let group = channel / SEGMENT_WIDTH;
    // The rows of the condition, of which there are none where the rows of the dispatch end before it. begin + condition_rows may
    // pass 32 bits, so condition_rows is bounded first.
    let begin = condition * params.condition_rows;
    let end = begin + min(params.condition_rows, max(params.rows, begin) - begin);
    // The loop begins with the first of these rows that is of this group. A Total serves for the sums of dy, its differences, and
    // of dy · x̂, its squares.
    var total = Total();
    for (var row = begin + (group + SEGMENTS - begin % SEGMENTS) % SEGMENTS; row < end; row += SEGMENTS) {
        let sums = channel_sums[row * SEGMENT_WIDTH + (channel - group * SEGMENT_WIDTH)];
        total = add_block(total, Sums(sums.y, sums.x));
    }
    let products = total.sums.squares + total.lost.squares;
    let gradients = total.sums.differences + total.lost.differences;
    var scale = products;
    if ADAPTIVE {
        scale = products * weight_at(0u, channel) + gradients * bias_at(0u, channel);
    }
    scale_gradient_add(condition, channel, scale);
    shift_gradient_add(condition, channel, gradients);
}
