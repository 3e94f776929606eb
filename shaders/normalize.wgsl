// From a row and its scaling to its output and the sum with the residual, as far as they are asked for.
//
// The output or the sum may take the place of the input or the residual: each invocation writes only units that it alone
// reads from here on, and has read before.

// What is written of one unit: input + residual, and y.
struct Written {
    sum: Unit,
    output: Unit,
}

// What is written of one unit of a span. Where `again` is true, the span may have been measured with an exponent other than 0.
fn written(source: Source, scaling: Scaling, parameters: Parameters, again: bool) -> Written {
    let unit = source_unit(source);
    var own_unit = unit;
    if again {
        own_unit = unit_scaled(unit, power_of_two(scaling.exponent));
    }
    let difference = unit_difference(own_unit, scaling.shift, params.all_bits);
    let normalized = unit_fma(difference, scaling.rstd, -scaling.correction * scaling.rstd);
    return Written(unit, affine(normalized, parameters));
}

// Precondition: span.owned.
fn write(span: Span, position: u32, unit: Written) {
    sum_set(span.row, position, unit.sum);
    output_set(span.row, position, unit.output);
}

// Normalizes all spans of this invocation from memory, each with its own exponent. It is called where some are rare.
fn normalize_again(place: Place) {
    for (var slot = 0u; slot < SPANS_PER_LANE; slot++) {
        let span = span_at(place, slot);
        let scaling = scalings[slot];
        for (var turn = 0u; turn < params.turns; turn += WRITE_STEP) {
            if span.owned && has_turn(span, turn, EVEN) {
                let second = unit_load(span, turn + WRITE_STEP - 1u, EVEN);
                write_sources(span, turn, unit_load(span, turn, EVEN), second, scaling, true);
            }
        }
    }
}
