// y = x̂ · weight
//
// Binding: 2 weight, WIDTH elements.

@group(0) @binding(2) var<storage, read> weight: array<Stored>;

// `position` counts units from the beginning of the row.
fn affine(normalized: Unit, position: u32) -> Unit {
    return normalized * load(weight[position]);
}
