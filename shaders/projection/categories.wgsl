// Categories of the samples of a batch. One that is too large counts as the largest there is.

@group(0) @binding(4) var<storage, read> categories: array<u32>;

fn category_of(sample_index: u32) -> u32 {
    return min(categories[params.first_category + sample_index], params.last_category);
}
