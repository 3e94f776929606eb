// Sums of many numbers that keep what they lose to rounding.

// Sums over a part of a row, element by element of a quad.
struct Sums {
    differences: Quad,
    squares: Quad,
}

fn add(a: Sums, b: Sums) -> Sums {
    return Sums(a.differences + b.differences, a.squares + b.squares);
}

// The sums of many blocks (`steps`), and what was lost to rounding when they were added up. That may be much: next to the square
// of an outlier all other squares may be lost, and equal numbers are all rounded alike. How an addition's loss is found is
// Knuth's ("The Art of Computer Programming", volume 2, 4.2.2); each difference goes through `kept`, so that a compiler cannot
// find that they cancel.
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

// How many blocks, the first ones, `add_indexed_block` adds up plainly.
const PLAIN_BLOCKS: u32 = 2u;

// As `add_block`, for the block with this index, which is a constant. What the first PLAIN_BLOCKS blocks lose is not kept: that
// is a rounding for each but the first, and saves code.
fn add_indexed_block(total: Total, block: Sums, index: u32) -> Total {
    if index == 0u {
        return Total(block, Sums());
    }
    if index < PLAIN_BLOCKS {
        return Total(add(total.sums, block), Sums());
    }
    return add_block(total, block);
}

// What one invocation brings to the sums over all that share a span: the sum of the differences, that of the squares, and what the
// latter lost.
fn total_of(total: Total) -> vec3<f32> {
    let differences = quad_sum(total.sums.differences) + quad_sum(total.lost.differences);
    return vec3<f32>(differences, quad_sum(total.sums.squares), quad_sum(total.lost.squares));
}

fn sums_of(sums: Sums) -> vec3<f32> {
    return vec3<f32>(quad_sum(sums.differences), quad_sum(sums.squares), 0.0);
}

// What two invocations bring, together. An outlier's square may be so large that all others are lost next to it, so that what is
// lost is kept, as in `add_block`. Differences grow no larger than the root of that, and lose nothing that matters.
fn add_parts(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
    let squares = kept_scalar(a.y + b.y);
    let added = kept_scalar(squares - a.y);
    let old = kept_scalar(squares - added);
    let lost = kept_scalar(a.y - old) + kept_scalar(b.y - added);
    return vec3<f32>(a.x + b.x, squares, a.z + b.z + lost);
}

// The sum of the differences and that of the squares. What the latter lost is added, but not where it is infinite: that is NaN
// then.
fn sums_of_parts(parts: vec3<f32>) -> vec2<f32> {
    let is_end = (bitcast<u32>(parts.y) & EXPONENT_BITS) == EXPONENT_BITS;
    return vec2<f32>(parts.x, parts.y + select(parts.z, 0.0, is_end));
}
