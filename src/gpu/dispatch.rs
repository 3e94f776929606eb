use std::ops::Range;

use super::GpuDevice;
use crate::Error;
use crate::kernel::{BindingRole, Params, Plan};

/// The buffers that a plan runs on. The caller has checked that they are as large as the plan's problem says.
pub(crate) struct Buffers<'a> {
    pub(crate) input: &'a wgpu::Buffer,
    pub(crate) weight: Option<&'a wgpu::Buffer>,
    pub(crate) bias: Option<&'a wgpu::Buffer>,
    pub(crate) output: &'a wgpu::Buffer,
}

/// A plan bound to buffers: recording it costs nothing but the recording. It may be recorded any number of times, in any
/// encoder of the device, and reads the buffers as they are when the recording runs.
#[derive(Clone, Debug)]
pub struct PreparedPlan {
    steps: Vec<Step>,
    plan: Plan,
}

#[derive(Clone, Debug)]
struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

impl PreparedPlan {
    pub(crate) fn new(device: &GpuDevice, plan: Plan, buffers: &Buffers<'_>) -> Result<Self, Error> {
        let pipelines = plan.kernels().iter().map(|kernel| device.pipeline(kernel)).collect::<Result<Vec<_>, _>>()?;
        let dispatches: Vec<_> = plan
            .chunks()
            .iter()
            .flat_map(|chunk| chunk.dispatches.iter().map(move |dispatch| (chunk, dispatch)))
            .collect();
        if dispatches.is_empty() {
            return Ok(Self { steps: Vec::new(), plan });
        }

        let stride = Params::SIZE.max(device.device().limits().min_uniform_buffer_offset_alignment.into());
        let mut blocks = vec![0_u8; stride as usize * dispatches.len()];
        for (block, (_, dispatch)) in blocks.chunks_exact_mut(stride as usize).zip(&dispatches) {
            block[..Params::SIZE as usize].copy_from_slice(bytemuck::bytes_of(&dispatch.params));
        }
        let params = device.create_buffer_with("layer norm params", wgpu::BufferUsages::UNIFORM, &blocks)?;
        let partials = match plan.scratch_bytes() {
            0 => None,
            bytes => Some(device.create_buffer("layer norm partials", bytes, wgpu::BufferUsages::STORAGE)?),
        };

        let steps = device.scoped("the binding of a plan", 0, |wgpu_device| {
            let step = |(i, (chunk, dispatch)): (usize, &(&crate::kernel::Chunk, &crate::kernel::Dispatch))| {
                let kernel = &plan.kernels()[dispatch.kernel];
                let pipeline = &pipelines[dispatch.kernel];
                let block = i as u64 * stride..i as u64 * stride + Params::SIZE;
                let resource = |role| match role {
                    BindingRole::Params => part(&params, &block),
                    BindingRole::Input => part(buffers.input, &chunk.bytes),
                    BindingRole::Output => part(buffers.output, &chunk.bytes),
                    BindingRole::Weight => whole(buffers.weight),
                    BindingRole::Bias => whole(buffers.bias),
                    BindingRole::Partials => whole(partials.as_ref()),
                };
                let entries: Vec<_> = kernel
                    .bindings()
                    .into_iter()
                    .map(|role| wgpu::BindGroupEntry { binding: role.binding(), resource: resource(role) })
                    .collect();
                let bind_group = wgpu_device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some("layer norm"),
                    layout: &pipeline.layout,
                    entries: &entries,
                });
                Step { pipeline: pipeline.pipeline.clone(), bind_group, workgroups: dispatch.workgroups }
            };
            dispatches.iter().enumerate().map(step).collect()
        })?;
        Ok(Self { steps, plan })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Records the plan as a compute pass of its own. Does not submit.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some("layer norm"), timestamp_writes: None };
        self.encode_pass(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// Records the plan into a compute pass. Leaves its own pipeline and bind group 0 set.
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) {
        for step in &self.steps {
            let [x, y, z] = step.workgroups;
            pass.set_pipeline(&step.pipeline);
            pass.set_bind_group(0, &step.bind_group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

fn part<'a>(buffer: &'a wgpu::Buffer, bytes: &Range<u64>) -> wgpu::BindingResource<'a> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer,
        offset: bytes.start,
        size: wgpu::BufferSize::new(bytes.end - bytes.start),
    })
}

fn whole(buffer: Option<&wgpu::Buffer>) -> wgpu::BindingResource<'_> {
    buffer.expect("a kernel binds only what its plan says there is").as_entire_binding()
}
