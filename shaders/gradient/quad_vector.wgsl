// Sums over all invocations that share vectors, element by element.

fn span_sum_quad(value: Quad) -> Quad {
    return span_sum_each(value);
}
