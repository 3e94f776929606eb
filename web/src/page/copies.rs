//! Copies, which the benchmark sets the kernels beside.

use gpu_layer_norm::{GpuDevice, wgpu};

use super::benchmark::Work;

/// A copy of the beginning of one buffer to another.
pub(super) struct CopyKernel {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: (u32, u32),
}

impl CopyKernel {
    /// Ways to copy, of which the fastest counts: invocations of a workgroup, and vectors of an invocation. Which that is differs by
    /// adapter.
    pub(super) const VARIANTS: [(u32, u32); 5] = [(256, 1), (256, 4), (256, 16), (64, 1), (64, 4)];

    pub(super) fn new(
        device: &GpuDevice,
        source: &wgpu::Buffer,
        target: &wgpu::Buffer,
        bytes: u64,
        (size, turns): (u32, u32),
    ) -> Self {
        let gpu = device.device();
        let count = (bytes / 16).max(1);
        let workgroups = count.div_ceil(u64::from(size * turns)) as u32;
        let x = workgroups.min(device.capabilities().max_workgroups_per_dimension);
        let constants =
            [("SIZE", u64::from(size)), ("TURNS", turns.into()), ("COUNT", count), ("WORKGROUPS_X", x.into())];
        let constants: String = constants.iter().map(|(name, value)| format!("const {name} = {value}u;\n")).collect();
        let wgsl = constants + include_str!("copies.wgsl");
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some("copy"), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        let module = gpu.create_shader_module(descriptor);
        let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("copy"),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let entry = |(binding, buffer)| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: 0,
                size: wgpu::BufferSize::new(count * 16),
            }),
        };
        let bind_group = gpu.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("copy"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[(0, source), (1, target)].map(entry),
        });
        Self { pipeline, bind_group, workgroups: (x, workgroups.div_ceil(x)) }
    }
}

impl Work for CopyKernel {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.workgroups.0, self.workgroups.1, 1);
    }
}
