//! One pre-norm transformer block and the norm after it, forward, all on the GPU in one encoder:
//!
//!     x₁ = x + Attention(LayerNorm(x)),  x₂ = x₁ + MLP(LayerNorm(x₁)),  y = LayerNorm(x₂)
//!
//! The engine has its own device, buffers and kernels; this crate's operations are recorded between them. Each addition to
//! the residual stream is fused with the normalization that follows it, in place. The result is compared with the same block
//! in f64 on the processor.
//!
//!     cargo run --release --example embed_ml
//!
//! wgpu's environment variables WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.

use std::error::Error;

use gpu_layer_norm::wgpu::util::DeviceExt as _;
use gpu_layer_norm::{Bindings, GpuDevice, GpuLayerNorm, LayerNormConfig, Region, StorageType, Tensor, wgpu};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

const TOKENS: usize = 48;
const MODEL: usize = 96;
const HEADS: usize = 4;
const HIDDEN: usize = 4 * MODEL;

fn main() -> Result<(), Box<dyn Error>> {
    // The engine's device, with no more than WebGPU's default limits.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(wgpu::util::initialize_adapter_from_env_or_default(&instance, None))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    println!("adapter: {} ({:?})", adapter.get_info().name, adapter.get_info().backend);

    let mut rng = StdRng::seed_from_u64(1706);
    let mut random = |count: usize, std: f32| -> Vec<f32> {
        (0..count).map(|_| std * rng.sample::<f32, _>(StandardNormal)).collect()
    };
    let model = Model {
        x: random(TOKENS * MODEL, 1.0),
        qkv: random(MODEL * 3 * MODEL, 0.1),
        projection: random(MODEL * MODEL, 0.1),
        up: random(MODEL * HIDDEN, 0.1),
        down: random(HIDDEN * MODEL, 0.05),
        norms: [(); 3].map(|()| (random(MODEL, 0.2).iter().map(|w| 1.0 + w).collect(), random(MODEL, 0.2))),
    };

    // Kernels of the engine's own.
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("transformer"),
        source: wgpu::ShaderSource::Wgsl(include_str!("embed_ml.wgsl").into()),
    });
    let engine = Engine { device: &device, module };
    let buffer = |values: &[f32]| {
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("engine"),
            contents: bytemuck::cast_slice(values),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        })
    };
    let stream = buffer(&model.x);
    let normalized = buffer(&vec![0.0; TOKENS * MODEL]);
    let heads = buffer(&vec![0.0; TOKENS * 3 * MODEL]);
    let attended = buffer(&vec![0.0; TOKENS * MODEL]);
    let added = buffer(&vec![0.0; TOKENS * MODEL]);
    let hidden = buffer(&vec![0.0; TOKENS * HIDDEN]);
    let qkv = engine.step("matmul", [TOKENS, MODEL, 3 * MODEL], &normalized, &buffer(&model.qkv), &heads);
    let attention = engine.step("causal_attention", [TOKENS, 0, MODEL], &heads, &stream, &attended);
    let projection = engine.step("matmul", [TOKENS, MODEL, MODEL], &attended, &buffer(&model.projection), &added);
    let up = engine.step("matmul_gelu", [TOKENS, MODEL, HIDDEN], &normalized, &buffer(&model.up), &hidden);
    let down = engine.step("matmul", [TOKENS, HIDDEN, MODEL], &hidden, &buffer(&model.down), &added);

    // This crate on the engine's device: three norms, the latter two with the residual.
    let gpu = GpuDevice::from_wgpu(adapter, device.clone(), queue.clone())?;
    let region = |buffer: &wgpu::Buffer| Region::new(buffer, StorageType::F32);
    let layers = model.norms.iter().map(|(weight, bias)| {
        let layer = GpuLayerNorm::new(&gpu, &LayerNormConfig::new(MODEL))?;
        layer.set_weight(&Tensor::from_f32([MODEL], weight.clone())?)?;
        layer.set_bias(&Tensor::from_f32([MODEL], bias.clone())?)?;
        Ok(layer)
    });
    let layers = layers.collect::<Result<Vec<_>, gpu_layer_norm::Error>>()?;
    let rows = TOKENS as u64;
    let plain = Bindings::new(rows, region(&stream), region(&normalized));
    // stream += added; normalized = LayerNorm(stream)
    let fused = Bindings::new(rows, region(&added), region(&normalized)).residual(region(&stream)).sum(region(&stream));
    let first = layers[0].prepare(&gpu, &plain)?;
    let second = layers[1].prepare(&gpu, &fused)?;
    let last = layers[2].prepare(&gpu, &fused)?;
    println!("{}", last.plan());

    // One encoder, one pass, one submission.
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        first.encode_pass(&mut pass);
        qkv.encode(&mut pass);
        attention.encode(&mut pass);
        projection.encode(&mut pass);
        second.encode_pass(&mut pass);
        up.encode(&mut pass);
        down.encode(&mut pass);
        last.encode_pass(&mut pass);
    }
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("engine"),
        size: normalized.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    encoder.copy_buffer_to_buffer(&normalized, 0, &staging, 0, normalized.size());
    queue.submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |_| {});
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let view = staging.get_mapped_range(..)?;
    let output: &[f32] = bytemuck::cast_slice(&view);

    let exact = model.forward();
    let worst = output.iter().zip(&exact).map(|(y, exact)| (f64::from(*y) - exact).abs()).fold(0.0, f64::max);
    println!("{TOKENS} tokens of {MODEL}, {HEADS} heads: largest difference from the f64 block {worst:.1e}");
    if output.iter().any(|y| y.is_nan()) || worst > 1e-5 {
        return Err("that is more than f32 sums explain".into());
    }
    Ok(())
}

