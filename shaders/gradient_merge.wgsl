// Second pass of the backward pass split: adds up the sums of a row's segments, and leaves the row's coefficients, or its sums where it
// is a part of another.
//
// LANES invocations share a row.
// Bindings: 0 params, mean and rstd or the moments, the sums of rows, 41 those of segments as the first pass left them, 42 the rows'
// coefficients.

@group(0) @binding(41) var<storage, read> segment_sums: array<vec4<f32>>;

fn kernel(place: Place) {
    let row = min(place.first_span, params.spans - 1u);
    var sums = vec4<f32>(0.0);
    for (var first = 0u; first < SEGMENTS; first += LANES) {
        let segment = first + place.lane;
        let stored = segment_sums[row * SEGMENTS + min(segment, SEGMENTS - 1u)];
        sums += select(vec4<f32>(0.0), stored, segment < SEGMENTS);
    }
    sums = row_sums(sums);
    if place.first_span < params.spans && place.lane == 0u {
        store_whole(row, statistics_of(mean_get(row), rstd_get(row)), sums);
    }
}
