// What one dispatch needs to know beyond the constants of its kernel.
//
// The host's twin is `kernel::params::Params`; a test compares the two layouts. A base is where the first row begins in the bound
// part of a tensor, a stride leads from one row to the next. Both count accesses of memory (`unit/`); those of tensors that are
// read or written word by word, as mean and rstd are, and of parameters that elements share, count single words or elements.
// Binding: 0, uniform.

struct Params {
    // Spans of this dispatch: rows × segments.
    spans: u32,
    // Workgroups that have work; a 2-D dispatch may start a few more.
    workgroups: u32,
    // Workgroups along x.
    workgroups_x: u32,
    // Rows of this dispatch.
    rows: u32,
    // From the next seven `arguments.wgsl` sets the four above for a row count on the device: the most workgroups along x, the
    // first row of this dispatch within the problem, its rows at most, the spans of a row (0 where workgroups do not depend on
    // rows), the spans of a workgroup, and the fewest and the most workgroups that have work.
    max_workgroups_x: u32,
    first_row: u32,
    most_rows: u32,
    segments: u32,
    spans_per_workgroup: u32,
    least_workgroups: u32,
    most_workgroups: u32,
    // The number of walks over the rows, each of which leaves sums for gradients (`gradient/walk`); in a scan over positions that
    // of the tiles or sequences, each of which has an invocation (`causal/scan`).
    groups: u32,
    // Where it is not 0, the sums of walks, or gradients that are sums over rows, are added to what lies in their place, and
    // `causal_carries` begins with the stored states. In `gradient_parameters` each of three bits has a meaning of its own.
    accumulate: u32,
    // How many rows share a condition, how many conditions this dispatch has, and how many walks share the rows of one. Where
    // rows belong to no condition, these are 2^32 − 1, 1 and the number of all walks.
    condition_rows: u32,
    conditions: u32,
    walks: u32,
    // Rows of a sequence, 2^32 − 1 where rows belong to none, and its tiles (`causal/scan`).
    sequence_rows: u32,
    tiles: u32,
    // 1 for the unbiased variance, 0 for the biased one.
    unbiased: f32,
    // TURNS once more. Loops that end at this number are not unrolled, because a driver cannot see their length.
    turns: u32,
    // 0xffffffff, a mask that changes nothing; a compiler cannot see that it does not (`kept` in `numbers.wgsl`).
    all_bits: u32,
    // Added to the variance; ≥ 0.
    eps: f32,
    // 1 / width.
    mean_share: f32,
    // What a sum of squares is multiplied by to become a variance: 1 / n, or 1 / (n − 1) if it is unbiased; in two parts, because
    // one f32 has not digits enough.
    variance_share: f32,
    variance_share_rest: f32,
    // What the square of the correction (`moments.wgsl`) is multiplied by before it is taken off the variance: 1 for the biased
    // variance, n / (n − 1) for the unbiased one.
    variance_factor: f32,
    input_base: u32,
    input_stride: u32,
    residual_base: u32,
    residual_stride: u32,
    output_base: u32,
    output_stride: u32,
    sum_base: u32,
    sum_stride: u32,
    mean_base: u32,
    mean_stride: u32,
    // Of rstd, or of the sums of rows, which are never in one problem.
    rstd_base: u32,
    rstd_stride: u32,
    output_gradient_base: u32,
    output_gradient_stride: u32,
    sum_gradient_base: u32,
    sum_gradient_stride: u32,
    input_gradient_base: u32,
    input_gradient_stride: u32,
    residual_gradient_base: u32,
    residual_gradient_stride: u32,
    // Of what a condition has, from one condition to the next.
    scale_base: u32,
    scale_stride: u32,
    shift_base: u32,
    shift_stride: u32,
    gate_base: u32,
    gate_stride: u32,
    scale_gradient_base: u32,
    scale_gradient_stride: u32,
    shift_gradient_base: u32,
    shift_gradient_stride: u32,
    gate_gradient_base: u32,
    gate_gradient_stride: u32,
    weight_base: u32,
    bias_base: u32,
    weight_gradient_base: u32,
    bias_gradient_base: u32,
    // Of the state of sequences, or of the moments of rows, which are never in one problem.
    state_base: u32,
    state_stride: u32,
}

@group(0) @binding(0) var<uniform> bound_params: Params;

// A copy of the binding, which `workgroup_of` makes: llvmpipe would read a binding anew at each use, and once for each
// invocation.
var<private> params: Params;
