// Access: the first units of each lane are held in registers, the next ones in workgroup memory, both as they are stored, and the
// rest is read again, last first, because what was read last is most likely still in a cache.
//
// Preconditions: the span is a whole workgroup's; TURNS > REGISTERS + SHARED; REGISTERS > 0. As in `access/held`, registers are
// indexed by constants only.

const HELD_EVEN: bool = WHOLE_TURNS && WIDTH % SEGMENT_WIDTH == 0u && SEGMENT_UNITS % LANES == 0u;

var<private> held: array<Source, REGISTERS>;
// One more than there may be, because an array has at least one element.
var<workgroup> shared_units: array<Source, SHARED * WORKGROUP_SIZE + 1u>;

// Where the units in workgroup memory end. Not the constant: unrolled loops over them would only be longer.
fn shared_end() -> u32 {
    return min(REGISTERS + SHARED, params.turns);
}

fn shared_index(span: Span, turn: u32) -> u32 {
    return (turn - REGISTERS) * WORKGROUP_SIZE + span.lane;
}

// Each lane writes and reads its own units of workgroup memory alone, so there is no barrier.
fn span_read(span: Span, slot: u32) {
    for (var turn = 0u; turn < REGISTERS; turn++) {
        held[turn] = unit_load(span, turn, WHOLE_TURNS);
    }
    for (var turn = REGISTERS; turn < REGISTERS + SHARED; turn++) {
        shared_units[shared_index(span, turn)] = unit_load(span, turn, WHOLE_TURNS);
    }
}

// About the mean of what is in registers: turns before the last one are whole in every lane, or almost.
fn span_shift(span: Span, slot: u32) -> f32 {
    let origin = span_first(span);
    var sum = Quad(0.0);
    for (var turn = 0u; turn < REGISTERS; turn++) {
        sum += unit_sum(unit_difference(source_unit(held[turn]), origin, unit_mask(span, turn, WHOLE_TURNS)));
    }
    return origin + span_sum(quad_sum(sum)) / f32(REGISTERS * LANES * UNIT);
}

fn span_sums(span: Span, slot: u32, shift: f32) -> vec2<f32> {
    var sums = Sums();
    for (var turn = 0u; turn < REGISTERS; turn++) {
        sums = add_unit(sums, unit_difference(source_unit(held[turn]), shift, unit_mask(span, turn, WHOLE_TURNS)));
    }
    for (var turn = REGISTERS; turn < shared_end(); turn++) {
        let unit = source_unit(shared_units[shared_index(span, turn)]);
        sums = add_unit(sums, unit_difference(unit, shift, unit_mask(span, turn, WHOLE_TURNS)));
    }
    var total = add_block(Total(), sums);
    // In blocks, as in `memory`.
    for (var begin = REGISTERS + SHARED; begin < params.turns; begin += BLOCK) {
        var block = Sums();
        for (var turn = begin; turn < min(begin + BLOCK, params.turns); turn++) {
            let unit = source_unit(unit_load(span, turn, HELD_EVEN));
            block = add_unit(block, unit_difference(unit, shift, unit_mask(span, turn, HELD_EVEN)));
        }
        total = add_block(total, block);
    }
    return span_sums_of(total_of(total));
}

fn shift_is_off(moments: Moments, share: f32) -> bool {
    return off_the_mean(moments, share);
}

fn measure_all(place: Place) -> bool {
    return measure(place, 0u);
}
