// Mean and variance of a row by the corrected two-pass algorithm (Chan, Golub and LeVeque, "Algorithms for computing the sample
// variance", 1983): with shift ≈ mean and d = x − shift,
//     correction = mean(d),   mean = shift + correction,   variance = mean(d²) − correction²
// The correction takes out the error of the shift, so the error does not grow with |mean| / std.

// What a span was measured to be, in the unit 2^−exponent: its elements are multiplied by 2^exponent first. The exponent
// is 0 unless a span was measured again (`rare`).
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

// Whether the correction is over a standard deviation: its square then takes digits from the variance. `share` is 1 / the number
// of elements, here and above.
fn off_the_mean(moments: Moments, share: f32) -> bool {
    let correction = correction_of(moments.differences) * share;
    return 2.0 * correction * correction > moments.squares * share;
}
