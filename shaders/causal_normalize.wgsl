// Last pass of causal layer normalization: normalizes every row by what the pass before has found for it.
//
// LANES invocations share a row, SPANS_PER_WORKGROUP rows share a workgroup.
// Bindings: 0 params, those of the tensors, 27 what normalizes the rows.

@group(0) @binding(27) var<storage, read> row_scalings: array<vec4<f32>>;

// Whether the row was measured in another unit than 1.
fn measure(place: Place, slot: u32) -> bool {
    let stored = row_scalings[span_at(place, slot).row];
    let scaling = Scaling(stored.x, stored.y, stored.z, i32(stored.w));
    scalings[slot] = scaling;
    rare[slot] = scaling.exponent != 0;
    return scaling.exponent != 0;
}

fn kernel(place: Place) {
    // A vote needs a reduction before it.
    _ = span_max(0u);
    if workgroup_or(u32(measure_all(place))) == 0u {
        span_normalize(place);
    } else {
        normalize_again(place);
    }
}
