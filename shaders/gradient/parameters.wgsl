// The sums of a walk go to its own place among those of all walks: groups outermost, then weight before bias, then columns.

fn store_parameter_sum(index: u32, value: Unit) {
    var sum = value;
    // Rows that came before, in another dispatch.
    if params.accumulate != 0u {
        sum = unit_add(sum, parameter_sum_load(index));
    }
    parameter_sum_set(index, sum);
}

fn store_parameter_sums(place: Place) {
    let span = walk_at(place, 0u);
    for (var turn = 0u; turn < TURNS; turn++) {
        if in_span(span, turn, EVEN) {
            store_sums(walk_group(place), span.begin + unit_index(span, turn), turn);
        }
    }
}
