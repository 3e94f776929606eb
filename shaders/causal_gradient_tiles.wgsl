// Backward pass of causal layer normalization, after the sums of the rows: what each tile of rows brings to the gradients of the
// positions before it.
//
// Bindings: 0 params, 41 the sums of the rows, 45 what normalizes them, 44 the tiles'.

fn kernel(place: Place) {
    if place.first_span >= params.groups {
        return;
    }
    let tile = tile_at(place.first_span);
    let first = place.first_span / params.tiles * params.sequence_rows;
    var suffix = no_suffix();
    for (var row = tile.end; row > tile.begin; row--) {
        suffix = prepend(suffix_of_row(row - 1u, row - 1u - first, suffix), suffix);
    }
    suffixes[place.first_span] = stored_suffix(suffix);
}
