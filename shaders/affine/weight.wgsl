// y = x̂ · weight

struct Parameters {
    weight: Unit,
}

// `position` counts units from the beginning of the row.
fn parameters_at(position: u32) -> Parameters {
    return Parameters(weight_at(position));
}

fn affine(normalized: Unit, parameters: Parameters) -> Unit {
    return normalized * parameters.weight;
}
