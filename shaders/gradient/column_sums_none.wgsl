// No gradient that is a sum over rows is asked for.

fn add_to_sums(turn: u32, output_gradient: Unit, normalized: Unit) {}

fn add_to_gate_sum(turn: u32, gradient: Unit, input: Unit) {}

fn store_column_sums(place: Place) {}
