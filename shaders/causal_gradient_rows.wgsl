// Backward pass of causal layer normalization: the coefficients of each row (`gradient/row`), which also hold what its gradient takes from
// all later positions of its sequence.
//
// Bindings: 0 params, 41 the sums of the rows, 45 what normalizes them, 44 what comes after each
// tile, 42 the rows' coefficients.

@group(0) @binding(42) var<storage, read_write> coefficients: array<vec4<f32>>;

fn kernel(place: Place) {
    if place.first_span >= params.groups {
        return;
    }
    let tile = tile_at(place.first_span);
    let first = place.first_span / params.tiles * params.sequence_rows;
    var suffix = carry_of(place.first_span);
    for (var row = tile.end; row > tile.begin; row--) {
        suffix = prepend(suffix_of_row(row - 1u, row - 1u - first, suffix), suffix);
        let scaling = row_scalings[row - 1u];
        let exponent = i32(scaling.w);
        let half_mean = scaled(scaling.x, -exponent - 1);
        let rstd = scaled(scaling.z, exponent);
        // C · (x − μ) = −slope · rstd · x̂, so slope = −C / rstd². The powers of two of C and of rstd² cancel, and are left out.
        let digits = rstd_digits(scaling);
        let slope = select(-(suffix.factor.value + suffix.factor.rest) / (digits * digits), 0.0, digits == 0.0);
        let summand = scaled(suffix.sum.value + suffix.sum.rest, suffix.exponent);
        coefficients[2u * row - 2u] = vec4<f32>(half_mean, rstd, scaling.y * scaling.z, summand);
        coefficients[2u * row - 1u] = vec4<f32>(slope, scaled(scaling.z, exponent + 1), 0.0, 0.0);
    }
}
