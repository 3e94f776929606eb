// y = x̂ · weight

struct Parameters {
    weight: Unit,
}

// `position` counts units from the beginning of the row.
fn parameters_at(span: Span, position: u32) -> Parameters {
    return Parameters(weight_at(span.row, position));
}

fn affine(normalized: Unit, parameters: Parameters) -> Unit {
    return unit_multiply(normalized, parameters.weight);
}
