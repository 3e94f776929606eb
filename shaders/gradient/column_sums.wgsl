// The sums over the rows of a walk that the gradients of weight, bias, scale, shift and gate are made of, in registers: PRODUCTS
// of dy · x̂, GRADIENTS of dy, and GATES of ds · input, where ds is the gradient by what is normalized.
//
// SUMS of the three are asked for, and numbered from 0 in this order; the constant of one that is not asked for is SUMS. In the
// end each sum goes to its place among those of all walks: walks (groups) outermost, then the sums by number, then columns.

var<private> product_sums: array<Unit, TURNS>;
var<private> gradient_sums: array<Unit, TURNS>;
var<private> gate_sums: array<Unit, TURNS>;

fn add_to_sums(turn: u32, output_gradient: Unit, normalized: Unit) {
    if PRODUCTS < SUMS {
        product_sums[turn] = unit_product_sum(output_gradient, normalized, product_sums[turn]);
    }
    if GRADIENTS < SUMS {
        gradient_sums[turn] = unit_add(gradient_sums[turn], output_gradient);
    }
}

fn add_to_gate_sum(turn: u32, gradient: Unit, input: Unit) {
    if GATES < SUMS {
        gate_sums[turn] = unit_product_sum(gradient, input, gate_sums[turn]);
    }
}

fn store_sum(group: u32, sum: u32, position: u32, value: Unit) {
    let index = (group * SUMS + sum) * ROW_UNITS + position;
    var total = value;
    // Rows that came before, in another dispatch.
    if params.accumulate != 0u {
        total = unit_add(total, column_sum_load(index));
    }
    column_sum_set(index, total);
}

fn store_column_sums(place: Place) {
    let span = walk_at(place, 0u);
    let group = walk_group(place);
    for (var turn = 0u; turn < TURNS; turn++) { // unrolled
        if in_span(span, turn, EVEN) {
            let position = span.begin + unit_index(span, turn);
            if PRODUCTS < SUMS {
                store_sum(group, PRODUCTS, position, product_sums[turn]);
            }
            if GRADIENTS < SUMS {
                store_sum(group, GRADIENTS, position, gradient_sums[turn]);
            }
            if GATES < SUMS {
                store_sum(group, GATES, position, gate_sums[turn]);
            }
        }
    }
}
