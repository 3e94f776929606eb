// Normalization of whole rows: strategies resident (access/held), partly resident (access/partly) and streaming (access/reread).
//
//     y = (x − mean) / sqrt(variance + eps) · weight + bias, or without the mean
//
// LANES invocations share a row, SPANS_PER_WORKGROUP rows share a workgroup.
// Bindings: 0 params, those of the tensors. SEGMENTS = 1.

// Whether the span is to be measured again.
fn measure(place: Place, slot: u32) -> bool {
    return measured(slot, span_moments(span_at(place, slot), slot));
}

fn kernel(place: Place) {
    if workgroup_or(u32(measure_all(place))) == 0u {
        span_normalize(place);
    } else {
        for (var slot = 0u; slot < SPANS_PER_LANE; slot++) {
            // Spans that only share a workgroup with a rare one keep what they had.
            scalings[slot] = chosen(scaling_of(measure_again(span_at(place, slot))), scalings[slot], rare[slot]);
        }
        normalize_again(place);
    }
    write_statistics(place);
}
