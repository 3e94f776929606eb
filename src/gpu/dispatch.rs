use std::ops::Range;

use super::GpuDevice;
use super::pipelines::{Pipeline, Shader};
use crate::Error;
use crate::kernel::{BindingRole, Chunk, Dispatch, Params, Plan, Role};

/// The buffers that a plan runs on, by role. The caller has checked that they are as large as the plan's problem says.
type Buffers = [Option<wgpu::Buffer>; Role::ALL.len()];

/// A row count on the device: one u32, at this byte of this buffer.
#[derive(Clone, Debug)]
pub(crate) struct RowCount {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
}

/// A plan bound to buffers: recording it costs nothing but the recording. It may be recorded any number of times, in any
/// encoder of the device, and reads the buffers as they are when the recording runs.
///
/// ```
/// use gpu_layer_norm::{Bindings, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Tensor, wgpu};
///
/// let device = GpuDevice::new()?;
/// let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new(2))?;
/// let input = GpuTensor::upload(&device, &Tensor::from_f32([3, 2], vec![1.0, 3.0, 5.0, 1.0, 2.0, 4.0])?)?;
/// let output = GpuTensor::zeros(&device, [3, 2])?;
/// let mut prepared = layer_norm.prepare(&device, &Bindings::of(&input, &output))?;
/// prepared.set_rows(2)?;
///
/// let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
/// prepared.encode(&mut encoder);
/// device.queue().submit([encoder.finish()]);
/// let signs: Vec<f32> = output.download()?.values().iter().map(|y| y.round()).collect();
/// assert_eq!(signs, [-1.0, 1.0, 1.0, -1.0, 0.0, 0.0]);
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[derive(Debug)]
pub struct PreparedPlan {
    device: GpuDevice,
    plan: Plan,
    rows: u64,
    // In the order of the plan's dispatches.
    steps: Vec<Step>,
    // Absent if there is nothing to run.
    params: Option<Blocks>,
    row_count: Option<Arguments>,
}

#[derive(Debug)]
struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

/// The parameter blocks of all dispatches in one buffer.
#[derive(Debug)]
struct Blocks {
    buffer: wgpu::Buffer,
    stride: u64,
}

/// What turns a row count on the device into parameters and arguments.
#[derive(Debug)]
struct Arguments {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: u32,
    arguments: wgpu::Buffer,
}

impl PreparedPlan {
    pub(crate) fn new(
        device: &GpuDevice,
        plan: Plan,
        buffers: &Buffers,
        row_count: Option<&RowCount>,
    ) -> Result<Self, Error> {
        let rows = plan.problem().rows();
        let pipelines = device.compile(plan.kernels())?;
        let dispatches: Vec<_> = plan
            .chunks()
            .iter()
            .flat_map(|chunk| chunk.dispatches.iter().map(move |dispatch| (chunk, dispatch)))
            .collect();
        if dispatches.is_empty() {
            let device = device.clone();
            return Ok(Self { device, plan, rows, steps: Vec::new(), params: None, row_count: None });
        }

        let limits = device.device().limits();
        let alignment = limits.min_uniform_buffer_offset_alignment.max(4);
        let stride = Params::SIZE.next_multiple_of(alignment.into());
        let blocks = blocks(dispatches.iter().map(|(_, dispatch)| **dispatch), stride);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let params = device.create_buffer_with("layer norm params", usage, &blocks)?;
        let scratch = plan.scratch().iter().map(|&(role, bytes)| {
            Ok((role, device.create_buffer("layer norm scratch", bytes, wgpu::BufferUsages::STORAGE)?))
        });
        let scratch = scratch.collect::<Result<Vec<_>, Error>>()?;

        let steps = device.scoped("the binding of a plan", 0, |wgpu_device| {
            let step = |(i, (chunk, dispatch)): (usize, &(&Chunk, &Dispatch))| {
                let kernel = &plan.kernels()[dispatch.kernel];
                let pipeline = &pipelines[dispatch.kernel];
                let block = i as u64 * stride..i as u64 * stride + Params::SIZE;
                let resource = |role| match (scratch.iter().find(|(other, _)| *other == role), role) {
                    (Some((_, buffer)), _) => buffer.as_entire_binding(),
                    (None, BindingRole::Params) => part(&params, &block),
                    (None, BindingRole::Tensor(role)) => {
                        let (buffer, bytes) = (buffers[role as usize].as_ref(), chunk.bytes(role));
                        part(buffer.expect(PLANNED), &bytes.expect(PLANNED))
                    }
                    (None, _) => unreachable!("{PLANNED}"),
                };
                let entries: Vec<_> = kernel
                    .bindings()
                    .into_iter()
                    .map(|binding| wgpu::BindGroupEntry {
                        binding: binding.role.binding(),
                        resource: resource(binding.role),
                    })
                    .collect();
                let bind_group = wgpu_device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some("layer norm"),
                    layout: &pipeline.layout,
                    entries: &entries,
                });
                Step { pipeline: pipeline.pipeline.clone(), bind_group, workgroups: dispatch.workgroups }
            };
            dispatches.iter().enumerate().map(step).collect::<Vec<_>>()
        })?;
        let params = Blocks { buffer: params, stride };
        let row_count =
            row_count.map(|count| Arguments::new(device, count, &params, steps.len() as u32)).transpose()?;
        Ok(Self { device: device.clone(), plan, rows, steps, params: Some(params), row_count })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Rows that a recording works on: those last given to [`set_rows`](Self::set_rows), at first all that were prepared. With
    /// [`Bindings::row_count`](crate::Bindings::row_count) it works on as many as the count on the device says, and on no more than these.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Works on the first `rows` rows only, from the next recording on, and leaves the others as they are. It may be called for every
    /// frame; nothing is prepared again. With [`Bindings::row_count`](crate::Bindings::row_count) it works on no more rows than these, and
    /// on fewer where the count on the device says so.
    ///
    /// Writes parameters through the queue, for everything that is submitted afterwards: first submit what was recorded
    /// before. For two recordings with different counts in one submission prepare two operations, or have the counts in
    /// buffers on the device.
    ///
    /// # Errors
    /// [`Error::RowCount`] above the rows prepared for, [`Error::DeviceLost`].
    pub fn set_rows(&mut self, rows: u64) -> Result<(), Error> {
        let max = self.plan.problem().rows();
        if rows > max {
            return Err(Error::RowCount { rows, max });
        }
        if let Some(params) = &self.params {
            let dispatches: Vec<_> = self.plan.chunks().iter().flat_map(|chunk| chunk.dispatches_for(rows)).collect();
            let blocks = blocks(dispatches.iter().copied(), params.stride);
            self.device.scoped("the writing of a row count", 0, |_| {
                self.device.queue().write_buffer(&params.buffer, 0, &blocks);
            })?;
            for (step, dispatch) in self.steps.iter_mut().zip(dispatches) {
                step.workgroups = dispatch.workgroups;
            }
        }
        self.rows = rows;
        Ok(())
    }

    /// Records the plan as a compute pass of its own. Does not submit.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some("layer norm"), timestamp_writes: None };
        self.encode_pass(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// Records the plan into a compute pass. Leaves its own pipeline and bind group 0 set.
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) {
        if let Some(count) = &self.row_count {
            pass.set_pipeline(&count.pipeline);
            pass.set_bind_group(0, &count.bind_group, &[]);
            pass.dispatch_workgroups(count.workgroups, 1, 1);
        }
        for (i, step) in self.steps.iter().enumerate() {
            let [x, y, z] = step.workgroups;
            pass.set_pipeline(&step.pipeline);
            pass.set_bind_group(0, &step.bind_group, &[]);
            match &self.row_count {
                Some(count) => pass.dispatch_workgroups_indirect(&count.arguments, i as u64 * ARGUMENTS_BYTES),
                None => pass.dispatch_workgroups(x, y, z),
            }
        }
    }
}

