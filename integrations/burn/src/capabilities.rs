use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::wgpu::{WgpuDevice, WgpuDeviceKind};
use gpu_layer_norm::kernel::{AdapterClass, Capabilities, Dialect, SubgroupSizes};

/// What plans for a device with this client may count on; `None` where its kernels are not WGSL. (A tensor has both. On the thread that runs
/// a device's operations its client must not be looked up: the lookup waits while another thread has a service started there.)
pub(crate) fn capabilities(device: &CubeDevice, client: &Client) -> Option<Capabilities> {
    let CubeDevice::Wgpu(WgpuDevice { kind, .. }) = device else { return None };
    if client.name() != "wgpu<wgsl>" {
        return None;
    }
    let properties = client.properties();
    let (hardware, memory) = (&properties.hardware, &properties.memory);
    // CubeCL knows no card of a software adapter.
    let class = match kind {
        _ if properties.identity.physical.is_none() => AdapterClass::Cpu,
        WgpuDeviceKind::DiscreteGpu(_) => AdapterClass::Discrete,
        WgpuDeviceKind::IntegratedGpu(_) => AdapterClass::Integrated,
        _ => AdapterClass::Other,
    };
    let subgroups = SubgroupSizes { min: hardware.plane_size_min, max: hardware.plane_size_max };
    Some(Capabilities {
        class,
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        subgroups: (has_subgroups(client) && subgroups.is_usable()).then_some(subgroups),
        dialect: if cfg!(target_family = "wasm") { Dialect::Browser } else { Dialect::Naga },
        max_invocations_per_workgroup: hardware.max_units_per_cube.min(hardware.max_cube_dim.0),
        max_workgroups_per_dimension: hardware.max_cube_count.0.min(hardware.max_cube_count.1),
        max_workgroup_storage: hardware.max_shared_memory_size as u32,
        max_storage_buffers: hardware.max_bindings,
        max_binding_bytes: memory.max_page_size,
        max_buffer_bytes: memory.max_page_size,
        storage_offset_alignment: memory.alignment as u32,
        ..Capabilities::webgpu_baseline()
    })
}

fn has_subgroups(client: &Client) -> bool {
    use burn_cubecl::cubecl::features::Plane;
    client.properties().features.plane.contains(Plane::Ops)
}

/// Whether the loops of kernels need bounds on this device: without them SwiftShader computes wrong results where only some
/// invocations of a subgroup take a second turn.
pub(crate) fn needs_loop_bounds(client: &Client) -> bool {
    client.properties().identity.name.contains("SwiftShader")
}
