//! The planner for JavaScript: plain objects in, plain objects out. `npm/index.d.ts` says what they are.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use gpu_layer_norm::kernel::{
    AdapterClass, BindingRole, Capabilities, Chunk, Dialect, Dimension, ENTRY_POINT, Grid, Kernel, Layout, Plan,
    Problem, Role, SubgroupSizes,
};
use gpu_layer_norm::{Affine, Error, Modulation, Normalization, Operation, StorageType, Strategy, Variance};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wasm_bindgen::prelude::*;

/// What runs this problem on such a device.
///
/// # Errors
/// The crate's own, and those of an object that is no problem or no capabilities, each as a JavaScript `Error`.
#[wasm_bindgen(skip_typescript)]
pub fn plan(problem: JsValue, capabilities: JsValue) -> Result<JsValue, JsError> {
    let problem: ProblemObject = named("problem", problem)?;
    let strategy = problem.strategy;
    let capabilities = match capabilities.is_undefined() {
        true => CapabilitiesObject::default(),
        false => named("capabilities", capabilities)?,
    };
    let (problem, capabilities) = (problem.into_problem()?, capabilities.into_capabilities());
    let plan = match strategy {
        None => Plan::new(&problem, &capabilities)?,
        Some(name) => Plan::with_strategy(&problem, &capabilities, name.into())?,
    };
    let serializer = serde_wasm_bindgen::Serializer::new().serialize_maps_as_objects(true);
    Ok(PlanObject::new(&plan).serialize(&serializer)?)
}

/// An object, or an error that says which.
fn named<T: for<'de> Deserialize<'de>>(what: &str, object: JsValue) -> Result<T, JsError> {
    match serde_wasm_bindgen::from_value(object) {
        Ok(Strict(object)) => Ok(object),
        Err(error) => Err(JsError::new(&format!("{what}: {error}"))),
    }
}

/// An object all of whose properties are known. `serde_wasm_bindgen` asks an object for the fields of a struct alone, and so never sees
/// the others; as a map it gives them all.
struct Strict<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for AsMap<T> {
            type Value = Strict<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Strict)
            }
        }

        deserializer.deserialize_map(AsMap(PhantomData))
    }
}

/// Declares an enum of names that JavaScript knows, and what each means here.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident: $meaning:ident { $($variant:ident),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Deserialize, Serialize)]
        #[serde(rename_all = "camelCase")]
        enum $name { $($variant),+ }

        impl From<$name> for $meaning {
            fn from(name: $name) -> Self {
                match name { $($name::$variant => Self::$variant),+ }
            }
        }

        impl From<$meaning> for $name {
            fn from(meaning: $meaning) -> Self {
                match meaning { $($meaning::$variant => Self::$variant),+ }
            }
        }
    };
}

names!(OperationName: Operation { Forward, Backward, Moments, Normalize, GradientSums, Gradients });
names!(NormalizationName: Normalization { LayerNorm, RmsNorm });
names!(AffineName: Affine { None, Weight, WeightAndBias });
names!(VarianceName: Variance { Biased, Unbiased });
names!(ModulationName: Modulation { Adaptive, Conditional });
names!(StorageName: StorageType { F32, F16, Bf16 });
names!(StrategyName: Strategy { Resident, PartlyResident, Streaming, Split });
names!(ClassName: AdapterClass { Discrete, Integrated, Cpu, Other });

/// A problem; what is absent is as [`Problem::new`] has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProblemObject {
    rows: u64,
    width: u64,
    operation: Option<OperationName>,
    normalization: Option<NormalizationName>,
    affine: Option<AffineName>,
    zero_centred_weight: Option<bool>,
    variance: Option<VarianceName>,
    eps: Option<f32>,
    modulation: Option<ModulationName>,
    rows_per_condition: Option<u64>,
    sequence_rows: Option<u64>,
    grid: Option<Strict<GridObject>>,
    accumulate: Option<bool>,
    tensors: Option<BTreeMap<String, Strict<LayoutObject>>>,
    strategy: Option<StrategyName>,
}

