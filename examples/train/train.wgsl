// The parts of the model of train.rs that are not normalization, forward and backward, and the steps of the optimizers, plainly:
// every invocation computes one element.

struct Shape {
    rows: u32,
    inner: u32,
    columns: u32,
}

// The settings of an optimizer. Adam keeps two running means for every parameter, each updated in every step as
// mean = beta · mean + one_minus_beta · value.
struct Rates {
    beta: vec2<f32>,
    one_minus_beta: vec2<f32>,
    learning_rate: f32,
    eps: f32,
}

// How far the training is.
struct Progress {
    // Adam's running means begin as 0 and are therefore too small at first; it divides them by 1 − beta^steps. That is the same
    // running mean of a value that is always 1. Computed as such, it loses nothing to cancellation.
    corrections: vec2<f32>,
    steps: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> progress: Progress;
@group(0) @binding(6) var<uniform> rates: Rates;
@group(0) @binding(7) var<storage, read_write> moments: array<vec2<f32>>;

fn is_outside(id: vec3<u32>) -> bool {
    return id.x >= shape.columns || id.y >= shape.rows;
}

fn index(id: vec3<u32>) -> u32 {
    return id.y * shape.columns + id.x;
}

// left[rows, inner] · right[inner, columns]
fn product(id: vec3<u32>) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < shape.inner; i++) {
        sum += left[id.y * shape.inner + i] * right[i * shape.columns + id.x];
    }
    return sum;
}

// left[rows, inner] · right[columns, inner]ᵀ. This is how a gradient goes back through a product y = x · B: the gradient of x is
// the gradient of y times Bᵀ.
fn product_transposed(id: vec3<u32>) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < shape.inner; i++) {
        sum += left[id.y * shape.inner + i] * right[id.x * shape.inner + i];
    }
    return sum;
}

@compute @workgroup_size(8, 8)
fn matmul(@builtin(global_invocation_id) id: vec3<u32>) {
    if !is_outside(id) {
        result[index(id)] = product(id);
    }
}

@compute @workgroup_size(8, 8)
fn matmul_tanh(@builtin(global_invocation_id) id: vec3<u32>) {
    if !is_outside(id) {
        result[index(id)] = tanh(product(id));
    }
}

@compute @workgroup_size(8, 8)
fn matmul_transposed(@builtin(global_invocation_id) id: vec3<u32>) {
    if !is_outside(id) {
        result[index(id)] = product_transposed(id);
    }
}

// The same, and back through u = tanh(z) as well, whose derivative is 1 − u². In place: `result` holds u before and the gradient
// of z afterwards.
@compute @workgroup_size(8, 8)
fn matmul_transposed_tanh(@builtin(global_invocation_id) id: vec3<u32>) {
    if !is_outside(id) {
        let u = result[index(id)];
        result[index(id)] = product_transposed(id) * (1.0 - u * u);
    }
}

// Every position becomes the mean of the positions up to itself. A sequence is `inner` rows.
@compute @workgroup_size(8, 8)
fn mix(@builtin(global_invocation_id) id: vec3<u32>) {
    if is_outside(id) {
        return;
    }
    let position = id.y % shape.inner;
    var sum = 0.0;
    for (var row = id.y - position; row <= id.y; row++) {
        sum += left[row * shape.columns + id.x];
    }
    result[index(id)] = sum / f32(position + 1u);
}

// The gradient goes back through that by the transposed matrix: a position has a share in its own mean and in all later ones of
// its sequence, and the share is one divided by the number of positions in that mean.
@compute @workgroup_size(8, 8)
fn mix_transposed(@builtin(global_invocation_id) id: vec3<u32>) {
    if is_outside(id) {
        return;
    }
    let first = id.y - id.y % shape.inner;
    var sum = 0.0;
    for (var row = id.y; row < first + shape.inner; row++) {
        sum += left[row * shape.columns + id.x] / f32(row - first + 1u);
    }
    result[index(id)] = sum;
}

// The gradient of the mean squared difference of `left` from `right`.
@compute @workgroup_size(8, 8)
fn loss_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    if !is_outside(id) {
        result[index(id)] = 2.0 * (left[index(id)] - right[index(id)]) / f32(shape.rows * shape.columns);
    }
}

var<workgroup> sums: array<f32, 64>;

// The mean squared difference itself, of `inner` elements, by a single workgroup, which then counts the step.
@compute @workgroup_size(64)
fn loss(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < shape.inner; i += 64u) {
        let difference = left[i] - right[i];
        sum += difference * difference;
    }
    sums[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        var total = 0.0;
        for (var other = 0u; other < 64u; other++) {
            total += sums[other];
        }
        losses[progress.steps] = total / f32(shape.inner);
        progress.steps += 1u;
        progress.corrections = rates.beta * progress.corrections + rates.one_minus_beta;
    }
}

// The optimizers: `left` is the gradient, `result` the parameter.
@compute @workgroup_size(8, 8)
fn sgd(@builtin(global_invocation_id) id: vec3<u32>) {
    if !is_outside(id) {
        result[index(id)] -= rates.learning_rate * left[index(id)];
    }
}

// Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1. `moments` holds the running mean of the gradient
// and that of its square.
@compute @workgroup_size(8, 8)
fn adam(@builtin(global_invocation_id) id: vec3<u32>) {
    if is_outside(id) {
        return;
    }
    let i = index(id);
    let gradient = left[i];
    moments[i] = rates.beta * moments[i] + rates.one_minus_beta * vec2(gradient, gradient * gradient);
    let corrected = moments[i] / progress.corrections;
    result[i] -= rates.learning_rate * corrected.x / (sqrt(corrected.y) + rates.eps);
}
