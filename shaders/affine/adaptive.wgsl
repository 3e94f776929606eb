// Adaptive layer normalization: y = (x̂ · weight + bias) · (1 + scale) + shift, scale and shift those of the row's condition. What is
// absent counts as 1 (weight) or 0.

// y = x̂ · weight + bias
struct Parameters {
    weight: Unit,
    bias: Unit,
}

// `position` counts units from the beginning of the row.
fn parameters_at(span: Span, position: u32) -> Parameters {
    let factor = unit_add(unit_of(1.0), scale_at(span.condition, span.row, position));
    let bias = unit_product_sum(bias_at(span.row, position), factor, shift_at(span.condition, span.row, position));
    return Parameters(unit_multiply(weight_at(span.row, position), factor), bias);
}

fn affine(normalized: Unit, parameters: Parameters) -> Unit {
    return unit_add(unit_multiply(normalized, parameters.weight), parameters.bias);
}
