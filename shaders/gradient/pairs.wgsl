// Writes the gradient by what is normalized two units at a time: those of an even turn and the next one, which `turns/pairs` makes
// neighbours.

const WRITE_STEP: u32 = 2u;

fn gradient_at(span: Span, turn: u32, row: Coefficients, mask: u32) -> WrittenGradient {
    let normalized = normalized_unit(source_at(span, turn), row.half_mean, row.double_rstd, row.offset, mask);
    let output_gradient = owned(span, output_gradient_at(span, turn));
    add_to_sums(turn, output_gradient, normalized);
    let gradient = input_gradient_of(gradient_of(span, turn, output_gradient), normalized, row);
    let position = position_at(span, turn, EVEN);
    return gated(span, turn, position, with_sum_gradient(span.row, position, gradient));
}

fn write_turn(span: Span, turn: u32, row: Coefficients, mask: u32) {
    let first = gradient_at(span, turn, row, mask);
    let second = gradient_at(span, turn + 1u, row, mask);
    if span.owned {
        let has_first = in_span(span, turn, false);
        let has_second = in_span(span, turn + 1u, false);
        let position = span.begin + unit_index(span, turn);
        residual_gradient_set_pair(span.row, position, first.residual, second.residual, has_first, has_second);
        input_gradient_set_pair(span.row, position, first.input, second.input, has_first, has_second);
    }
}
