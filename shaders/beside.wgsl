// Normalization of rows that lie side by side, by strategy streaming. Every invocation has QUADS times four neighbouring rows,
// and reads the elements that four rows have at one position in one access. It takes a block of positions for all its rows before
// it goes on to the next block, because each position may lie in a page of memory of its own.
//
//     y = (x − mean) / sqrt(variance + eps) · weight + bias, or without the mean
//
// A Quad has one number for each of the four rows; no invocation waits for another. The arithmetic is that of `moments`, `memory`
// and `rare`, row by row. Each position is a turn, so TURNS, and with it params.turns, is WIDTH.
// Bindings: 0 params, those of the tensors. LANES = 1, SPANS_PER_LANE = 4 · QUADS, SEGMENTS = 1.

const QUADS: u32 = SPANS_PER_LANE / 4u;

// Positions that a loop body takes at once.
const POSITIONS: u32 = select(1u, 4u, WIDTH % 4u == 0u);
// The terms of a block, which are added up plainly (`steps`), and its positions: POSITIONS of them are added up to one term.
const TERMS: u32 = 8u;
const POSITION_BLOCK: u32 = TERMS * POSITIONS;
// Positions that the shift comes from, and how far they lie apart.
const SAMPLED: u32 = 16u;
const SAMPLED_STRIDE: u32 = max(WIDTH / SAMPLED, 1u);

// What brings the elements of four rows to normalized ones.
struct Scalings {
    shift: Quad,
    correction: Quad,
    rstd: Quad,
    exponent: vec4<i32>,
}

fn element_at(span: Span, position: u32) -> Quad {
    return source_unit(source_load(span, position));
}

fn difference_of(element: Quad, shift: Quad) -> Quad {
    return kept(element - shift, params.all_bits);
}

fn difference_at(span: Span, position: u32, shift: Quad) -> Quad {
    return difference_of(element_at(span, position), shift);
}

// x · factor − shift, of rows that are measured again.
fn scaled_difference_at(span: Span, position: u32, shift: Quad, factor: Quad) -> Quad {
    return difference_of(kept(element_at(span, position) * factor, params.all_bits), shift);
}

fn add_position(sums: Sums, difference: Quad) -> Sums {
    return Sums(sums.differences + difference, fma(difference, difference, sums.squares));
}

// The sums of x − shift and of its square over the positions from `begin` to `end`: at least one, and a multiple of POSITIONS.
fn block_about(span: Span, begin: u32, end: u32, shift: Quad) -> Sums {
    var block = Sums();
    var position = begin;
    loop {
        var some = add_position(Sums(), difference_at(span, position, shift));
        if POSITIONS == 4u {
            some = add_position(some, difference_at(span, position + 1u, shift));
            let others = add_position(Sums(), difference_at(span, position + 2u, shift));
            some = add(some, add_position(others, difference_at(span, position + 3u, shift)));
        }
        block = add(block, some);
        position += POSITIONS;
        if position >= end {
            break;
        }
    }
    return block;
}

fn all_of(total: Total) -> Sums {
    return Sums(total.sums.differences + total.lost.differences, total.sums.squares + total.lost.squares);
}

// The sums of x · factor − shift and of its square over all positions.
fn sums_about(span: Span, shift: Quad, factor: Quad) -> Sums {
    var total = Total();
    var block = Sums();
    var position = 0u;
    loop {
        block = add_position(block, scaled_difference_at(span, position, shift, factor));
        position++;
        if position % TERMS == 0u || position >= params.turns {
            total = add_block(total, block);
            block = Sums();
        }
        if position >= params.turns {
            break;
        }
    }
    return all_of(total);
}

// Whether a row is to be measured again.
fn is_rare(differences: f32, squares: f32) -> bool {
    let correction = mean_part(differences) * params.mean_share;
    let is_off = 2.0 * correction * correction > squares * params.mean_share;
    return out_of_range(squares, params.mean_share) | is_off;
}

// Correction and rstd of a row, in the unit in which it was measured; as `scaling_of` in `scalings`.
fn finish(differences: f32, squares: f32, exponent: i32) -> vec2<f32> {
    let correction = mean_part(differences) * params.mean_share;
    let eps = scaled(params.eps, 2 * exponent);
    let rest = fma(squares, params.variance_share_rest, fma(-correction, correction * params.variance_factor, eps));
    return vec2<f32>(correction, rstd_of(fma(squares, params.variance_share, rest), eps, squares));
}

