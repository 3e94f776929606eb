//! For engines with a dispatcher of their own: a plan, run by bare wgpu calls. Nothing of this crate's gpu layer is used; in
//! place of wgpu there might be JavaScript, or Vulkan with the WGSL translated.
//!
//!     cargo run --release --example embed_plan
//!
//! wgpu's environment variables WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.

use std::collections::HashMap;
use std::error::Error;

use gpu_layer_norm::half::bf16;
use gpu_layer_norm::kernel::{AdapterClass, BindingRole, Capabilities, Layout, Params, Plan, Problem, Role};
use gpu_layer_norm::wgpu::util::DeviceExt as _;
use gpu_layer_norm::{Affine, StorageType, reference, wgpu};

fn main() -> Result<(), Box<dyn Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(wgpu::util::initialize_adapter_from_env_or_default(&instance, None))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    println!("adapter: {} ({:?})", adapter.get_info().name, adapter.get_info().backend);

    // What is to be computed: bf16 in, f32 parameters, f16 out, and the rstd of every row.
    let (rows, width) = (300_usize, 1000_usize);
    let f32s = Layout::new(StorageType::F32);
    let problem = Problem::new(rows as u64, width as u64)?
        .affine(Affine::Weight)
        .tensor(Role::Input, Layout::new(StorageType::Bf16))?
        .tensor(Role::Weight, f32s)?
        .tensor(Role::Output, Layout::new(StorageType::F16))?
        .tensor(Role::Rstd, f32s)?;
    // What the device offers: here the limits that it was made with.
    let limits = device.limits();
    let capabilities = Capabilities {
        class: match adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterClass::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterClass::Integrated,
            wgpu::DeviceType::Cpu => AdapterClass::Cpu,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => AdapterClass::Other,
        },
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        storage_offset_alignment: limits.min_storage_buffer_offset_alignment,
        ..Capabilities::webgpu_baseline()
    };
    let plan = Plan::new(&problem, &capabilities)?;
    println!("{plan}");

    // The engine's own buffers.
    let values: Vec<bf16> =
        (0..rows * width).map(|i| bf16::from_f32(((i * i) % 977) as f32 / 100.0 - (i / width) as f32)).collect();
    let weight: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / width as f32).collect();
    let buffer = |contents: &[u8]| {
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        })
    };
    let tensors = HashMap::from([
        (Role::Input, buffer(bytemuck::cast_slice(&values))),
        (Role::Weight, buffer(bytemuck::cast_slice(&weight))),
        (Role::Output, buffer(&vec![0; rows * width * 2])),
        (Role::Rstd, buffer(&vec![0; rows * 4])),
    ]);
    // What one pass leaves for the next; none where there is one pass.
    let scratch: HashMap<_, _> =
        plan.scratch().iter().map(|&(role, bytes)| (role, buffer(&vec![0; bytes as usize]))).collect();

    // A pipeline for each kernel. The layout follows from the WGSL; `Kernel::bindings` says the same without parsing it.
    let pipelines: Vec<_> = plan
        .kernels()
        .iter()
        .map(|kernel| {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&kernel.label()),
                source: wgpu::ShaderSource::Wgsl(kernel.wgsl().into()),
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&kernel.label()),
                layout: None,
                module: &module,
                entry_point: Some(gpu_layer_norm::kernel::ENTRY_POINT),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // The kernels write workgroup memory before they read it. With zeros in it, FXC (DX12) takes ten times as long.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            })
        })
        .collect();

    // Each chunk's dispatches, one after the other.
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for chunk in plan.chunks() {
        for dispatch in &chunk.dispatches {
            let params = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: None,
                contents: bytemuck::bytes_of::<Params>(&dispatch.params),
                usage: wgpu::BufferUsages::UNIFORM,
            });
            let resource = |role: BindingRole| match role {
                BindingRole::Params => params.as_entire_binding(),
                role if scratch.contains_key(&role) => scratch[&role].as_entire_binding(),
                BindingRole::Tensor(role) => {
                    let bytes = chunk.bytes(role).expect("a kernel binds tensors of the problem");
                    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &tensors[&role],
                        offset: bytes.start,
                        size: wgpu::BufferSize::new(bytes.end - bytes.start),
                    })
                }
                other => unreachable!("{other:?} is in the plan's scratch"),
            };
            let bindings = plan.kernels()[dispatch.kernel].bindings();
            let entries: Vec<_> = bindings
                .iter()
                .map(|binding| wgpu::BindGroupEntry {
                    binding: binding.role.binding(),
                    resource: resource(binding.role),
                })
                .collect();
            let pipeline = &pipelines[dispatch.kernel];
            let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
        }
    }
    let output = read(&device, &queue, encoder, &tensors[&Role::Output]);

    let output: Vec<f32> = output
        .chunks_exact(2)
        .map(|bytes| gpu_layer_norm::half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32())
        .collect();
    let input: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
    let exact = reference::layer_norm(&input, width, Some(&weight), None, 1e-5, false);
    let worst = output.iter().zip(&exact).map(|(y, exact)| (f64::from(*y) - exact).abs()).fold(0.0, f64::max);
    println!("largest difference from the f64 reference {worst:.1e}; f16 numbers near 2 lie 2.0e-3 apart");
    if output.iter().any(|y| y.is_nan()) || worst > 2e-3 {
        return Err("that is too far off".into());
    }
    Ok(())
}

/// Submits, and reads a buffer back.
fn read(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    mut encoder: wgpu::CommandEncoder,
    buffer: &wgpu::Buffer,
) -> Vec<u8> {
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: buffer.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    queue.submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |_| {});
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
    staging.get_mapped_range(..).expect("mapped").to_vec()
}
