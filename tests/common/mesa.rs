//! What Mesa's compilers make of a kernel: registers, spills, code size. No GPU is needed.
//!
//! RADV, the driver for AMD's GPUs, makes a device of the chip that an environment variable names. ANV (Intel) and NVK (NVIDIA) want a
//! kernel driver; in its place stands a library of Mesa's that answers as one would and does nothing (`scripts/drm-shims` builds it).
//! All of them read the chip once, so each chip has a process of its own: [`rerun_for`] starts this program again for one.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use std::ffi::CStr;
use std::fmt;
use std::path::Path;
use std::process::Command;

use ash::{ext, khr, vk};
use gpu_layer_norm::kernel::{
    AdapterClass, Affine, BindingRole, Capabilities, Dialect, Dimension, ENTRY_POINT, Grid, Kernel, Normalization,
    Problem, Role, SubgroupSizes,
};
use gpu_layer_norm::{Error, StorageType, kernel};
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities as NagaCapabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

/// A GCN chip, two RDNA 2 chips of which one is an APU, and an RDNA 3 chip; by the names that Mesa 22.3 has for them. Newer ones call the
/// last `navi31`.
pub const CHIPS: [&str; 4] = ["vega10", "navi21", "vangogh", "gfx1100"];

/// Pixels of an image.
const PIXELS: u64 = 32 * 32;

/// Groups of a sample, and samples at most: of groups of channels all are taken at once.
const GROUPS: u64 = 32;
const MOST_SAMPLES: u64 = 4096;

/// Tells a process its chip.
const CHIP: &str = "GPU_LAYER_NORM_CHIP";

/// The entry point, for Vulkan.
const MAIN: &CStr = c"main";

/// Whose compiler it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// AMD's GPUs.
    Radv,
    /// Intel's.
    Anv,
    /// NVIDIA's.
    Nvk,
}

impl Driver {
    /// The driver of a chip, and the chip by the name that the driver has for it.
    pub fn of(chip: &str) -> (Self, &str) {
        match chip.split_once(':') {
            Some(("anv", name)) => (Self::Anv, name),
            Some(("nvk", name)) => (Self::Nvk, name),
            _ => (Self::Radv, chip),
        }
    }

    const fn id(self) -> vk::DriverId {
        match self {
            Self::Radv => vk::DriverId::MESA_RADV,
            Self::Anv => vk::DriverId::INTEL_OPEN_SOURCE_MESA,
            Self::Nvk => vk::DriverId::MESA_NVK,
        }
    }

    /// What it tells of a kernel: by its own names, and in short.
    pub const fn statistics(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Radv => &[
                ("VGPRs", "VGPRs"),
                ("SGPRs", "SGPRs"),
                ("Spilled VGPRs", "spill v"),
                ("Spilled SGPRs", "spill s"),
                ("Scratch size", "scratch"),
                ("LDS size", "LDS"),
                ("Code size", "code"),
                ("Subgroups per SIMD", "waves"),
            ],
            Self::Anv => &[
                ("Max live registers", "live"),
                ("Spill Count", "spills"),
                ("Fill Count", "fills"),
                ("Scratch Memory Size", "scratch"),
                ("Workgroup Memory Size", "shared"),
                ("Instruction Count", "instr."),
            ],
            Self::Nvk => &[
                ("Number of GPRs", "GPRs"),
                ("SLM Size", "scratch"),
                ("Instruction count", "instr."),
                ("Code Size", "code"),
            ],
        }
    }
}

/// The chip that this process is for, if it is for one.
pub fn chip() -> Option<String> {
    std::env::var(CHIP).ok()
}

/// This program again, for one chip; arguments are the caller's to add. Chips that are not AMD's need the libraries in the folder `shims`.
pub fn rerun_for(chip: &str, shims: Option<&Path>) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program's file: {error}"))?;
    let mut command = Command::new(program);
    command.env(CHIP, chip);
    let (driver, name) = Driver::of(chip);
    let library = match driver {
        Driver::Radv => {
            command.env("RADV_FORCE_FAMILY", name);
            return Ok(command);
        }
        Driver::Anv => {
            command.env("INTEL_STUB_GPU_PLATFORM", name);
            "libintel_noop_drm_shim.so"
        }
        Driver::Nvk => {
            command.env("NOUVEAU_CHIPSET", name).env("NVK_I_WANT_A_BROKEN_VULKAN_DRIVER", "1");
            "libnouveau_noop_drm_shim.so"
        }
    };
    let shims = shims.ok_or_else(|| format!("{chip}: its driver wants a kernel driver; see scripts/drm-shims"))?;
    let library = shims.join(library);
    if !library.exists() {
        return Err(format!("{chip}: there is no {}; see scripts/drm-shims", library.display()));
    }
    command.env("LD_PRELOAD", library);
    Ok(command)
}

