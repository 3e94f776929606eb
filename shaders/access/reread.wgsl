// Access: the span is read again each time it is needed, from cache where it fits one.

fn span_read() {}

// Not the constant: unrolled loops would gain little here, and llvmpipe takes far longer to compile them.
fn span_turns() -> u32 {
    return params.turns;
}

fn span_unit(turn: u32) -> Unit {
    return read_unit(turn);
}

// Units that the shift comes from: 16 elements.
const SAMPLES: u32 = 16u / UNIT;

// About the mean: that of a sample spread evenly over the span, which saves reading all of it. Exact in a constant span.
fn span_shift(scale: f32) -> f32 {
    // The sum of a sample may overflow where its elements do not, and a compiler may take the scale out of the sum.
    if scale != 1.0 {
        return read_origin() * scale;
    }
    var sum = Unit(0.0);
    for (var i = 0u; i < SAMPLES; i++) {
        sum += source_at(span_begin + sample_index(2u * i + 1u));
    }
    return unit_sum(sum) / 16.0;
}

// floor(numerator / (2 · SAMPLES) · span_units), which does not overflow on its way.
fn sample_index(numerator: u32) -> u32 {
    let part = 2u * SAMPLES;
    return numerator * (span_units / part) + numerator * (span_units % part) / part;
}
