// Σ dy · x̂ and Σ dy over the rows of a walk, for the gradients of weight and bias, in registers.

var<private> weight_sums: array<Unit, TURNS>;
var<private> bias_sums: array<Unit, TURNS>;

fn add_to_parameters(turn: u32, output_gradient: Unit, normalized: Unit) {
    weight_sums[turn] = unit_product_sum(output_gradient, normalized, weight_sums[turn]);
    bias_sums[turn] = unit_add(bias_sums[turn], output_gradient);
}

fn store_sums(group: u32, position: u32, turn: u32) {
    store_parameter_sum(2u * group * ROW_UNITS + position, weight_sums[turn]);
    store_parameter_sum((2u * group + 1u) * ROW_UNITS + position, bias_sums[turn]);
}
