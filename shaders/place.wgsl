// Where an invocation stands: which spans it takes part in, and as which of the LANES invocations that share each.

// An invocation takes part in SPANS_PER_LANE spans, from first_span on, and is number `lane` of the LANES that share each.
// Kernels that have no spans take first_span for the number of what they have instead, such as a tile, a sequence or a channel.
struct Place {
    first_span: u32,
    lane: u32,
    local_index: u32,
}

// False where the whole workgroup has nothing to do; uniform over the workgroup.
fn has_work(workgroup_id: vec3<u32>) -> bool {
    // By the binding, and not by its copy `params`, because a browser's analysis takes a private variable to differ from
    // invocation to invocation.
    return workgroup_id.y * bound_params.workgroups_x + workgroup_id.x < bound_params.workgroups;
}

// The number of the workgroup, counted over both dimensions of a dispatch. It also makes the copy `params`, so nothing may read
// that before.
fn workgroup_of(workgroup_id: vec3<u32>) -> u32 {
    params = bound_params;
    return workgroup_id.y * bound_params.workgroups_x + workgroup_id.x;
}
