// From what is measured of a row to its output: strategies resident (access/held), partly resident (access/partly) and streaming
// (access/reread), and the second pass of strategy split.
//
//     y = (x − mean) / sqrt(variance + eps) · weight + bias, or without the mean
//
// LANES invocations share a span, SPANS_PER_WORKGROUP spans share a workgroup. `span_moments` measures a span as will do for
// almost all, and `measure_again` as will do for any. They are in the files `measure` and `rare`, or both in `merge`.
// Bindings: 0 params, those of the tensors.

// Measures a span and keeps its scaling in the slot. True where the span is to be measured again.
fn measure(place: Place, slot: u32) -> bool {
    return measured(slot, span_moments(span_at(place, slot), slot));
}

fn kernel(place: Place) {
    // All that go into a reduction together take the same way, because measuring again has reductions: one rare span is enough.
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
