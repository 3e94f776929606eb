use std::borrow::Cow;
use std::collections::HashMap;

use super::GpuDevice;
use crate::Error;
use crate::kernel::{Binding, BindingRole, ENTRY_POINT, Kernel, Params};

/// Compiled kernels. The key is the whole variant, so two kernels that differ in anything never share a pipeline.
pub(crate) type Pipelines = HashMap<Kernel, Pipeline>;

/// A compiled kernel and the layout of its bind group.
#[derive(Clone)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

impl GpuDevice {
    /// The pipeline of this kernel, compiled if it is new.
    pub(crate) fn pipeline(&self, kernel: &Kernel) -> Result<Pipeline, Error> {
        if let Some(pipeline) = self.pipelines().get(kernel) {
            return Ok(pipeline.clone());
        }
        // Not under the lock: wgpu may run a callback of the caller's meanwhile, and that may use this device.
        let pipeline = self.scoped("the compiling of a kernel", 0, |device| compile(device, kernel))?;
        Ok(self.pipelines().entry(*kernel).or_insert(pipeline).clone())
    }
}

fn compile(device: &wgpu::Device, kernel: &Kernel) -> Pipeline {
    let label = kernel.label();
    let entries: Vec<_> = kernel.bindings().into_iter().map(layout_entry).collect();
    let layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(&label),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(&label),
        source: wgpu::ShaderSource::Wgsl(Cow::Owned(kernel.wgsl())),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(ENTRY_POINT),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    Pipeline { pipeline, layout }
}

fn layout_entry(binding: Binding) -> wgpu::BindGroupLayoutEntry {
    let (ty, size) = match binding.role {
        BindingRole::Params => (wgpu::BufferBindingType::Uniform, wgpu::BufferSize::new(Params::SIZE)),
        _ => (wgpu::BufferBindingType::Storage { read_only: !binding.writable }, None),
    };
    wgpu::BindGroupLayoutEntry {
        binding: binding.role.binding(),
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: size },
        count: None,
    }
}
