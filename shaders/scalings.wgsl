// From the moments of a row to what normalizes it, and to its statistics (`statistics/`).

// The scalings of this invocation's spans, and which of them are to be measured again.
var<private> scalings: array<Scaling, SPANS_PER_LANE>;
var<private> rare: array<bool, SPANS_PER_LANE>;

// What brings the row with these moments to normalized elements.
fn scaling_of(moments: Moments) -> Scaling {
    let correction = correction_of(moments.differences) * params.mean_share;
    let eps = scaled(params.eps, 2 * moments.exponent);
    let rest = fma(moments.squares, params.variance_share_rest, fma(-correction, correction * params.variance_factor, eps));
    let factor = factor_of(fma(moments.squares, params.variance_share, rest), eps, moments.squares);
    return Scaling(moments.shift, correction, factor, moments.exponent);
}

// Takes the moments of a span, and says whether it is to be measured again.
fn measured(slot: u32, moments: Moments) -> bool {
    let again = out_of_range(moments.squares, params.mean_share) | shift_is_off(moments, params.mean_share);
    scalings[slot] = scaling_of(moments);
    rare[slot] = again;
    return again;
}

fn chosen(a: Scaling, b: Scaling, first: bool) -> Scaling {
    return Scaling(
        select(b.shift, a.shift, first),
        select(b.correction, a.correction, first),
        select(b.rstd, a.rstd, first),
        select(b.exponent, a.exponent, first),
    );
}

// Last, because lanes that part here do not meet again.
fn write_statistics(place: Place) {
    for (var slot = 0u; slot < SPANS_PER_LANE; slot++) {
        let span = span_at(place, slot);
        if span.owned && span.lane == 0u && span.begin == 0u {
            store_statistics(span.row, scalings[slot]);
        }
    }
}
