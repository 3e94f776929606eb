// From the moments of a row to its output, the sum with the residual, and its statistics, as far as they are asked for.
//
// The output or the sum may take the place of the input or the residual: each invocation writes only units that it alone
// reads from here on, and has read before.

// The scalings of this invocation's spans, and which of them are to be measured again.
var<private> scalings: array<Scaling, SPANS_PER_LANE>;
var<private> rare: array<bool, SPANS_PER_LANE>;

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

// What is written of one unit: input + residual, and y.
struct Written {
    sum: Unit,
    output: Unit,
}

// `again`: of a span that may have been measured in another unit than 1.
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

fn write(span: Span, position: u32, unit: Written) {
    if span.owned {
        sum_set(span.row, position, unit.sum);
        output_set(span.row, position, unit.output);
    }
}

// Of spans of which some were measured again: from memory, in the unit of each.
fn normalize_again(place: Place) {
    for (var slot = 0u; slot < SPANS_PER_LANE; slot++) {
        let span = span_at(place, slot);
        let scaling = scalings[slot];
        for (var turn = 0u; turn < params.turns; turn += WRITE_STEP) {
            if has_turn(span, turn, EVEN) {
                let second = unit_load(span, turn + WRITE_STEP - 1u, EVEN);
                write_sources(span, turn, unit_load(span, turn, EVEN), second, scaling, true);
            }
        }
    }
}

// Last, because lanes that part here do not meet again.
fn write_statistics(place: Place) {
    for (var slot = 0u; slot < SPANS_PER_LANE; slot++) {
        let span = span_at(place, slot);
        if span.owned && span.lane == 0u && span.begin == 0u {
            let scaling = scalings[slot];
            let mean = scaled(scaling.shift + scaling.correction, -scaling.exponent);
            // A row with an infinity has no mean either, wherever the shift came from.
            mean_set(span.row, select(mean, scaling.rstd, exponent_of(scaling.rstd) == 128));
            rstd_set(span.row, scaled(scaling.rstd, scaling.exponent));
        }
    }
}
