// Walks whose invocations wait for one another: all have as many rounds, and in the last one some may be past the last row.

// The same for all of the dispatch, and read from the binding, so that a browser sees that it is.
fn walk_rounds(place: Place) -> u32 {
    let rows = min(bound_params.rows, bound_params.condition_rows);
    return (rows + bound_params.walks - 1u) / bound_params.walks;
}

// All bits where this round has a row: one that is not this walk's counts for nothing, and may be overwritten by now.
fn owned_mask(span: Span) -> u32 {
    return select(0u, params.all_bits, span.owned);
}

fn owned(span: Span, output_gradient: Unit) -> Unit {
    return unit_kept(output_gradient, owned_mask(span));
}
