// Mean and variance of the first positions of a sequence, merged by the formula of Chan, Golub and LeVeque: with δ the difference of the
// means of two parts of a and b elements,
//     mean = mean_a + δ · b / (a + b),   Σ (x − mean)² = S_a + S_b + δ² · a · b / (a + b)
// Means and sums of squares are kept in two parts, so that what long sums lose is not lost, at any mean and however the mean moves.

// The mean of some rows one after another, and the sum of squares about it, of elements in the unit 2^−exponent.
struct Prefix {
    rows: u32,
    mean: Double,
    squares: Double,
    exponent: i32,
}

fn no_rows() -> Prefix {
    return Prefix(0u, Double(0.0, 0.0), Double(0.0, 0.0), 0);
}

// A prefix as it is stored: two vectors of bits, which no driver takes for numbers.
struct StoredPrefix {
    numbers: vec4<u32>,
    counts: vec4<u32>,
}

fn stored_prefix(prefix: Prefix) -> StoredPrefix {
    let numbers = vec4<f32>(prefix.mean.value, prefix.mean.rest, prefix.squares.value, prefix.squares.rest);
    return StoredPrefix(bitcast<vec4<u32>>(numbers), vec4<u32>(prefix.rows, bitcast<u32>(prefix.exponent), 0u, 0u));
}

fn prefix_from(stored: StoredPrefix) -> Prefix {
    let numbers = bitcast<vec4<f32>>(stored.numbers);
    let mean = Double(numbers.x, numbers.y);
    return Prefix(stored.counts.x, mean, Double(numbers.z, numbers.w), bitcast<i32>(stored.counts.y));
}

fn in_exponent(prefix: Prefix, exponent: i32) -> Prefix {
    let by = exponent - prefix.exponent;
    return Prefix(prefix.rows, scaled_double(prefix.mean, by), scaled_double(prefix.squares, 2 * by), exponent);
}

// The rows of both parts, or 2^32 − 1 where they are more.
fn rows_of_both(a: Prefix, b: Prefix) -> u32 {
    return a.rows + min(b.rows, 0xffffffffu - a.rows);
}

// Merges two parts that have the same exponent, the first of a_count · unit elements and the second of b_count · unit. So `unit`
// is WIDTH where the counts are of rows, and 1 where they are of elements.
fn merged(a: Prefix, a_count: f32, b: Prefix, b_count: f32, unit: f32) -> Prefix {
    let share = reciprocal(a_count + b_count);
    let b_share = b_count * share.value + b_count * share.rest;
    let delta = kept_scalar(b.mean.value - a.mean.value) + kept_scalar(b.mean.rest - a.mean.rest);
    let mean = add_to(a.mean, kept_scalar(delta * b_share), 0.0);
    let between = kept_scalar(delta * delta) * (a_count * b_share * unit);
    let within = add_to(a.squares, b.squares.value, b.squares.rest);
    return Prefix(rows_of_both(a, b), mean, add_to(within, kept_scalar(between), 0.0), a.exponent);
}

// No exponent is below this.
const NO_EXPONENT: i32 = -4096;

// The exponent of a value in the unit 1, where it is not zero.
fn exponent_in_one(value: f32, exponent: i32) -> i32 {
    return select(exponent_of(value) - exponent, NO_EXPONENT, exponent_of(value) == -127);
}

// The exponent of the standard deviation that a sum of squares is made of, or about that.
fn deviation_exponent(squares: f32, exponent: i32) -> i32 {
    return select(exponent_of(squares) / 2 + 1 - exponent, NO_EXPONENT, exponent_of(squares) == -127);
}

// The exponent for both parts, by their spread, which is the largest of their deviations and the distance of their means. It
// makes the spread about 1, or is 0 where that will do as well.
fn common_exponent(a: Prefix, b: Prefix) -> i32 {
    let largest = max(exponent_in_one(a.mean.value, a.exponent), exponent_in_one(b.mean.value, b.exponent));
    let unit = clamp(-largest, -126, 126);
    let delta = kept_scalar(scaled(b.mean.value, unit - b.exponent) - scaled(a.mean.value, unit - a.exponent));
    let deviation = max(deviation_exponent(a.squares.value, a.exponent), deviation_exponent(b.squares.value, b.exponent));
    let spread = max(deviation, exponent_in_one(delta, unit));
    let exponent = clamp(-spread, -126, min(150, eps_limit()));
    return select(exponent, 0, (abs(spread) < 30) | (spread == NO_EXPONENT));
}

// The bits of a sum of squares that is no number, or 0.
fn no_number(squares: f32) -> u32 {
    return select(0u, bitcast<u32>(squares) & MAGNITUDE_BITS, exponent_of(squares) == 128);
}

// The two parts together, b after a, with counts as in `merged`. Where one of them holds an infinity or a NaN, only that remains.
fn merge(a: Prefix, a_count: f32, b: Prefix, b_count: f32, unit: f32) -> Prefix {
    if a_count == 0.0 {
        return b;
    }
    if b_count == 0.0 {
        return a;
    }
    let broken = max(no_number(a.squares.value), no_number(b.squares.value));
    if broken != 0u {
        return Prefix(rows_of_both(a, b), Double(0.0, 0.0), Double(bitcast<f32>(broken), 0.0), 0);
    }
    if (a.exponent == 0) & (b.exponent == 0) {
        let together = merged(a, a_count, b, b_count, unit);
        if !out_of_range(together.squares.value, 1.0 / ((a_count + b_count) * unit)) {
            return together;
        }
    }
    let exponent = common_exponent(a, b);
    return merged(in_exponent(a, exponent), a_count, in_exponent(b, exponent), b_count, unit);
}

// The first rows and those that follow them.
fn append(first: Prefix, following: Prefix) -> Prefix {
    return merge(first, f32(first.rows), following, f32(following.rows), f32(WIDTH));
}
