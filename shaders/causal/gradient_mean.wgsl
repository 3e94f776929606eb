// Layer normalization: the mean has its part in the gradient.

fn mean_part(value: f32) -> f32 {
    return value;
}
