// Normalizes rows, or segments of rows, whose scalings are known without measuring them (`known/`): the last pass of causal layer
// normalization, and the normalization of parts of rows by the moments of whole ones.
//
// LANES invocations share a span, SPANS_PER_WORKGROUP spans share a workgroup.
// Bindings: 0 params, those of the tensors, and in causal layer normalization 45, the scalings that `causal_rows` has left.

// Keeps the known scaling in the slot; nothing is measured. True where its exponent is not 0, so that elements are multiplied
// first.
fn measure(place: Place, slot: u32) -> bool {
    let scaling = known_scaling(span_at(place, slot).row);
    scalings[slot] = scaling;
    rare[slot] = scaling.exponent != 0;
    return scaling.exponent != 0;
}

fn kernel(place: Place) {
    // For its barriers: `workgroup_or` of `reduce/workgroup` needs a reduction before it.
    _ = span_max(0u);
    if workgroup_or(u32(measure_all(place))) == 0u {
        span_normalize(place);
    } else {
        normalize_again(place);
    }
    write_statistics(place);
}
