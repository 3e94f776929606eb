// The backward pass of whole rows that are held in registers: strategy resident.
//
//     dx = rstd · (g − Σg / n − x̂ · Σ(g · x̂) / n),   Σ dy · x̂ and Σ dy over the rows of a walk
//
// LANES invocations walk together; SPANS_PER_WORKGROUP walks share a workgroup. Every loop over registers has a constant length.
// Bindings: 0 params, those of the tensors, 43 the sums over rows, where gradients that are such are asked for. SEGMENTS = 1.

var<private> held: array<Source, TURNS>;
var<private> held_output_gradient: array<OutputGradientRaw, TURNS>;

fn source_at(span: Span, turn: u32) -> Source {
    return held[turn];
}

fn output_gradient_at(span: Span, turn: u32) -> Unit {
    return output_gradient_unit(held_output_gradient[turn]);
}

fn row_coefficients(span: Span, statistics: Statistics, row_bits: u32) -> Coefficients {
    for (var turn = 0u; turn < TURNS; turn++) { // unrolled
        held[turn] = unit_load(span, turn, EVEN);
        held_output_gradient[turn] = output_gradient_load(span.row, position_at(span, turn, EVEN));
    }
    var sums = RowSums();
    for (var turn = 0u; turn < TURNS; turn++) { // unrolled
        let mask = unit_mask(span, turn, EVEN);
        let normalized = normalized_unit(held[turn], statistics.half_mean, statistics.double_rstd, 0.0, mask & row_bits);
        sums = add_to_row(sums, gradient_in_span(span, turn, output_gradient_at(span, turn)), normalized);
    }
    return coefficients_of(statistics, row_sums(parts_of(sums)));
}

fn kernel(place: Place) {
    for (var round = 0u; round < walk_rounds(place); round++) {
        // The round before has written in a branch, and reductions follow.
        meet();
        let span = walk_at(place, round);
        let statistics = statistics_of(mean_get(span.row), rstd_get(span.row));
        let row_bits = row_mask(statistics) & owned_mask(span);
        let row = row_coefficients(span, statistics, row_bits);
        for (var turn = 0u; turn < TURNS; turn += WRITE_STEP) { // unrolled
            write_turn(span, turn, row, row_bits);
        }
    }
    store_column_sums(place);
}
