// Second pass of causal layer normalization: mean and variance of each tile of rows.
//
// Bindings: 0 params, 40 the moments of the rows, 44 those of the tiles.

fn kernel(place: Place) {
    if place.first_span >= params.groups {
        return;
    }
    let tile = tile_at(place.first_span);
    var prefix = no_rows();
    for (var row = tile.begin; row < tile.end; row++) {
        prefix = append(prefix, prefix_of_row(row));
    }
    prefixes[place.first_span] = stored_prefix(prefix);
}
