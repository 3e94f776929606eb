//! The floor: copies of the same bytes.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use gpu_layer_norm::{GpuDevice, wgpu};

use super::stopwatch::Work;

/// A copy of the beginning of one buffer to another, or of the exclusive or of several.
pub(super) struct Copy {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: (u32, u32),
}

impl Copy {
    /// The ways to copy that are tried, invocations of a workgroup and vectors of an invocation; which is fastest differs by
    /// adapter.
    pub(super) const VARIANTS: [(u32, u32); 7] = [(256, 1), (256, 4), (256, 16), (64, 1), (64, 4), (512, 4), (1024, 2)];

    pub(super) fn new(
        device: &GpuDevice,
        sources: &[&wgpu::Buffer],
        target: &wgpu::Buffer,
        bytes: u64,
        (size, turns): (u32, u32),
    ) -> Self {
        let gpu = device.device();
        let count = bytes / 16;
        let workgroups = count.div_ceil(u64::from(size * turns)) as u32;
        let x = workgroups.clamp(1, device.capabilities().max_workgroups_per_dimension);
        let declarations: Vec<_> = (0..sources.len())
            .map(|i| format!("@group(0) @binding({}) var<storage, read> source_{i}: array<vec4<u32>>;", i + 1))
            .collect();
        let vectors: Vec<_> = (0..sources.len()).map(|i| format!("source_{i}[i]")).collect();
        let wgsl = format!(
            "const SIZE: u32 = {size}u;\nconst TURNS: u32 = {turns}u;\nconst COUNT: u32 = {count}u;\n\
             const WORKGROUPS_X: u32 = {x}u;\n{}\nfn source(i: u32) -> vec4<u32> {{ return {}; }}\n{}",
            declarations.join("\n"),
            vectors.join(" ^ "),
            include_str!("copy.wgsl")
        );
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some("copy"), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        // Safety: no index reaches COUNT, and loops end. The kernels do without the checks too.
        let module = unsafe { gpu.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
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
                size: wgpu::BufferSize::new(count.max(1) * 16),
            }),
        };
        let entries: Vec<_> = (0..).zip([target].into_iter().chain(sources.iter().copied())).map(entry).collect();
        let bind_group = gpu.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("copy"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Self { pipeline, bind_group, workgroups: (x, workgroups.div_ceil(x)) }
    }
}

/// The copies that move as many bytes as a case does.
pub struct Copies(pub(super) Vec<Copy>);

impl Work for Copies {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        for copy in &self.0 {
            pass.set_pipeline(&copy.pipeline);
            pass.set_bind_group(0, &copy.bind_group, &[]);
            pass.dispatch_workgroups(copy.workgroups.0, copy.workgroups.1, 1);
        }
    }
}
