// The parts of a transformer block that are not normalization, plainly: every invocation computes one element.

struct Shape {
    rows: u32,
    inner: u32,
    columns: u32,
    heads: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

fn product(id: vec3<u32>) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < shape.inner; i++) {
        sum += left[id.y * shape.inner + i] * right[i * shape.columns + id.x];
    }
    return sum;
}

// result[rows, columns] = left[rows, inner] · right[inner, columns]
@compute @workgroup_size(8, 8)
fn matmul(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < shape.columns && id.y < shape.rows {
        result[id.y * shape.columns + id.x] = product(id);
    }
}

// The same, through GELU in its tanh form.
@compute @workgroup_size(8, 8)
fn matmul_gelu(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < shape.columns && id.y < shape.rows {
        let x = product(id);
        result[id.y * shape.columns + id.x] = 0.5 * x * (1.0 + tanh(0.7978845608 * (x + 0.044715 * x * x * x)));
    }
}

// One head of one position: scores with what is not in its future, softmax, the weighted mean of the values. `left` holds
// queries, keys and values beside each other, `columns` of each.
fn score(row: u32, other: u32, head: u32) -> f32 {
    let size = shape.columns / shape.heads;
    var sum = 0.0;
    for (var i = 0u; i < size; i++) {
        sum += left[row * 3u * shape.columns + head * size + i] * left[(other * 3u + 1u) * shape.columns + head * size + i];
    }
    return sum / sqrt(f32(size));
}

@compute @workgroup_size(8, 8)
fn causal_attention(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= shape.columns || id.y >= shape.rows {
        return;
    }
    let head = id.x / (shape.columns / shape.heads);
    var largest = score(id.y, 0u, head);
    for (var other = 1u; other <= id.y; other++) {
        largest = max(largest, score(id.y, other, head));
    }
    var total = 0.0;
    var sum = 0.0;
    for (var other = 0u; other <= id.y; other++) {
        let share = exp(score(id.y, other, head) - largest);
        total += share;
        sum += share * left[(other * 3u + 2u) * shape.columns + id.x];
    }
    result[id.y * shape.columns + id.x] = sum / total;
}
