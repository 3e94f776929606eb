// Copies COUNT vectors of 16 bytes, TURNS of them in each invocation, neighbours to neighbours: the floor under every kernel that
// reads a tensor and writes one. The numbers are constants, which stand ahead of this.

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> target_: array<vec4<u32>>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    let first = (workgroup_id.y * WORKGROUPS_X + workgroup_id.x) * SIZE * TURNS + local_index;
    for (var turn = 0u; turn < TURNS; turn++) {
        let i = first + turn * SIZE;
        if i < COUNT {
            target_[i] = source[i];
        }
    }
}
