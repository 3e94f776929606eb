// A height field of tiles, and its picture.

const SIZE: u32 = 512u;
const TILE: u32 = 64u;

// Tile by tile, so that a tile is a row of the normalization.
fn place(pixel: vec2<u32>) -> u32 {
    let tile = pixel / TILE;
    let within = pixel % TILE;
    return ((tile.y * (SIZE / TILE) + tile.x) * TILE + within.y) * TILE + within.x;
}

@group(0) @binding(0) var<storage, read_write> written: array<f32>;

fn hash(corner: vec2<i32>) -> f32 {
    var bits = bitcast<u32>(corner.x) * 0x9e3779b9u ^ bitcast<u32>(corner.y) * 0x85ebca6bu;
    bits = (bits ^ (bits >> 15u)) * 0x2c1b3c6du;
    bits = (bits ^ (bits >> 12u)) * 0x297a2d39u;
    return f32((bits ^ (bits >> 15u)) >> 8u) / 16777216.0;
}

// Value noise: smooth between random values at whole coordinates.
fn noise(at: vec2<f32>) -> f32 {
    let corner = vec2<i32>(floor(at));
    let part = fract(at);
    let smoothed = part * part * (3.0 - 2.0 * part);
    let bottom = mix(hash(corner), hash(corner + vec2<i32>(1, 0)), smoothed.x);
    let top = mix(hash(corner + vec2<i32>(0, 1)), hash(corner + vec2<i32>(1, 1)), smoothed.x);
    return mix(bottom, top, smoothed.y);
}

// Mountains on one side, flat land on the other: what is on the flat land is there, but nobody sees it.
@compute @workgroup_size(8, 8)
fn heights(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= SIZE || id.y >= SIZE {
        return;
    }
    let at = vec2<f32>(id.xy) / f32(SIZE);
    var height = 0.0;
    var amplitude = 1.0;
    var frequency = 6.0;
    for (var octave = 0; octave < 6; octave++) {
        height += amplitude * noise(at * frequency + 31.0 * f32(octave));
        amplitude *= 0.5;
        frequency *= 2.0;
    }
    let roughness = exp2(-9.0 * at.x);
    written[place(id.xy)] = 1000.0 + 500.0 * roughness * (height - 1.0);
}

@group(0) @binding(1) var<storage, read> drawn: array<f32>;
// What becomes black and what becomes white.
@group(0) @binding(2) var<uniform> range: vec2<f32>;

@vertex
fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    // One triangle that covers the picture.
    return vec4<f32>(f32(index % 2u) * 4.0 - 1.0, f32(index / 2u) * 4.0 - 1.0, 0.0, 1.0);
}

@fragment
fn shade(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let height = drawn[place(min(vec2<u32>(position.xy), vec2<u32>(SIZE - 1u)))];
    let level = clamp((height - range.x) / (range.y - range.x), 0.0, 1.0);
    let low = mix(vec3<f32>(0.03, 0.05, 0.14), vec3<f32>(0.13, 0.44, 0.44), min(level * 2.0, 1.0));
    return vec4<f32>(mix(low, vec3<f32>(0.98, 0.93, 0.78), max(level * 2.0 - 1.0, 0.0)), 1.0);
}
