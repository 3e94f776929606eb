//! What the adapter is, what it can do, and what the crate makes of it.

use gpu_layer_norm::kernel::AdapterClass;
use gpu_layer_norm::{GpuDevice, wgpu};
use wasm_bindgen::prelude::*;

/// The adapter, in words and numbers to be shown as they are.
#[wasm_bindgen(getter_with_clone)]
pub struct Adapter {
    /// As the browser describes it; many do not.
    pub name: String,
    /// Facts about the machine.
    pub facts: Vec<Fact>,
    /// What the crate plans for.
    pub capabilities: Vec<Fact>,
    /// All limits of the device.
    pub limits: Vec<Fact>,
    /// Names of the device's features.
    pub features: Vec<String>,
}

/// A name and what is to be said to it.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

impl Fact {
    fn new(name: &str, value: impl ToString) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

impl Adapter {
    pub(super) fn of(device: &GpuDevice) -> Self {
        let info = device.adapter_info();
        let mut facts = vec![Fact::new("backend", format!("{:?}", info.backend))];
        let known = |name: &str, value: &str| (!value.is_empty()).then(|| Fact::new(name, value));
        facts.extend(known("driver", format!("{} {}", info.driver, info.driver_info).trim()));
        if info.subgroup_max_size > 0 {
            facts.push(Fact::new("subgroups", range(info.subgroup_min_size, info.subgroup_max_size)));
        }
        Self {
            name: info.name.clone(),
            facts,
            capabilities: capabilities(device),
            limits: limits(&device.device().limits()),
            features: device
                .device()
                .features()
                .iter_names()
                .map(|(name, _)| name.to_lowercase().replace('_', "-"))
                .collect(),
        }
    }
}

fn range(min: u32, max: u32) -> String {
    if min == max { min.to_string() } else { format!("{min} to {max}") }
}

fn capabilities(device: &GpuDevice) -> Vec<Fact> {
    let capabilities = device.capabilities();
    let class = match capabilities.class {
        AdapterClass::Discrete => "a GPU with memory of its own",
        AdapterClass::Integrated => "a GPU that shares the processor's memory",
        AdapterClass::Cpu => "the processor itself",
        AdapterClass::Other => "a GPU that does not say which kind",
    };
    let subgroups = match capabilities.subgroups {
        Some(sizes) => format!("sums by subgroup, of {} invocations", range(sizes.min, sizes.max)),
        None if device.device().features().contains(wgpu::Features::SUBGROUP) => {
            "left alone: the kernels count on powers of two from 4 to 128".into()
        }
        None => "left alone: the browser offers no subgroup operations here".into(),
    };
    let bytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    vec![
        Fact::new("planned for as", class),
        Fact::new("processor cores", capabilities.cores),
        Fact::new("subgroups", subgroups),
        Fact::new("invocations a workgroup", capabilities.max_invocations_per_workgroup),
        Fact::new("workgroup memory", format!("{} KiB", capabilities.max_workgroup_storage >> 10)),
        Fact::new("storage buffers a kernel", capabilities.max_storage_buffers),
        Fact::new("largest binding", bytes(capabilities.max_binding_bytes)),
        Fact::new("largest buffer", bytes(capabilities.max_buffer_bytes)),
    ]
}

/// The limits that matter to compute shaders.
fn limits(limits: &wgpu::Limits) -> Vec<Fact> {
    vec![
        Fact::new("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
        Fact::new("max_buffer_size", limits.max_buffer_size),
        Fact::new("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage),
        Fact::new("min_storage_buffer_offset_alignment", limits.min_storage_buffer_offset_alignment),
        Fact::new("max_bindings_per_bind_group", limits.max_bindings_per_bind_group),
        Fact::new("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size),
        Fact::new("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup),
        Fact::new("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x),
        Fact::new("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension),
    ]
}