/// Bytes from the arguments of one indirect dispatch to those of the next.
const ARGUMENTS_BYTES: u64 = 16;

const PLANNED: &str = "a kernel binds only what its plan says there is";

impl Arguments {
    fn new(device: &GpuDevice, count: &RowCount, params: &Blocks, dispatches: u32) -> Result<Self, Error> {
        let buffers = device.capabilities().max_storage_buffers;
        if buffers < 3 {
            return Err(Error::DeviceTooSmall { what: "storage buffers a shader", needed: 3, actual: buffers.into() });
        }
        let workgroups = device.capabilities().max_workgroups_per_dimension;
        if dispatches > workgroups {
            return Err(Error::DeviceTooSmall {
                what: "workgroups a dispatch",
                needed: dispatches.into(),
                actual: workgroups.into(),
            });
        }
        let alignment = u64::from(device.capabilities().storage_offset_alignment.max(4));
        let start = count.offset - count.offset % alignment;
        let control = [dispatches, (params.stride / 4) as u32, ((count.offset - start) / 4) as u32, 0];
        let control = device.create_buffer_with(
            "layer norm row count control",
            wgpu::BufferUsages::UNIFORM,
            bytemuck::bytes_of(&control),
        )?;
        let arguments = device.create_buffer(
            "layer norm arguments",
            u64::from(dispatches) * ARGUMENTS_BYTES,
            wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::INDIRECT,
        )?;
        let Pipeline { pipeline, layout } = device.pipeline(Shader::Arguments)?;
        let bind_group = device.scoped("the binding of a row count", 0, |wgpu_device| {
            let entries = [
                wgpu::BindGroupEntry { binding: 0, resource: control.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: part(&count.buffer, &(start..count.offset + 4)) },
                wgpu::BindGroupEntry { binding: 2, resource: params.buffer.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 3, resource: arguments.as_entire_binding() },
            ];
            wgpu_device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("layer norm row count"),
                layout: &layout,
                entries: &entries,
            })
        })?;
        Ok(Self { pipeline, bind_group, workgroups: dispatches, arguments })
    }
}

/// Parameter blocks one every `stride` bytes.
fn blocks(dispatches: impl ExactSizeIterator<Item = Dispatch>, stride: u64) -> Vec<u8> {
    let mut blocks = vec![0_u8; stride as usize * dispatches.len()];
    for (block, dispatch) in blocks.chunks_exact_mut(stride as usize).zip(dispatches) {
        block[..Params::SIZE as usize].copy_from_slice(bytemuck::bytes_of(&dispatch.params));
    }
    blocks
}

fn part<'a>(buffer: &'a wgpu::Buffer, bytes: &Range<u64>) -> wgpu::BindingResource<'a> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer,
        offset: bytes.start,
        size: wgpu::BufferSize::new(bytes.end - bytes.start),
    })
}
