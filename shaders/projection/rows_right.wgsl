// The category of each term picks a row of the right matrix.

fn left_source(row: u32) -> u32 {
    return row;
}

fn right_source(term: u32) -> u32 {
    return category_of(term);
}