fn scalings_of(shift: Quad, sums: Sums, exponent: vec4<i32>) -> Scalings {
    let x = finish(sums.differences.x, sums.squares.x, exponent.x);
    let y = finish(sums.differences.y, sums.squares.y, exponent.y);
    let z = finish(sums.differences.z, sums.squares.z, exponent.z);
    let w = finish(sums.differences.w, sums.squares.w, exponent.w);
    return Scalings(shift, Quad(x.x, y.x, z.x, w.x), Quad(x.y, y.y, z.y, w.y), exponent);
}

fn scaled_each(value: Quad, exponent: vec4<i32>) -> Quad {
    return Quad(
        scaled(value.x, exponent.x), scaled(value.y, exponent.y), scaled(value.z, exponent.z), scaled(value.w, exponent.w),
    );
}

fn exponents_of(bits: QuadBits) -> vec4<i32> {
    return vec4<i32>((bits & QuadBits(EXPONENT_BITS)) >> QuadBits(23u)) - vec4<i32>(127);
}

fn powers_of_two(exponent: vec4<i32>) -> Quad {
    return bitcast<Quad>(bitcast<QuadBits>(exponent + vec4<i32>(127)) << QuadBits(23u));
}

// The largest magnitudes of x · factor − shift, as bits.
fn largest_about(span: Span, shift: Quad, factor: Quad) -> QuadBits {
    var largest = QuadBits(0u);
    for (var position = 0u; position < params.turns; position++) {
        let bits = bitcast<QuadBits>(scaled_difference_at(span, position, shift, factor));
        largest = max(largest, bits & QuadBits(MAGNITUDE_BITS));
    }
    return largest;
}

// As `measure_again` of `rare`.
fn measure_again(span: Span) -> Scalings {
    let limit = vec4<i32>(eps_limit());
    let origin = bitcast<Quad>(bitcast<QuadBits>(element_at(span, 0u)) & QuadBits(mean_bits()));
    let first_largest = largest_about(span, Quad(0.0), Quad(1.0));
    let small = clamp(-exponents_of(first_largest), vec4<i32>(-126), min(vec4<i32>(126), limit));
    let largest = largest_about(span, scaled_each(origin, small), powers_of_two(small));
    let by = clamp(-exponents_of(largest), vec4<i32>(0), vec4<i32>(24));
    let exponent = select(min(small + by, limit), vec4<i32>(0), largest < QuadBits(0x800000u));
    let factor = powers_of_two(exponent);
    // About the first element, then about the mean that this gives.
    let about_first = scaled_each(origin, exponent);
    let first = sums_about(span, about_first, factor);
    let mean = about_first + first.differences / f32(WIDTH);
    let shift = bitcast<Quad>(bitcast<QuadBits>(mean) & QuadBits(mean_bits()));
    let sums = sums_about(span, shift, factor);
    let broken = bitcast<Quad>(squares_of_no_number(first_largest));
    let squares = select(sums.squares, broken, first_largest >= QuadBits(EXPONENT_BITS));
    return scalings_of(shift, Sums(sums.differences, squares), exponent);
}

fn chosen_of(a: Scalings, b: Scalings, first: vec4<bool>) -> Scalings {
    return Scalings(
        select(b.shift, a.shift, first),
        select(b.correction, a.correction, first),
        select(b.rstd, a.rstd, first),
        select(b.exponent, a.exponent, first),
    );
}

fn output_of(span: Span, position: u32, difference: Quad, own: Scalings) -> Quad {
    let normalized = fma(difference, own.rstd, -own.correction * own.rstd);
    return affine(normalized, parameters_at(span, position));
}

fn normalize_position(span: Span, position: u32, own: Scalings) {
    let source = element_at(span, position);
    sum_set(span.row, position, source);
    output_set(span.row, position, output_of(span, position, difference_of(source, own.shift), own));
}

fn write_row_statistics(row: u32, shift: f32, correction: f32, rstd: f32, exponent: i32) {
    let mean = scaled(shift + correction, -exponent);
    // A row with an infinity has no mean either, wherever the shift came from.
    mean_set(row, select(mean, rstd, exponent_of(rstd) == 128));
    rstd_set(row, scaled(rstd, exponent));
}

var<private> totals: array<Total, QUADS>;
var<private> origins: array<Quad, QUADS>;
var<private> shifts: array<Quad, QUADS>;
var<private> scalings: array<Scalings, QUADS>;

