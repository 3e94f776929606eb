// Writes the gradient by what is normalized one unit at a time.

// Turns that are written together.
const WRITE_STEP: u32 = 1u;

fn write_turn(span: Span, turn: u32, row: Coefficients, mask: u32) {
    let normalized = normalized_unit(source_at(span, turn), row.half_mean, row.double_rstd, row.offset, mask);
    let output_gradient = owned(span, output_gradient_at(span, turn));
    let gradient = input_gradient_of(gradient_of(span, turn, output_gradient), normalized, row);
    add_to_sums(turn, output_gradient, normalized);
    let position = position_at(span, turn, EVEN);
    let written = gated(span, turn, position, with_sum_gradient(span.row, position, gradient));
    if span.owned && in_span(span, turn, EVEN) {
        residual_gradient_set(span.row, position, written.residual);
        input_gradient_set(span.row, position, written.input);
    }
}
