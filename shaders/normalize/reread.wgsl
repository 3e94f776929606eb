// Normalizes what is read again.

// Calls of `write_turn` in the loop body.
const WRITES: u32 = max(STEP / (SPANS_PER_LANE * WRITE_STEP), 1u);

fn span_normalize(place: Place) {
    let span = span_at(place, 0u);
    if !span.owned {
        return;
    }
    var turn = 0u;
    loop {
        write_turn(place, span, turn, EVEN);
        if WRITES >= 2u {
            write_turn(place, span, turn + WRITE_STEP, EVEN);
        }
        if WRITES == 4u {
            write_turn(place, span, turn + 2u * WRITE_STEP, EVEN);
            write_turn(place, span, turn + 3u * WRITE_STEP, EVEN);
        }
        turn += WRITES * WRITE_STEP;
        if turn >= params.turns {
            break;
        }
    }
}

fn span_source(span: Span, slot: u32, turn: u32) -> Source {
    return unit_load(span, turn, EVEN);
}
