// Adds up, for each condition, the sums that the walks over its rows have left, and writes the gradients of scale, shift and gate.
//
//     dscale = Σ dy · x̂, in adaptive layer normalization weight · Σ dy · x̂ + bias · Σ dy,   dshift = Σ dy,   dgate = Σ ds · input
//
// Bindings: 0 params, the gradients, weight and bias where they are needed, 43 the sums over rows (`gradient/walk_sums`).

const COLUMN_WORKGROUPS: u32 = (ROW_UNITS + UNITS_PER_WORKGROUP - 1u) / UNITS_PER_WORKGROUP;

fn walk_factor(group: u32, position: u32) -> Quad {
    return Quad(1.0);
}

fn kernel(place: Place) {
    let workgroup = place.first_span / SPANS_PER_WORKGROUP;
    let condition = workgroup / COLUMN_WORKGROUPS;
    let unit = workgroup % COLUMN_WORKGROUPS * UNITS_PER_WORKGROUP + in_workgroup(place);
    reduce_as(in_workgroup(place) * LANES + lane_of(place));
    let position = min(unit, ROW_UNITS - 1u);
    let first = condition * params.walks;
    var products = Quad(0.0);
    var gradients = Quad(0.0);
    var gates = Quad(0.0);
    if PRODUCTS < SUMS {
        products = sum_of_walks(place, PRODUCTS, first, bound_params.walks, position);
    }
    if GRADIENTS < SUMS {
        gradients = sum_of_walks(place, GRADIENTS, first, bound_params.walks, position);
    }
    if GATES < SUMS {
        gates = sum_of_walks(place, GATES, first, bound_params.walks, position);
    }
    if lane_of(place) == 0u && unit < ROW_UNITS {
        var scale = products;
        if ADAPTIVE {
            scale = products * weight_at(0u, position) + gradients * bias_at(0u, position);
        }
        scale_gradient_add(condition, position, scale);
        shift_gradient_add(condition, position, gradients);
        gate_gradient_add(condition, position, gates);
    }
}
