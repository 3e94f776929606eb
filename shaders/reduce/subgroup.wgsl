// Reduction over the LANES invocations of a span that lie in one subgroup: a butterfly of shuffles. No barrier.
// Every lane adds the same pairs, so all lanes get the same bits.
//
// Preconditions: LANES is a power of two and no larger than the smallest subgroup; consecutive local invocation indices lie in
// one subgroup, in order (true of every 1-D workgroup seen; a test probes it); the lanes of a subgroup have not parted, which
// a test of every variant looks at.

// Steps of the butterfly. Counted, so that a compiler unrolls the loops and knows each distance: RADV takes one instruction for a
// shuffle over a distance that it knows, and a dozen for any other.
const STEPS: u32 = firstTrailingBit(LANES);

fn span_sum(value: f32) -> f32 {
    var total = value;
    if LANES > 1u {
        total += subgroupShuffleXor(total, 1u);
    }
    if LANES > 2u {
        total += subgroupShuffleXor(total, 2u);
    }
    if LANES > 4u {
        total += subgroupShuffleXor(total, 4u);
    }
    if LANES > 8u {
        total += subgroupShuffleXor(total, 8u);
    }
    if LANES > 16u {
        total += subgroupShuffleXor(total, 16u);
    }
    if LANES > 32u {
        total += subgroupShuffleXor(total, 32u);
    }
    if LANES > 64u {
        total += subgroupShuffleXor(total, 64u);
    }
    return total;
}

// Of four numbers, each for itself.
fn span_sum_each(value: vec4<f32>) -> vec4<f32> {
    var total = value;
    if LANES > 1u {
        total += subgroupShuffleXor(total, 1u);
    }
    if LANES > 2u {
        total += subgroupShuffleXor(total, 2u);
    }
    if LANES > 4u {
        total += subgroupShuffleXor(total, 4u);
    }
    if LANES > 8u {
        total += subgroupShuffleXor(total, 8u);
    }
    if LANES > 16u {
        total += subgroupShuffleXor(total, 16u);
    }
    if LANES > 32u {
        total += subgroupShuffleXor(total, 32u);
    }
    if LANES > 64u {
        total += subgroupShuffleXor(total, 64u);
    }
    return total;
}

fn span_sums_of(parts: vec3<f32>) -> vec2<f32> {
    var total = parts;
    if LANES > 1u {
        total = add_parts(total, subgroupShuffleXor(total, 1u));
    }
    if LANES > 2u {
        total = add_parts(total, subgroupShuffleXor(total, 2u));
    }
    if LANES > 4u {
        total = add_parts(total, subgroupShuffleXor(total, 4u));
    }
    if LANES > 8u {
        total = add_parts(total, subgroupShuffleXor(total, 8u));
    }
    if LANES > 16u {
        total = add_parts(total, subgroupShuffleXor(total, 16u));
    }
    if LANES > 32u {
        total = add_parts(total, subgroupShuffleXor(total, 32u));
    }
    if LANES > 64u {
        total = add_parts(total, subgroupShuffleXor(total, 64u));
    }
    return sums_of_parts(total);
}

fn span_max(value: u32) -> u32 {
    var largest = value;
    if LANES > 1u {
        largest = max(largest, subgroupShuffleXor(largest, 1u));
    }
    if LANES > 2u {
        largest = max(largest, subgroupShuffleXor(largest, 2u));
    }
    if LANES > 4u {
        largest = max(largest, subgroupShuffleXor(largest, 4u));
    }
    if LANES > 8u {
        largest = max(largest, subgroupShuffleXor(largest, 8u));
    }
    if LANES > 16u {
        largest = max(largest, subgroupShuffleXor(largest, 16u));
    }
    if LANES > 32u {
        largest = max(largest, subgroupShuffleXor(largest, 32u));
    }
    if LANES > 64u {
        largest = max(largest, subgroupShuffleXor(largest, 64u));
    }
    return largest;
}

// Before a sum that follows what lanes may have parted for. Browsers have no barrier of subgroups.
fn meet() {
    workgroupBarrier();
}

// The bits of all invocations that must go on together.
fn workgroup_or(bits: u32) -> u32 {
    return subgroupOr(bits);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, @builtin(local_invocation_index) local_index: u32) {
    if has_work(workgroup_id) {
        kernel(place_of(workgroup_id, local_index));
    }
}
