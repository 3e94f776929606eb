// Rows lie side by side in memory: neighbouring invocations have neighbouring spans, and those that share one are far apart.
//
// Precondition: they add up through workgroup memory (`reduce/workgroup`).

const GROUPS: u32 = WORKGROUP_SIZE / LANES;

fn place_of(workgroup_id: vec3<u32>, local_index: u32) -> Place {
    let group = local_index % GROUPS;
    let lane = local_index / GROUPS;
    reduce_as(group * LANES + lane);
    let first_span = workgroup_of(workgroup_id) * SPANS_PER_WORKGROUP + group * SPANS_PER_LANE;
    return Place(first_span, lane, local_index);
}
