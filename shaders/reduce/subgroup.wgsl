// Reduction over the LANES invocations of a span that lie in one subgroup: a butterfly of shuffles. No barrier.
// Every lane adds the same pairs, so all lanes get the same bits.
//
// Preconditions: LANES is a power of two and no larger than the smallest subgroup; consecutive local invocation indices lie in
// one subgroup, in order (true of every 1-D workgroup seen; a test probes it); the lanes of a subgroup have not parted, which
// a test of every variant looks at.

fn span_sum(value: f32) -> f32 {
    var total = value;
    for (var mask = LANES / 2u; mask > 0u; mask /= 2u) {
        total += subgroupShuffleXor(total, mask);
    }
    return total;
}

// Of four numbers, each for itself.
fn span_sum_each(value: vec4<f32>) -> vec4<f32> {
    var total = value;
    for (var mask = LANES / 2u; mask > 0u; mask /= 2u) {
        total += subgroupShuffleXor(total, mask);
    }
    return total;
}

fn span_sums_of(parts: vec4<f32>) -> vec2<f32> {
    var total = parts;
    for (var mask = LANES / 2u; mask > 0u; mask /= 2u) {
        total = add_parts(total, subgroupShuffleXor(total, mask));
    }
    return sums_of_parts(total);
}

fn span_max(value: u32) -> u32 {
    var largest = value;
    for (var mask = LANES / 2u; mask > 0u; mask /= 2u) {
        largest = max(largest, subgroupShuffleXor(largest, mask));
    }
    return largest;
}

// Before a sum that follows what lanes may have parted for. Browsers have no barrier of subgroups.
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
