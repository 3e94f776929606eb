// Each sequence is one tile.

fn carry_of(tile: u32) -> Suffix {
    return no_suffix();
}
