// Rows of both matrices one after another.

fn left_source(row: u32) -> u32 {
    return row;
}

fn right_source(term: u32) -> u32 {
    return term;
}