/// What a problem is made of, apart from storage and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Layer normalization with weight and bias.
    Plain,
    /// The same of input + residual; the sum is written too.
    Residual,
    /// RMS normalization with weight.
    Rms,
    /// Layer normalization without weight or bias, with scale and shift of each 256 rows, of residual + gate · input; the sum is written
    /// too.
    Modulated,
    /// Causal layer normalization with weight and bias, of sequences of 1000 rows; mean and rstd are written too.
    Causal,
    /// The backward pass of layer normalization with weight and bias, and their gradients, with given statistics.
    Backward,
    /// The backward pass of RMS normalization with weight, and its gradient, with given statistics.
    RmsBackward,
    /// The backward pass of layer normalization with scale and shift of each 256 rows, and their gradients, with given statistics.
    ModulatedBackward,
    /// The backward pass of causal layer normalization with weight and bias, and their gradients.
    CausalBackward,
    /// Layer normalization with weight and bias over the channels of images of 32 × 32 pixels, channels first.
    ChannelsFirst,
    /// Its backward pass, with the gradients of weight and bias, and given statistics.
    ChannelsFirstBackward,
    /// Group normalization of 32 groups with weight and bias. A row is a group of four channels, or of one where four do not divide it.
    GroupNorm,
    /// Its backward pass with scale and shift of each sample, all gradients that there are, and given statistics.
    GroupNormBackward,
    /// The moments of rows that are parts of others.
    Moments,
    /// Layer normalization with weight and bias by given moments.
    Normalize,
    /// The sums for the gradients of rows that are parts of others.
    GradientSums,
    /// Their gradients, and those of weight and bias.
    Gradients,
}

impl Operation {
    pub const ALL: [Self; 17] = [
        Self::Plain,
        Self::Residual,
        Self::Rms,
        Self::Modulated,
        Self::Causal,
        Self::Backward,
        Self::RmsBackward,
        Self::ModulatedBackward,
        Self::CausalBackward,
        Self::ChannelsFirst,
        Self::ChannelsFirstBackward,
        Self::GroupNorm,
        Self::GroupNormBackward,
        Self::Moments,
        Self::Normalize,
        Self::GradientSums,
        Self::Gradients,
    ];

    pub fn is_backward(self) -> bool {
        matches!(
            self,
            Self::Backward
                | Self::RmsBackward
                | Self::ModulatedBackward
                | Self::CausalBackward
                | Self::ChannelsFirstBackward
                | Self::GroupNormBackward
                | Self::GradientSums
                | Self::Gradients
        )
    }

    /// Whether rows are pixels side by side.
    pub fn is_channels_first(self) -> bool {
        matches!(self, Self::ChannelsFirst | Self::ChannelsFirstBackward)
    }

    /// Whether rows are groups of channels.
    pub fn is_grouped(self) -> bool {
        matches!(self, Self::GroupNorm | Self::GroupNormBackward)
    }

