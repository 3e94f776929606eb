// Second pass of strategy split: every span merges the moments of its row's segments, then normalizes its segment.
//
// The merge is that of Chan, Golub and LeVeque. A first pass about an origin from the row
// (the first segment's mean) finds the shift, and a second one the correction, with w_i = count_i / WIDTH:
//     shift ≈ origin + Σ w_i (mean_i − origin)
//     e_i = mean_i − shift,  correction = Σ w_i e_i,  variance = Σ w_i (variance_i + e_i²) − correction²
//
// Bindings: 0 params, those of the tensors, 9 partials as the first pass left them.

@group(0) @binding(9) var<storage, read> partials: array<vec4<f32>>;

// Segments that a lane looks at, one in each turn.
const MERGE_TURNS: u32 = (SEGMENTS + LANES - 1u) / LANES;
// Segments whose sum goes to an outer sum, as in the measuring of a span.
const MERGE_BLOCK: u32 = 16u;

struct Merged {
    shift: f32,
    correction: f32,
    // The sum that the variance comes from: unlike the variance it shows that a value was no number.
    squares: f32,
    variance: f32,
    // Whether a segment was measured in another unit than 1.
    rescued: bool,
}

fn partial_of(segment: u32) -> Moments {
    let stored = partials[row * SEGMENTS + segment];
    return Moments(stored.x, stored.y, stored.z, stored.w);
}

// The segment's part of the row's elements.
fn segment_share(segment: u32) -> f32 {
    return f32(min(SEGMENT_WIDTH, WIDTH - segment * SEGMENT_WIDTH)) / f32(WIDTH);
}

// What brings a partial to the common scale; 0 where it is too small to be seen there.
fn rescale(moments: Moments, exponent: i32) -> f32 {
    let difference = exponent - exponent_of(moments.scale);
    return select(power_of_two(clamp(difference, -126, 127)), 0.0, difference < -126);
}

// The segment's mean less `shift`, at the common scale.
fn offset_of(moments: Moments, ratio: f32, shift: f32) -> f32 {
    return (moments.shift * ratio - shift) + moments.correction * ratio;
}

fn merge_scaled(exponent: i32) -> Merged {
    let first = partial_of(0u);
    let origin = first.shift * rescale(first, exponent);

    var sums = vec2<f32>(0.0);
    for (var turn = 0u; turn < MERGE_TURNS; turn++) {
        let segment = unit_index(turn);
        if segment < SEGMENTS {
            let moments = partial_of(segment);
            let difference = offset_of(moments, rescale(moments, exponent), origin);
            sums += vec2<f32>(segment_share(segment) * difference, f32(moments.scale != 1.0));
        }
    }
    let first_pass = span_sum(sums);
    let mean = origin + first_pass.x;

    sums = vec2<f32>(0.0);
    for (var block = 0u; block < MERGE_TURNS; block += MERGE_BLOCK) {
        var block_sums = vec2<f32>(0.0);
        for (var turn = block; turn < min(block + MERGE_BLOCK, MERGE_TURNS); turn++) {
            let segment = unit_index(turn);
            if segment < SEGMENTS {
                let moments = partial_of(segment);
                let ratio = rescale(moments, exponent);
                let difference = offset_of(moments, ratio, mean);
                block_sums += segment_share(segment)
                    * vec2<f32>(difference, moments.variance * ratio * ratio + difference * difference);
            }
        }
        sums += block_sums;
    }
    let second_pass = span_sum(sums);
    let variance = at_least_zero(second_pass.y - second_pass.x * second_pass.x);
    return Merged(mean, second_pass.x, second_pass.y, variance, first_pass.y != 0.0);
}

// The largest exponent that a segment's mean or standard deviation has.
fn merge_exponent() -> i32 {
    var largest = 0u;
    for (var turn = 0u; turn < MERGE_TURNS; turn++) {
        let segment = unit_index(turn);
        if segment < SEGMENTS {
            let moments = partial_of(segment);
            let exponent = max(exponent_of(moments.shift), exponent_of(moments.variance) / 2 + 1)
                - exponent_of(moments.scale);
            largest = max(largest, u32(exponent + 1024));
        }
    }
    return i32(span_max(largest)) - 1024;
}

fn merge() -> Moments {
    var kept: Moments;
    var exponent = 0;
    var suspect = true;
    var again = false;
    // At most twice.
    loop {
        let merged = merge_scaled(exponent);
        if suspect {
            kept = Moments(merged.shift, merged.correction, merged.variance, power_of_two(exponent));
        }
        suspect = merged.rescued || moments_suspect(merged.squares, merged.variance);
        if again || workgroup_or(u32(suspect)) == 0u {
            break;
        }
        again = true;
        exponent = rescue_exponent(merge_exponent());
    }
    return kept;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    if !span_select(workgroup_id, local_index) {
        return;
    }
    reduce_begin(local_index);
    span_enter(0u);
    span_measured(merge());
    span_normalize();
}
