// Normalization of rows that lie side by side: every invocation has four neighbouring rows, and reads what they have at one position in
// one access. Strategy streaming.
//
//     y = (x − mean) / sqrt(variance + eps) · weight + bias, or without the mean
//
// A Quad has one number for each of the four rows; no invocation waits for another. The arithmetic is that of `moments`, `memory` and
// `rare`, row by row.
// Bindings: 0 params, those of the tensors. LANES = 1, SPANS_PER_LANE = 4, SEGMENTS = 1.

// Positions that a loop body takes at once.
const POSITIONS: u32 = select(1u, 4u, WIDTH % 4u == 0u);
// Positions that are added up as they come, before the sum of all takes them in with what that loses.
const POSITION_BLOCK: u32 = 32u;
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

// x · factor − shift
fn difference_at(span: Span, position: u32, shift: Quad, factor: Quad) -> Quad {
    return kept(kept(element_at(span, position) * factor, params.all_bits) - shift, params.all_bits);
}

fn add_position(sums: Sums, difference: Quad) -> Sums {
    return Sums(sums.differences + difference, fma(difference, difference, sums.squares));
}

// The sums of x · factor − shift and of its square.
fn sums_about(span: Span, shift: Quad, factor: Quad) -> Sums {
    var total = Total();
    var position = 0u;
    loop {
        let end = min(position + POSITION_BLOCK, params.turns);
        var block = Sums();
        loop {
            block = add_position(block, difference_at(span, position, shift, factor));
            if POSITIONS == 4u {
                block = add_position(block, difference_at(span, position + 1u, shift, factor));
                block = add_position(block, difference_at(span, position + 2u, shift, factor));
                block = add_position(block, difference_at(span, position + 3u, shift, factor));
            }
            position += POSITIONS;
            if position >= end {
                break;
            }
        }
        total = add_block(total, block);
        if position >= params.turns {
            break;
        }
    }
    return Sums(total.sums.differences + total.lost.differences, total.sums.squares + total.lost.squares);
}

// About the mean: that of a sample spread evenly over the row. Exact in a constant row.
fn sampled_shift(span: Span) -> Quad {
    let origin = element_at(span, 0u);
    var sum = Quad(0.0);
    for (var i = 0u; i < SAMPLED; i++) {
        let position = min(i * SAMPLED_STRIDE + SAMPLED_STRIDE / 2u, WIDTH - 1u);
        sum += kept(element_at(span, position) - origin, params.all_bits);
    }
    return kept(origin + sum / f32(SAMPLED), params.all_bits);
}

// Whether a row is to be measured again.
fn is_rare(differences: f32, squares: f32) -> bool {
    let correction = mean_part(differences) * params.mean_share;
    let is_off = 2.0 * correction * correction > squares * params.mean_share;
    return out_of_range(squares, params.mean_share) | is_off;
}

// Correction and rstd of a row, in its unit (`scaling_of` of `moments`).
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
        let bits = bitcast<QuadBits>(difference_at(span, position, shift, factor));
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

fn normalize_position(span: Span, position: u32, scalings: Scalings, factor: Quad, rows: u32) {
    let source = element_at(span, position);
    let difference = kept(kept(source * factor, params.all_bits) - scalings.shift, params.all_bits);
    let normalized = fma(difference, scalings.rstd, -scalings.correction * scalings.rstd);
    sum_set_rows(span.row, position, source, rows);
    output_set_rows(span.row, position, affine(normalized, parameters_at(span, position)), rows);
}

fn write_row_statistics(row: u32, shift: f32, correction: f32, rstd: f32, exponent: i32) {
    let mean = scaled(shift + correction, -exponent);
    // A row with an infinity has no mean either, wherever the shift came from.
    mean_set(row, select(mean, rstd, exponent_of(rstd) == 128));
    rstd_set(row, scaled(rstd, exponent));
}

fn kernel(place: Place) {
    let span = span_at(place, 0u);
    if !span.owned {
        return;
    }
    let shift = bitcast<Quad>(bitcast<QuadBits>(sampled_shift(span)) & QuadBits(mean_bits()));
    let sums = sums_about(span, shift, Quad(1.0));
    var scalings = scalings_of(shift, sums, vec4<i32>(0));
    let rare = vec4<bool>(
        is_rare(sums.differences.x, sums.squares.x),
        is_rare(sums.differences.y, sums.squares.y),
        is_rare(sums.differences.z, sums.squares.z),
        is_rare(sums.differences.w, sums.squares.w),
    );
    if any(rare) {
        scalings = chosen_of(measure_again(span), scalings, rare);
    }
    let factor = powers_of_two(scalings.exponent);
    // A row count may end among the four.
    let rows = min(params.rows - span.row, 4u);
    var position = 0u;
    loop {
        normalize_position(span, position, scalings, factor, rows);
        if POSITIONS == 4u {
            normalize_position(span, position + 1u, scalings, factor, rows);
            normalize_position(span, position + 2u, scalings, factor, rows);
            normalize_position(span, position + 3u, scalings, factor, rows);
        }
        position += POSITIONS;
        if position >= params.turns {
            break;
        }
    }
    for (var i = 0u; i < rows; i++) {
        write_row_statistics(
            span.row + i, scalings.shift[i], scalings.correction[i], scalings.rstd[i], scalings.exponent[i],
        );
    }
}
