// Sums over a span that is read from memory. Its elements are first multiplied by `factor`, a power of two (`Moments` in
// `moments`).

// x · factor − shift of one unit.
fn memory_difference(span: Span, turn: u32, shift: f32, factor: f32) -> Unit {
    let unit = source_unit(unit_load(span, turn, EVEN));
    return unit_difference(unit_scaled(unit, factor), shift, unit_mask(span, turn, EVEN));
}

// The sums over STEP turns.
fn step_sums(span: Span, turn: u32, shift: f32, factor: f32) -> Sums {
    var sums = add_unit(Sums(), memory_difference(span, turn, shift, factor));
    if STEP >= 2u {
        sums = add_unit(sums, memory_difference(span, turn + 1u, shift, factor));
    }
    if STEP == 4u {
        let others = add_unit(Sums(), memory_difference(span, turn + 2u, shift, factor));
        sums = add(sums, add_unit(others, memory_difference(span, turn + 3u, shift, factor)));
    }
    return sums;
}

// The sums over BLOCK turns, or as many as there are. Loops here look for their end after the body and not before it, because
// llvmpipe would otherwise run the body once more with no invocation in it.
fn block_sums(span: Span, begin: u32, shift: f32, factor: f32) -> Sums {
    let end = min(begin + BLOCK, params.turns);
    var sums = Sums();
    var turn = begin;
    loop {
        sums = add(sums, step_sums(span, turn, shift, factor));
        turn += STEP;
        if turn >= end {
            break;
        }
    }
    return sums;
}

// The sums of x · factor − shift and of its square over the span.
fn memory_sums(span: Span, shift: f32, factor: f32) -> vec2<f32> {
    if TURNS <= BLOCK {
        let sums = block_sums(span, 0u, shift, factor);
        return span_sums_of(sums_of(sums));
    }
    var total = Total();
    var turn = 0u;
    loop {
        total = add_block(total, block_sums(span, turn, shift, factor));
        turn += BLOCK;
        if turn >= params.turns {
            break;
        }
    }
    return span_sums_of(total_of(total));
}
