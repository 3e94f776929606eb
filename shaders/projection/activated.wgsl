// A sum goes through the activation.

fn finished(sum: f32, index: u32) -> f32 {
    return activation(sum);
}
