//! The middle of a diffusion transformer's block (Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023), where the
//! residual stream takes up the attention's output and what goes to the MLP is normalized, in one pass over an engine's own buffers:
//!
//!     stream = stream + gate · attention,   y = LayerNorm(stream) · (1 + scale) + shift
//!
//! Gate, scale and shift come from each image's time step and label; all tokens of an image share them. The result is compared with
//! the same in f64 on the processor.
//!
//!     cargo run --release --example adaptive
//!
//! wgpu's environment variables WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.

use std::error::Error;

use gpu_layer_norm::reference::{Condition, gated_residual, modulated_layer_norm};
use gpu_layer_norm::wgpu::util::DeviceExt as _;
use gpu_layer_norm::{
    Affine, Bindings, GpuDevice, GpuLayerNorm, LayerNormConfig, Modulation, Region, StorageType, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

const IMAGES: usize = 4;
const TOKENS: usize = 64;
const MODEL: usize = 384;
/// What the engine's own kernels make of an image's time step and label: `MODEL` elements of each, one after another.
const MODULATION: [&str; 6] = ["shift_msa", "scale_msa", "gate_msa", "shift_mlp", "scale_mlp", "gate_mlp"];

fn main() -> Result<(), Box<dyn Error>> {
    // The engine's device, with no more than WebGPU's default limits.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(wgpu::util::initialize_adapter_from_env_or_default(&instance, None))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    println!("adapter: {} ({:?})", adapter.get_info().name, adapter.get_info().backend);

    let mut rng = StdRng::seed_from_u64(2212);
    let mut random = |count: usize, std: f32| -> Vec<f32> {
        (0..count).map(|_| std * rng.sample::<f32, _>(StandardNormal)).collect()
    };
    let elements = IMAGES * TOKENS * MODEL;
    let (stream, attention) = (random(elements, 1.0), random(elements, 1.0));
    let modulation = random(IMAGES * MODULATION.len() * MODEL, 0.5);
    let buffer = |values: &[f32]| {
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("engine"),
            contents: bytemuck::cast_slice(values),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        })
    };
    let [stream_buffer, attention_buffer, modulation_buffer] = [&stream, &attention, &modulation].map(|it| buffer(it));
    let normalized_buffer = buffer(&vec![0.0; elements]);

    // This crate on the engine's device. Such a block's norms have no weight and no bias of their own.
    let gpu = GpuDevice::from_wgpu(adapter, device.clone(), queue.clone())?;
    let layer = GpuLayerNorm::new(&gpu, &LayerNormConfig::new(MODEL).affine(Affine::None).eps(1e-6))?;
    let region = |buffer: &wgpu::Buffer| Region::new(buffer, StorageType::F32);
    // A row for each image, the others' elements between.
    let of_image = |i: u64| {
        let row = (MODULATION.len() * MODEL) as u64;
        region(&modulation_buffer).offset(i * MODEL as u64).row_stride(row)
    };
    let rows = (IMAGES * TOKENS) as u64;
    let bindings = Bindings::new(rows, region(&attention_buffer), region(&normalized_buffer))
        .residual(region(&stream_buffer))
        .sum(region(&stream_buffer))
        .gate(of_image(2))
        .shift(of_image(3))
        .scale(of_image(4))
        .rows_per_condition(TOKENS as u64);
    let prepared = layer.prepare(&gpu, &bindings)?;
    println!("{}", prepared.plan());

    // Recorded into the engine's encoder, which may be done in every step of the diffusion.
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    prepared.encode(&mut encoder);
    let staging = [&stream_buffer, &normalized_buffer].map(|buffer| {
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("engine"),
            size: buffer.size(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        staging
    });
    queue.submit([encoder.finish()]);
    for staging in &staging {
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
    }
    device.poll(wgpu::PollType::wait_indefinitely())?;

    // The same in f64.
    let of_images = |i: usize| -> Vec<f64> {
        let image = |image: &[f32]| image[i * MODEL..(i + 1) * MODEL].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        modulation.chunks(MODULATION.len() * MODEL).flat_map(image).collect()
    };
    let [stream, attention] =
        [&stream, &attention].map(|values| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    let sum = gated_residual(&attention, &stream, &of_images(2), MODEL, TOKENS);
    let (shift, scale) = (of_images(3), of_images(4));
    let condition = Condition {
        modulation: Modulation::Adaptive,
        rows_per_condition: TOKENS,
        scale: Some(&scale[..]),
        shift: Some(&shift[..]),
    };
    let normalized = modulated_layer_norm(&sum, MODEL, None, None, &condition, 1e-6, false);

    for (what, staging, exact) in [("stream", &staging[0], &sum), ("normalized", &staging[1], &normalized)] {
        let view = staging.get_mapped_range(..)?;
        let found: &[f32] = bytemuck::cast_slice(&view);
        let worst = found.iter().zip(exact).map(|(y, exact)| (f64::from(*y) - exact).abs()).fold(0.0, f64::max);
        println!("{what}: {IMAGES} × {TOKENS} × {MODEL}, largest difference from f64 {worst:.1e}");
        if found.iter().any(|y| y.is_nan()) || worst > 1e-5 {
            return Err("that is more than f32 explains".into());
        }
    }
    Ok(())
}