    /// The problem whose tensors are stored as `storage`; statistics and the gradients of parameters are f32. Pixels are those of whole
    /// images, and groups those of whole samples, no more than `rows` unless these are less than one.
    pub fn problem(self, storage: StorageType, rows: u64, width: u64) -> Result<Problem, Error> {
        let images = (rows / PIXELS).max(1);
        let samples = (rows / GROUPS).clamp(1, MOST_SAMPLES);
        let problem = match self {
            _ if self.is_channels_first() => Problem::new(images * PIXELS, width)?.grid(images_of(images, width)?)?,
            _ if self.is_grouped() => Problem::new(samples * GROUPS, width)?.grid(groups_of(samples, width)?)?,
            _ => Problem::new(rows, width)?,
        };
        let whole = problem.affine(Affine::WeightAndBias);
        let rms = problem.affine(Affine::Weight).normalization(Normalization::RmsNorm)?;
        let modulated = problem.rows_per_condition(256)?;
        let causal = if problem.grid_of_rows().is_some() { whole } else { whole.causal(1000)? };
        let grouped = whole.rows_per_condition(GROUPS)?;
        let (problem, stored, single): (_, &[Role], &[Role]) = match self {
            Self::Plain | Self::ChannelsFirst => (whole, &[Role::Output, Role::Bias], &[]),
            Self::Residual => (whole, &[Role::Output, Role::Bias, Role::Residual, Role::Sum], &[]),
            Self::Moments => (whole.with_operation(kernel::Operation::Moments), &[], &[]),
            Self::Normalize => (whole.with_operation(kernel::Operation::Normalize), &[Role::Output, Role::Bias], &[]),
            Self::GradientSums => (whole.with_operation(kernel::Operation::GradientSums), &[Role::OutputGradient], &[]),
            Self::Gradients => (
                whole.with_operation(kernel::Operation::Gradients),
                &[Role::OutputGradient, Role::InputGradient],
                &[Role::WeightGradient, Role::BiasGradient],
            ),
            Self::Rms => (rms, &[Role::Output], &[]),
            Self::Modulated => {
                (modulated, &[Role::Output, Role::Scale, Role::Shift, Role::Residual, Role::Gate, Role::Sum], &[])
            }
            Self::GroupNorm => (whole, &[Role::Output, Role::Bias], &[]),
            Self::GroupNormBackward => (
                grouped.backward(),
                &[Role::OutputGradient, Role::InputGradient, Role::Bias, Role::Scale],
                &[
                    Role::Mean,
                    Role::Rstd,
                    Role::WeightGradient,
                    Role::BiasGradient,
                    Role::ScaleGradient,
                    Role::ShiftGradient,
                ],
            ),
            Self::Causal => (causal, &[Role::Output, Role::Bias], &[Role::Mean, Role::Rstd]),
            Self::CausalBackward => (
                causal.backward(),
                &[Role::OutputGradient, Role::InputGradient],
                &[Role::WeightGradient, Role::BiasGradient],
            ),
            Self::Backward | Self::ChannelsFirstBackward => (
                whole.backward(),
                &[Role::OutputGradient, Role::InputGradient],
                &[Role::Mean, Role::Rstd, Role::WeightGradient, Role::BiasGradient],
            ),
            Self::RmsBackward => {
                (rms.backward(), &[Role::OutputGradient, Role::InputGradient], &[Role::Rstd, Role::WeightGradient])
            }
            Self::ModulatedBackward => (
                modulated.backward(),
                &[Role::OutputGradient, Role::InputGradient, Role::Scale],
                &[Role::Mean, Role::Rstd, Role::ScaleGradient, Role::ShiftGradient],
            ),
        };
        let always = [Role::Input, Role::Weight].iter().filter(|role| problem.layout(**role).is_some());
        let stored = always.chain(stored).map(|&role| (role, storage));
        let single = single.iter().map(|&role| (role, StorageType::F32));
        stored.chain(single).try_fold(problem, |problem, (role, storage)| problem.tensor(role, storage))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "layer_norm",
            Self::Residual => "residual",
            Self::Rms => "rms_norm",
            Self::Backward => "backward",
            Self::RmsBackward => "rms_backward",
            Self::Modulated => "modulated",
            Self::ModulatedBackward => "modulated_backward",
            Self::Causal => "causal",
            Self::CausalBackward => "causal_backward",
            Self::ChannelsFirst => "channels_first",
            Self::ChannelsFirstBackward => "channels_first_backward",
            Self::GroupNorm => "group_norm",
            Self::GroupNormBackward => "group_norm_backward",
            Self::Moments => "moments",
            Self::Normalize => "normalize",
            Self::GradientSums => "gradient_sums",
            Self::Gradients => "gradients",
        })
    }
}

fn dimension(size: u64, stride: u64, parameter_stride: u64) -> Result<Dimension, Error> {
    let fit = |count: u64| u32::try_from(count).map_err(|_| Error::Size { shape: vec![count as usize] });
    Ok(Dimension { size: fit(size)?, stride: fit(stride)?, parameter_stride: fit(parameter_stride)? })
}

/// Samples of groups of so many elements.
fn groups_of(samples: u64, width: u64) -> Result<Grid, Error> {
    let channels = if width.is_multiple_of(4) { 4 } else { 1 };
    let positions = width / channels;
    Grid::new(
        &[dimension(samples, GROUPS * width, 0)?, dimension(GROUPS, width, channels)?],
        &[dimension(channels, positions, 1)?, dimension(positions, 1, 0)?],
    )
}

