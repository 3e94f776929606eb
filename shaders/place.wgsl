// Where an invocation stands: which spans it takes part in, and as which of the LANES invocations that share each.

// The spans of an invocation.
struct Place {
    first_span: u32,
    lane: u32,
    local_index: u32,
}

// False where the whole workgroup has nothing to do; uniform over the workgroup.
fn has_work(workgroup_id: vec3<u32>) -> bool {
    // Not from the copy: a browser's analysis takes a private variable for one that differs from invocation to invocation.
    return workgroup_id.y * bound_params.workgroups_x + workgroup_id.x < bound_params.workgroups;
}

// The workgroup, counted over both dimensions of a dispatch.
fn workgroup_of(workgroup_id: vec3<u32>) -> u32 {
    params = bound_params;
    return workgroup_id.y * bound_params.workgroups_x + workgroup_id.x;
}
