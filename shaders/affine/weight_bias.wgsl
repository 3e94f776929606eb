// y = x̂ · weight + bias
//
// Bindings: 2 weight, 3 bias, WIDTH elements each.

@group(0) @binding(2) var<storage, read> weight: array<Stored>;
@group(0) @binding(3) var<storage, read> bias: array<Stored>;

// `position` counts units from the beginning of the row.
fn affine(normalized: Unit, position: u32) -> Unit {
    return normalized * load(weight[position]) + load(bias[position]);
}
