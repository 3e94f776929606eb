// Normalization of whole rows: strategies resident (access/held) and streaming (access/reread).
//
//     y = (x − mean) / sqrt(variance + eps) · weight + bias, or without the mean
//
// LANES invocations share a row, SPANS_PER_WORKGROUP rows share a workgroup.
// Bindings: 0 params, those of the tensors. SEGMENTS = 1.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    if !span_select(workgroup_id, local_index) {
        return;
    }
    reduce_begin(local_index);
    var index = 0u;
    loop {
        span_enter(index);
        span_read();
        span_measured(measure());
        index++;
        if index >= SPANS_PER_LANE {
            break;
        }
    }
    span_normalize();
}
