//! The worked examples of layer normalization, as two texts about it have them, each beside the f64 reference.

use gpu_layer_norm::{Error, GpuDevice, LayerNormConfig, NormalizedShape, Tensor, Variance};
use wasm_bindgen::prelude::*;

use super::comparison::Comparison;
use super::outcome::compute;
use super::task::Task;
use super::values::{Distribution, Stream, drawn};

/// Rows of the second text's random tensor that are shown, as there.
const SHOWN: usize = 20;

/// An example that was run.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone)]
pub struct Example {
    pub title: String,
    /// What the numbers show.
    pub text: String,
    pub tables: Vec<Table>,
    /// The largest |output − reference| of all elements, those that are not shown too.
    pub largest_error: f64,
    /// Whether every element is within the bound that the crate's documentation gives.
    pub agrees: bool,
}

/// Lines of numbers, one below the other.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone)]
pub struct Table {
    pub caption: String,
    pub lines: Vec<Line>,
}

/// A line of a table.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone)]
pub struct Line {
    pub name: String,
    pub values: Vec<f64>,
    /// Digits to show after the point; absent for a number that is best told by its magnitude.
    pub digits: Option<u8>,
}

impl Line {
    fn new(name: &str, digits: impl Into<Option<u8>>, values: impl Iterator<Item = f64>) -> Self {
        Self { name: name.into(), values: values.collect(), digits: digits.into() }
    }
}

pub(super) async fn run(device: &GpuDevice) -> Result<Vec<Example>, Error> {
    let batch = Tensor::from_f32([2, 2, 3], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].repeat(2))?;
    let rows = Tensor::from_f32([3, 4], [1.0, 2.0, 4.0, 1.0, 6.0, 3.0, 2.0, 4.0, 2.0, 4.0, 6.0, 1.0])?;
    let random = drawn(Distribution::Normal, 0.0, 1.0, 20 * 5 * 10, 20, Stream::Input);
    let random = Tensor::from_f32([20, 5, 10], random)?;
    Ok(vec![
        row_by_row(
            device,
            batch.clone(),
            [2, 3],
            "The two last dimensions together: each sample of the batch has one mean and one variance.",
        )
        .await?,
        row_by_row(device, batch, 3, "The last dimension alone: each position has a mean and a variance of its own.").await?,
        row_by_row(device, rows, 4, "Rows of a matrix. The first has mean 2 and variance 1.5.").await?,
        statistics(
            device,
            random.clone(),
            LayerNormConfig::new(10),
            "Standard normal values over the last dimension",
            "The text finds a variance of 1.11 after normalization and asks why it is not 1. It is: layer normalization divides by \
             the root of the mean of 10 squares. torch.var divides the same sum by 9, and 10 / 9 = 1.11.",
        )
        .await?,
        statistics(
            device,
            random,
            LayerNormConfig::new(10).variance(Variance::Unbiased).eps(1e-12),
            "The same, divided by the unbiased variance",
            "The layer that the text writes itself takes torch.var, and eps 1e-12. So it divides by 9 both times, and its result \
             has the unbiased variance 1.",
        )
        .await?,
    ])
}

/// Each row of a small tensor beside the reference.
async fn row_by_row(
    device: &GpuDevice,
    input: Tensor,
    normalized_shape: impl Into<NormalizedShape>,
    text: &str,
) -> Result<Example, Error> {
    let task = Task::plain(LayerNormConfig::new(normalized_shape), input);
    let (output, _) = compute(device, &task).await?;
    let Comparison { exact, largest_error, share_of_bound } = Comparison::new(&task, &output);
    let width = task.width();
    let (input, output) = (task.input.values(), output.values());
    let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let table = |row: usize| {
        let row_of = row * width..(row + 1) * width;
        let (input, output, exact) = (&input[row_of.clone()], &output[row_of.clone()], &exact[row_of]);
        let differences = output.iter().zip(exact).map(|(&y, exact)| (f64::from(y) - exact).abs());
        Table {
            caption: format!("row {row}"),
            lines: vec![
                Line::new("input", 0, wide(input).into_iter()),
                Line::new("GPU", 6, wide(output).into_iter()),
                Line::new("reference", 6, exact.iter().copied()),
                Line::new("difference", None, differences),
            ],
        }
    };
    Ok(Example {
        title: format!("Shape {:?} over {:?}", task.input.shape(), task.config.normalized_shape()),
        text: text.into(),
        tables: (0..exact.len() / width).map(table).collect(),
        largest_error,
        agrees: share_of_bound <= 1.0,
    })
}

/// Means and variances of the rows of a larger tensor, before and after.
async fn statistics(
    device: &GpuDevice,
    input: Tensor,
    config: LayerNormConfig,
    title: &str,
    text: &str,
) -> Result<Example, Error> {
    let task = Task::plain(config, input);
    let (output, _) = compute(device, &task).await?;
    let Comparison { largest_error, share_of_bound, .. } = Comparison::new(&task, &output);
    let width = task.width();
    let table = |when: &str, values: &[f32]| {
        let rows: Vec<_> = values.chunks(width).take(SHOWN).map(mean_and_squares).collect();
        let n = width as f64;
        Table {
            caption: format!("{when}: the first {SHOWN} of {} rows", values.len() / width),
            lines: vec![
                Line::new("mean", 2, rows.iter().map(|&(mean, _)| mean)),
                Line::new("biased variance", 2, rows.iter().map(|&(_, squares)| squares / n)),
                Line::new("unbiased variance", 2, rows.iter().map(|&(_, squares)| squares / (n - 1.0))),
            ],
        }
    };
    Ok(Example {
        title: title.into(),
        text: text.into(),
        tables: vec![table("before", &task.input.values()), table("after", &output.values())],
        largest_error,
        agrees: share_of_bound <= 1.0,
    })
}

/// The mean of a row, and the sum of squared deviations from it.
fn mean_and_squares(row: &[f32]) -> (f64, f64) {
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
    (mean, row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum())
}
