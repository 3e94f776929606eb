// Normalizes what is read again.

// Turns that the loop body takes at once.
const NORMALIZE_STEP: u32 = max(STEP / SPANS_PER_LANE, 1u);

fn span_normalize(place: Place) {
    var turn = 0u;
    loop {
        write_turn(place, turn, EVEN);
        if NORMALIZE_STEP >= 2u {
            write_turn(place, turn + 1u, EVEN);
        }
        if NORMALIZE_STEP == 4u {
            write_turn(place, turn + 2u, EVEN);
            write_turn(place, turn + 3u, EVEN);
        }
        turn += NORMALIZE_STEP;
        if turn >= params.turns {
            break;
        }
    }
}

fn span_source(span: Span, slot: u32, turn: u32) -> Source {
    return unit_load(span, turn, EVEN);
}
