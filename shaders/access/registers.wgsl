// Units that each lane holds in registers: the first REGISTERS of those that it has of a span, as they are stored.
//
// Every loop has a constant length, and every index is a constant once it is unrolled: an array indexed by anything else lies in
// memory, or becomes a tree of selections.

// Whether every lane has a unit in every turn, so that nothing need be masked.
const HELD_EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % LANES == 0u;

var<private> held: array<Source, REGISTERS * SPANS_PER_LANE>;

fn registers_read(span: Span, slot: u32) {
    for (var turn = 0u; turn < REGISTERS; turn++) { // unrolled
        held[slot * REGISTERS + turn] = unit_load(span, turn, HELD_EVEN);
    }
}

fn held_source(slot: u32, turn: u32) -> Source {
    return held[slot * REGISTERS + turn];
}

// unit − shift of the unit that was read in a turn, 0 past the end of the span.
fn source_difference(span: Span, turn: u32, source: Source, shift: f32) -> Unit {
    return unit_difference(source_unit(source), shift, unit_mask(span, turn, HELD_EVEN));
}

// The sum of x − origin over what this lane holds.
fn registers_sum(span: Span, slot: u32, origin: f32) -> f32 {
    var sum = Quad(0.0);
    for (var turn = 0u; turn < REGISTERS; turn++) { // unrolled
        sum += unit_sum(source_difference(span, turn, held_source(slot, turn), origin));
    }
    return quad_sum(sum);
}

// The sums of x − shift and of its square over what this lane holds, in blocks: which turn ends one is known when the loop is unrolled.
fn registers_total(span: Span, slot: u32, shift: f32) -> Total {
    var total = Total();
    var block = Sums();
    for (var turn = 0u; turn < REGISTERS; turn++) { // unrolled
        block = add_unit(block, source_difference(span, turn, held_source(slot, turn), shift));
        if turn % BLOCK == BLOCK - 1u || turn == REGISTERS - 1u {
            total = add_indexed_block(total, block, turn / BLOCK);
            block = Sums();
        }
    }
    return total;
}
