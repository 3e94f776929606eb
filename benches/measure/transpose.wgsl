// Matrices one after another, each with its rows and columns exchanged. A cell is a word, or, where HALVES says that elements are of 16
// bits, the four elements of two rows and two columns, in two words. ROWS and COLUMNS count the cells of the matrix that is read. The
// numbers are constants, and stand ahead of this.
//
// A workgroup takes a square of cells through its memory, so that it reads and writes words that lie together.

const SIDE: u32 = 32u;
const STEP: u32 = 8u;
// One more than a row of the square, so that a column does not lie in one bank of the memory.
const PITCH: u32 = SIDE + 1u;

@group(0) @binding(0) var<storage, read_write> target_: array<u32>;
@group(0) @binding(1) var<storage, read> source: array<u32>;

var<workgroup> square: array<vec2<u32>, SIDE * PITCH>;

fn cell(matrix: u32, row: u32, column: u32) -> vec2<u32> {
    if !HALVES {
        return vec2<u32>(source[(matrix * ROWS + row) * COLUMNS + column], 0u);
    }
    let first = 2u * (matrix * ROWS + row) * COLUMNS + column;
    let upper = source[first];
    let lower = source[first + COLUMNS];
    return vec2<u32>((upper & 0xffffu) | (lower << 16u), (upper >> 16u) | (lower & 0xffff0000u));
}

fn store(matrix: u32, row: u32, column: u32, value: vec2<u32>) {
    if !HALVES {
        target_[(matrix * COLUMNS + row) * ROWS + column] = value.x;
        return;
    }
    let first = 2u * (matrix * COLUMNS + row) * ROWS + column;
    target_[first] = value.x;
    target_[first + ROWS] = value.y;
}

@compute @workgroup_size(SIDE, STEP)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_id) local_id: vec3<u32>) {
    let first_row = workgroup_id.y * SIDE;
    let first_column = workgroup_id.x * SIDE;
    for (var i = local_id.y; i < SIDE; i += STEP) {
        let row = first_row + i;
        let column = first_column + local_id.x;
        if row < ROWS && column < COLUMNS {
            square[i * PITCH + local_id.x] = cell(workgroup_id.z, row, column);
        }
    }
    workgroupBarrier();
    for (var i = local_id.y; i < SIDE; i += STEP) {
        let row = first_column + i;
        let column = first_row + local_id.x;
        if row < COLUMNS && column < ROWS {
            store(workgroup_id.z, row, column, square[local_id.x * PITCH + i]);
        }
    }
}
