// Access: the first units of each lane are held in registers (`access/registers`), the next ones in workgroup memory, both as they are
// stored, and the rest is read again, last first, because what was read last is most likely still in a cache.
//
// Preconditions: the span is a whole workgroup's; TURNS > REGISTERS + SHARED; REGISTERS > 0.

// One more than there may be, because an array has at least one element.
var<workgroup> shared_units: array<Source, SHARED * WORKGROUP_SIZE + 1u>;

fn shared_index(span: Span, turn: u32) -> u32 {
    return (turn - REGISTERS) * WORKGROUP_SIZE + span.lane;
}

// Each lane writes and reads its own units of workgroup memory alone, so there is no barrier.
fn span_read(span: Span, slot: u32) {
    registers_read(span, slot);
    for (var turn = REGISTERS; turn < REGISTERS + SHARED; turn++) {
        shared_units[shared_index(span, turn)] = unit_load(span, turn, HELD_EVEN);
    }
}

// About the mean of what is in registers: turns before the last one are whole in every lane, or almost.
fn span_shift(span: Span, slot: u32) -> f32 {
    let origin = span_first(span);
    return origin + span_sum(registers_sum(span, slot, origin)) / f32(REGISTERS * LANES * UNIT);
}

// The unit of this lane in a turn that is not in registers.
fn unit_beyond(span: Span, turn: u32) -> Source {
    if turn < REGISTERS + SHARED {
        return shared_units[shared_index(span, turn)];
    }
    return unit_load(span, turn, HELD_EVEN);
}

fn span_sums(span: Span, slot: u32, shift: f32) -> vec2<f32> {
    var total = registers_total(span, slot, shift);
    for (var begin = REGISTERS; begin < params.turns; begin += SINGLE_BLOCK) {
        var block = Sums();
        for (var turn = begin; turn < min(begin + SINGLE_BLOCK, params.turns); turn++) {
            block = add_unit(block, source_difference(span, turn, unit_beyond(span, turn), shift));
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
