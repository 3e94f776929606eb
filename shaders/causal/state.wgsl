// What is known of each sequence before its first row here, and afterwards with its last one: eight words, which are those of a stored
// prefix. All 0 before anything is known. Binding: `state`, as it is generated.

fn state_load(sequence: u32) -> StoredPrefix {
    let word = params.state_base + sequence * params.state_stride;
    let numbers = vec4<u32>(state[word], state[word + 1u], state[word + 2u], state[word + 3u]);
    return StoredPrefix(numbers, vec4<u32>(state[word + 4u], state[word + 5u], 0u, 0u));
}

fn state_set(sequence: u32, prefix: StoredPrefix) {
    let word = params.state_base + sequence * params.state_stride;
    state[word] = prefix.numbers.x;
    state[word + 1u] = prefix.numbers.y;
    state[word + 2u] = prefix.numbers.z;
    state[word + 3u] = prefix.numbers.w;
    state[word + 4u] = prefix.counts.x;
    state[word + 5u] = prefix.counts.y;
    state[word + 6u] = 0u;
    state[word + 7u] = 0u;
}
