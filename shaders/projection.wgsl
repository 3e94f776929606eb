// A product of two matrices of f32, for the projections of conditional layer normalization and their gradients:
//
//     result[row, column] = finished(Σ left[row, term] · right[term, column] over the terms)
//
// With ACCUMULATE, what lies in the result is added before it is finished. The rows of the result follow one another; those of left
// and right lie as their strides say, so a transposed matrix is one with its strides exchanged.
//
// Up to GROUP terms are added one after another; what the sums of these lose is kept. Rows and columns do not touch each other: a
// NaN spoils what it is a part of. No atomics, so the same matrices give the same bits.
//
// Bindings: 0 params, 1 left, 2 right, 3 the result; 4 categories, where they pick rows; 5 what a slope is taken at.
// Preconditions: no index goes past 32 bits, and none past the end of what is bound, for rows, columns and terms that there are.

// As `ProjectionParams` in `src/kernel/projection.rs`.
struct Params {
    // Of the result.
    rows: u32,
    columns: u32,
    // Of each sum.
    terms: u32,
    // Elements from one row, term or column to the next.
    left_row: u32,
    left_term: u32,
    right_term: u32,
    right_column: u32,
    // What the result is divided into: tiles (`tiled`), blocks of ROWS × 4 elements (`alone`), or elements (`table_gradient`).
    work: u32,
    // Workgroups of the dispatch, and those of them along x.
    workgroups: u32,
    workgroups_x: u32,
    // Where the categories begin in what is bound, and the largest of them.
    first_category: u32,
    last_category: u32,
    // 0xffffffff; a mask of all bits that a compiler cannot see through.
    all_bits: u32,
    padding_0: u32,
    padding_1: u32,
    padding_2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

const EXPONENT_BITS: u32 = 0x7f800000u;

// Terms that are added up as they come.
const GROUP: u32 = 16u;

// A Quad is what an invocation has of a row of the result: a number, or four neighbours.

// The value itself. A compiler cannot see that, so it moves nothing across.
fn kept(value: Quad) -> Quad {
    return bitcast<Quad>(bitcast<QuadBits>(value) & QuadBits(params.all_bits));
}

// A sum, and what it has lost to rounding.
struct Sum {
    value: Quad,
    lost: Quad,
}

// The error of the addition is Knuth's ("The Art of Computer Programming", volume 2, 4.2.2).
fn sum_add(sum: Sum, term: Quad) -> Sum {
    let value = kept(sum.value + term);
    let added = kept(value - sum.value);
    let old = kept(value - added);
    return Sum(value, sum.lost + (kept(sum.value - old) + kept(term - added)));
}

// What is lost is no number where the sum is infinite.
fn sum_value(sum: Sum) -> Quad {
    let exponent = bitcast<QuadBits>(sum.value) & QuadBits(EXPONENT_BITS);
    return sum.value + select(sum.lost, Quad(), exponent == QuadBits(EXPONENT_BITS));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    kernel(workgroup.y * params.workgroups_x + workgroup.x, local_index);
}