/// Images of so many channels, channels first.
fn images_of(images: u64, channels: u64) -> Result<Grid, Error> {
    Grid::new(&[dimension(images, channels * PIXELS, 0)?, dimension(PIXELS, 1, 0)?], &[dimension(channels, PIXELS, 1)?])
}

/// What a compiler says of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Invocations of a subgroup.
    pub subgroup_size: u32,
    /// Counts by the names that the driver has for them.
    pub values: Vec<(String, u64)>,
}

impl Told {
    /// The number of this name.
    pub fn value(&self, name: &str) -> Result<u64, String> {
        let find = self.values.iter().find(|(it, _)| it == name);
        find.map(|(_, value)| *value).ok_or_else(|| format!("the driver does not tell \"{name}\""))
    }
}

/// What RADV says of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Vector registers of an invocation.
    pub vgprs: u64,
    /// Scalar registers of a subgroup.
    pub sgprs: u64,
    /// Vector registers that are spilled.
    pub spilled_vgprs: u64,
    /// Scalar registers that are spilled.
    pub spilled_sgprs: u64,
    /// Private memory of a subgroup.
    pub scratch_bytes: u64,
    /// Memory of a workgroup.
    pub lds_bytes: u64,
    /// Machine code.
    pub code_bytes: u64,
    /// Subgroups that a SIMD unit can hold at once. On RDNA, RADV counts a subgroup of 64 as two.
    pub waves: u64,
    /// Invocations of a subgroup.
    pub subgroup_size: u32,
}

impl Statistics {
    fn of(told: &Told) -> Result<Self, String> {
        Ok(Self {
            vgprs: told.value("VGPRs")?,
            sgprs: told.value("SGPRs")?,
            spilled_vgprs: told.value("Spilled VGPRs")?,
            spilled_sgprs: told.value("Spilled SGPRs")?,
            scratch_bytes: told.value("Scratch size")?,
            lds_bytes: told.value("LDS size")?,
            code_bytes: told.value("Code size")?,
            waves: told.value("Subgroups per SIMD")?,
            subgroup_size: told.subgroup_size,
        })
    }
}

/// A device of one of Mesa's drivers.
pub struct Mesa {
    // The functions of the others are in its library.
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    name: String,
    mesa: (u32, u32),
    capabilities: Capabilities,
}