/// The engine's way to run a kernel.
struct Engine<'a> {
    device: &'a wgpu::Device,
    module: wgpu::ShaderModule,
}

struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Engine<'_> {
    fn step(
        &self,
        entry_point: &str,
        [rows, inner, columns]: [usize; 3],
        left: &wgpu::Buffer,
        right: &wgpu::Buffer,
        result: &wgpu::Buffer,
    ) -> Step {
        let shape = [rows, inner, columns, HEADS].map(|size| size as u32);
        let shape = self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some(entry_point),
            contents: bytemuck::cast_slice(&shape),
            usage: wgpu::BufferUsages::UNIFORM,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry_point),
            layout: None,
            module: &self.module,
            entry_point: Some(entry_point),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let mut entries = vec![(0, &shape), (1, left), (3, result)];
        if entry_point != "causal_attention" {
            entries.push((2, right));
        }
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry_point),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Step { pipeline, bind_group, workgroups: [columns.div_ceil(8) as u32, rows.div_ceil(8) as u32] }
    }
}

impl Step {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}

/// The block, with its forward pass in f64.
struct Model {
    x: Vec<f32>,
    qkv: Vec<f32>,
    projection: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
    /// Weight and bias.
    norms: [(Vec<f32>, Vec<f32>); 3],
}

impl Model {
    fn forward(&self) -> Vec<f64> {
        let mut stream: Vec<f64> = self.x.iter().map(|&x| x.into()).collect();
        let heads = matmul(&self.norm(0, &stream), &self.qkv, MODEL, 3 * MODEL);
        add(&mut stream, &matmul(&causal_attention(&heads), &self.projection, MODEL, MODEL));
        let hidden = matmul(&self.norm(1, &stream), &self.up, MODEL, HIDDEN);
        let hidden: Vec<f64> = hidden.into_iter().map(gelu).collect();
        add(&mut stream, &matmul(&hidden, &self.down, HIDDEN, MODEL));
        self.norm(2, &stream)
    }

    fn norm(&self, which: usize, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = &self.norms[which];
        let mut output = Vec::with_capacity(x.len());
        for row in x.chunks(MODEL) {
            let mean = row.iter().sum::<f64>() / MODEL as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / MODEL as f64;
            let affine = |i: usize, x: f64| x * f64::from(weight[i]) + f64::from(bias[i]);
            output.extend(row.iter().enumerate().map(|(i, x)| affine(i, (x - mean) / (variance + 1e-5).sqrt())));
        }
        output
    }
}

fn matmul(left: &[f64], right: &[f32], inner: usize, columns: usize) -> Vec<f64> {
    let element = |row: &[f64], column: usize| {
        row.iter().enumerate().map(|(i, x)| x * f64::from(right[i * columns + column])).sum::<f64>()
    };
    left.chunks(inner).flat_map(|row| (0..columns).map(move |column| element(row, column))).collect()
}

fn causal_attention(heads: &[f64]) -> Vec<f64> {
    let size = MODEL / HEADS;
    let part = |token: usize, which: usize, column: usize| heads[(token * 3 + which) * MODEL + column];
    let mut output = Vec::with_capacity(TOKENS * MODEL);
    for token in 0..TOKENS {
        for column in 0..MODEL {
            let first = column / size * size;
            let score = |other| -> f64 {
                (first..first + size).map(|i| part(token, 0, i) * part(other, 1, i)).sum::<f64>() / (size as f64).sqrt()
            };
            let scores: Vec<f64> = (0..=token).map(|other| score(other).exp()).collect();
            let sum: f64 = scores.iter().enumerate().map(|(other, share)| share * part(other, 2, column)).sum();
            output.push(sum / scores.iter().sum::<f64>());
        }
    }
    output
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

fn add(stream: &mut [f64], branch: &[f64]) {
    stream.iter_mut().zip(branch).for_each(|(x, y)| *x += y);
}
