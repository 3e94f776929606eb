// Last pass over the rows in the backward passes streaming and split: dx, and the sums for the gradients of weight and bias, from what
// the passes before have found out about each row.
//
//     dx = rstd · (g − Σg / n − x̂ · Σ(g · x̂) / n),   Σ dy · x̂ and Σ dy over the rows of a walk
//
// LANES invocations walk over one segment of the rows; no one waits for another.
// Bindings: 0 params, those of the tensors, 42 the rows' coefficients, 43 the sums over rows, where gradients that
// are such are asked for.

@group(0) @binding(42) var<storage, read> coefficients: array<vec4<f32>>;

fn source_at(span: Span, turn: u32) -> Source {
    return unit_load(span, turn, EVEN);
}

fn output_gradient_at(span: Span, turn: u32) -> Unit {
    return output_gradient_unit(output_gradient_load(span.row, position_at(span, turn, EVEN)));
}

fn kernel(place: Place) {
    hold_factor(walk_at(place, 0u));
    let rounds = walk_rounds(place);
    for (var round = 0u; round < rounds; round++) {
        let span = walk_at(place, round);
        let first = coefficients[2u * span.row];
        let second = coefficients[2u * span.row + 1u];
        let row = Coefficients(first.x, first.y, second.y, first.z, first.w, second.x);
        let row_bits = row_mask(Statistics(row.half_mean, row.rstd, row.double_rstd));
        for (var turn = 0u; turn < TURNS; turn += WRITE_STEP) { // unrolled
            write_turn(span, turn, row, row_bits);
        }
    }
    store_column_sums(place);
}