impl Mesa {
    /// A device of this chip; `None` where its driver or the Vulkan loader is not installed.
    ///
    /// RADV ends a process that asks for a chip that it does not know.
    pub fn open(chip: &str) -> Result<Option<Self>, String> {
        if self::chip().as_deref() != Some(chip) {
            return Err(format!("this process is not for {chip}: see `rerun_for`"));
        }
        let (driver, _) = Driver::of(chip);
        // Safety: this loads the library whose name the system gives to the Vulkan loader.
        let Ok(entry) = (unsafe { ash::Entry::load() }) else { return Ok(None) };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // Safety: the structures are complete, and live until the call returns.
        let instance = match unsafe { entry.create_instance(&info, None) } {
            Ok(instance) => instance,
            Err(vk::Result::ERROR_INCOMPATIBLE_DRIVER) => return Ok(None),
            Err(error) => return Err(format!("a Vulkan instance: {error}")),
        };
        match open_device(&instance, driver) {
            Ok(Some(Opened { device, name, mesa, capabilities })) => {
                let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
                Ok(Some(Self { _entry: entry, instance, device, executables, name, mesa, capabilities }))
            }
            other => {
                // Safety: nothing that was made of it is left.
                unsafe { instance.destroy_instance(None) };
                other.map(|_| None).map_err(|error| format!("a device of {driver:?}: {error}"))
            }
        }
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Major and minor version of Mesa.
    pub fn mesa(&self) -> (u32, u32) {
        self.mesa
    }

    /// What wgpu would say of it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What RADV says of a kernel.
    pub fn kernel_statistics(&self, kernel: &Kernel) -> Result<Statistics, String> {
        self.kernel_told(kernel).and_then(|told| Statistics::of(&told))
    }

    /// What the compiler says of a kernel.
    pub fn kernel_told(&self, kernel: &Kernel) -> Result<Told, String> {
        self.told(&spirv(kernel), &bindings(kernel)).map_err(|error| format!("{}: {error}", kernel.label()))
    }

    /// What the compiler says of a compute shader, of which group 0 has these bindings: the number, and whether it is uniform
    /// rather than storage. The SPIR-V must be valid, its entry point "main".
    pub fn told(&self, spirv: &[u32], bindings: &[(u32, bool)]) -> Result<Told, String> {
        let mut objects = Objects::default();
        let told = self.compile(spirv, bindings, &mut objects);
        // Safety: nothing uses them any more; those that were not made are null.
        unsafe {
            self.device.destroy_pipeline(objects.pipeline, None);
            self.device.destroy_shader_module(objects.module, None);
            self.device.destroy_pipeline_layout(objects.layout, None);
            self.device.destroy_descriptor_set_layout(objects.set_layout, None);
        }
        told
    }

    fn compile(&self, spirv: &[u32], bindings: &[(u32, bool)], objects: &mut Objects) -> Result<Told, String> {
        let device = &self.device;
        let describe = |error: vk::Result| error.to_string();
        let bindings: Vec<_> = bindings
            .iter()
            .map(|&(binding, uniform)| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(if uniform {
                        vk::DescriptorType::UNIFORM_BUFFER
                    } else {
                        vk::DescriptorType::STORAGE_BUFFER
                    })
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        // Safety: the handles are of this device, the structures complete; all live until the calls return.
        let statistics = unsafe {
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            objects.set_layout = device.create_descriptor_set_layout(&info, None).map_err(describe)?;
            let set_layouts = [objects.set_layout];
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&set_layouts);
            objects.layout = device.create_pipeline_layout(&info, None).map_err(describe)?;
            let info = vk::ShaderModuleCreateInfo::default().code(spirv);
            objects.module = device.create_shader_module(&info, None).map_err(describe)?;
            // As wgpu has it where a device has subgroup operations.
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(objects.module)
                .name(MAIN);
            let info = vk::ComputePipelineCreateInfo::default()
                .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
                .stage(stage)
                .layout(objects.layout);
            let pipelines = device
                .create_compute_pipelines(vk::PipelineCache::null(), &[info], None)
                .map_err(|(_, error)| error.to_string())?;
            objects.pipeline = pipelines[0];
            let info = vk::PipelineInfoKHR::default().pipeline(objects.pipeline);
            let executables = self.executables.get_pipeline_executable_properties(&info).map_err(describe)?;
            let [executable] = executables.as_slice() else {
                return Err(format!("{} executables instead of one", executables.len()));
            };
            let info = vk::PipelineExecutableInfoKHR::default().pipeline(objects.pipeline).executable_index(0);
            let all = self.executables.get_pipeline_executable_statistics(&info).map_err(describe)?;
            (executable.subgroup_size, all)
        };
        let (subgroup_size, all) = statistics;
        let count = |statistic: &vk::PipelineExecutableStatisticKHR<'_>| {
            let name = statistic.name_as_c_str().ok()?.to_string_lossy().into_owned();
            if statistic.format != vk::PipelineExecutableStatisticFormatKHR::UINT64 {
                return None;
            }
            // Safety: the format says which of them it is.
            Some((name, unsafe { statistic.value.u64 }))
        };
        Ok(Told { subgroup_size, values: all.iter().filter_map(count).collect() })
    }
}

