// Reduction over a span that is a whole workgroup of several subgroups: each subgroup adds up its own invocations, then every
// invocation adds up the subgroups' sums from workgroup memory.
//
// There is a slot for every SUBGROUP_SIZE invocations, the smallest size that a subgroup may have. A larger subgroup leaves zeros
// in all its slots but the first: so nothing rests on what the size is found to be.
//
// Preconditions: LANES = WORKGROUP_SIZE, a multiple of every subgroup size; consecutive local invocation indices lie in one
// subgroup, in order; the lanes of a subgroup have not parted.

const SLOTS: u32 = WORKGROUP_SIZE / SUBGROUP_SIZE;
// Slots that are added up before the total takes them in: fewer roundings each.
const GROUP: u32 = min(SLOTS, 8u);

// Two banks, used in turn: when a bank is written again, a barrier has passed since it was read.
var<workgroup> slot_sums: array<vec2<f32>, 2u * SLOTS>;
var<workgroup> slot_maxima: array<u32, SLOTS>;
var<workgroup> raised: u32;
var<private> bank: u32;
var<private> reduce_index: u32;
var<private> subgroup_lane: u32;

fn span_sum(value: vec2<f32>) -> vec2<f32> {
    let sum = subgroupAdd(value);
    if reduce_index % SUBGROUP_SIZE == 0u {
        slot_sums[bank + reduce_index / SUBGROUP_SIZE] = select(vec2<f32>(0.0), sum, subgroup_lane == 0u);
    }
    workgroupBarrier();
    var total = vec2<f32>(0.0);
    for (var group = 0u; group < SLOTS; group += GROUP) {
        var sums = vec2<f32>(0.0);
        for (var i = group; i < group + GROUP; i++) {
            sums += slot_sums[bank + i];
        }
        total += sums;
    }
    bank = SLOTS - bank;
    return total;
}

fn span_max(value: u32) -> u32 {
    let largest = subgroupMax(value);
    if reduce_index % SUBGROUP_SIZE == 0u {
        slot_maxima[reduce_index / SUBGROUP_SIZE] = select(0u, largest, subgroup_lane == 0u);
    }
    workgroupBarrier();
    var result = 0u;
    for (var i = 0u; i < SLOTS; i++) {
        result = max(result, slot_maxima[i]);
    }
    // The next reduction writes what this one reads.
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

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(local_invocation_index) local_index: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    if has_work(workgroup_id) {
        reduce_index = local_index;
        subgroup_lane = lane;
        kernel(place_of(workgroup_id, local_index));
    }
}
