// Reduction over the LANES invocations of a span through workgroup memory alone, for adapters without
// subgroups: a tree in which every step halves the distance. All lanes end with the same bits.
//
// Precondition: LANES is a power of two and divides WORKGROUP_SIZE.

var<workgroup> sums: array<vec4<f32>, WORKGROUP_SIZE>;
var<workgroup> maxima: array<u32, WORKGROUP_SIZE>;
var<workgroup> votes: atomic<u32>;
var<workgroup> raised: u32;
var<private> reduce_index: u32;

fn span_sum(value: f32) -> f32 {
    return span_sums_of(vec3<f32>(value, 0.0, 0.0)).x;
}

fn span_sums_of(parts: vec3<f32>) -> vec2<f32> {
    let lane_in_span = reduce_index % LANES;
    sums[reduce_index] = vec4<f32>(parts, 0.0);
    workgroupBarrier();
    for (var distance = LANES / 2u; distance > 0u; distance /= 2u) {
        if lane_in_span < distance {
            let both = add_parts(sums[reduce_index].xyz, sums[reduce_index + distance].xyz);
            sums[reduce_index] = vec4<f32>(both, 0.0);
        }
        workgroupBarrier();
    }
    let total = sums[reduce_index - lane_in_span];
    // The next reduction writes what this one reads.
    workgroupBarrier();
    return sums_of_parts(total.xyz);
}

// Of four numbers, each for itself.
fn span_sum_each(value: vec4<f32>) -> vec4<f32> {
    let lane_in_span = reduce_index % LANES;
    sums[reduce_index] = value;
    workgroupBarrier();
    for (var distance = LANES / 2u; distance > 0u; distance /= 2u) {
        if lane_in_span < distance {
            sums[reduce_index] += sums[reduce_index + distance];
        }
        workgroupBarrier();
    }
    let total = sums[reduce_index - lane_in_span];
    // The next reduction writes what this one reads.
    workgroupBarrier();
    return total;
}

// Barriers bring lanes together; there are no subgroup operations that they would have to meet before.
fn meet() {}

// From now on reductions take this invocation for number `index` of its workgroup. LANES numbers one after another share a span.
fn reduce_as(index: u32) {
    reduce_index = index;
}

fn span_max(value: u32) -> u32 {
    let lane_in_span = reduce_index % LANES;
    maxima[reduce_index] = value;
    workgroupBarrier();
    for (var distance = LANES / 2u; distance > 0u; distance /= 2u) {
        if lane_in_span < distance {
            maxima[reduce_index] = max(maxima[reduce_index], maxima[reduce_index + distance]);
        }
        workgroupBarrier();
    }
    let largest = maxima[reduce_index - lane_in_span];
    workgroupBarrier();
    return largest;
}

// The bits of all invocations of the workgroup. Precondition: a sum was taken before.
fn workgroup_or(bits: u32) -> u32 {
    if bits != 0u {
        atomicOr(&votes, bits);
    }
    workgroupBarrier();
    if reduce_index == 0u {
        raised = atomicExchange(&votes, 0u);
    }
    return workgroupUniformLoad(&raised);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    if has_work(workgroup_id) {
        reduce_index = local_index;
        // Seen by all after the barriers of the first sum, before anyone votes.
        if local_index == 0u {
            atomicStore(&votes, 0u);
        }
        kernel(place_of(workgroup_id, local_index));
    }
}
