use std::fmt::Write as _;

use super::{AdapterClass, Capabilities};

/// What a hidden layer does to each of its elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x.
    #[default]
    Identity,
    /// max(x, 0); its derivative at 0 is 0.
    Relu,
    /// x / (1 + exp(−x)), also called swish.
    Silu,
    /// tanh(x).
    Tanh,
}

/// How the work on a result is shared out among invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sharing {
    /// A workgroup takes tiles of `side` × `side` elements, one element an invocation.
    Tiled {
        side: u32,
        /// Whether the terms of a sum lie one after another in the left matrix.
        left_along_terms: bool,
        /// Whether they do in the right one.
        right_along_terms: bool,
    },
    /// Each of so many invocations of a workgroup takes blocks of `rows` × 4 elements of its own.
    Alone { invocations: u32, rows: u32 },
}

/// Which rows the categories of samples pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Picked {
    /// None: rows lie one after another.
    Nothing,
    /// Those of the left matrix, one for each row of the result.
    Left,
    /// Those of the right matrix, one for each term.
    Right,
}

/// What becomes of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Finish {
    /// It goes through the activation.
    Activated(Activation),
    /// It is multiplied by the derivative of the activation, where that was taken.
    Sloped(Activation),
}

/// A complete variant of `shaders/projection.wgsl`, and so the whole key of a compiled pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProjectionKernel {
    /// result[row, column] = finish(Σ left[row, term] · right[term, column])
    Product {
        sharing: Sharing,
        picked: Picked,
        finish: Finish,
        /// Whether what lies in the result is added, before the sum is finished.
        accumulate: bool,
    },
    /// result[category, column] = Σ right[sample, column] over the samples of the category; an element an invocation.
    TableGradient { invocations: u32 },
}

/// What a binding of group 0 is for; the number is that of the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProjectionBinding {
    /// [`ProjectionParams`]; uniform.
    Params = 0,
    Left = 1,
    Right = 2,
    /// The only one that is written.
    Result = 3,
    /// One u32 for each sample.
    Categories = 4,
    /// What the activation was given.
    Before = 5,
}

/// The uniform block of one dispatch. Its twin is in `shaders/projection.wgsl`, which says what they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct ProjectionParams {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) terms: u32,
    pub(crate) left_row: u32,
    pub(crate) left_term: u32,
    pub(crate) right_term: u32,
    pub(crate) right_column: u32,
    pub(crate) work: u32,
    pub(crate) workgroups: u32,
    pub(crate) workgroups_x: u32,
    pub(crate) first_category: u32,
    pub(crate) last_category: u32,
    pub(crate) all_bits: u32,
    pub(crate) padding_0: u32,
    pub(crate) padding_1: u32,
    pub(crate) padding_2: u32,
}

const _: () = assert!(size_of::<ProjectionParams>() == 64);

impl ProjectionParams {
    /// Size in bytes.
    pub(crate) const SIZE: u64 = size_of::<Self>() as u64;
}

/// The most elements of a matrix: what is counted with fits 32 bits then, a workgroup too many included.
pub(crate) const MAX_ELEMENTS: u64 = 1 << 31;

impl Sharing {
    /// The best for a result of so many rows. On processors, where a barrier costs more than the arithmetic, and on devices that are too
    /// small for tiles, invocations keep to themselves.
    pub(crate) fn new(capabilities: &Capabilities, rows: u32, left_along_terms: bool, right_along_terms: bool) -> Self {
        let fits = |side: u32| {
            let tiled = Self::Tiled { side, left_along_terms, right_along_terms };
            let fits = tiled.invocations() <= capabilities.max_invocations_per_workgroup
                && tiled.workgroup_storage() <= capabilities.max_workgroup_storage;
            fits.then_some(tiled)
        };
        let tiled = if capabilities.class == AdapterClass::Cpu { None } else { fits(16).or_else(|| fits(8)) };
        tiled.unwrap_or(Self::Alone {
            invocations: capabilities.max_invocations_per_workgroup.min(64),
            rows: if rows == 1 { 1 } else { 4 },
        })
    }

