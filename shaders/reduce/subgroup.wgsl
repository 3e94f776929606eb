// Reduction over the LANES invocations of a span that lie in one subgroup, by shuffles (`butterfly`). No barrier.
//
// Preconditions: LANES is a power of two and no larger than the smallest subgroup; consecutive local invocation indices lie in
// one subgroup, in order (true of every 1-D workgroup seen; a test probes it); the lanes of a subgroup have not parted, which
// a test of every variant looks at.

fn span_sum(value: f32) -> f32 {
    return butterfly_sum(value, LANES);
}

// Of four numbers, each for itself.
fn span_sum_each(value: vec4<f32>) -> vec4<f32> {
    return butterfly_sum_each(value, LANES);
}

fn span_sums_of(parts: vec3<f32>) -> vec2<f32> {
    return sums_of_parts(butterfly_parts(parts, LANES));
}

fn span_max(value: u32) -> u32 {
    return butterfly_max(value, LANES);
}

// Called before a sum that follows a branch, in which lanes may have parted: they meet here. A barrier of the whole workgroup has
// to do, because browsers have none of a subgroup.
fn meet() {
    workgroupBarrier();
}

// The bits of all invocations that must go on together.
fn workgroup_or(bits: u32) -> u32 {
    return subgroupOr(bits);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    if has_work(workgroup_id) {
        kernel(place_of(workgroup_id, local_index));
    }
}
