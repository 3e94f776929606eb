// A workgroup takes tiles of TILE × TILE elements, one element an invocation. DEPTH terms of the rows and columns of a tile at a time
// are brought into workgroup memory, each matrix in the order in which it lies in memory.

const DEPTH: u32 = 4u * TILE;
// One more, so that neighbouring rows begin in different banks.
const PITCH: u32 = DEPTH + 1u;

var<workgroup> left_tile: array<f32, TILE * PITCH>;
var<workgroup> right_tile: array<f32, TILE * PITCH>;

// The row or column within the tile, and the term, that an invocation brings.
fn brought(i: u32, along_terms: bool) -> vec2<u32> {
    return select(vec2<u32>(i % TILE, i / TILE), vec2<u32>(i / DEPTH, i % DEPTH), along_terms);
}

// Terms that there are not are 0 in both. Rows and columns that there are not are the last ones again; no one stores them.
fn bring(first_row: u32, first_column: u32, first_term: u32, local_index: u32) {
    for (var i = local_index; i < TILE * DEPTH; i += WORKGROUP_SIZE) {
        let of_left = brought(i, LEFT_ALONG_TERMS);
        var value = 0.0;
        if first_term + of_left.y < params.terms {
            let row = min(first_row + of_left.x, params.rows - 1u);
            value = left[left_start(row) + (first_term + of_left.y) * params.left_term];
        }
        left_tile[of_left.x * PITCH + of_left.y] = value;
        let of_right = brought(i, RIGHT_ALONG_TERMS);
        value = 0.0;
        if first_term + of_right.y < params.terms {
            let column = min(first_column + of_right.x, params.columns - 1u);
            value = right[right_start(first_term + of_right.y) + column * params.right_column];
        }
        right_tile[of_right.x * PITCH + of_right.y] = value;
    }
}

fn kernel(workgroup: u32, local_index: u32) {
    let tiles_across = params.columns / TILE + u32(params.columns % TILE != 0u);
    let left_first = local_index / TILE * PITCH;
    let right_first = local_index % TILE * PITCH;
    for (var tile = workgroup; tile < params.work; tile += params.workgroups) {
        let first_row = tile / tiles_across * TILE;
        let first_column = tile % tiles_across * TILE;
        var sum = Sum();
        for (var first_term = 0u; first_term < params.terms; first_term += DEPTH) {
            bring(first_row, first_column, first_term, local_index);
            workgroupBarrier();
            let terms = min(params.terms - first_term, DEPTH);
            for (var first = 0u; first < terms; first += GROUP) {
                var part = 0.0;
                for (var term = first; term < first + GROUP; term++) {
                    part += left_tile[left_first + term] * right_tile[right_first + term];
                }
                sum = sum_add(sum, kept(part));
            }
            workgroupBarrier();
        }
        let row = first_row + local_index / TILE;
        let column = first_column + local_index % TILE;
        if row < params.rows && column < params.columns {
            store(row, column, sum_value(sum));
        }
    }
}