    const fn invocations(self) -> u32 {
        match self {
            Self::Tiled { side, .. } => side * side,
            Self::Alone { invocations, .. } => invocations,
        }
    }

    /// Bytes of workgroup memory.
    const fn workgroup_storage(self) -> u32 {
        match self {
            // As `tiled.wgsl` has it.
            Self::Tiled { side, .. } => 2 * side * (4 * side + 1) * 4,
            Self::Alone { .. } => 0,
        }
    }
}

impl ProjectionKernel {
    /// Invocations in a workgroup.
    pub(crate) const fn workgroup_size(&self) -> u32 {
        match self {
            Self::Product { sharing, .. } => sharing.invocations(),
            Self::TableGradient { invocations } => *invocations,
        }
    }

    /// What a result of this shape is divided into, and how much of that a workgroup takes at once.
    pub(crate) const fn work(&self, rows: u32, columns: u32) -> (u32, u32) {
        match self {
            Self::Product { sharing: Sharing::Tiled { side, .. }, .. } => {
                (rows.div_ceil(*side) * columns.div_ceil(*side), 1)
            }
            Self::Product { sharing: Sharing::Alone { invocations, rows: at_once }, .. } => {
                (rows.div_ceil(*at_once) * columns.div_ceil(4), *invocations)
            }
            Self::TableGradient { invocations } => (rows * columns, *invocations),
        }
    }

    /// The bindings of group 0 in ascending order.
    pub(crate) fn bindings(&self) -> Vec<ProjectionBinding> {
        use ProjectionBinding::{Before, Categories, Left, Params, Result, Right};
        match self {
            Self::Product { picked, finish, .. } => {
                let mut bindings = vec![Params, Left, Right, Result];
                bindings.extend((*picked != Picked::Nothing).then_some(Categories));
                bindings.extend(matches!(finish, Finish::Sloped(_)).then_some(Before));
                bindings
            }
            Self::TableGradient { .. } => vec![Params, Right, Result, Categories],
        }
    }

    /// A name for debuggers.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Product { sharing, picked, finish, accumulate } => {
                let accumulate = if *accumulate { " accumulate" } else { "" };
                format!("projection {sharing:?} {picked:?} {finish:?}{accumulate}")
            }
            Self::TableGradient { .. } => "table gradient".into(),
        }
    }

    /// The complete WGSL: the numbers of this variant, then the fragments.
    pub(crate) fn wgsl(&self) -> String {
        macro_rules! fragment {
            ($name:literal) => {
                include_str!(concat!("../../shaders/projection", $name, ".wgsl"))
            };
        }
        let mut wgsl = String::from("// The numbers of this variant.\n\n");
        let mut constant = |name: &str, ty: &str, value: &dyn std::fmt::Display| {
            writeln!(wgsl, "const {name}: {ty} = {value};").expect("a String takes any text");
        };
        constant("WORKGROUP_SIZE", "u32", &format_args!("{}u", self.workgroup_size()));
        let mut fragments = Vec::new();
        let mut quad = ("f32", "u32");
        match *self {
            Self::Product { sharing, picked, finish, accumulate } => {
                constant("ACCUMULATE", "bool", &accumulate);
                let (Finish::Activated(activation) | Finish::Sloped(activation)) = finish;
                constant("ACTIVATION", "u32", &format_args!("{}u", activation as u32));
                fragments.extend([fragment!("/product"), fragment!("/activation")]);
                fragments.push(match finish {
                    Finish::Activated(_) => fragment!("/activated"),
                    Finish::Sloped(_) => fragment!("/sloped"),
                });
                match picked {
                    Picked::Nothing => fragments.push(fragment!("/rows_own")),
                    Picked::Left => fragments.extend([fragment!("/categories"), fragment!("/rows_left")]),
                    Picked::Right => fragments.extend([fragment!("/categories"), fragment!("/rows_right")]),
                }
                match sharing {
                    Sharing::Tiled { side, left_along_terms, right_along_terms } => {
                        constant("TILE", "u32", &format_args!("{side}u"));
                        constant("LEFT_ALONG_TERMS", "bool", &left_along_terms);
                        constant("RIGHT_ALONG_TERMS", "bool", &right_along_terms);
                        fragments.push(fragment!("/tiled"));
                    }
                    Sharing::Alone { rows, .. } => {
                        constant("ROWS", "u32", &format_args!("{rows}u"));
                        quad = ("vec4<f32>", "vec4<u32>");
                        fragments.push(fragment!("/alone"));
                    }
                }
            }
            Self::TableGradient { .. } => fragments.extend([fragment!("/categories"), fragment!("/table_gradient")]),
        }
        let (quad, bits) = quad;
        writeln!(wgsl, "alias Quad = {quad};\nalias QuadBits = {bits};\n").expect("a String takes any text");
        wgsl.push_str(fragment!(""));
        for fragment in fragments {
            wgsl.push('\n');
            wgsl.push_str(fragment);
        }
        wgsl
    }
}

