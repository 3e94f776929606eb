// Fits the dispatches of a plan to a row count that lies in a buffer on the device: for each of them spans, workgroups,
// workgroups_x and rows of its parameter block, and the arguments of its indirect dispatch. One invocation a dispatch.
//
// Bindings: 0 control, uniform; 1 the row count, at counts[count_index]; 2 the parameter blocks, one every `block_words`
// words, the four numbers first; 3 the arguments, three words every 16 bytes.
// Preconditions: rows × segments of every block fits 32 bits.

struct Control {
    dispatches: u32,
    block_words: u32,
    count_index: u32,
    // Makes the size 16 bytes.
    padding: u32,
}

@group(0) @binding(0) var<uniform> control: Control;
@group(0) @binding(1) var<storage, read> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> blocks: array<u32>;
@group(0) @binding(3) var<storage, read_write> arguments: array<vec4<u32>>;

@compute @workgroup_size(1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= control.dispatches {
        return;
    }
    // Places within a block, as in `params.wgsl`.
    let block = id.x * control.block_words;
    let max_workgroups_x = blocks[block + 4u];
    let first_row = blocks[block + 5u];
    let most_rows = blocks[block + 6u];
    let segments = blocks[block + 7u];
    let spans_per_workgroup = blocks[block + 8u];
    let least_workgroups = blocks[block + 9u];
    let most_workgroups = blocks[block + 10u];

    let count = counts[control.count_index];
    let rows = min(select(0u, count - first_row, count > first_row), most_rows);
    let spans = rows * segments;
    let needed = spans / spans_per_workgroup + u32(spans % spans_per_workgroup != 0u);
    let workgroups = min(max(needed, least_workgroups), most_workgroups);
    let x = min(workgroups, max_workgroups_x);
    let y = (workgroups + max(x, 1u) - 1u) / max(x, 1u);
    blocks[block] = spans;
    blocks[block + 1u] = workgroups;
    blocks[block + 2u] = x;
    blocks[block + 3u] = rows;
    arguments[id.x] = vec4<u32>(x, y, 1u, 0u);
}
