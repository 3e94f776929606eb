use std::borrow::Cow;
use std::collections::HashMap;

use super::GpuDevice;
use crate::Error;
use crate::kernel::{ARGUMENTS_WGSL, BindingRole, ENTRY_POINT, Kernel, Params};

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
        let bindings = kernel.bindings().into_iter().map(|binding| match binding.role {
            BindingRole::Params => uniform(binding.role.binding(), Params::SIZE),
            role => storage(role.binding(), !binding.writable),
        });
        let pipeline = self.compile(&kernel.label(), kernel.wgsl(), &bindings.collect::<Vec<_>>())?;
        Ok(self.pipelines().entry(*kernel).or_insert(pipeline).clone())
    }

    /// The kernel that fits dispatches to a row count, compiled if it is new.
    pub(crate) fn arguments_pipeline(&self) -> Result<Pipeline, Error> {
        if let Some(pipeline) = self.arguments().get() {
            return Ok(pipeline.clone());
        }
        let bindings = [uniform(0, 16), storage(1, true), storage(2, false), storage(3, false)];
        let pipeline = self.compile("row count", ARGUMENTS_WGSL.into(), &bindings)?;
        Ok(self.arguments().get_or_init(|| pipeline).clone())
    }

    // Not to be called under the lock of the pipelines: wgpu may run a callback of the caller's meanwhile, and that may use
    // this device.
    fn compile(&self, label: &str, wgsl: String, bindings: &[wgpu::BindGroupLayoutEntry]) -> Result<Pipeline, Error> {
        let label = Some(label);
        self.scoped("the compiling of a kernel", 0, |device| {
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: bindings });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let source = wgpu::ShaderSource::Wgsl(Cow::Owned(wgsl));
            let descriptor = wgpu::ShaderModuleDescriptor { label, source };
            // Safety: the kernels are this crate's own, and do nothing that the checks would prevent.
            // - Bounds. A span index is below `params.spans` (`span_select` takes the least), a unit's below the span's units
            //   (`in_span`), so an access is within the rows of the chunk, and those are within the bound part of every
            //   buffer: the host has checked that (`Bindings::check`, `chunk`, and a test of every plan in
            //   `tests/kernel.rs`). Nothing outside this crate can write the parameters or the partials; a row count on the
            //   device can only lower them. Arrays in workgroup memory are indexed by local index, which is below their
            //   length.
            // - Division. Divisors are constants of at least 1, or counts of elements.
            let module = unsafe { device.create_shader_module_trusted(descriptor, self.shader_checks()) };
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(ENTRY_POINT),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            Pipeline { pipeline, layout }
        })
    }
}

fn uniform(binding: u32, size: u64) -> wgpu::BindGroupLayoutEntry {
    layout_entry(binding, wgpu::BufferBindingType::Uniform, wgpu::BufferSize::new(size))
}

fn storage(binding: u32, read_only: bool) -> wgpu::BindGroupLayoutEntry {
    layout_entry(binding, wgpu::BufferBindingType::Storage { read_only }, None)
}

fn layout_entry(
    binding: u32,
    ty: wgpu::BufferBindingType,
    min_binding_size: Option<wgpu::BufferSize>,
) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size },
        count: None,
    }
}
