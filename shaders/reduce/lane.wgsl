// Reduction over the LANES invocations of a span, LANES = 1: there is nothing to add up. No barrier.

fn span_sum(value: f32) -> f32 {
    return value;
}

// Of four numbers, each for itself.
fn span_sum_each(value: vec4<f32>) -> vec4<f32> {
    return value;
}

fn span_sums_of(parts: vec3<f32>) -> vec2<f32> {
    return sums_of_parts(parts);
}

fn span_max(value: u32) -> u32 {
    return value;
}

// Called before a sum that follows a branch, in which the lanes of a span may have parted. Here there is only one.
fn meet() {}

// Gives this invocation another number in reductions. Here these do not depend on it.
fn reduce_as(index: u32) {}

fn workgroup_or(bits: u32) -> u32 {
    return bits;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    if has_work(workgroup_id) {
        kernel(place_of(workgroup_id, local_index));
    }
}
