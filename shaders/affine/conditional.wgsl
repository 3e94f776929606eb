// Conditional layer normalization: y = x̂ · (weight + scale) + (bias + shift), scale and shift those of the row's condition. What is
// absent counts as 1 (weight) or 0.

// y = x̂ · weight + bias
struct Parameters {
    weight: Unit,
    bias: Unit,
}

// `position` counts units from the beginning of the row.
fn parameters_at(span: Span, position: u32) -> Parameters {
    let weight = unit_add(weight_at(span.row, position), scale_at(span.condition, span.row, position));
    return Parameters(weight, unit_add(bias_at(span.row, position), shift_at(span.condition, span.row, position)));
}

fn affine(normalized: Unit, parameters: Parameters) -> Unit {
    return unit_add(unit_multiply(normalized, parameters.weight), parameters.bias);
}
