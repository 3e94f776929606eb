//! A small transformer learns to repeat what it was told, twice from the same record: with this crate's layer norms and with Burn's own. The
//! losses of both are compared step by step.
//!
//! A sequence is made of random symbols, a mark, and the same symbols again; the model predicts each next symbol, and its loss is that of the
//! repetition. Guessing costs ln 16 = 2.77, knowing costs nothing.
//!
//!     cargo run --release --example transformer -- [STEPS]

mod model;

use std::error::Error;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{self};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use indicatif::{ProgressBar, ProgressStyle};
use model::{Norm, Transformer};

const SYMBOLS: usize = 16;
const REPEATED: usize = 12;
const BATCH: usize = 32;
const STEPS: usize = 100;
/// In the first steps kernels are compiled, and Burn tries which are the fastest.
const FIRST_STEPS: usize = 3;
const LEARNING_RATE: f64 = 2e-3;

/// How far the losses of the two trainings may be apart. Normalized values differ in their last bits, 1e-6, and a loss is the mean of many.
const APART: f32 = 1e-4;

fn main() -> Result<(), Box<dyn Error>> {
    let steps = std::env::args().nth(1).map(|steps| steps.parse()).transpose()?.unwrap_or(STEPS);
    let device = Device::default().autodiff();
    // Burn's record of Burn's layers goes into both.
    let burns = Transformer::<nn::LayerNorm>::new(SYMBOLS + 1, 2 * REPEATED, &device);
    let record = burns.clone().into_record();
    let own =
        Transformer::<gpu_layer_norm_burn::LayerNorm>::new(SYMBOLS + 1, 2 * REPEATED, &device).load_record(record);
    println!("{} parameters, on {:?}", burns.num_params(), device);

    train("first steps", burns.clone(), FIRST_STEPS, &device)?;
    train("first steps", own.clone(), FIRST_STEPS, &device)?;
    let (burns_losses, burns_time) = train("Burn's layer norms", burns, steps, &device)?;
    let (own_losses, own_time) = train("this crate's", own, steps, &device)?;
    println!("\n{:>6} {:>12} {:>12} {:>10}", "step", "Burn's", "this crate's", "apart");
    let mut farthest = 0.0_f32;
    for (step, (burns, own)) in burns_losses.iter().zip(&own_losses).enumerate() {
        let apart = (burns - own).abs();
        farthest = if apart.is_nan() { f32::INFINITY } else { farthest.max(apart) };
        if step % (steps / 10).max(1) == 0 || step + 1 == steps {
            println!("{step:>6} {burns:>12.6} {own:>12.6} {apart:>10.1e}");
        }
    }
    println!("the losses are at most {farthest:.1e} apart");
    println!("the training takes {burns_time:.1?} with Burn's layer norms and {own_time:.1?} with this crate's");
    if farthest > APART {
        return Err(format!("{farthest:.1e} is too far, {APART:.1e} is allowed").into());
    }
    Ok(())
}

/// The loss of every step, and the time of all.
fn train<N: Norm>(
    name: &'static str,
    mut model: Transformer<N>,
    steps: usize,
    device: &Device,
) -> Result<(Vec<f32>, Duration), Box<dyn Error>> {
    let mut optimizer = AdamConfig::new().init();
    let bar = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{prefix:>18} {bar:40} {pos}/{len}, loss {msg}")?)
        .with_prefix(name);
    let start = Instant::now();
    let mut losses = Vec::with_capacity(steps);
    for step in 0..steps {
        let (symbols, next) = batch(step as u64, device);
        // Only the repetition can be known.
        let known = REPEATED - 1..2 * REPEATED;
        let logits = model.forward(symbols).slice([0..BATCH, known.clone()]);
        let next = next.slice([0..BATCH, known]);
        let loss =
            CrossEntropyLossConfig::new().init(device).forward(logits.flatten::<2>(0, 1), next.flatten::<1>(0, 1));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(LEARNING_RATE, model, gradients);
        losses.push(loss.into_scalar::<f32>());
        bar.set_message(format!("{:.4}", losses[step]));
        bar.inc(1);
    }
    bar.finish();
    Ok((losses, start.elapsed()))
}

/// Symbols, and the symbol that follows each; others for each step, the same in each training.
fn batch(step: u64, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let length = 2 * REPEATED;
    let mut state = step.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut symbols = Vec::new();
    for _ in 0..BATCH {
        let first: Vec<i32> = (0..REPEATED)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as i32 % SYMBOLS as i32
            })
            .collect();
        symbols.extend(first.iter().copied().chain([SYMBOLS as i32]).chain(first.iter().copied()));
    }
    let symbols = Tensor::<2, Int>::from_data(TensorData::new(symbols, [BATCH, length + 1]), device);
    (symbols.clone().slice([0..BATCH, 0..length]), symbols.slice([0..BATCH, 1..length + 1]))
}