// From what was measured of four rows to what normalizes them.
fn found_of(span: Span, shift: Quad, sums: Sums) -> Scalings {
    let found = scalings_of(shift, sums, vec4<i32>(0));
    let rare = vec4<bool>(
        is_rare(sums.differences.x, sums.squares.x),
        is_rare(sums.differences.y, sums.squares.y),
        is_rare(sums.differences.z, sums.squares.z),
        is_rare(sums.differences.w, sums.squares.w),
    );
    if any(rare) {
        return chosen_of(measure_again(span), found, rare);
    }
    return found;
}

// About the means: those of a sample spread evenly over the rows. Exact in a constant row.
fn find_shifts(place: Place) {
    for (var quad = 0u; quad < QUADS; quad++) {
        origins[quad] = element_at(span_at(place, 4u * quad), 0u);
    }
    for (var i = 0u; i < SAMPLED; i++) {
        let position = min(i * SAMPLED_STRIDE + SAMPLED_STRIDE / 2u, WIDTH - 1u);
        for (var quad = 0u; quad < QUADS; quad++) {
            let element = element_at(span_at(place, 4u * quad), position);
            shifts[quad] += kept(element - origins[quad], params.all_bits);
        }
    }
    for (var quad = 0u; quad < QUADS; quad++) {
        let shift = kept(origins[quad] + shifts[quad] / f32(SAMPLED), params.all_bits);
        shifts[quad] = bitcast<Quad>(bitcast<QuadBits>(shift) & QuadBits(mean_bits()));
    }
}

fn measure(place: Place) {
    find_shifts(place);
    for (var begin = 0u; begin < params.turns; begin += POSITION_BLOCK) {
        let end = min(begin + POSITION_BLOCK, params.turns);
        for (var quad = 0u; quad < QUADS; quad++) {
            let block = block_about(span_at(place, 4u * quad), begin, end, shifts[quad]);
            totals[quad] = add_block(totals[quad], block);
        }
    }
    for (var quad = 0u; quad < QUADS; quad++) {
        scalings[quad] = found_of(span_at(place, 4u * quad), shifts[quad], all_of(totals[quad]));
    }
}

fn normalize_block(span: Span, begin: u32, end: u32, own: Scalings) {
    var position = begin;
    loop {
        normalize_position(span, position, own);
        if POSITIONS == 4u {
            normalize_position(span, position + 1u, own);
            normalize_position(span, position + 2u, own);
            normalize_position(span, position + 3u, own);
        }
        position += POSITIONS;
        if position >= end {
            break;
        }
    }
}

// Whether four rows are all there and all in the unit 1. The others have a loop of their own, because on processors an invocation goes
// through both arms of a branch.
fn is_ordinary(span: Span, own: Scalings) -> bool {
    return params.rows - span.row >= 4u && all(own.exponent == vec4<i32>(0));
}

// Normalizes the first `rows` of four rows, each in the unit in which it was measured. They are fewer than four where the rows of
// the dispatch end among the four.
fn normalize_rows(span: Span, own: Scalings, rows: u32) {
    let factor = powers_of_two(own.exponent);
    for (var position = 0u; position < params.turns; position++) {
        let source = element_at(span, position);
        let difference = difference_of(kept(source * factor, params.all_bits), own.shift);
        sum_set_rows(span.row, position, source, rows);
        output_set_rows(span.row, position, output_of(span, position, difference, own), rows);
    }
}

fn kernel(place: Place) {
    if place.first_span >= params.spans {
        return;
    }
    measure(place);
    for (var begin = 0u; begin < params.turns; begin += POSITION_BLOCK) {
        let end = min(begin + POSITION_BLOCK, params.turns);
        for (var quad = 0u; quad < QUADS; quad++) {
            let span = span_at(place, 4u * quad);
            if span.owned && is_ordinary(span, scalings[quad]) {
                normalize_block(span, begin, end, scalings[quad]);
            }
        }
    }
    for (var quad = 0u; quad < QUADS; quad++) {
        let span = span_at(place, 4u * quad);
        let own = scalings[quad];
        if span.owned && !is_ordinary(span, own) {
            normalize_rows(span, own, min(params.rows - span.row, 4u));
        }
        for (var i = 0u; i < 4u; i++) {
            if span.owned && span.row + i < params.rows {
                write_row_statistics(span.row + i, own.shift[i], own.correction[i], own.rstd[i], own.exponent[i]);
            }
        }
    }
}
