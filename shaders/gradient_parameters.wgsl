// Last pass of the backward pass: adds up the sums that the walks over the rows have left, and writes the gradients of weight and bias.
//
// Walks of one condition after another may have left theirs in several dispatches, between which this kernel runs: then what it has so
// far lies behind the sums of all walks.
//
// Bindings: 0 params, the gradients, the scale where it is needed, 43 the sums over rows (`gradient/walk_sums`).

// Bits of params.accumulate beside the first, which is for the gradients.
const HAS_CARRY: u32 = 2u;
const LEAVES_CARRY: u32 = 4u;

// What the sums of a walk are multiplied by in the gradients of weight and bias: 1 + scale in adaptive layer normalization, which
// multiplies x̂ · weight + bias by it, and 1 elsewhere.
fn walk_factor(group: u32, position: u32) -> Quad {
    if ADAPTIVE {
        return Quad(1.0) + scale_at(min(group / params.walks, params.conditions - 1u), 0u, position);
    }
    return Quad(1.0);
}

// The sum over the walks of this dispatch and of those before. Where more dispatches follow, it is left behind the sums of the
// walks for them, by the invocation in which `is_written` is true.
fn total_of_sum(place: Place, sum: u32, position: u32, is_written: bool) -> Quad {
    var total = sum_of_walks(place, sum, 0u, bound_params.groups, position);
    let index = sum_index(params.groups, sum, position);
    if (params.accumulate & HAS_CARRY) != 0u {
        total += column_sums[index];
    }
    if is_written && (params.accumulate & LEAVES_CARRY) != 0u {
        column_sums[index] = total;
    }
    return total;
}

fn kernel(place: Place) {
    // `place_of` has neighbouring invocations share a unit. Here they have neighbouring units instead (`gradient/walk_sums`).
    let unit = place.first_span - place.local_index / LANES + in_workgroup(place);
    reduce_as(in_workgroup(place) * LANES + lane_of(place));
    let position = min(unit, ROW_UNITS - 1u);
    let is_written = lane_of(place) == 0u && unit < ROW_UNITS;
    var weight = Quad(0.0);
    var bias = Quad(0.0);
    if PRODUCTS < SUMS {
        weight = total_of_sum(place, PRODUCTS, position, is_written);
    }
    if GRADIENTS < SUMS {
        bias = total_of_sum(place, GRADIENTS, position, is_written);
    }
    if is_written && (params.accumulate & LEAVES_CARRY) == 0u {
        weight_gradient_add(0u, position, weight);
        bias_gradient_add(0u, position, bias);
    }
}
