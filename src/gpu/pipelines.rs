use std::borrow::Cow;
use std::collections::HashMap;

use super::GpuDevice;
use crate::Error;
use crate::kernel::{
    ARGUMENTS_WGSL, BindingRole, ENTRY_POINT, Kernel, Params, ProjectionBinding, ProjectionKernel, ProjectionParams,
};

/// Compiled shaders.
pub(crate) type Pipelines = HashMap<Shader, Pipeline>;

/// What is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "a key: there are as many as pipelines, and none is moved about")]
pub(crate) enum Shader {
    /// A kernel of a plan. The key is the whole variant, so two kernels that differ in anything never share a pipeline.
    Kernel(Kernel),
    /// What fits dispatches to a row count on the device.
    Arguments,
    /// A product of matrices, or the gradient of a table.
    Projection(ProjectionKernel),
}

/// A compiled kernel and the layout of its bind group.
#[derive(Clone)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

impl GpuDevice {
    /// The pipelines of these kernels, compiled where they are new.
    pub(crate) fn compile(&self, kernels: &[Kernel]) -> Result<Vec<Pipeline>, Error> {
        kernels.iter().map(|kernel| self.pipeline(Shader::Kernel(*kernel))).collect()
    }

    /// The pipeline of this shader, compiled if it is new.
    pub(crate) fn pipeline(&self, shader: Shader) -> Result<Pipeline, Error> {
        if let Some(pipeline) = self.pipelines().get(&shader) {
            return Ok(pipeline.clone());
        }
        // Not under the lock of the pipelines: wgpu may run a callback of the caller's meanwhile, and that may use this device.
        let pipeline = self.compile_shader(shader)?;
        Ok(self.pipelines().entry(shader).or_insert(pipeline).clone())
    }

    fn compile_shader(&self, shader: Shader) -> Result<Pipeline, Error> {
        let (label, wgsl, bindings) = match shader {
            Shader::Kernel(kernel) => {
                let bindings = kernel.bindings().into_iter().map(|binding| match binding.role {
                    BindingRole::Params => uniform(binding.role.binding(), Params::SIZE),
                    role => storage(role.binding(), !binding.writable),
                });
                (kernel.label(), kernel.wgsl(), bindings.collect::<Vec<_>>())
            }
            Shader::Arguments => {
                let bindings = vec![uniform(0, 16), storage(1, true), storage(2, false), storage(3, false)];
                ("row count".into(), ARGUMENTS_WGSL.into(), bindings)
            }
            Shader::Projection(kernel) => {
                let bindings = kernel.bindings().into_iter().map(|binding| match binding {
                    ProjectionBinding::Params => uniform(binding.number(), ProjectionParams::SIZE),
                    _ => storage(binding.number(), binding != ProjectionBinding::Result),
                });
                (kernel.label(), kernel.wgsl(), bindings.collect())
            }
        };
        // OpenGL takes no label of 256 bytes or more.
        let label: String = label.chars().take(200).collect();
        let label = Some(label.as_str());
        self.scoped("the compiling of a kernel", 0, |device| {
            let layout =
                device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &bindings });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let source = wgpu::ShaderSource::Wgsl(Cow::Owned(wgsl));
            let descriptor = wgpu::ShaderModuleDescriptor { label, source };
            // Safety: the kernels are this crate's own, and do nothing that the checks would prevent.
            // - Bounds. A span index is below `params.spans` (`span_at` takes the least), the row of a walk below `params.rows`
            //   (`walk_at` does), a unit's index below the span's units (`position_at` takes the least, `in_span` before a write), so
            //   an access is within the rows of the chunk, and those are within the bound part of every buffer: the host has checked
            //   that (`Bindings::check`, `tensors`, and a test of every plan in `tests/kernel.rs`). Scratch memory is as long as the
            //   plan says, for all segments, rows and walks of the longest chunk; a dispatch has `params.groups` walks and no
            //   invocations beside. Nothing outside this crate can write the parameters or the scratch memory; a row count on the
            //   device can only lower the rows, and where there are none no row is gone over. Arrays in workgroup memory are indexed
            //   by local index, private ones by turn and span, which are below their lengths. A condition is that of a row, or of a walk
            //   and then no more than the last one; a tile ends with the rows of the dispatch, and tiles and sequences are counted
            //   from below `params.groups`; what a state holds is never an index. In a grid, rows and elements within the counts lie
            //   within the tensor, because strides and sizes are those of its shape. A projection takes rows, columns and
            //   terms below those of its params, categories below the number of samples, and rows of a table up to its last one.
            // - Division. Divisors are constants of at least 1, counts of elements, rows of a condition or of a sequence, or the numbers
            //   of walks and of tiles of each, which are at least 1.
            // - Loops. Each counts up to a constant, or up to a number of turns, rows, walks or tiles that the host has bounded.
            let module = unsafe { device.create_shader_module_trusted(descriptor, self.shader_checks()) };
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(ENTRY_POINT),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // The kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.pipeline_cache(),
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
