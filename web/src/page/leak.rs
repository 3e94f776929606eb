//! Which position of a sequence sees which, as measured on the device, for three norms that are easily taken for one another.

use gpu_layer_norm::{Affine, Dependence, GpuDevice, GpuLayerNorm, LayerNormConfig, Tensor};
use wasm_bindgen::prelude::*;

use super::form::{Form, Refusal, Refusals};

/// The longest sequence: the operation runs twice for each of its positions.
const MAX_LENGTH: usize = 32;
const MAX_D_MODEL: usize = 1024;

/// What a norm lets see what.
#[wasm_bindgen(getter_with_clone)]
pub struct Leak {
    pub title: String,
    /// The config in Rust.
    pub config: String,
    /// Positions of the sequence.
    pub length: u32,
    /// For each position of the output a row, for each of the input a character: `#` where the output depends on this or an earlier
    /// position, `!` where it depends on a later one, `.` where it does not depend on it.
    pub matrix: String,
    /// How much, in the same order.
    pub influence: Vec<f32>,
    /// Pairs of an output and a later input that it depends on.
    pub leaks: u32,
    pub is_causal: bool,
}

pub(super) async fn measure(device: &GpuDevice, form: &Form) -> Result<Vec<Leak>, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    let size = |name: &str, max: usize| {
        let size = form.count(name)?;
        let size = usize::try_from(size).ok().filter(|size| (1..=max).contains(size));
        size.ok_or_else(|| Refusal::at(name, format!("\"{}\" is not from 1 to {max}", form.text(name))))
    };
    let length = refusals.gather(size("length", MAX_LENGTH));
    let d_model = refusals.gather(size("d_model", MAX_D_MODEL));
    let (Some(length), Some(d_model)) = (length, d_model) else { return Err(refusals.into_vec()) };
    let norms = [
        ("over the last dimension", format!("LayerNormConfig::new({d_model})"), LayerNormConfig::new(d_model)),
        (
            "over [length, d_model]",
            format!("LayerNormConfig::new([{length}, {d_model}])"),
            LayerNormConfig::new([length, d_model]),
        ),
        ("causal", format!("LayerNormConfig::new({d_model}).causal(true)"), LayerNormConfig::new(d_model).causal(true)),
    ];
    let mut leaks = Vec::new();
    for (title, text, config) in norms {
        // Without weight and bias, so that nothing but their statistics tells the norms apart.
        let config = config.affine(Affine::None).expect_nothing();
        let layer = GpuLayerNorm::new(device, &config).map_err(|error| vec![Refusal::of(error)])?;
        // Sequences are dimension 1.
        let run = async |input: &Tensor| layer.run_async(device, input).await;
        let dependence = Dependence::measure_async(&[2, length, d_model], 1, run).await;
        let dependence = dependence.map_err(|error| vec![Refusal::of(error)])?;
        let pairs = (0..length).flat_map(|output| (0..length).map(move |input| (output, input)));
        leaks.push(Leak {
            title: title.into(),
            config: text,
            length: length as u32,
            matrix: dependence.to_string(),
            influence: pairs.map(|(output, input)| dependence.influence(output, input)).collect(),
            leaks: dependence.leaks().count() as u32,
            is_causal: dependence.is_causal(),
        });
    }
    Ok(leaks)
}
