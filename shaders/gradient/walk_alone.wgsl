// Walks whose invocations wait for nobody: each ends with its own last row, so that every round has a row of its own.

fn walk_rounds(place: Place) -> u32 {
    let group = walk_group(place);
    let condition = walk_condition(group);
    let begin = min(condition * params.condition_rows, params.rows);
    let rows = min(params.rows - begin, params.condition_rows);
    let first = group - condition * params.walks;
    return (max(rows, first) - first + params.walks - 1u) / params.walks;
}

fn owned_mask(span: Span) -> u32 {
    return params.all_bits;
}

fn owned(span: Span, output_gradient: Unit) -> Unit {
    return output_gradient;
}
