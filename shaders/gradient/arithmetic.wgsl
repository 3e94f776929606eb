// The gradient of a loss by the units of a row (`gradient/row` has the formula), and the sums that it rests on.

// (x − mean) · rstd − offset where `mask` has all bits, 0 where it has none. It goes through `unit_kept`, so that a compiler does
// not move its factor rstd elsewhere: in x̂ · slope · rstd that might form rstd · rstd, which may leave the range of f32.
fn normalized_unit(source: Source, half_mean: f32, double_rstd: f32, offset: f32, mask: u32) -> Unit {
    return unit_kept(unit_fma(half_centred(source, half_mean), double_rstd, -offset), mask);
}

fn input_gradient_of(gradient: Unit, normalized: Unit, row: Coefficients) -> Unit {
    let centred = unit_fma(gradient, row.rstd, row.summand);
    return unit_fma_unit(normalized, -row.slope * row.rstd, centred);
}

// Sums over a part of a row, element by element of a quad: of g, of g · (x − mean) · rstd, and of (x − mean) · rstd.
struct RowSums {
    gradients: Quad,
    products: Quad,
    normalized: Quad,
}

fn add_to_row(sums: RowSums, gradient: Unit, normalized: Unit) -> RowSums {
    return RowSums(
        sums.gradients + unit_sum(gradient),
        sums.products + unit_sum(unit_multiply(gradient, normalized)),
        sums.normalized + unit_sum(normalized),
    );
}

// g of a unit of the span, 0 past its end.
fn gradient_in_span(span: Span, turn: u32, output_gradient: Unit) -> Unit {
    let gradient = gradient_of(span, turn, output_gradient);
    if EVEN {
        return gradient;
    }
    return unit_kept(gradient, unit_mask(span, turn, EVEN));
}

// What one invocation brings to the sums over all that share a span.
fn parts_of(sums: RowSums) -> vec4<f32> {
    return vec4<f32>(quad_sum(sums.gradients), quad_sum(sums.products), quad_sum(sums.normalized), 0.0);
}