impl ProjectionBinding {
    /// Binding number in group 0.
    pub(crate) const fn number(self) -> u32 {
        self as u32
    }
}

/// Every variant, with workgroups of some sizes.
#[cfg(test)]
pub(crate) fn all_projection_kernels() -> Vec<ProjectionKernel> {
    let mut sharings = Vec::new();
    for side in [8, 16] {
        for (left_along_terms, right_along_terms) in [(false, false), (false, true), (true, false), (true, true)] {
            sharings.push(Sharing::Tiled { side, left_along_terms, right_along_terms });
        }
    }
    for (invocations, rows) in [(64, 1), (64, 4), (1, 4)] {
        sharings.push(Sharing::Alone { invocations, rows });
    }
    let activations = [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Tanh];
    let finishes = activations.iter().flat_map(|&it| [Finish::Activated(it), Finish::Sloped(it)]);
    let finishes: Vec<_> = finishes.collect();
    let mut kernels = vec![ProjectionKernel::TableGradient { invocations: 64 }];
    for sharing in sharings {
        for picked in [Picked::Nothing, Picked::Left, Picked::Right] {
            for &finish in &finishes {
                for accumulate in [false, true] {
                    kernels.push(ProjectionKernel::Product { sharing, picked, finish, accumulate });
                }
            }
        }
    }
    kernels
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use naga::back::{glsl, hlsl, msl, spv};
    use naga::valid::{Capabilities as NagaCapabilities, ModuleInfo, ValidationFlags, Validator};

    use super::*;
    use crate::kernel::ENTRY_POINT;

    fn parse(kernel: &ProjectionKernel) -> (naga::Module, ModuleInfo) {
        let (label, wgsl) = (kernel.label(), kernel.wgsl());
        let module = naga::front::wgsl::parse_str(&wgsl)
            .unwrap_or_else(|error| panic!("{label}: {}", error.emit_to_string(&wgsl)));
        let info = Validator::new(ValidationFlags::all(), NagaCapabilities::empty())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{label}: {}", error.emit_to_string(&wgsl)));
        (module, info)
    }

    fn translate(label: &str, module: &naga::Module, info: &ModuleInfo) {
        let spirv = spv::write_vec(module, info, &spv::Options { lang_version: (1, 3), ..Default::default() }, None);
        assert!(!spirv.unwrap_or_else(|error| panic!("SPIR-V, {label}: {error}")).is_empty());
        let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
        msl::write_string(module, info, &options, &msl::PipelineOptions::default())
            .unwrap_or_else(|error| panic!("MSL, {label}: {error}"));
        let options =
            hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, fake_missing_bindings: true, ..Default::default() };
        let mut text = String::new();
        hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
            .write(module, info, None)
            .unwrap_or_else(|error| panic!("HLSL, {label}: {error}"));
        let version = glsl::Version::Embedded { version: 310, is_webgl: false };
        let pipeline = glsl::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: ENTRY_POINT.into(),
            multiview: None,
        };
        let options = glsl::Options { version, ..Default::default() };
        let policies = naga::proc::BoundsCheckPolicies::default();
        let mut text = String::new();
        glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
            .and_then(|mut writer| writer.write())
            .unwrap_or_else(|error| panic!("GLSL, {label}: {error}"));
    }

    #[test]
    fn every_variant_validates_and_translates_and_binds_what_the_host_binds() {
        for kernel in all_projection_kernels() {
            let label = kernel.label();
            let (module, info) = parse(&kernel);
            translate(&label, &module, &info);
            let mut declared: Vec<_> = module
                .global_variables
                .iter()
                .filter_map(|(_, variable)| {
                    let written = match variable.space {
                        naga::AddressSpace::Storage { access } => access.contains(naga::StorageAccess::STORE),
                        _ => false,
                    };
                    variable.binding.map(|binding| (binding.binding, written))
                })
                .collect();
            declared.sort_unstable();
            let expected: Vec<_> =
                kernel.bindings().iter().map(|it| (it.number(), *it == ProjectionBinding::Result)).collect();
            assert_eq!(declared, expected, "{label}");
            assert_eq!(module.entry_points.len(), 1);
            assert_eq!(module.entry_points[0].name, ENTRY_POINT);
            assert_eq!(module.entry_points[0].workgroup_size, [kernel.workgroup_size(), 1, 1], "{label}");
        }
    }

    #[test]
    fn wgsl_of_kernels_that_differ_differs() {
        let all = all_projection_kernels();
        let texts: HashSet<String> = all.iter().map(ProjectionKernel::wgsl).collect();
        assert_eq!(texts.len(), all.len(), "a part of the cache key does not reach the WGSL");
    }

    #[test]
    fn the_params_block_has_the_layout_of_its_host_twin() {
        let (module, _) = parse(&ProjectionKernel::TableGradient { invocations: 64 });
        let params = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Params"));
        let naga::TypeInner::Struct { members, span } = &params.expect("struct Params").1.inner else {
            panic!("Params is no struct")
        };
        assert_eq!(u64::from(*span), ProjectionParams::SIZE);
        let wgsl: Vec<_> = members.iter().map(|it| (it.name.clone().unwrap_or_default(), it.offset)).collect();
        macro_rules! host {
            ($($field:ident),+) => {
                vec![$((stringify!($field).to_owned(), std::mem::offset_of!(ProjectionParams, $field) as u32)),+]
            };
        }
        #[rustfmt::skip]
        let host = host!(
            rows, columns, terms, left_row, left_term, right_term, right_column, work, workgroups, workgroups_x,
            first_category, last_category, all_bits, padding_0, padding_1, padding_2
        );
        assert_eq!(wgsl, host);
    }

    #[test]
    fn tiles_are_taken_where_a_device_has_room_for_them() {
        let baseline = Capabilities::webgpu_baseline();
        let side = |capabilities: &Capabilities| match Sharing::new(capabilities, 4, true, true) {
            Sharing::Tiled { side, .. } => side,
            Sharing::Alone { .. } => 0,
        };
        assert_eq!(side(&baseline), 16);
        assert_eq!(side(&Capabilities { max_invocations_per_workgroup: 128, ..baseline }), 8);
        assert_eq!(side(&Capabilities { max_workgroup_storage: 4096, ..baseline }), 8);
        assert_eq!(side(&Capabilities { max_invocations_per_workgroup: 32, ..baseline }), 0);
        assert_eq!(side(&Capabilities { class: AdapterClass::Cpu, ..baseline }), 0);
    }
}
