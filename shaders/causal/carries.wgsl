// What the tiles of all sequences have left: before `causal_carries` each its own rows, afterwards all rows before it.

@group(0) @binding(44) var<storage, read_write> prefixes: array<StoredPrefix>;

fn carry_of(tile: u32) -> Prefix {
    return prefix_from(prefixes[tile]);
}
