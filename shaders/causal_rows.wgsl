// Fourth pass of causal layer normalization: what normalizes each row, from its own moments and those of all rows before it in its
// sequence, and the statistics that are asked for.
//
// Bindings: 0 params, 40 the moments of the rows, 44 those of what comes before each tile, 45 what
// normalizes the rows, mean and rstd.

@group(0) @binding(45) var<storage, read_write> row_scalings: array<vec4<f32>>;

// variance + eps, in the prefix's unit.
fn variance_and_eps(prefix: Prefix, eps: f32) -> f32 {
    let rows = f32(prefix.rows);
    let elements = rows * f32(WIDTH);
    let squares = prefix.squares;
    // Counts are exact up to here; beyond, one element more or less is less than rounding.
    if elements < 16777216.0 {
        let share = reciprocal(elements - params.unbiased);
        return fma(squares.value, share.value, fma(squares.value, share.rest, fma(squares.rest, share.value, eps)));
    }
    let of_width = reciprocal(f32(WIDTH));
    let of_row = fma(squares.value, of_width.value, fma(squares.value, of_width.rest, squares.rest * of_width.value));
    let share = reciprocal(rows);
    return fma(of_row, share.value, fma(of_row, share.rest, eps));
}

fn kernel(place: Place) {
    if place.first_span >= params.groups {
        return;
    }
    let tile = tile_at(place.first_span);
    var prefix = carry_of(place.first_span);
    for (var row = tile.begin; row < tile.end; row++) {
        prefix = append(prefix, prefix_of_row(row));
        let eps = scaled(params.eps, 2 * prefix.exponent);
        let rstd = rstd_of(variance_and_eps(prefix, eps), eps, prefix.squares.value);
        row_scalings[row] = vec4<f32>(prefix.mean.value, prefix.mean.rest, rstd, f32(prefix.exponent));
        let mean = scaled(prefix.mean.value + prefix.mean.rest, -prefix.exponent);
        // What is no number has no mean either.
        mean_set(row, select(mean, rstd, exponent_of(rstd) == 128));
        rstd_set(row, scaled(rstd, prefix.exponent));
    }
}
