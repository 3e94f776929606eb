// Sums of many numbers that keep what they lose to rounding.

// Sums over a part of a row, element by element of a quad.
struct Sums {
    differences: Quad,
    squares: Quad,
}

fn add(a: Sums, b: Sums) -> Sums {
    return Sums(a.differences + b.differences, a.squares + b.squares);
}

// The sums of many blocks, with what they lost to rounding: next to the square of an outlier all the others may be lost, and equal
// numbers are rounded alike. The errors are Knuth's ("The Art of Computer Programming", volume 2, 4.2.2): each difference is kept
// as it is, so that a compiler cannot find that they cancel.
struct Total {
    sums: Sums,
    lost: Sums,
}

// What a sum of two numbers loses.
fn loss(a: Quad, b: Quad, sum: Quad) -> Quad {
    let added = kept(sum - a, params.all_bits);
    let old = kept(sum - added, params.all_bits);
    return kept(a - old, params.all_bits) + kept(b - added, params.all_bits);
}

fn add_block(total: Total, block: Sums) -> Total {
    let differences = kept(total.sums.differences + block.differences, params.all_bits);
    let squares = kept(total.sums.squares + block.squares, params.all_bits);
    let lost_differences = loss(total.sums.differences, block.differences, differences);
    let lost_squares = loss(total.sums.squares, block.squares, squares);
    let lost = Sums(total.lost.differences + lost_differences, total.lost.squares + lost_squares);
    return Total(Sums(differences, squares), lost);
}

// What one invocation brings to the sums over all that share a span: the sums of the differences and of the squares, and what
// they lost.
fn total_of(total: Total) -> vec4<f32> {
    let lost = vec2<f32>(quad_sum(total.lost.differences), quad_sum(total.lost.squares));
    return vec4<f32>(quad_sum(total.sums.differences), quad_sum(total.sums.squares), lost);
}

fn sums_of(sums: Sums) -> vec4<f32> {
    return vec4<f32>(quad_sum(sums.differences), quad_sum(sums.squares), 0.0, 0.0);
}

fn kept_pair(value: vec2<f32>) -> vec2<f32> {
    return bitcast<vec2<f32>>(bitcast<vec2<u32>>(value) & vec2<u32>(params.all_bits));
}

// As `add_block`, of what two invocations bring.
fn add_parts(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let sums = kept_pair(a.xy + b.xy);
    let added = kept_pair(sums - a.xy);
    let old = kept_pair(sums - added);
    let lost = kept_pair(a.xy - old) + kept_pair(b.xy - added);
    return vec4<f32>(sums, a.zw + b.zw + lost);
}

// The two sums. What one lost is no number where it is infinite.
fn sums_of_parts(parts: vec4<f32>) -> vec2<f32> {
    let exponents = bitcast<vec2<u32>>(parts.xy) & vec2<u32>(EXPONENT_BITS);
    return parts.xy + select(parts.zw, vec2<f32>(0.0), exponents == vec2<u32>(EXPONENT_BITS));
}