impl ProblemObject {
    fn into_problem(self) -> Result<Problem, JsError> {
        let mut problem = Problem::new(self.rows, self.width)?;
        if let Some(affine) = self.affine {
            problem = problem.affine(affine.into());
        }
        if let Some(operation) = self.operation {
            problem = problem.with_operation(operation.into());
        }
        if let Some(eps) = self.eps {
            problem = problem.eps(eps)?;
        }
        if let Some(variance) = self.variance {
            problem = problem.variance(variance.into())?;
        }
        if let Some(normalization) = self.normalization {
            problem = problem.normalization(normalization.into())?;
        }
        if let Some(modulation) = self.modulation {
            problem = problem.modulation(modulation.into());
        }
        if let Some(rows) = self.rows_per_condition {
            problem = problem.rows_per_condition(rows)?;
        }
        if let Some(rows) = self.sequence_rows {
            problem = problem.causal(rows)?;
        }
        problem = problem.zero_centred_weight(self.zero_centred_weight.unwrap_or(false));
        problem = problem.accumulate(self.accumulate.unwrap_or(false));
        for (name, Strict(layout)) in self.tensors.unwrap_or_default() {
            problem = problem.tensor(role(&name)?, layout.into_layout())?;
        }
        if let Some(Strict(grid)) = self.grid {
            problem = problem.grid(grid.into_grid()?)?;
        }
        Ok(problem)
    }
}

