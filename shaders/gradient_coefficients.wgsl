// First pass of the backward pass over parts of rows: from the moments of whole rows and the sums over them, what the gradients of each
// part take from its row as a whole.
//
// One invocation a row.
// Bindings: 0 params, the moments, the sums, 42 the rows' coefficients.

fn kernel(place: Place) {
    let row = min(place.first_span, params.spans - 1u);
    let count = moments_get(row).w;
    let sums = gradient_sums_get(row);
    let statistics = statistics_of(mean_get(row), rstd_get(row));
    let summand = -statistics.rstd * (sums.x / f32(max(count, 1u)));
    // n, or n − 1 for the unbiased variance.
    let divisor = max(select(count - 1u, count, params.unbiased == 0.0), 1u);
    let slope = sums.y / f32(divisor);
    if place.first_span < params.spans {
        let offset = known_offset(row, statistics.rstd);
        store_coefficients(row, Coefficients(statistics.half_mean, statistics.rstd, statistics.double_rstd, offset, summand, slope));
    }
}
