// The gradient of a loss by a row of the input, from that by the output, dy:
//
//     x̂ = (x − mean) · rstd,   g = dy · weight
//     dx = rstd · (g − Σg / n − x̂ · Σ(g · x̂) / n)
//
// where the second n is n − 1 for the unbiased variance, and RMS normalization has no mean and no Σg. Derived by the chain rule;
// Ba, Kiros and Hinton, "Layer Normalization", 2016, have the forward pass.
//
// The mean that the forward pass has saved is rounded to f32. Beside the deviation that may be much: up to 0.03 of it where the mean
// is a million deviations. How much shows in the mean of (x − mean) · rstd, which would else be 0; it is taken off (`offset`).

// x − mean may leave the range of f32 even where the deviation does not. So elements are halved, half the mean is taken off, and the
// difference is multiplied by twice rstd; both numbers are made by their bits, or a compiler could find that it is all the same.

// The statistics of a row as they were saved.
struct Statistics {
    half_mean: f32,
    rstd: f32,
    double_rstd: f32,
}

fn statistics_of(mean: f32, rstd: f32) -> Statistics {
    return Statistics(scaled(mean, -1), rstd, scaled(rstd, 1));
}

// Everything that a row's gradient takes from the row as a whole.
struct Coefficients {
    half_mean: f32,
    rstd: f32,
    double_rstd: f32,
    // x̂ = (x − mean) · rstd − offset
    offset: f32,
    // −rstd · Σg / n: what is added to each element's gradient.
    summand: f32,
    // Σ(g · x̂) / n
    slope: f32,
}
