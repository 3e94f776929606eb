// A scan over the positions of sequences: each position takes up what all positions before it, or all after it, have left. A row is a
// position; `params.sequence_rows` rows one after another are a sequence.
//
// Sequences are cut into tiles of TILE rows. One invocation goes over the rows of each tile. Where a sequence has several tiles,
// one invocation goes over what these have left. In either case place.first_span is the number of the tile or of the sequence. So
// the order in which anything is merged depends on the position alone, and no invocation waits for another. Nothing that a
// position takes up depends on a position that comes later (or earlier).

const TILE: u32 = 64u;

// The rows of a tile, counted within the dispatch. There are none where the rows of the dispatch end before the tile.
struct Tile {
    begin: u32,
    end: u32,
}

fn tile_at(index: u32) -> Tile {
    let sequence = index / params.tiles;
    let first = sequence * params.sequence_rows;
    let begin = first + (index - sequence * params.tiles) * TILE;
    // A chunk may end within a sequence, and a row count anywhere.
    let end = min(min(begin + TILE, first + params.sequence_rows), params.rows);
    return Tile(min(begin, end), end);
}

// What two numbers lose when they are added up to `sum` (`sums`).
fn lost(a: f32, b: f32, sum: f32) -> f32 {
    let added = kept_scalar(sum - a);
    let old = kept_scalar(sum - added);
    return kept_scalar(a - old) + kept_scalar(b - added);
}

// A number in two parts, the second much smaller.
struct Double {
    value: f32,
    rest: f32,
}

fn add_to(a: Double, value: f32, rest: f32) -> Double {
    let sum = kept_scalar(a.value + value);
    return Double(sum, a.rest + (rest + lost(a.value, value, sum)));
}

fn scaled_double(a: Double, exponent: i32) -> Double {
    return Double(scaled(a.value, exponent), scaled(a.rest, exponent));
}

// 1 / count in two parts. Division may be off in the last digits; what is left of 1 is found with numbers cut into halves of 12 digits,
// whose products are exact (as in `inverse_root` of `deviation`).
fn reciprocal(count: f32) -> Double {
    let value = 1.0 / count;
    let high = upper_digits(value);
    let low = kept_scalar(value - high);
    let count_high = upper_digits(count);
    let count_low = kept_scalar(count - count_high);
    let left = kept_scalar(1.0 - count_high * high) - (count_high * low + count_low * value);
    return Double(value, value * left);
}
