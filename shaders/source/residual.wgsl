// What is normalized: input + residual, added in f32.

fn source_at(position: u32) -> Unit {
    return input_at(position) + residual_at(position);
}
