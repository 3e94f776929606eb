//! Plans run by bare wgpu calls, with shaders of the caller's choice in place of their kernels'.

use gpu_layer_norm::kernel::{Binding, BindingRole, ENTRY_POINT, Kernel, Plan, Role};
use gpu_layer_norm::{GpuDevice, wgpu};

#[cfg(not(target_arch = "wasm32"))]
use super::sample::download;
use super::sample::upload;

/// Runs a plan of one chunk; the tensors' bytes by role, before and after.
///
/// # Panics
/// As [`start`].
#[cfg(not(target_arch = "wasm32"))]
pub fn run(
    device: &GpuDevice,
    plan: &Plan,
    shader: impl Fn(&Kernel) -> wgpu::ShaderSource<'static>,
    tensors: &mut [(Role, Vec<u8>)],
) {
    let buffers = start(device, plan, shader, tensors);
    for ((_, bytes), buffer) in tensors.iter_mut().zip(&buffers) {
        *bytes = download(device, buffer);
    }
}

/// Submits a plan of one chunk; takes the tensors' bytes by role, and gives their buffers. Scratch memory is full of NaNs at first.
///
/// # Panics
/// If the plan has another number of chunks, or binds a tensor that is not there.
pub fn start(
    device: &GpuDevice,
    plan: &Plan,
    shader: impl Fn(&Kernel) -> wgpu::ShaderSource<'static>,
    tensors: &[(Role, Vec<u8>)],
) -> Vec<wgpu::Buffer> {
    let gpu = device.device();
    let [chunk] = plan.chunks() else { panic!("{plan} has one chunk") };
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let buffers: Vec<_> = tensors.iter().map(|(role, bytes)| (*role, upload(device, usage, bytes))).collect();
    let scratch = plan.scratch().iter();
    let scratch: Vec<_> =
        scratch.map(|(role, bytes)| (*role, upload(device, usage, &vec![0xff; *bytes as usize]))).collect();
    for dispatch in &chunk.dispatches {
        let kernel = &plan.kernels()[dispatch.kernel];
        let module = gpu.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source: shader(kernel) });
        // Not what the shader uses: one that was altered may use less.
        let entries: Vec<_> = kernel.bindings().iter().map(layout_entry).collect();
        let layout = gpu.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipeline_layout = gpu.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(ENTRY_POINT),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let params = upload(device, wgpu::BufferUsages::UNIFORM, bytemuck::bytes_of(&dispatch.params));
        let entries: Vec<_> = kernel
            .bindings()
            .iter()
            .map(|binding| {
                let left = scratch.iter().find(|(role, _)| *role == binding.role);
                let resource = match (left, binding.role) {
                    (Some((_, buffer)), _) => buffer.as_entire_binding(),
                    (None, BindingRole::Params) => params.as_entire_binding(),
                    (None, BindingRole::Tensor(role)) => {
                        let (_, buffer) = buffers.iter().find(|(other, _)| *other == role).expect("a buffer");
                        let offset = chunk.bytes(role).expect("a tensor of the plan").start;
                        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: None })
                    }
                    (None, role) => panic!("no buffer for {role:?}"),
                };
                wgpu::BindGroupEntry { binding: binding.role.binding(), resource }
            })
            .collect();
        let bind_group =
            gpu.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
        let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
        }
        device.queue().submit([encoder.finish()]);
    }
    buffers.into_iter().map(|(_, buffer)| buffer).collect()
}

fn layout_entry(binding: &Binding) -> wgpu::BindGroupLayoutEntry {
    let ty = match binding.role {
        BindingRole::Params => wgpu::BufferBindingType::Uniform,
        _ => wgpu::BufferBindingType::Storage { read_only: !binding.writable },
    };
    wgpu::BindGroupLayoutEntry {
        binding: binding.role.binding(),
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// A kernel's own WGSL, or one made of it.
pub fn wgsl(text: String) -> wgpu::ShaderSource<'static> {
    wgpu::ShaderSource::Wgsl(text.into())
}
