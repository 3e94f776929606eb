// Adds up what the walks over the rows have left for one unit of columns. No float atomics, so the same input gives the same bits.
//
// LANES invocations share a unit of columns; neighbouring invocations have neighbouring units.

@group(0) @binding(43) var<storage, read_write> column_sums: array<Quad>;

const ROW_UNITS: u32 = WIDTH / UNIT;
const UNITS_PER_WORKGROUP: u32 = WORKGROUP_SIZE / LANES;

fn in_workgroup(place: Place) -> u32 {
    return place.local_index % UNITS_PER_WORKGROUP;
}

fn lane_of(place: Place) -> u32 {
    return place.local_index / UNITS_PER_WORKGROUP;
}

fn sum_index(group: u32, sum: u32, position: u32) -> u32 {
    return (group * SUMS + sum) * ROW_UNITS + position;
}

// The sum over `count` walks from `first` on, each times what `walk_factor` says. `count` is the same for all of the dispatch.
fn sum_of_walks(place: Place, sum: u32, first: u32, count: u32, position: u32) -> Quad {
    let lane = lane_of(place);
    var total = Total();
    for (var begin = 0u; begin < count; begin += LANES) {
        let group = first + min(begin + lane, count - 1u);
        let left = column_sums[sum_index(group, sum, position)];
        // A walk without rows has left 0. That stays 0 whatever the factor is, which may be infinite or NaN.
        let is_zero = (bitcast<QuadBits>(left) & QuadBits(MAGNITUDE_BITS)) == QuadBits(0u);
        let value = select(left * walk_factor(group, position), left, is_zero);
        total = add_block(total, Sums(kept(value, select(0u, params.all_bits, begin + lane < count)), Quad(0.0)));
    }
    return span_sum_quad(total.sums.differences + total.lost.differences);
}
