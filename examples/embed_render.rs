//! A headless frame in one encoder: a compute pass writes a height field, a render pass draws it, this crate normalizes its
//! tiles in place, a render pass draws it again. Saved as PNG, before and after.
//!
//!     cargo run --release --example embed_render [FOLDER]
//!
//! wgpu's environment variables WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.
//!
//! A tile of 64 × 64 heights is a row. Normalized, every tile has mean 0 and deviation 1, so that flat land shows as much
//! as mountains: local contrast normalization.

use std::error::Error;
use std::path::{Path, PathBuf};

use gpu_layer_norm::wgpu::util::DeviceExt as _;
use gpu_layer_norm::{
    Affine, Bindings, GpuDevice, GpuLayerNorm, LayerNormConfig, Region, StorageType, reference, wgpu,
};

const SIZE: u32 = 512;
const TILE: u32 = 64;
const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8UnormSrgb;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    // The renderer's device, with no more than WebGPU's default limits.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(wgpu::util::initialize_adapter_from_env_or_default(&instance, None))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    println!("adapter: {} ({:?})", adapter.get_info().name, adapter.get_info().backend);

    let renderer = Renderer::new(&device);
    let gpu = GpuDevice::from_wgpu(adapter, device.clone(), queue.clone())?;
    let layer = GpuLayerNorm::new(&gpu, &LayerNormConfig::new([TILE as usize; 2]).affine(Affine::None))?;
    let tiles = Region::new(&renderer.heights, StorageType::F32);
    let normalize = layer.prepare(&gpu, &Bindings::new(u64::from((SIZE / TILE).pow(2)), tiles.clone(), tiles))?;
    println!("{}", normalize.plan());

    // The frame.
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    renderer.write_heights(&mut encoder);
    let raw = renderer.copy(&mut encoder, &renderer.heights);
    let before = renderer.draw(&mut encoder, [700.0, 1300.0]);
    normalize.encode(&mut encoder);
    let normalized = renderer.copy(&mut encoder, &renderer.heights);
    let after = renderer.draw(&mut encoder, [-2.5, 2.5]);
    queue.submit([encoder.finish()]);

    let read = |buffer: &wgpu::Buffer| -> Result<Vec<u8>, Box<dyn Error>> {
        buffer.map_async(wgpu::MapMode::Read, .., |_| {});
        device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(buffer.get_mapped_range(..)?.to_vec())
    };
    for (name, picture) in [("embed_render_before.png", before), ("embed_render_after.png", after)] {
        let path = folder.join(name);
        save(&path, &read(&picture)?)?;
        println!("{}", path.display());
    }
    let (raw, normalized) = (read(&raw)?, read(&normalized)?);
    let exact = reference::layer_norm::<f32>(bytemuck::cast_slice(&raw), TILE.pow(2) as usize, None, None, 1e-5, false);
    let heights: &[f32] = bytemuck::cast_slice(&normalized);
    let worst = heights.iter().zip(&exact).map(|(y, exact)| (f64::from(*y) - exact).abs()).fold(0.0, f64::max);
    println!("largest difference of a height from the f64 reference {worst:.1e}");
    if heights.iter().any(|y| y.is_nan()) || worst > 1e-6 {
        return Err("that is too far off".into());
    }
    Ok(())
}

/// The renderer that embeds.
struct Renderer {
    device: wgpu::Device,
    heights: wgpu::Buffer,
    compute: wgpu::ComputePipeline,
    compute_bindings: wgpu::BindGroup,
    render: wgpu::RenderPipeline,
}

impl Renderer {
    fn new(device: &wgpu::Device) -> Self {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("height field"),
            source: wgpu::ShaderSource::Wgsl(include_str!("embed_render.wgsl").into()),
        });
        let heights = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("heights"),
            size: u64::from(SIZE * SIZE * 4),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("heights"),
            layout: None,
            module: &module,
            entry_point: Some("heights"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let compute_bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("heights"),
            layout: &compute.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: heights.as_entire_binding() }],
        });
        let render = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("picture"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("corner"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                buffers: &[],
            },
            primitive: wgpu::PrimitiveState::default(),
            depth_stencil: None,
            multisample: wgpu::MultisampleState::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("shade"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                targets: &[Some(FORMAT.into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        Self { device: device.clone(), heights, compute, compute_bindings, render }
    }

    fn write_heights(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.compute);
        pass.set_bind_group(0, &self.compute_bindings, &[]);
        pass.dispatch_workgroups(SIZE / 8, SIZE / 8, 1);
    }

    /// A buffer to read, with a copy of this one.
    fn copy(&self, encoder: &mut wgpu::CommandEncoder, buffer: &wgpu::Buffer) -> wgpu::Buffer {
        let copy = self.readable(buffer.size());
        encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, buffer.size());
        copy
    }

    fn readable(&self, size: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("to be read"),
            size,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        })
    }

    /// Draws the heights; those of `range` go from black to white. The pixels end up in a buffer to read.
    fn draw(&self, encoder: &mut wgpu::CommandEncoder, range: [f32; 2]) -> wgpu::Buffer {
        let size = wgpu::Extent3d { width: SIZE, height: SIZE, depth_or_array_layers: 1 };
        let texture = self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("picture"),
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: FORMAT,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let range = self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("range"),
            contents: bytemuck::cast_slice(&[range[0], range[1], 0.0, 0.0]),
            usage: wgpu::BufferUsages::UNIFORM,
        });
        let bindings = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("picture"),
            layout: &self.render.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 1, resource: self.heights.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 2, resource: range.as_entire_binding() },
            ],
        });
        {
            let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
            let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
                label: Some("picture"),
                color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                    view: &view,
                    depth_slice: None,
                    resolve_target: None,
                    ops: wgpu::Operations {
                        load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                        store: wgpu::StoreOp::Store,
                    },
                })],
                ..Default::default()
            });
            pass.set_pipeline(&self.render);
            pass.set_bind_group(0, &bindings, &[]);
            pass.draw(0..3, 0..1);
        }
        let pixels = self.readable(u64::from(SIZE * SIZE * 4));
        encoder.copy_texture_to_buffer(
            texture.as_image_copy(),
            wgpu::TexelCopyBufferInfo {
                buffer: &pixels,
                layout: wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(SIZE * 4), rows_per_image: None },
            },
            size,
        );
        pixels
    }
}

fn save(path: &Path, pixels: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut encoder = png::Encoder::new(std::io::BufWriter::new(std::fs::File::create(path)?), SIZE, SIZE);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(())
}
