// y = x̂ · weight + bias

struct Parameters {
    weight: Unit,
    bias: Unit,
}

// `position` counts units from the beginning of the row.
fn parameters_at(span: Span, position: u32) -> Parameters {
    return Parameters(weight_at(span.row, position), bias_at(span.row, position));
}

fn affine(normalized: Unit, parameters: Parameters) -> Unit {
    return unit_add(unit_multiply(normalized, parameters.weight), parameters.bias);
}
