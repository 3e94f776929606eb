// Last pass of the backward pass: adds up the sums that the walks over the rows have left, and writes the gradients of weight and bias.
// No float atomics, so the same input gives the same bits.
//
// LANES invocations share a column; neighbouring invocations have neighbouring columns.
// Bindings: 0 params, the gradients, 17 the sums: groups outermost, then those of the weight before those of the bias, then columns.

@group(0) @binding(17) var<storage, read> parameter_sums: array<f32>;

const COLUMNS: u32 = WORKGROUP_SIZE / LANES;

fn kernel(place: Place) {
    let first_column = place.first_span - place.local_index / LANES;
    let in_workgroup = place.local_index % COLUMNS;
    let lane = place.local_index / COLUMNS;
    reduce_as(in_workgroup * LANES + lane);
    let column = min(first_column + in_workgroup, WIDTH - 1u);
    var total = Total();
    for (var first = 0u; first < bound_params.groups; first += LANES) {
        let group = min(first + lane, params.groups - 1u);
        let weight = parameter_sums[group * SUMS * WIDTH + column];
        let bias = parameter_sums[(group * SUMS + SUMS - 1u) * WIDTH + column];
        let mask = select(0u, params.all_bits, first + lane < params.groups);
        total = add_block(total, Sums(kept(bias, mask), kept(weight, mask)));
    }
    let sums = span_sums_of(total_of(total));
    if lane == 0u && first_column + in_workgroup < WIDTH {
        weight_gradient_add(column, sums.y);
        bias_gradient_add(column, sums.x);
    }
}
