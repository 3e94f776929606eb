// What one dispatch needs to know beyond the constants of its kernel.
//
// The host's twin is `kernel::params::Params`; a test compares the two layouts.
// Binding: 0, uniform.

struct Params {
    // Spans of this dispatch: rows × SEGMENTS.
    spans: u32,
    // Workgroups that have work; a 2-D dispatch may start a few more.
    workgroups: u32,
    // Workgroups along x.
    workgroups_x: u32,
    // Where the first row begins in the bound part of the buffer, in units.
    input_base: u32,
    output_base: u32,
    // Added to the variance; ≥ 0.
    eps: f32,
    // 1 for the biased variance, n / (n − 1) for the unbiased one.
    variance_factor: f32,
    // TURNS, for loops that a driver should not unroll because it cannot see their length.
    turns: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
