// Counts how often the language's conversions of f16 differ from those by bits in `storage/f16`. One invocation for each pattern.
//
// Bindings: 0 the counts, of unpack2x16float and of pack2x16float.

@group(0) @binding(0) var<storage, read_write> differences: array<atomic<u32>, 2>;

fn is_nan(bits: u32) -> bool {
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

fn is_nan_f16(bits: u32) -> bool {
    return (bits & 0x7fffu) > 0x7c00u;
}

fn compare_pack(bits: u32) {
    let exact = encode_f16(bitcast<f32>(bits)) >> 16u;
    let low = pack2x16float(vec2<f32>(bitcast<f32>(bits), 0.0)) & 0xffffu;
    let high = pack2x16float(vec2<f32>(0.0, bitcast<f32>(bits))) >> 16u;
    let both_nan = is_nan_f16(exact) && is_nan_f16(low) && is_nan_f16(high);
    if (low != exact || high != exact) && !both_nan {
        atomicAdd(&differences[1], 1u);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let pattern = id.x;
    let exact = bitcast<u32>(decode_f16(pattern));
    let found = bitcast<vec2<u32>>(unpack2x16float(pattern | (pattern << 16u)));
    let both_nan = is_nan(exact) && is_nan(found.x) && is_nan(found.y);
    if (found.x != exact || found.y != exact) && !both_nan {
        atomicAdd(&differences[0], 1u);
    }
    // The number, what lies halfway to the next one, and the neighbours of that.
    let digits = pattern & 0x3ffu;
    let sign = (pattern & 0x8000u) << 16u;
    let is_subnormal = (pattern & 0x7c00u) == 0u;
    let halfway = select(exact + 0x1000u, sign | bitcast<u32>(f32(2u * digits + 1u) * 2.98023223876953125e-8), is_subnormal);
    compare_pack(exact);
    if (pattern & 0x7c00u) != 0x7c00u {
        compare_pack(halfway);
        compare_pack(halfway - 1u);
        compare_pack(halfway + 1u);
    } else {
        // Far beyond the largest number.
        compare_pack(sign | (0x477ff000u + digits * 0x2c000u));
    }
}
