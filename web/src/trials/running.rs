//! Running cases and samples where nothing may block.

use futures_channel::oneshot;
use gpu_layer_norm::kernel::{Plan, Problem};
use gpu_layer_norm::{Affine, Error, GpuDevice, GpuLayerNorm, wgpu};

use super::Outcome;
use super::common::Case;
use super::common::sample::{Sample, Staged, where_it_fits};

/// The output of a case.
pub async fn output(case: &Case, device: &GpuDevice, affine: Affine, plan: Plan) -> Result<Vec<f32>, String> {
    let what = plan.to_string();
    let failed = |error: Error| format!("{what}: {error}");
    Ok(case.start(device, affine, plan).map_err(failed)?.download_async().await.map_err(failed)?.into_values())
}

/// Runs a case, and compares.
pub async fn check(case: &Case, device: &GpuDevice, affine: Affine, plan: Plan) -> Outcome {
    let what = plan.to_string();
    let output = output(case, device, affine, plan).await?;
    case.compare(affine, &output).map(drop).map_err(|error| format!("{what}: {error}"))
}

/// Runs a sample with the plan that it asks for; what it was, and what it leaves.
pub async fn bytes(sample: &Sample, device: &GpuDevice) -> Result<(Staged, Vec<Vec<u8>>), String> {
    bytes_with(sample, device, &sample.layer(device)?, |problem| sample.plan(device, problem)).await
}

async fn bytes_with(
    sample: &Sample,
    device: &GpuDevice,
    layer: &GpuLayerNorm,
    plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
) -> Result<(Staged, Vec<Vec<u8>>), String> {
    let staged = sample.start(device, layer, plan)?;
    let mut after = Vec::new();
    for buffer in &staged.buffers {
        after.push(download(device, buffer).await?);
    }
    Ok((staged, after))
}

/// Runs a sample with a plan of the caller's choice, and compares every byte.
pub async fn check_with(
    sample: &Sample,
    device: &GpuDevice,
    plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
) -> Outcome {
    let (staged, after) = bytes_with(sample, device, &sample.layer(device)?, plan).await?;
    sample.compare(staged, &after)
}

/// Runs a sample, and compares every byte. A device that binds too few buffers for it passes.
pub async fn check_sample(sample: &Sample, device: &GpuDevice) -> Outcome {
    let checked = match bytes(sample, device).await {
        Ok((staged, after)) => sample.compare(staged, &after),
        Err(error) => Err(error),
    };
    where_it_fits(device, checked).map_err(|error| format!("{error}\n{sample:?}"))
}

/// The bytes of a buffer, which must have `COPY_SRC`.
pub async fn download(device: &GpuDevice, buffer: &wgpu::Buffer) -> Result<Vec<u8>, String> {
    let staging = device.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: buffer.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    device.queue().submit([encoder.finish()]);
    let (sender, mapped) = oneshot::channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| drop(sender.send(result)));
    let mapped = mapped.await.map_err(|_| "the download was abandoned")?;
    mapped.map_err(|error| error.to_string())?;
    let bytes = staging.get_mapped_range(..).map_err(|error| error.to_string())?.to_vec();
    staging.unmap();
    Ok(bytes)
}
