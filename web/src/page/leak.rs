//! Which position of a sequence sees which, as measured on the device, for three norms that are easily taken for one another.

use gpu_layer_norm::{Affine, Dependence, Error, GpuDevice, GpuLayerNorm, LayerNormConfig, Tensor};
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
        let dependence = of_layer(device, &config, &[2, length, d_model]).await;
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

/// Measures a layer on sequences, which are dimension 1 of a shape.
///
/// [`Dependence::measure`] waits for each result, which a browser does not let anyone do. What it asks for does not hang on what it is
/// given, though. So it is asked twice: first for its inputs, and then, when the device has run all of these, what to make of the
/// outputs.
async fn of_layer(device: &GpuDevice, config: &LayerNormConfig, shape: &[usize]) -> Result<Dependence, Error> {
    let layer = GpuLayerNorm::new(device, config)?;
    let mut inputs = Vec::new();
    Dependence::measure(shape, 1, |input| {
        inputs.push(input.clone());
        // Of the right shape, and twice the same for the same input.
        Ok(input.clone())
    })?;
    let mut outputs = Vec::new();
    for input in &inputs {
        outputs.push(layer.run_async(device, input).await?);
    }
    let mut runs = inputs.into_iter().zip(outputs);
    Dependence::measure(shape, 1, |input| Ok(recorded(&mut runs, input)))
}

/// The output of the next recorded run, which was of this very input.
fn recorded(runs: &mut impl Iterator<Item = (Tensor, Tensor)>, input: &Tensor) -> Tensor {
    let (recorded, output) = runs.next().expect("the same number of runs");
    assert_eq!(recorded, *input, "the same inputs in the same order");
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_does_not_hang_on_what_is_given() {
        let shape = [2, 5, 3];
        let record = |mut operation: Box<dyn FnMut(&Tensor) -> Tensor>| {
            let mut runs = Vec::new();
            Dependence::measure(&shape, 1, |input| {
                let output = operation(input);
                runs.push((input.clone(), output.clone()));
                Ok(output)
            })
            .unwrap();
            runs
        };
        let same = record(Box::new(Tensor::clone));
        // Each position takes the one after it.
        let shifted = record(Box::new(|input| {
            let values = input.values();
            let values: Vec<f32> = (0..30).map(|i| values[if i % 15 < 12 { i + 3 } else { i }]).collect();
            Tensor::from_f32(shape, values).unwrap()
        }));
        let inputs = |runs: &[(Tensor, Tensor)]| runs.iter().map(|(input, _)| input.clone()).collect::<Vec<_>>();
        assert_eq!(inputs(&same), inputs(&shifted));
        let mut runs = shifted.into_iter();
        let dependence = Dependence::measure(&shape, 1, |input| Ok(recorded(&mut runs, input))).unwrap();
        assert_eq!(dependence.to_string(), ".!...\n..!..\n...!.\n....!\n....#");
    }
}