impl Drop for Mesa {
    fn drop(&mut self) {
        // Safety: all that was made of them is gone.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// What a compilation makes; null until then.
#[derive(Default)]
struct Objects {
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    module: vk::ShaderModule,
    pipeline: vk::Pipeline,
}

/// A device, and what is known of it.
struct Opened {
    device: ash::Device,
    name: String,
    mesa: (u32, u32),
    capabilities: Capabilities,
}

/// A device of this driver with its name; `None` if there is none.
fn open_device(instance: &ash::Instance, of: Driver) -> Result<Option<Opened>, vk::Result> {
    // Safety: the structures are complete, and live until the calls return.
    unsafe {
        for physical in instance.enumerate_physical_devices()? {
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut subgroups = vk::PhysicalDeviceSubgroupSizeControlProperties::default();
            let mut maintenance_3 = vk::PhysicalDeviceMaintenance3Properties::default();
            let mut maintenance_4 = vk::PhysicalDeviceMaintenance4Properties::default();
            let mut all = vk::PhysicalDeviceProperties2::default()
                .push_next(&mut driver)
                .push_next(&mut subgroups)
                .push_next(&mut maintenance_3)
                .push_next(&mut maintenance_4);
            instance.get_physical_device_properties2(physical, &mut all);
            let properties = all.properties;
            if driver.driver_id != of.id() {
                continue;
            }
            let name = properties.device_name_as_c_str().unwrap_or_default().to_string_lossy().into_owned();
            let version = properties.driver_version;
            let mesa = (vk::api_version_major(version), vk::api_version_minor(version));
            let max_buffer_bytes = maintenance_3.max_memory_allocation_size.min(maintenance_4.max_buffer_size);
            let capabilities = capabilities(&properties, &subgroups, max_buffer_bytes);

            // What wgpu enables of what changes the code.
            let mut executables =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
            let mut subgroup_size =
                vk::PhysicalDeviceSubgroupSizeControlFeatures::default().subgroup_size_control(true);
            let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
                .robust_buffer_access2(true)
                .robust_image_access2(true);
            let features = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
            let extensions = [khr::pipeline_executable_properties::NAME.as_ptr(), ext::robustness2::NAME.as_ptr()];
            let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&extensions)
                .enabled_features(&features)
                .push_next(&mut executables)
                .push_next(&mut subgroup_size)
                .push_next(&mut robustness);
            let device = instance.create_device(physical, &info, None)?;
            return Ok(Some(Opened { device, name, mesa, capabilities }));
        }
    }
    Ok(None)
}

/// As wgpu 30 makes its limits, and the crate its capabilities of those. Storage buffers are counted more simply; there are
/// millions.
fn capabilities(
    properties: &vk::PhysicalDeviceProperties,
    subgroups: &vk::PhysicalDeviceSubgroupSizeControlProperties<'_>,
    max_buffer_bytes: u64,
) -> Capabilities {
    const MAX_I32: u64 = i32::MAX as u64;
    let limits = &properties.limits;
    let subgroups = SubgroupSizes { min: subgroups.min_subgroup_size, max: subgroups.max_subgroup_size };
    let max_buffer_bytes = max_buffer_bytes.min(MAX_I32);
    let [x, y, z] = limits.max_compute_work_group_count;
    Capabilities {
        class: match properties.device_type {
            vk::PhysicalDeviceType::DISCRETE_GPU => AdapterClass::Discrete,
            vk::PhysicalDeviceType::INTEGRATED_GPU => AdapterClass::Integrated,
            vk::PhysicalDeviceType::CPU => AdapterClass::Cpu,
            _ => AdapterClass::Other,
        },
        cores: 1,
        subgroups: subgroups.is_usable().then_some(subgroups),
        dialect: Dialect::Naga,
        // Nothing can be tried without the chip; the GPUs of all three have both.
        exact_unpack_f16: true,
        exact_pack_f16: true,
        max_invocations_per_workgroup: limits
            .max_compute_work_group_invocations
            .min(limits.max_compute_work_group_size[0]),
        max_workgroups_per_dimension: x.min(y).min(z),
        max_workgroup_storage: limits.max_compute_shared_memory_size,
        max_storage_buffers: limits
            .max_per_stage_descriptor_storage_buffers
            .min(limits.max_descriptor_set_storage_buffers / 2),
        max_binding_bytes: u64::from(limits.max_storage_buffer_range).min(MAX_I32).min(max_buffer_bytes) & !3,
        max_buffer_bytes,
        storage_offset_alignment: limits.min_storage_buffer_offset_alignment.max(32) as u32,
    }
}

/// The bindings of a kernel, for [`Mesa::told`].
pub fn bindings(kernel: &Kernel) -> Vec<(u32, bool)> {
    let bindings = kernel.bindings().into_iter();
    bindings.map(|binding| (binding.role.binding(), binding.role == BindingRole::Params)).collect()
}

/// The SPIR-V that wgpu would hand to the driver: it makes no checks, as the crate asks of it.
///
/// # Panics
/// If naga refuses the kernel's WGSL.
pub fn spirv(kernel: &Kernel) -> Vec<u32> {
    let (label, wgsl) = (kernel.label(), kernel.wgsl());
    let module =
        naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|error| panic!("{label}: {}", error.emit_to_string(&wgsl)));
    let subgroups = if kernel.uses_subgroups() { NagaCapabilities::SUBGROUP } else { NagaCapabilities::empty() };
    let capabilities = subgroups | NagaCapabilities::SHADER_FLOAT16_IN_FLOAT32;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{label}: {}", error.emit_to_string(&wgsl)));
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let entry = spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: ENTRY_POINT.into() };
    spv::write_vec(&module, &info, &options, Some(&entry)).unwrap_or_else(|error| panic!("SPIR-V, {label}: {error}"))
}
