// Access: the span is read again each time it is needed, from cache where it fits one.

fn span_read() {}

// Not the constant: unrolled loops would gain little here, and llvmpipe takes far longer to compile them.
fn span_turns() -> u32 {
    return params.turns;
}

fn span_unit(turn: u32) -> Unit {
    return read_unit(turn);
}

// Units that the shift comes from, 16 elements, and how far they lie apart.
const SAMPLES: u32 = 16u / UNIT;
const SAMPLE_STRIDE: u32 = max(SEGMENT_UNITS / SAMPLES, 1u);

// About the mean: that of a sample spread evenly over the span, which saves reading all of it. Exact in a constant span.
fn span_shift(scale: f32) -> f32 {
    let origin = read_origin();
    // The sum of a sample may overflow where its elements do not, and a compiler may take the scale out of the sum.
    if scale != 1.0 {
        return origin * scale;
    }
    // Of x − origin, origin being the span's first element: 0 in a constant span.
    var sum = Unit(0.0);
    for (var i = 0u; i < SAMPLES; i++) {
        sum += source_at(span_begin + min(i * SAMPLE_STRIDE + SAMPLE_STRIDE / 2u, span_units - 1u)) - origin;
    }
    return origin + unit_sum(sum) / 16.0;
}
