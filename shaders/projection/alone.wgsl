// Each invocation takes ROWS × 4 elements of the result of its own, and waits for no other. Neighbouring invocations have
// neighbouring columns.

fn kernel(workgroup: u32, local_index: u32) {
    let blocks_across = params.columns / 4u + u32(params.columns % 4u != 0u);
    let others = params.workgroups * WORKGROUP_SIZE;
    for (var block = workgroup * WORKGROUP_SIZE + local_index; block < params.work; block += others) {
        let first_row = block / blocks_across * ROWS;
        let first_column = block % blocks_across * 4u;
        // Rows and columns that there are not are the last ones again; no one stores them.
        var row_starts: array<u32, ROWS>;
        for (var row = 0u; row < ROWS; row++) {
            row_starts[row] = left_start(min(first_row + row, params.rows - 1u));
        }
        let columns = min(first_column + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.columns - 1u));
        let column_starts = columns * params.right_column;
        var sums = array<Sum, ROWS>();
        for (var first = 0u; first < params.terms; first += GROUP) {
            let end = min(first + GROUP, params.terms);
            var parts = array<vec4<f32>, ROWS>();
            for (var term = first; term < end; term++) {
                let places = column_starts + right_start(term);
                let row_of_right = vec4<f32>(right[places.x], right[places.y], right[places.z], right[places.w]);
                for (var row = 0u; row < ROWS; row++) {
                    parts[row] += left[row_starts[row] + term * params.left_term] * row_of_right;
                }
            }
            for (var row = 0u; row < ROWS; row++) {
                sums[row] = sum_add(sums[row], kept(parts[row]));
            }
        }
        for (var row = first_row; row < min(first_row + ROWS, params.rows); row++) {
            let found = sum_value(sums[row - first_row]);
            for (var column = first_column; column < min(first_column + 4u, params.columns); column++) {
                store(row, column, found[column - first_column]);
            }
        }
    }
}
