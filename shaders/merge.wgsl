// Second pass of strategy split: every span merges the moments of its row's segments, then normalizes its segment (`row`).
//
// The merge is that of Chan, Golub and LeVeque. About an origin, that of the first segment, with e_i = shift_i − origin:
//     Σ (x − origin) = Σ_i (D_i + n_i e_i),   Σ (x − origin)² = Σ_i (S_i + e_i (2 D_i + n_i e_i))
// where D_i and S_i are the sums of x − shift_i and of its square over segment i of n_i elements.
//
// Bindings: 0 params, those of the tensors, 40 partials as the first pass left them.

@group(0) @binding(40) var<storage, read> partials: array<vec4<f32>>;

// Segments that a lane looks at, one in each turn.
const MERGE_TURNS: u32 = (SEGMENTS + LANES - 1u) / LANES;
// A sum of squares that is out of range, for a segment that was measured in another unit.
const FOREIGN: f32 = 1.329227995784916e36; // 2^120

fn partial_of(span: Span, segment: u32) -> Moments {
    let stored = partials[span.row * SEGMENTS + min(segment, SEGMENTS - 1u)];
    return Moments(stored.x, stored.y, stored.z, i32(stored.w));
}

// The sums of one segment about `origin`, in the unit 2^−exponent; 0 past the last segment.
fn moved_sums(span: Span, segment: u32, moments: Moments, origin: f32) -> vec2<f32> {
    let last = min(segment, SEGMENTS - 1u);
    let count = f32(min(SEGMENT_WIDTH, WIDTH - last * SEGMENT_WIDTH));
    let offset = kept_scalar(moments.shift - origin);
    let differences = moments.differences + count * offset;
    let squares = moments.squares + offset * (moments.differences + differences);
    return select(vec2<f32>(0.0), vec2<f32>(differences, squares), segment < SEGMENTS);
}

// The same moments in another unit.
fn in_unit(moments: Moments, exponent: i32) -> Moments {
    let by = exponent - moments.exponent;
    return Moments(
        scaled(moments.shift, by),
        scaled(moments.differences, by),
        scaled(moments.squares, 2 * by),
        exponent,
    );
}

// The sums of one segment about `origin` in the unit 2^−exponent. Where only ordinary ones are looked for, nothing is brought to
// another unit: one that was measured in another shows as a sum that is out of range.
fn segment_sums(span: Span, segment: u32, origin: f32, exponent: i32, ordinary: bool) -> vec2<f32> {
    let moments = partial_of(span, segment);
    if ordinary {
        let sums = moved_sums(span, segment, moments, origin);
        return select(sums, vec2<f32>(0.0, FOREIGN), moments.exponent != 0);
    }
    return moved_sums(span, segment, in_unit(moments, exponent), origin);
}

fn kept_pair(value: vec2<f32>) -> vec2<f32> {
    return bitcast<vec2<f32>>(bitcast<vec2<u32>>(value) & vec2<u32>(params.all_bits));
}

// Two sums and what they lost, with those of one segment more, as in `add_block`.
fn add_segment(total: vec4<f32>, segment: vec2<f32>) -> vec4<f32> {
    let sums = kept_pair(total.xy + segment);
    let added = kept_pair(sums - total.xy);
    let old = kept_pair(sums - added);
    return vec4<f32>(sums, total.zw + (kept_pair(total.xy - old) + kept_pair(segment - added)));
}

// The sums of all segments.
fn merged_sums(span: Span, origin: f32, exponent: i32, ordinary: bool) -> vec2<f32> {
    var total = vec4<f32>(0.0);
    for (var turn = 0u; turn < MERGE_TURNS; turn++) {
        total = add_segment(total, segment_sums(span, turn * LANES + span.lane, origin, exponent, ordinary));
    }
    return span_sums_of(vec3<f32>(total.x + total.z, total.y, total.w));
}

// No exponent is below this.
const NO_EXPONENT: i32 = -4096;

// The largest exponent, in the unit 2^−exponent, of a segment's distance from `origin` and of its standard deviation.
fn merge_exponent(span: Span, origin: f32, exponent: i32) -> i32 {
    var largest = 0u;
    for (var turn = 0u; turn < MERGE_TURNS; turn++) {
        let moments = partial_of(span, turn * LANES + span.lane);
        let offset = kept_scalar(scaled(moments.shift, exponent - moments.exponent) - origin);
        let distance = select(exponent_of(offset), NO_EXPONENT, exponent_of(offset) == -127);
        let root = exponent_of(moments.squares) / 2 + 1 + exponent - moments.exponent;
        let deviation = select(root, NO_EXPONENT, exponent_of(moments.squares) == -127);
        largest = max(largest, u32(max(distance, deviation) - NO_EXPONENT));
    }
    return i32(span_max(largest)) + NO_EXPONENT;
}

// The moments of a row, in the unit 1, where no segment was measured in another.
fn span_moments(span: Span, slot: u32) -> Moments {
    let origin = partial_of(span, 0u).shift;
    let sums = merged_sums(span, origin, 0, true);
    return Moments(origin, sums.x, sums.y, 0);
}

// The moments of any other row; as in `rare`, but from those of the segments.
fn measure_again(span: Span) -> Moments {
    let limit = eps_limit();
    let small = clamp(-merge_magnitude(span), -126, min(126, limit));
    let first = partial_of(span, 0u);
    let spread = merge_exponent(span, in_unit(first, small).shift, small);
    let exponent = select(min(small + clamp(-spread, 0, 24), limit), 0, spread == NO_EXPONENT);
    let origin = in_unit(first, exponent).shift;
    let about_first = merged_sums(span, origin, exponent, false);
    let shift = kept_scalar(shift_again(origin, about_first.x * params.mean_share));
    let sums = merged_sums(span, shift, exponent, false);
    return Moments(shift, sums.x, sums.y, exponent);
}

// The largest exponent that a segment's shift or standard deviation has.
fn merge_magnitude(span: Span) -> i32 {
    var largest = 0u;
    for (var turn = 0u; turn < MERGE_TURNS; turn++) {
        let moments = partial_of(span, turn * LANES + span.lane);
        let exponent = max(exponent_of(moments.shift), exponent_of(moments.squares) / 2 + 1) - moments.exponent;
        largest = max(largest, u32(exponent - NO_EXPONENT));
    }
    return i32(span_max(largest)) + NO_EXPONENT;
}
