// Normalizes rows, or segments of rows, of which it is known what does (`known/`): the last pass of causal layer normalization, and the
// normalization of parts of rows by the moments of whole ones.
//
// LANES invocations share a span, SPANS_PER_WORKGROUP spans share a workgroup.
// Bindings: 0 params, those of the tensors, 45 what the scan over positions has found for each, where that is what is known.

// Whether the row is normalized in another unit than 1.
fn measure(place: Place, slot: u32) -> bool {
    let scaling = known_scaling(span_at(place, slot).row);
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
    write_statistics(place);
}
