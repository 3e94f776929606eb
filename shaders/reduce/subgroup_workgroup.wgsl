// Reduction over a span that is a whole workgroup of several subgroups: SUBGROUP_SIZE invocations, the smallest number that a
// subgroup may have, add up by shuffles and leave their sum in workgroup memory, and every invocation adds up what lies there.
// A larger subgroup does so in several parts, so nothing rests on what its size is found to be.
//
// Preconditions: LANES = WORKGROUP_SIZE, a multiple of every subgroup size; consecutive local invocation indices lie in one
// subgroup, in order; the lanes of a subgroup have not parted.

const SLOTS: u32 = WORKGROUP_SIZE / SUBGROUP_SIZE;

// Two banks, used in turn: when a bank is written again, a barrier has passed since it was read.
var<workgroup> slots: array<vec4<f32>, 2u * SLOTS>;
var<workgroup> slot_maxima: array<u32, SLOTS>;
var<workgroup> raised: u32;
var<private> bank: u32;
var<private> reduce_index: u32;

// Over SUBGROUP_SIZE invocations: of one number, and with what the sums lose.
fn group_sum(value: f32) -> f32 {
    var total = value;
    for (var mask = SUBGROUP_SIZE / 2u; mask > 0u; mask /= 2u) {
        total += subgroupShuffleXor(total, mask);
    }
    return total;
}

fn group_sum_each(value: vec4<f32>) -> vec4<f32> {
    var total = value;
    for (var mask = SUBGROUP_SIZE / 2u; mask > 0u; mask /= 2u) {
        total += subgroupShuffleXor(total, mask);
    }
    return total;
}

fn group_sums(parts: vec4<f32>) -> vec4<f32> {
    var total = parts;
    for (var mask = SUBGROUP_SIZE / 2u; mask > 0u; mask /= 2u) {
        total = add_parts(total, subgroupShuffleXor(total, mask));
    }
    return total;
}

fn span_sums_of(parts: vec4<f32>) -> vec2<f32> {
    let part = group_sums(parts);
    let group_lane = reduce_index % SUBGROUP_SIZE;
    if group_lane == 0u {
        slots[bank + reduce_index / SUBGROUP_SIZE] = part;
    }
    workgroupBarrier();
    // Every SUBGROUP_SIZE invocations add up all slots, and come to the same bits.
    var total = vec4<f32>(0.0);
    for (var first = 0u; first < SLOTS; first += SUBGROUP_SIZE) {
        let slot = slots[bank + min(first + group_lane, SLOTS - 1u)];
        total = add_parts(total, select(vec4<f32>(0.0), slot, first + group_lane < SLOTS));
    }
    bank = SLOTS - bank;
    return sums_of_parts(group_sums(total));
}

// As `span_sums_of`, of one number; what it loses does not matter.
fn span_sum(value: f32) -> f32 {
    let part = group_sum(value);
    let group_lane = reduce_index % SUBGROUP_SIZE;
    if group_lane == 0u {
        slots[bank + reduce_index / SUBGROUP_SIZE].x = part;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var first = 0u; first < SLOTS; first += SUBGROUP_SIZE) {
        let slot = slots[bank + min(first + group_lane, SLOTS - 1u)].x;
        total += select(0.0, slot, first + group_lane < SLOTS);
    }
    bank = SLOTS - bank;
    return group_sum(total);
}

// Of four numbers, each for itself.
fn span_sum_each(value: vec4<f32>) -> vec4<f32> {
    let part = group_sum_each(value);
    let group_lane = reduce_index % SUBGROUP_SIZE;
    if group_lane == 0u {
        slots[bank + reduce_index / SUBGROUP_SIZE] = part;
    }
    workgroupBarrier();
    var total = vec4<f32>(0.0);
    for (var first = 0u; first < SLOTS; first += SUBGROUP_SIZE) {
        let slot = slots[bank + min(first + group_lane, SLOTS - 1u)];
        total += select(vec4<f32>(0.0), slot, first + group_lane < SLOTS);
    }
    bank = SLOTS - bank;
    return group_sum_each(total);
}

// Before a sum that follows what lanes may have parted for. Browsers have no barrier of subgroups.
fn meet() {
    workgroupBarrier();
}

fn span_max(value: u32) -> u32 {
    let part = subgroupMax(value);
    if reduce_index % SUBGROUP_SIZE == 0u {
        slot_maxima[reduce_index / SUBGROUP_SIZE] = part;
    }
    workgroupBarrier();
    var largest = 0u;
    for (var i = 0u; i < SLOTS; i++) {
        largest = max(largest, slot_maxima[i]);
    }
    // The next reduction writes what this one reads.
    workgroupBarrier();
    return largest;
}

// The same value goes in from every invocation; what comes out is uniform in the compiler's eyes too.
fn workgroup_or(bits: u32) -> u32 {
    if reduce_index == 0u {
        raised = bits;
    }
    return workgroupUniformLoad(&raised);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    if has_work(workgroup_id) {
        reduce_index = local_index;
        kernel(place_of(workgroup_id, local_index));
    }
}
