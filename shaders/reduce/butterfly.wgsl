// Butterflies of shuffles: sums over `size` neighbouring invocations of a subgroup, a power of two up to 128. Every one of them adds
// the same pairs, so all get the same bits.
//
// Written out, so that each distance is a constant: RADV takes one instruction for a shuffle over such a distance, and a dozen for any
// other. `size` is a constant wherever these are called, and what lies beyond it falls away.

fn butterfly_sum(value: f32, size: u32) -> f32 {
    var total = value;
    if size > 1u {
        total += subgroupShuffleXor(total, 1u);
    }
    if size > 2u {
        total += subgroupShuffleXor(total, 2u);
    }
    if size > 4u {
        total += subgroupShuffleXor(total, 4u);
    }
    if size > 8u {
        total += subgroupShuffleXor(total, 8u);
    }
    if size > 16u {
        total += subgroupShuffleXor(total, 16u);
    }
    if size > 32u {
        total += subgroupShuffleXor(total, 32u);
    }
    if size > 64u {
        total += subgroupShuffleXor(total, 64u);
    }
    return total;
}

// Of four numbers, each for itself.
fn butterfly_sum_each(value: vec4<f32>, size: u32) -> vec4<f32> {
    var total = value;
    if size > 1u {
        total += subgroupShuffleXor(total, 1u);
    }
    if size > 2u {
        total += subgroupShuffleXor(total, 2u);
    }
    if size > 4u {
        total += subgroupShuffleXor(total, 4u);
    }
    if size > 8u {
        total += subgroupShuffleXor(total, 8u);
    }
    if size > 16u {
        total += subgroupShuffleXor(total, 16u);
    }
    if size > 32u {
        total += subgroupShuffleXor(total, 32u);
    }
    if size > 64u {
        total += subgroupShuffleXor(total, 64u);
    }
    return total;
}

// Of the sums over parts of a span, with what they lost.
fn butterfly_parts(parts: vec3<f32>, size: u32) -> vec3<f32> {
    var total = parts;
    if size > 1u {
        total = add_parts(total, subgroupShuffleXor(total, 1u));
    }
    if size > 2u {
        total = add_parts(total, subgroupShuffleXor(total, 2u));
    }
    if size > 4u {
        total = add_parts(total, subgroupShuffleXor(total, 4u));
    }
    if size > 8u {
        total = add_parts(total, subgroupShuffleXor(total, 8u));
    }
    if size > 16u {
        total = add_parts(total, subgroupShuffleXor(total, 16u));
    }
    if size > 32u {
        total = add_parts(total, subgroupShuffleXor(total, 32u));
    }
    if size > 64u {
        total = add_parts(total, subgroupShuffleXor(total, 64u));
    }
    return total;
}

fn butterfly_max(value: u32, size: u32) -> u32 {
    var largest = value;
    if size > 1u {
        largest = max(largest, subgroupShuffleXor(largest, 1u));
    }
    if size > 2u {
        largest = max(largest, subgroupShuffleXor(largest, 2u));
    }
    if size > 4u {
        largest = max(largest, subgroupShuffleXor(largest, 4u));
    }
    if size > 8u {
        largest = max(largest, subgroupShuffleXor(largest, 8u));
    }
    if size > 16u {
        largest = max(largest, subgroupShuffleXor(largest, 16u));
    }
    if size > 32u {
        largest = max(largest, subgroupShuffleXor(largest, 32u));
    }
    if size > 64u {
        largest = max(largest, subgroupShuffleXor(largest, 64u));
    }
    return largest;
}
