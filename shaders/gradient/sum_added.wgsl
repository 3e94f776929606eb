// The gradient that reaches input + residual from elsewhere is added.

fn with_sum_gradient(row: u32, position: u32, gradient: Unit) -> Unit {
    return unit_add(gradient, sum_gradient_unit(sum_gradient_load(row, position)));
}
