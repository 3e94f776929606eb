// A sum is the gradient by what an activation has given, and becomes that by what the activation was given: `before`, of the
// result's shape.

@group(0) @binding(5) var<storage, read> before: array<f32>;

fn finished(sum: f32, index: u32) -> f32 {
    return sum * activation_slope(before[index]);
}
