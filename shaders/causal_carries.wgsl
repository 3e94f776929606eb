// Third pass of causal layer normalization: what comes before each tile, sequence by sequence. Where params.accumulate is not 0,
// a sequence begins with its stored state, which is of the rows before those of this dispatch. In the end its state includes
// these.
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
