// Last pass of the backward pass: adds up the sums that the walks over the rows have left, and writes the gradients of weight and bias.
// No float atomics, so the same input gives the same bits.
//
// LANES invocations share a unit of columns; neighbouring invocations have neighbouring units.
// Bindings: 0 params, the gradients, 17 the sums: groups outermost, then those of the weight before those of the bias, then columns.

@group(0) @binding(17) var<storage, read> parameter_sums: array<Quad>;

const ROW_UNITS: u32 = WIDTH / UNIT;
const UNITS_PER_WORKGROUP: u32 = WORKGROUP_SIZE / LANES;

fn kernel(place: Place) {
    let first_unit = place.first_span - place.local_index / LANES;
    let in_workgroup = place.local_index % UNITS_PER_WORKGROUP;
    let lane = place.local_index / UNITS_PER_WORKGROUP;
    reduce_as(in_workgroup * LANES + lane);
    let position = min(first_unit + in_workgroup, ROW_UNITS - 1u);
    // Sums of the bias in the place of differences, those of the weight in that of squares.
    var total = Total();
    for (var first = 0u; first < bound_params.groups; first += LANES) {
        let group = min(first + lane, params.groups - 1u);
        let weight = parameter_sums[group * SUMS * ROW_UNITS + position];
        let bias = parameter_sums[(group * SUMS + SUMS - 1u) * ROW_UNITS + position];
        let mask = select(0u, params.all_bits, first + lane < params.groups);
        total = add_block(total, Sums(kept(bias, mask), kept(weight, mask)));
    }
    let weight = span_sum_quad(total.sums.squares + total.lost.squares);
    let bias = span_sum_quad(total.sums.differences + total.lost.differences);
    if lane == 0u && first_unit + in_workgroup < ROW_UNITS {
        weight_gradient_add(position, weight);
        bias_gradient_add(position, bias);
    }
}
