// What the tiles of all sequences bring to the gradients: before `causal_gradient_carries` each its own, afterwards all tiles after it.

@group(0) @binding(44) var<storage, read_write> suffixes: array<StoredSuffix>;

fn carry_of(tile: u32) -> Suffix {
    return suffix_from(suffixes[tile]);
}