/// The tensor of a name.
fn role(name: &str) -> Result<Role, JsError> {
    let found = Role::ALL.into_iter().find(|role| camel_case(role.name()) == name);
    found.ok_or_else(|| {
        let known = Role::ALL.map(|role| camel_case(role.name())).join(", ");
        JsError::new(&format!("problem: there is no tensor `{name}`; the tensors are {known}"))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LayoutObject {
    storage: Option<StorageName>,
    offset: Option<u64>,
    row_stride: Option<u64>,
    buffer: Option<u32>,
}

impl LayoutObject {
    fn into_layout(self) -> Layout {
        let Self { storage, offset, row_stride, buffer } = self;
        Layout {
            storage: storage.map_or(StorageType::F32, Into::into),
            offset: offset.unwrap_or(0),
            row_stride,
            buffer,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GridObject {
    rows: Vec<Strict<DimensionObject>>,
    elements: Vec<Strict<DimensionObject>>,
}

impl GridObject {
    fn into_grid(self) -> Result<Grid, Error> {
        let dimensions = |list: Vec<Strict<DimensionObject>>| {
            list.into_iter().map(|Strict(it)| it.into()).collect::<Vec<Dimension>>()
        };
        Grid::new(&dimensions(self.rows), &dimensions(self.elements))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DimensionObject {
    size: u32,
    stride: u32,
    parameter_stride: Option<u32>,
}

impl From<DimensionObject> for Dimension {
    fn from(DimensionObject { size, stride, parameter_stride }: DimensionObject) -> Self {
        Self { size, stride, parameter_stride: parameter_stride.unwrap_or(0) }
    }
}

/// What a device can do; what is absent is as every implementation of WebGPU has it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CapabilitiesObject {
    class: Option<ClassName>,
    cores: Option<u32>,
    subgroups: Option<Strict<SubgroupsObject>>,
    max_invocations_per_workgroup: Option<u32>,
    max_workgroups_per_dimension: Option<u32>,
    max_workgroup_storage: Option<u32>,
    max_storage_buffers: Option<u32>,
    max_binding_bytes: Option<u64>,
    max_buffer_bytes: Option<u64>,
    storage_offset_alignment: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubgroupsObject {
    min: u32,
    max: u32,
}

impl CapabilitiesObject {
    fn into_capabilities(self) -> Capabilities {
        let base = Capabilities::webgpu_baseline();
        let subgroups = self.subgroups.map(|Strict(SubgroupsObject { min, max })| SubgroupSizes { min, max });
        Capabilities {
            class: self.class.map_or(base.class, Into::into),
            cores: self.cores.unwrap_or(base.cores),
            subgroups: subgroups.filter(|sizes| sizes.is_usable()),
            dialect: Dialect::Browser,
            max_invocations_per_workgroup: self
                .max_invocations_per_workgroup
                .unwrap_or(base.max_invocations_per_workgroup),
            max_workgroups_per_dimension: self
                .max_workgroups_per_dimension
                .unwrap_or(base.max_workgroups_per_dimension),
            max_workgroup_storage: self.max_workgroup_storage.unwrap_or(base.max_workgroup_storage),
            max_storage_buffers: self.max_storage_buffers.unwrap_or(base.max_storage_buffers),
            max_binding_bytes: self.max_binding_bytes.unwrap_or(base.max_binding_bytes),
            max_buffer_bytes: self.max_buffer_bytes.unwrap_or(base.max_buffer_bytes),
            storage_offset_alignment: self.storage_offset_alignment.unwrap_or(base.storage_offset_alignment),
            ..base
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlanObject {
    description: String,
    strategy: StrategyName,
    kernels: Vec<KernelObject>,
    scratch: Vec<ScratchObject>,
    chunks: Vec<ChunkObject>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KernelObject {
    label: String,
    wgsl: String,
    entry_point: &'static str,
    bindings: Vec<BindingObject>,
}

#[derive(Serialize)]
struct BindingObject {
    binding: u32,
    role: String,
    r#type: &'static str,
}

#[derive(Serialize)]
struct ScratchObject {
    role: String,
    bytes: u64,
}

#[derive(Serialize)]
struct ChunkObject {
    rows: [u64; 2],
    tensors: BTreeMap<String, RangeObject>,
    dispatches: Vec<DispatchObject>,
}

#[derive(Serialize)]
struct RangeObject {
    offset: u64,
    size: u64,
}

#[derive(Serialize)]
struct DispatchObject {
    kernel: usize,
    workgroups: [u32; 3],
    #[serde(serialize_with = "as_bytes")]
    params: Vec<u8>,
}

/// As a `Uint8Array`.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

impl PlanObject {
    fn new(plan: &Plan) -> Self {
        Self {
            description: plan.to_string(),
            strategy: plan.strategy().into(),
            kernels: plan.kernels().iter().map(KernelObject::new).collect(),
            scratch: plan
                .scratch()
                .iter()
                .map(|&(role, bytes)| ScratchObject { role: role_name(role), bytes })
                .collect(),
            chunks: plan.chunks().iter().map(ChunkObject::new).collect(),
        }
    }
}

impl KernelObject {
    fn new(kernel: &Kernel) -> Self {
        let binding = |binding: gpu_layer_norm::kernel::Binding| BindingObject {
            binding: binding.role.binding(),
            role: role_name(binding.role),
            r#type: match (binding.role, binding.writable) {
                (BindingRole::Params, _) => "uniform",
                (_, true) => "storage",
                (_, false) => "read-only-storage",
            },
        };
        Self {
            label: kernel.label(),
            wgsl: kernel.wgsl(),
            entry_point: ENTRY_POINT,
            bindings: kernel.bindings().into_iter().map(binding).collect(),
        }
    }
}

impl ChunkObject {
    fn new(chunk: &Chunk) -> Self {
        let tensors = chunk.tensors.iter().map(|(role, bytes)| {
            (camel_case(role.name()), RangeObject { offset: bytes.start, size: bytes.end - bytes.start })
        });
        let dispatches = chunk.dispatches.iter().map(|dispatch| DispatchObject {
            kernel: dispatch.kernel,
            workgroups: dispatch.workgroups,
            params: bytemuck::bytes_of(&dispatch.params).to_vec(),
        });
        Self { rows: [chunk.rows.start, chunk.rows.end], tensors: tensors.collect(), dispatches: dispatches.collect() }
    }
}

/// The name of what is bound.
fn role_name(role: BindingRole) -> String {
    match role {
        BindingRole::Tensor(role) => camel_case(role.name()),
        // `ColumnSums` becomes `columnSums`.
        other => {
            let name = format!("{other:?}");
            name[..1].to_lowercase() + &name[1..]
        }
    }
}

/// `output_gradient` becomes `outputGradient`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |all, word| all + &word[..1].to_uppercase() + &word[1..])
}
