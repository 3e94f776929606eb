// Access: the span is read again each time it is needed, from cache where it fits one.

// Units that the shift comes from, 16 elements, and how far they lie apart.
const SAMPLES: u32 = 16u / UNIT;
const SAMPLE_STRIDE: u32 = max(SEGMENT_UNITS / SAMPLES, 1u);

fn span_read(span: Span, slot: u32) {}

// About the mean: that of a sample spread evenly over the span, which saves reading all of it. Exact in a constant span.
fn span_shift(span: Span, slot: u32) -> f32 {
    let origin = span_first(span);
    // Of x − origin, origin being the span's first element: 0 in a constant span.
    var sum = Quad(0.0);
    for (var i = 0u; i < SAMPLES; i++) {
        let position = span.begin + min(i * SAMPLE_STRIDE + SAMPLE_STRIDE / 2u, span.units - 1u);
        sum += unit_sum(unit_difference(source_unit(source_load(span, position)), origin, params.all_bits));
    }
    return origin + quad_sum(sum) / 16.0;
}

fn span_sums(span: Span, slot: u32, shift: f32) -> vec2<f32> {
    return memory_sums(span, shift, 1.0);
}

fn shift_is_off(moments: Moments, share: f32) -> bool {
    return off_the_mean(moments, share);
}

fn measure_all(place: Place) -> bool {
    var again = false;
    var slot = 0u;
    loop {
        // Where there is one slot only, its number is a constant.
        again = again | measure(place, min(slot, SPANS_PER_LANE - 1u));
        slot++;
        if slot >= SPANS_PER_LANE {
            break;
        }
    }
    return again;
}
