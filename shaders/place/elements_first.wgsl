// Neighbouring invocations share a span: they have neighbouring elements of it.

fn place_of(workgroup_id: vec3<u32>, local_index: u32) -> Place {
    let first_span = workgroup_of(workgroup_id) * SPANS_PER_WORKGROUP + local_index / LANES * SPANS_PER_LANE;
    return Place(first_span, local_index % LANES, local_index);
}
