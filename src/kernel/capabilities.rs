/// What kind of machine runs the kernels. Plans differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterClass {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// The processor itself (lavapipe, llvmpipe, SwiftShader, WARP): a barrier costs more than the arithmetic.
    Cpu,
    /// A virtual GPU, or one that does not say; planned for as a GPU.
    Other,
}

/// The sizes that a subgroup may have on an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubgroupSizes {
    /// The smallest, at least 4.
    pub min: u32,
    /// The largest, at most 128.
    pub max: u32,
}

impl SubgroupSizes {
    /// Whether the kernels can count on these sizes: powers of two from 4 to 128.
    pub fn is_usable(self) -> bool {
        let Self { min, max } = self;
        4 <= min && min <= max && max <= 128 && min.is_power_of_two() && max.is_power_of_two()
    }
}

/// Who reads the WGSL. They disagree about directives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// naga, which refuses `enable subgroups;`.
    #[default]
    Naga,
    /// A browser, which requires it.
    Browser,
}

/// What a plan needs to know of the device that will run it. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities {
    /// Kind of machine.
    pub class: AdapterClass,
    /// Processor cores that run the kernels, for [`AdapterClass::Cpu`]; 1 where that is not known.
    pub cores: u32,
    /// Subgroup sizes, if the device has subgroup operations.
    pub subgroups: Option<SubgroupSizes>,
    /// Who reads the WGSL.
    pub dialect: Dialect,
    /// Whether `unpack2x16float` gives exactly the number that two f16 are, also where they are subnormal. WGSL does not promise
    /// that.
    pub exact_unpack_f16: bool,
    /// Whether `pack2x16float` rounds to nearest, ties to even, and what is too large to infinity. WGSL does not promise that.
    pub exact_pack_f16: bool,
    /// Invocations in one workgroup.
    pub max_invocations_per_workgroup: u32,
    /// Workgroups along one dimension of a dispatch.
    pub max_workgroups_per_dimension: u32,
    /// Workgroup memory.
    pub max_workgroup_storage: u32,
    /// Storage buffers one shader may have bound.
    pub max_storage_buffers: u32,
    /// Size of one storage binding.
    pub max_binding_bytes: u64,
    /// Size of one buffer.
    pub max_buffer_bytes: u64,
    /// What the offset of a storage binding must be a multiple of.
    pub storage_offset_alignment: u32,
}

impl Capabilities {
    /// What every WebGPU implementation offers: its default limits, no subgroups, a GPU of unknown kind.
    pub const fn webgpu_baseline() -> Self {
        Self {
            class: AdapterClass::Other,
            cores: 1,
            subgroups: None,
            dialect: Dialect::Naga,
            exact_unpack_f16: false,
            exact_pack_f16: false,
            max_invocations_per_workgroup: 256,
            max_workgroups_per_dimension: 65_535,
            max_workgroup_storage: 16_384,
            max_storage_buffers: 8,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            storage_offset_alignment: 256,
        }
    }
}
