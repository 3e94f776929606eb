// Third pass of causal layer normalization: what comes before each tile, sequence by sequence. It begins with what came before the
// sequence, where that is known, and leaves what is known in the end.
//
// Bindings: 0 params, 44 the moments of the tiles, `state` what is known of the sequences.

fn kernel(place: Place) {
    if place.first_span >= params.groups {
        return;
    }
    var carry = no_rows();
    if params.accumulate != 0u {
        carry = prefix_from(state_load(place.first_span));
    }
    let first = place.first_span * params.tiles;
    for (var tile = 0u; tile < params.tiles; tile++) {
        let own = prefix_from(prefixes[first + tile]);
        prefixes[first + tile] = stored_prefix(carry);
        carry = append(carry, own);
    }
    state_set(place.first_span, stored_prefix(carry));
}
