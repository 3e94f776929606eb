use burn_cubecl::cubecl::ir::metadata::Info;
use burn_cubecl::cubecl::ir::{ElemType, UIntKind};
use burn_cubecl::cubecl::prelude::{
    AddressType, CubeDim, KernelDefinition, KernelId, KernelMetadata, KernelSettings, Scope,
};
use burn_cubecl::cubecl::{CubeKernel, ExecutionMode, PrecompiledSource};
use gpu_layer_norm::kernel::{Binding, BindingRole, ENTRY_POINT, Kernel};

/// A kernel of a plan as CubeCL takes one that is WGSL already.
pub(crate) struct PlannedKernel {
    kernel: Kernel,
    mode: ExecutionMode,
}

impl PlannedKernel {
    /// With `checks_loops` wgpu bounds the loops.
    pub(crate) fn new(kernel: Kernel, checks_loops: bool) -> Self {
        // Of a kernel in WGSL CubeCL's mode says nothing else than this.
        Self { kernel, mode: if checks_loops { ExecutionMode::Checked } else { ExecutionMode::Unchecked } }
    }

    /// The buffers in the order in which CubeCL binds them. The parameters follow them.
    pub(crate) fn buffers(kernel: &Kernel) -> impl Iterator<Item = Binding> {
        kernel.bindings().into_iter().filter(|binding| binding.role != BindingRole::Params)
    }

    fn workgroup(&self) -> CubeDim {
        CubeDim::new_1d(self.kernel.workgroup_size())
    }
}

impl KernelMetadata for PlannedKernel {
    fn name(&self) -> &'static str {
        "gpu-layer-norm"
    }

    fn id(&self) -> KernelId {
        // The WGSL depends on nothing else than the kernel.
        KernelId::new::<Self>().info(self.kernel).mode(self.mode).cube_dim(self.workgroup().0)
    }

    fn address_type(&self) -> ElemType {
        UIntKind::U32.into()
    }
}

impl CubeKernel for PlannedKernel {
    fn define(&self) -> KernelDefinition {
        let settings = KernelSettings::new(self.workgroup().0, self.mode, AddressType::U32);
        KernelDefinition { body: Scope::root(settings.clone()), settings, info: Info::default() }
    }

    fn source(&self) -> Option<PrecompiledSource> {
        let source = as_cubecl_binds(&self.kernel);
        Some(PrecompiledSource { source, entrypoint_name: ENTRY_POINT.into(), lang: "wgsl" })
    }
}

/// The WGSL of a kernel with the bindings that CubeCL makes: numbered one after another, the parameters last; and every buffer
/// writable, because tensors of one page are parts of one buffer, which wgpu does not bind for reading and for writing at once.
fn as_cubecl_binds(kernel: &Kernel) -> String {
    let numbers: Vec<u32> = PlannedKernel::buffers(kernel).map(|binding| binding.role.binding()).collect();
    let place = |number: u32| numbers.iter().position(|other| *other == number).unwrap_or(numbers.len());
    let wgsl = kernel.wgsl().replace("var<storage, read>", "var<storage, read_write>");
    let mut parts = wgsl.split("@binding(");
    let mut renumbered = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (number, rest) = part.split_once(')').expect("a binding has a number in brackets");
        let number = number.parse().expect("the number of a binding is a literal");
        renumbered.push_str(&format!("@binding({}){rest}", place(number)));
    }
    renumbered
}
