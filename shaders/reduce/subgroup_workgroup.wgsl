// Reduction over a span that is a whole workgroup of several subgroups: SUBGROUP_SIZE invocations, the smallest number that a
// subgroup may have, add up by shuffles and leave their sum in workgroup memory, and every invocation adds up what lies there.
// A larger subgroup does so in several parts, so nothing rests on what its size is found to be.
//
// Preconditions: LANES = WORKGROUP_SIZE, a multiple of every subgroup size; consecutive local invocation indices lie in one
// subgroup, in order; the lanes of a subgroup have not parted.

const SLOTS: u32 = WORKGROUP_SIZE / SUBGROUP_SIZE;
// Invocations that add up all slots together.
const SLOT_LANES: u32 = min(SLOTS, SUBGROUP_SIZE);

// Two banks, used in turn: when a bank is written again, a barrier has passed since it was read.
var<workgroup> slots: array<vec4<f32>, 2u * SLOTS>;
var<workgroup> slot_maxima: array<u32, SLOTS>;
var<workgroup> raised: u32;
var<private> bank: u32;
var<private> reduce_index: u32;

// Leaves what the SUBGROUP_SIZE invocations around this one came to, and waits for all others. Says which slot is the first that
// this one is to add up: every SLOT_LANES invocations add up all of them, and come to the same bits.
fn exchange(part: vec4<f32>) -> u32 {
    if reduce_index % SUBGROUP_SIZE == 0u {
        slots[bank + reduce_index / SUBGROUP_SIZE] = part;
    }
    workgroupBarrier();
    let first = bank + reduce_index % SLOT_LANES;
    bank = SLOTS - bank;
    return first;
}

fn span_sums_of(parts: vec3<f32>) -> vec2<f32> {
    let first = exchange(vec4<f32>(butterfly_parts(parts, SUBGROUP_SIZE), 0.0));
    var total = slots[first].xyz;
    for (var next = SLOT_LANES; next < SLOTS; next += SLOT_LANES) {
        total = add_parts(total, slots[first + next].xyz);
    }
    return sums_of_parts(butterfly_parts(total, SLOT_LANES));
}

// As `span_sums_of`, of one number; what it loses does not matter.
fn span_sum(value: f32) -> f32 {
    let first = exchange(vec4<f32>(butterfly_sum(value, SUBGROUP_SIZE), 0.0, 0.0, 0.0));
    var total = slots[first].x;
    for (var next = SLOT_LANES; next < SLOTS; next += SLOT_LANES) {
        total += slots[first + next].x;
    }
    return butterfly_sum(total, SLOT_LANES);
}

// Of four numbers, each for itself.
fn span_sum_each(value: vec4<f32>) -> vec4<f32> {
    let first = exchange(butterfly_sum_each(value, SUBGROUP_SIZE));
    var total = slots[first];
    for (var next = SLOT_LANES; next < SLOTS; next += SLOT_LANES) {
        total += slots[first + next];
    }
    return butterfly_sum_each(total, SLOT_LANES);
}

// Called before a sum that follows a branch, in which lanes may have parted: they meet here. A barrier of the whole workgroup has
// to do, because browsers have none of a subgroup.
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
