// y = x̂ · weight

// `position` counts units from the beginning of the row.
fn affine(normalized: Unit, position: u32) -> Unit {
    return normalized * weight_at(position);
}
