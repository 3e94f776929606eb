// Reduction over the LANES invocations of a span, LANES = 1: there is nothing to add up. No barrier.

fn span_sum(value: vec2<f32>) -> vec2<f32> {
    return value;
}

fn span_max(value: u32) -> u32 {
    return value;
}

fn workgroup_or(bits: u32) -> u32 {
    return bits;
}

fn reduce_begin(local_index: u32) {}
