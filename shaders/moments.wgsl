// Mean and variance of a row by the corrected two-pass algorithm (Chan, Golub and LeVeque, "Algorithms for computing the sample
// variance", 1983): with shift ≈ mean and d = x − shift,
//     correction = mean(d),   mean = shift + correction,   variance = mean(d²) − correction²
// The correction takes out the error of the shift, so the error does not grow with |mean| / std.

// What was measured of a span, in the unit 2^−exponent: its elements are multiplied by 2^exponent first. The exponent is 0, and
// this unit 1, unless a span was measured again (`rare`). Such a unit of measurement has nothing to do with the units of access
// (`unit/`).
struct Moments {
    shift: f32,
    // The sums of x − shift and of its square over the span.
    differences: f32,
    squares: f32,
    exponent: i32,
}

// What brings a row's elements to normalized ones: x̂ = (x · 2^exponent − shift − correction) · rstd.
struct Scaling {
    shift: f32,
    correction: f32,
    // The standard deviation itself where only moments are asked for (`statistics/moments`).
    rstd: f32,
    exponent: i32,
}

// Whether the correction is over a standard deviation: its square then takes digits from the variance. Here, and in
// `out_of_range`, `share` is 1 / the number of elements.
fn off_the_mean(moments: Moments, share: f32) -> bool {
    let correction = correction_of(moments.differences) * share;
    return 2.0 * correction * correction > moments.squares * share;
}
