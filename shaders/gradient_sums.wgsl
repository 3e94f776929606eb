// First pass of the backward passes streaming and split: the sums of every span, a whole row or a segment of one, that the gradients
// of its row rest on. Spans are read from memory.
//
// LANES invocations share a span, SPANS_PER_WORKGROUP spans share a workgroup.
// Bindings: 0 params, those of the tensors that are read, 41 the sums of segments, one vec4 each, rows outermost, or 42 the rows'
// coefficients.

fn kernel(place: Place) {
    let span = span_at(place, 0u);
    let statistics = statistics_of(mean_get(span.row), rstd_get(span.row));
    let sums = row_sums(span_parts(span, statistics, row_mask(statistics)));
    if span.owned && span.lane == 0u {
        store_row(span, statistics, sums);
    }
}
