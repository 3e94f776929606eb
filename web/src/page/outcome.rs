//! What comes of a task: the values, their error, pictures, and the plan that was run.

use gpu_layer_norm::{Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, Plan, Region, Tensor, wgpu};
use wasm_bindgen::prelude::*;

use super::comparison::Comparison;
use super::heat_map::HeatMap;
use super::task::Task;
use super::words;

/// A result on the GPU beside the f64 reference. Values are in row-major order.
#[wasm_bindgen(getter_with_clone)]
pub struct Outcome {
    pub width: u32,
    /// The input as it was stored.
    pub input: Vec<f32>,
    pub output: Vec<f32>,
    /// What the reference says.
    pub exact: Vec<f64>,
    /// The largest |output − reference|.
    pub largest_error: f64,
    /// The largest error as a part of what the crate's documentation allows that element.
    pub share_of_bound: f64,
    /// Whether every element is within that bound.
    pub agrees: bool,
    /// Whether the input has numbers below 2^-126, which may count as zero on a GPU, so that the bound does not hold.
    pub has_subnormal: bool,
    pub input_map: HeatMap,
    pub output_map: HeatMap,
    /// The plan in words, a sentence or two each.
    pub words: Vec<String>,
    /// The plan as the crate prints it.
    pub plan: String,
    pub kernels: Vec<KernelText>,
}

/// A kernel of a plan.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone)]
pub struct KernelText {
    pub label: String,
    pub wgsl: String,
}

pub(super) async fn run(device: &GpuDevice, task: &Task) -> Result<Outcome, Error> {
    let (output, plan) = compute(device, task).await?;
    let Comparison { exact, largest_error, share_of_bound } = Comparison::new(task, &output);
    let width = task.width();
    let input = task.input.values();
    let is_subnormal = |x: &f32| x.is_subnormal();
    let kernel_text =
        |kernel: &gpu_layer_norm::kernel::Kernel| KernelText { label: kernel.label(), wgsl: kernel.wgsl() };
    let output = output.into_values();
    Ok(Outcome {
        width: width as u32,
        has_subnormal: input.iter().any(is_subnormal),
        input_map: HeatMap::new(&input, width, None),
        output_map: HeatMap::new(&output, width, Some(0.0)),
        input: input.into_owned(),
        output,
        exact,
        largest_error,
        share_of_bound,
        agrees: share_of_bound <= 1.0,
        words: words::of(&plan),
        plan: plan.to_string(),
        kernels: plan.kernels().iter().map(kernel_text).collect(),
    })
}

/// The output, and the plan that was run for it.
pub(super) async fn compute(device: &GpuDevice, task: &Task) -> Result<(Tensor, Plan), Error> {
    let layer = GpuLayerNorm::new(device, &task.config)?;
    if let Some(weight) = &task.weight {
        layer.set_weight(weight)?;
    }
    if let Some(bias) = &task.bias {
        layer.set_bias(bias)?;
    }
    let input = GpuTensor::upload(device, &task.input)?;
    let output = GpuTensor::zeros_as(device, input.shape(), task.config.output_storage_type(input.storage()))?;
    let mut bindings = Bindings::of(&input, &output);
    if let Some(condition) = &task.condition {
        let region = |tensor: &Tensor| {
            let uploaded = GpuTensor::upload(device, tensor)?;
            Ok::<_, Error>(Region::new(uploaded.buffer(), uploaded.storage()))
        };
        bindings = bindings
            .rows_per_condition(condition.rows_per_condition)
            .scale(region(&condition.scale)?)
            .shift(region(&condition.shift)?);
    }
    let prepared = layer.prepare(device, &bindings)?;
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    prepared.encode(&mut encoder);
    device.queue().submit([encoder.finish()]);
    Ok((output.download_async().await?, prepared.plan().clone()))
}
