// The moments of single positions, as `partial` has left them.

@group(0) @binding(40) var<storage, read> partials: array<vec4<f32>>;

// Mean and sum of squares about it of one segment of a row, of so many elements.
fn prefix_of_segment(row: u32, segment: u32, count: f32) -> Prefix {
    let stored = partials[row * SEGMENTS + segment];
    let share = reciprocal(count);
    let correction = stored.y * share.value + stored.y * share.rest;
    let mean = add_to(Double(stored.x, 0.0), correction, 0.0);
    let squares = fma(-correction, stored.y, stored.z);
    // Rounding may have made it negative. What is no number stays what it is.
    let bits = select(bitcast<u32>(squares), 0u, bitcast<u32>(squares) >= SIGN_BIT);
    let broken = no_number(stored.z);
    return Prefix(1u, mean, Double(bitcast<f32>(select(bits, broken, broken != 0u)), 0.0), i32(stored.w));
}

fn prefix_of_row(row: u32) -> Prefix {
    var prefix = prefix_of_segment(row, 0u, f32(SEGMENT_WIDTH));
    for (var segment = 1u; segment < SEGMENTS; segment++) {
        let count = f32(min(SEGMENT_WIDTH, WIDTH - segment * SEGMENT_WIDTH));
        let next = prefix_of_segment(row, segment, count);
        prefix = merge(prefix, f32(segment * SEGMENT_WIDTH), next, count, 1.0);
    }
    prefix.rows = 1u;
    return prefix;
}
