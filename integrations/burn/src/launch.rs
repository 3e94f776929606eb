use burn_cubecl::cubecl::CubeCount;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::ir::attributes::BufferIOAttr;
use burn_cubecl::cubecl::server::{Handle, KernelArguments, MetadataBindingInfo};
use gpu_layer_norm::kernel::{BindingRole, Params, Plan, Role};

use crate::capabilities::needs_loop_bounds;
use crate::kernel::PlannedKernel;

/// Queues the dispatches of a plan on the stream of the client, after what was queued before and before what is queued after, as one of
/// Burn's own kernels is. `tensors` are those of the plan's problem, in the allocations in which they are.
pub(crate) fn launch(client: &Client, plan: &Plan, tensors: &[(Role, &Handle)]) {
    let scratch: Vec<(BindingRole, Handle)> =
        plan.scratch().iter().map(|&(role, bytes)| (role, client.empty(bytes as usize))).collect();
    let checks_loops = needs_loop_bounds(client);
    for chunk in plan.chunks() {
        for dispatch in &chunk.dispatches {
            let kernel = plan.kernels()[dispatch.kernel];
            let mut arguments = KernelArguments::new();
            for binding in PlannedKernel::buffers(&kernel) {
                let of_scratch = scratch.iter().find(|(role, _)| *role == binding.role);
                let (handle, access) = match (of_scratch, binding.role) {
                    (Some((_, handle)), _) if binding.writable => (handle.clone(), BufferIOAttr::ReadWrite),
                    (Some((_, handle)), _) => (handle.clone(), BufferIOAttr::ReadOnly),
                    (None, BindingRole::Tensor(role)) => {
                        let handle = tensors.iter().find(|(other, _)| *other == role).map(|(_, handle)| *handle);
                        let handle = handle.zip(chunk.bytes(role)).map(|(handle, bytes)| part(handle, &bytes));
                        let writes = plan.problem().writes(role);
                        (handle.expect(PLANNED), if writes { BufferIOAttr::WriteOnly } else { BufferIOAttr::ReadOnly })
                    }
                    (None, _) => unreachable!("{PLANNED}"),
                };
                arguments = arguments.with_buffer_io(handle.binding(), access);
            }
            let arguments = arguments.with_info(MetadataBindingInfo::custom(words(&dispatch.params)));
            let [x, y, z] = dispatch.workgroups;
            client.launch(Box::new(PlannedKernel::new(kernel, checks_loops)), CubeCount::Static(x, y, z), arguments);
        }
    }
}

const PLANNED: &str = "a plan binds only what its problem and its scratch have";

/// Some bytes of the allocation that a tensor lies in.
fn part(tensor: &Handle, bytes: &std::ops::Range<u64>) -> Handle {
    let mut handle = tensor.clone();
    handle.offset_start = Some(bytes.start);
    // The end of a plan's range is that of a word, which an allocation has room for.
    handle.offset_end = Some(handle.size().saturating_sub(bytes.end));
    handle
}

fn words(params: &Params) -> Vec<u64> {
    bytemuck::pod_collect_to_vec(bytemuck::bytes_of(params))
}
