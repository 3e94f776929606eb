// The sums of a span, a row or a segment of one, that is read from memory: of g, of g · x̂ and of x̂.

// The sums of many blocks, with what they lost to rounding (`sums`).
struct RowTotal {
    sums: RowSums,
    lost: RowSums,
}

fn add_row_block(total: RowTotal, block: RowSums) -> RowTotal {
    let gradients = kept(total.sums.gradients + block.gradients, params.all_bits);
    let products = kept(total.sums.products + block.products, params.all_bits);
    let normalized = kept(total.sums.normalized + block.normalized, params.all_bits);
    let lost = RowSums(
        total.lost.gradients + loss(total.sums.gradients, block.gradients, gradients),
        total.lost.products + loss(total.sums.products, block.products, products),
        total.lost.normalized + loss(total.sums.normalized, block.normalized, normalized),
    );
    return RowTotal(RowSums(gradients, products, normalized), lost);
}

fn add_turn(sums: RowSums, span: Span, turn: u32, statistics: Statistics, row_bits: u32) -> RowSums {
    let mask = unit_mask(span, turn, EVEN);
    let source = unit_load(span, turn, EVEN);
    let output_gradient = output_gradient_unit(output_gradient_load(span.row, position_at(span, turn, EVEN)));
    let normalized = normalized_unit(source, statistics.half_mean, statistics.double_rstd, 0.0, mask & row_bits);
    return add_to_row(sums, gradient_in_span(span, turn, output_gradient), normalized);
}

// The sums over BLOCK turns, or as many as there are. The loops leave at their ends, as those of `memory` do.
fn block_sums(span: Span, begin: u32, statistics: Statistics, row_bits: u32) -> RowSums {
    let end = min(begin + BLOCK, params.turns);
    var sums = RowSums();
    var turn = begin;
    loop {
        sums = add_turn(sums, span, turn, statistics, row_bits);
        if STEP >= 2u {
            sums = add_turn(sums, span, turn + 1u, statistics, row_bits);
        }
        if STEP == 4u {
            sums = add_turn(sums, span, turn + 2u, statistics, row_bits);
            sums = add_turn(sums, span, turn + 3u, statistics, row_bits);
        }
        turn += STEP;
        if turn >= end {
            break;
        }
    }
    return sums;
}

fn span_parts(span: Span, statistics: Statistics, row_bits: u32) -> vec4<f32> {
    if TURNS <= BLOCK {
        return parts_of(block_sums(span, 0u, statistics, row_bits));
    }
    var total = RowTotal();
    var turn = 0u;
    loop {
        total = add_row_block(total, block_sums(span, turn, statistics, row_bits));
        turn += BLOCK;
        if turn >= params.turns {
            break;
        }
    }
    return parts_of(total.sums) + parts_of(total.lost);
}
