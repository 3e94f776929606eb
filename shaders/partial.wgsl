// First pass of strategy split: the moments of every segment of every row.
//
// Bindings: 0 params, those of the tensors that are read, 9 partials: one vec4 a segment, (shift, correction, variance, scale), rows outermost.

@group(0) @binding(9) var<storage, read_write> partials: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    if !span_select(workgroup_id, local_index) {
        return;
    }
    reduce_begin(local_index);
    span_enter(0u);
    span_read();
    let moments = measure();
    if span_owned && lane == 0u {
        partials[row * SEGMENTS + span_begin / SEGMENT_UNITS] =
            vec4<f32>(moments.shift, moments.correction, moments.variance, moments.scale);
    }
}
