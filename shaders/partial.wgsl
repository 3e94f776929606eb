// First pass of strategy split: the moments of every segment of every row.
//
// Bindings: 0 params, those of the tensors that are read, 40 partials: one vec4 a segment, (shift, sum of x − shift, sum of its
// square, exponent), rows outermost.

@group(0) @binding(40) var<storage, read_write> partials: array<vec4<f32>>;

var<private> kept_moments: Moments;

fn measure(place: Place, slot: u32) -> bool {
    let span = span_at(place, slot);
    kept_moments = span_moments(span, slot);
    let share = 1.0 / span_count(span);
    return out_of_range(kept_moments.squares, share) | shift_is_off(kept_moments, share);
}

fn kernel(place: Place) {
    let again = measure_all(place);
    let span = span_at(place, 0u);
    var moments = kept_moments;
    if workgroup_or(u32(again)) != 0u {
        let other = measure_again(span);
        moments = Moments(
            select(moments.shift, other.shift, again),
            select(moments.differences, other.differences, again),
            select(moments.squares, other.squares, again),
            select(moments.exponent, other.exponent, again),
        );
    }
    if span.owned && span.lane == 0u {
        partials[span.row * SEGMENTS + span.begin / SEGMENT_UNITS] =
            vec4<f32>(moments.shift, correction_of(moments.differences), moments.squares, f32(moments.exponent));
    }
}
