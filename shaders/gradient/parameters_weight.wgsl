// Σ dy · x̂ over the rows of a walk, for the gradient of the weight, in registers.

var<private> weight_sums: array<Unit, TURNS>;

fn add_to_parameters(turn: u32, output_gradient: Unit, normalized: Unit) {
    weight_sums[turn] = unit_product_sum(output_gradient, normalized, weight_sums[turn]);
}

fn store_sums(group: u32, position: u32, turn: u32) {
    store_parameter_sum(group * ROW_UNITS + position, weight_sums[turn]);
}
