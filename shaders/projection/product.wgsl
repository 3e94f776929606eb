// The matrices of a product, and what becomes of a sum.

@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;

// Where a row of left, and the terms of right, begin.
fn left_start(row: u32) -> u32 {
    return left_source(row) * params.left_row;
}

fn right_start(term: u32) -> u32 {
    return right_source(term) * params.right_term;
}

fn store(row: u32, column: u32, sum: f32) {
    let index = row * params.columns + column;
    var whole = sum;
    if ACCUMULATE {
        whole += result[index];
    }
    result[index] = finished(whole, index);
}
