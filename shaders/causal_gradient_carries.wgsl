// Backward pass of causal layer normalization: what comes after each tile, sequence by sequence, from the last tile to the first.
//
// Bindings: 0 params, 44 what the tiles bring.

fn kernel(place: Place) {
    if place.first_span >= params.groups {
        return;
    }
    let first = place.first_span * params.tiles;
    var carry = no_suffix();
    for (var tile = params.tiles; tile > 0u; tile--) {
        var own = suffix_from(suffixes[first + tile - 1u]);
        suffixes[first + tile - 1u] = stored_suffix(carry);
        // A tile that a row count has left without rows brings nothing.
        if own.rows > 0u {
            // One of constants alone has no unit, and takes that of what follows.
            let numbers = bitcast<u32>(own.sum.value) | bitcast<u32>(own.factor.value);
            own.exponent = select(own.exponent, carry.exponent, (numbers & MAGNITUDE_BITS) == 0u);
            carry = prepend(own, carry);
        }
    }
}
