// Reduction over a span that is a whole workgroup of several subgroups: each subgroup adds up its own
// invocations, then every invocation adds up the subgroups' sums from workgroup memory.
//
// Preconditions: LANES = WORKGROUP_SIZE; subgroups have 4 or more invocations; consecutive local invocation
// indices lie in one subgroup.

var<workgroup> subgroup_sums: array<vec2<f32>, WORKGROUP_SIZE / 4u>;
var<workgroup> subgroup_maxima: array<u32, WORKGROUP_SIZE / 4u>;
var<workgroup> raised: u32;
var<private> reduce_index: u32;

fn reduce_begin(local_index: u32) {
    reduce_index = local_index;
}

fn span_sum(value: vec2<f32>) -> vec2<f32> {
    let size = subgroupAdd(1u);
    let sum = subgroupAdd(value);
    if reduce_index % size == 0u {
        subgroup_sums[reduce_index / size] = sum;
    }
    workgroupBarrier();
    var total = vec2<f32>(0.0);
    for (var i = 0u; i < WORKGROUP_SIZE / size; i++) {
        total += subgroup_sums[i];
    }
    // The next reduction writes what this one reads.
    workgroupBarrier();
    return total;
}

fn span_max(value: u32) -> u32 {
    let size = subgroupAdd(1u);
    let largest = subgroupMax(value);
    if reduce_index % size == 0u {
        subgroup_maxima[reduce_index / size] = largest;
    }
    workgroupBarrier();
    var result = 0u;
    for (var i = 0u; i < WORKGROUP_SIZE / size; i++) {
        result = max(result, subgroup_maxima[i]);
    }
    workgroupBarrier();
    return result;
}

// The same value goes in from every invocation; what comes out is uniform in the compiler's eyes too.
fn workgroup_or(bits: u32) -> u32 {
    if reduce_index == 0u {
        raised = bits;
    }
    return workgroupUniformLoad(&raised);
}
