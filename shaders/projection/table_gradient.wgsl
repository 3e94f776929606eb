// The gradient by a table of which categories have picked rows, one for each sample of a batch:
//
//     result[category, column] = Σ right[sample, column] over the samples of the category
//
// `rows` are the categories, `terms` the samples. Each invocation takes elements of its own, and goes over the batch for each. Samples
// of other categories are left out, so a NaN in them does not matter.

@group(0) @binding(2) var<storage, read> right: array<f32>;

fn kernel(workgroup: u32, local_index: u32) {
    let others = params.workgroups * WORKGROUP_SIZE;
    for (var element = workgroup * WORKGROUP_SIZE + local_index; element < params.work; element += others) {
        let category = element / params.columns;
        let column = element % params.columns;
        var sum = Sum();
        for (var term = 0u; term < params.terms; term++) {
            if category_of(term) == category {
                sum = sum_add(sum, right[term * params.right_term + column * params.right_column]);
            }
        }
        result[element] = sum_value(sum);
    }
}
