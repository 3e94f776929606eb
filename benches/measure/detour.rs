//! What an operation over dimensions that are not the last ones is spared: a transposed copy, the same operation over the last
//! dimension, and a transposed copy of its result.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use gpu_layer_norm::{Bindings, Error, GpuDevice, GpuLayerNorm, PreparedPlan, Region, StorageType, wgpu};

use super::case::{Case, Operation};
use super::pool::Pool;
use super::stopwatch::Work;

/// Matrices one after another, each transposed.
struct Transpose {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

impl Transpose {
    /// Of matrices of so many rows and columns; of elements of 16 bits both must be even.
    fn new(
        device: &GpuDevice,
        storage: StorageType,
        (source, target): (&wgpu::Buffer, &wgpu::Buffer),
        [matrices, rows, columns]: [usize; 3],
    ) -> Self {
        let gpu = device.device();
        let halves = storage.bytes() == 2;
        let in_cells = |count: usize| if halves { count / 2 } else { count };
        let (rows, columns) = (in_cells(rows), in_cells(columns));
        let wgsl = format!(
            "const ROWS: u32 = {rows}u;\nconst COLUMNS: u32 = {columns}u;\nconst HALVES: bool = {halves};\n{}",
            include_str!("transpose.wgsl")
        );
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some("transpose"), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        // Safety: no index reaches past the matrices, and loops end. The kernels do without the checks too.
        let module = unsafe { gpu.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("transpose"),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let entries = [(0, target), (1, source)]
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() });
        let layout = &pipeline.get_bind_group_layout(0);
        let bind_group =
            gpu.create_bind_group(&wgpu::BindGroupDescriptor { label: Some("transpose"), layout, entries: &entries });
        let workgroups = [columns.div_ceil(32) as u32, rows.div_ceil(32) as u32, matrices as u32];
        Self { pipeline, bind_group, workgroups }
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.workgroups;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Channels moved last, normalized, and moved first again: from the pool's input through its sum and its output to its sum.
pub struct Detour {
    there: Transpose,
    normalize: PreparedPlan,
    back: Transpose,
}

impl Detour {
    /// `None` for cases that need none, and for shapes that the transposition does not take. `layer` has the parameters of the case.
    pub(super) fn new(pool: &Pool, case: &Case, layer: &GpuLayerNorm) -> Result<Option<Self>, Error> {
        let [images, channels, pixels] = case.image_shape();
        let is_odd = case.storage.bytes() == 2 && (channels % 2 == 1 || pixels % 2 == 1);
        let most = pool.device.capabilities().max_workgroups_per_dimension as usize;
        if case.operation != Operation::ChannelsFirst || is_odd || images > most || channels.max(pixels) / 32 >= most {
            return Ok(None);
        }
        let transpose = |buffers, shape| Transpose::new(&pool.device, case.storage, buffers, shape);
        let region = |buffer| Region::new(buffer, case.storage);
        let bindings = Bindings::new(case.rows as u64, region(&pool.sum), region(&pool.output));
        let plain = GpuLayerNorm::new(&pool.device, &Case { operation: Operation::Plain, ..*case }.config())?;
        let own = |parameter: Option<&gpu_layer_norm::GpuTensor>| parameter.map(Region::from);
        let bindings = own(layer.weight()).into_iter().fold(bindings, Bindings::weight);
        let bindings = own(layer.bias()).into_iter().fold(bindings, Bindings::bias);
        Ok(Some(Self {
            there: transpose((&pool.input, &pool.sum), [images, channels, pixels]),
            normalize: plain.prepare(&pool.device, &bindings)?,
            back: transpose((&pool.output, &pool.sum), [images, pixels, channels]),
        }))
    }
}

impl Work for Detour {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.there.record(pass);
        self.normalize.encode_pass(pass);
        self.back.record(pass);
    }
}
