//! The WGSL variants that plans can produce, read by naga and translated to what drivers take: every fourth of them, or all with
//! `GPU_LAYER_NORM_ALL_VARIANTS=1`. No GPU.

mod common;
#[path = "common/convergence.rs"]
mod convergence;
#[path = "common/rewrite.rs"]
mod rewrite;
#[path = "common/variants.rs"]
mod variants;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use gpu_layer_norm::kernel::{
    ARGUMENTS_WGSL, AdapterClass, BindingRole, Capabilities, Dialect, ENTRY_POINT, Entry, Kernel, Params, Plan,
    Problem, SubgroupSizes, Unit,
};
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities as NagaCapabilities, ModuleInfo, ValidationFlags, Validator};

/// Of how many variants one is read and translated, besides one of each kind.
const EVERY: u64 = 4;

/// Every variant, as naga reads it.
fn all_kernels() -> &'static HashSet<Kernel> {
    static ALL: LazyLock<HashSet<Kernel>> = LazyLock::new(|| variants::all_kernels(Dialect::Naga));
    &ALL
}

fn parse(kernel: &Kernel) -> (naga::Module, ModuleInfo) {
    parse_wgsl(&kernel.label(), &kernel.wgsl(), kernel.uses_subgroups())
}

fn parse_wgsl(label: &str, wgsl: &str, uses_subgroups: bool) -> (naga::Module, ModuleInfo) {
    let module =
        naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{label}: {}", error.emit_to_string(wgsl)));
    let subgroups = if uses_subgroups { NagaCapabilities::SUBGROUP } else { NagaCapabilities::empty() };
    let capabilities = subgroups | NagaCapabilities::SHADER_FLOAT16_IN_FLOAT32;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{label}: {}", error.emit_to_string(wgsl)));
    (module, info)
}

fn translate(kernel: &Kernel, module: &naga::Module, info: &ModuleInfo) {
    translate_module(&kernel.label(), module, info, kernel.uses_subgroups());
}

fn translate_module(label: &str, module: &naga::Module, info: &ModuleInfo, uses_subgroups: bool) {
    let spirv = spv::write_vec(module, info, &spv::Options { lang_version: (1, 3), ..Default::default() }, None);
    assert!(!spirv.unwrap_or_else(|error| panic!("SPIR-V, {label}: {error}")).is_empty());

    let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
    let (text, _) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|error| panic!("MSL, {label}: {error}"));
    assert!(!text.is_empty());

    let options =
        hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, fake_missing_bindings: true, ..Default::default() };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
        .write(module, info, None)
        .unwrap_or_else(|error| panic!("HLSL, {label}: {error}"));
    assert!(!text.is_empty());

    // GLSL ES has no subgroup operations without an extension; wgpu's GL backend never offers them.
    if !uses_subgroups {
        let options =
            glsl::Options { version: glsl::Version::Embedded { version: 310, is_webgl: false }, ..Default::default() };
        let pipeline = glsl::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: ENTRY_POINT.into(),
            multiview: None,
        };
        let mut text = String::new();
        glsl::Writer::new(&mut text, module, info, &options, &pipeline, naga::proc::BoundsCheckPolicies::default())
            .and_then(|mut writer| writer.write())
            .unwrap_or_else(|error| panic!("GLSL, {label}: {error}"));
        assert!(!text.is_empty());
    }
}

/// The bindings that the WGSL declares, as (binding, read-only storage, writable storage, uniform).
fn declared(module: &naga::Module) -> Vec<(u32, &'static str)> {
    let mut bindings: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let binding = variable.binding?;
            assert_eq!(binding.group, 0);
            let kind = match variable.space {
                naga::AddressSpace::Uniform => "uniform",
                naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => "written",
                naga::AddressSpace::Storage { .. } => "read",
                space => panic!("a binding in {space:?}"),
            };
            Some((binding.binding, kind))
        })
        .collect();
    bindings.sort_unstable();
    bindings
}

#[test]
fn variants_are_valid_and_bind_what_the_host_binds_and_can_be_translated() {
    let every = if std::env::var_os("GPU_LAYER_NORM_ALL_VARIANTS").is_some() { 1 } else { EVERY };
    let kernels = picked(all_kernels(), every);
    println!("{} of {} kernel variants", kernels.len(), all_kernels().len());
    assert!(kernels.len() > 1000, "{} variants are too few to have come from every axis", kernels.len());
    let all = &kernels;
    for entry in [
        Entry::CausalTiles,
        Entry::CausalCarries,
        Entry::CausalRows,
        Entry::NormalizeKnown,
        Entry::CausalGradientTiles,
        Entry::CausalGradientCarries,
        Entry::CausalGradientRows,
        Entry::GradientCoefficients,
    ] {
        assert!(all.iter().any(|kernel| kernel.entry == entry), "no {entry:?}");
    }
    let by_moments = |kernel: &&Kernel| kernel.entry == Entry::NormalizeKnown && !kernel.causal;
    assert!(all.iter().any(by_moments), "no rows are normalized by given moments");
    let in_grid = |picked: &dyn Fn(&Kernel) -> bool| all.iter().any(|kernel| kernel.grid.is_some() && picked(kernel));
    for unit in [Unit::Octet, Unit::Vector, Unit::Scalar, Unit::Rows] {
        assert!(in_grid(&|kernel| kernel.unit == unit), "no {unit:?} in a grid");
    }
    for entry in [Entry::Row, Entry::Partial, Entry::Merge, Entry::Gradient, Entry::GradientSums] {
        assert!(in_grid(&|kernel| kernel.entry == entry && kernel.rows_first), "no {entry:?} of rows side by side");
    }
    for entry in [Entry::GradientChannelSums, Entry::GradientChannels] {
        assert!(all.iter().any(|kernel| kernel.entry == entry), "no {entry:?}");
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for some in kernels.chunks(kernels.len().div_ceil(threads)) {
            scope.spawn(move || some.iter().for_each(|kernel| check_variant(kernel)));
        }
    });
}

/// One of every so many variants, the same ones in each run, and at least one of each kind.
fn picked(all: &HashSet<Kernel>, every: u64) -> Vec<&Kernel> {
    let hash = |kernel: &Kernel| {
        let mut hasher = DefaultHasher::new();
        kernel.hash(&mut hasher);
        hasher.finish()
    };
    let mut sorted: Vec<_> = all.iter().map(|kernel| (hash(kernel), kernel)).collect();
    sorted.sort_unstable_by_key(|(hash, _)| *hash);
    let mut kinds = HashSet::new();
    sorted.retain(|(hash, kernel)| {
        let kind = (kernel.entry, kernel.unit, kernel.access, kernel.reduction, kernel.grid.is_some(), kernel.causal);
        kinds.insert(kind) || hash.is_multiple_of(every)
    });
    sorted.into_iter().map(|(_, kernel)| kernel).collect()
}

/// That a kernel is valid, can be translated, keeps its subgroups together, and declares what the host binds.
fn check_variant(kernel: &Kernel) {
    let (module, info) = parse(kernel);
    translate(kernel, &module, &info);
    if let Err(problem) = convergence::check(&module, &kernel.wgsl()) {
        panic!("{}: {problem}", kernel.label());
    }
    let expected: Vec<_> = kernel
        .bindings()
        .into_iter()
        .map(|binding| {
            let kind = match binding.role {
                BindingRole::Params => "uniform",
                _ if binding.writable => "written",
                _ => "read",
            };
            (binding.role.binding(), kind)
        })
        .collect();
    assert_eq!(declared(&module), expected, "{}", kernel.label());
    assert_eq!(module.entry_points.len(), 1);
    assert_eq!(module.entry_points[0].name, ENTRY_POINT);
    assert_eq!(module.entry_points[0].workgroup_size, [kernel.workgroup_size(), 1, 1]);
}

#[test]
fn the_row_count_kernel_validates_and_translates_and_knows_where_the_params_lie() {
    let (module, info) = parse_wgsl("row count", ARGUMENTS_WGSL, false);
    translate_module("row count", &module, &info, false);
    assert_eq!(declared(&module), [(0, "uniform"), (1, "read"), (2, "written"), (3, "written")]);
    // It counts in words.
    macro_rules! words {
        ($($field:ident),+) => { [$(std::mem::offset_of!(Params, $field) / 4),+] };
    }
    let words = words!(
        spans,
        workgroups,
        workgroups_x,
        rows,
        max_workgroups_x,
        first_row,
        most_rows,
        segments,
        spans_per_workgroup,
        least_workgroups,
        most_workgroups
    );
    assert_eq!(words, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn the_params_block_has_the_layout_of_its_host_twin() {
    let problem = Problem::new(4, 8).expect("a valid problem");
    let plan = Plan::new(&problem, &Capabilities::webgpu_baseline()).expect("a plan");
    let (module, _) = parse(&plan.kernels()[0]);
    let (_, params) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Params")).expect("struct Params");
    let naga::TypeInner::Struct { members, span } = &params.inner else { panic!("Params is no struct") };
    assert_eq!(u64::from(*span), Params::SIZE);
    let wgsl: Vec<_> = members.iter().map(|member| (member.name.clone().unwrap_or_default(), member.offset)).collect();
    macro_rules! host {
        ($($field:ident),+) => {
            vec![$((stringify!($field).to_owned(), std::mem::offset_of!(Params, $field) as u32)),+]
        };
    }
    #[rustfmt::skip]
    let host = host!(
        spans, workgroups, workgroups_x, rows, max_workgroups_x, first_row, most_rows, segments, spans_per_workgroup,
        least_workgroups, most_workgroups, groups, accumulate, condition_rows, conditions, walks, sequence_rows,
        tiles, unbiased, turns, all_bits, eps, mean_share, variance_share, variance_share_rest, variance_factor,
        input_base, input_stride, residual_base, residual_stride, output_base, output_stride, sum_base, sum_stride,
        mean_base, mean_stride, rstd_base, rstd_stride, output_gradient_base, output_gradient_stride,
        sum_gradient_base, sum_gradient_stride, input_gradient_base, input_gradient_stride, residual_gradient_base,
        residual_gradient_stride, scale_base, scale_stride, shift_base, shift_stride, gate_base, gate_stride,
        scale_gradient_base, scale_gradient_stride, shift_gradient_base, shift_gradient_stride, gate_gradient_base,
        gate_gradient_stride, weight_base, bias_base, weight_gradient_base, bias_gradient_base, state_base,
        state_stride
    );
    assert_eq!(wgsl, host);
}

#[test]
fn a_browser_is_told_to_enable_subgroups_and_naga_is_not() {
    let problem = Problem::new(1000, 768).expect("a valid problem");
    let naga = Capabilities {
        class: AdapterClass::Discrete,
        subgroups: Some(SubgroupSizes { min: 32, max: 32 }),
        ..Capabilities::webgpu_baseline()
    };
    let browser = Capabilities { dialect: Dialect::Browser, ..naga };
    let wgsl = |capabilities| Plan::new(&problem, capabilities).expect("a plan").kernels()[0].wgsl();
    assert!(wgsl(&browser).starts_with("enable subgroups;\n"));
    assert!(!wgsl(&naga).contains("enable subgroups;"));
    let none = Capabilities { subgroups: None, ..browser };
    for word in ["enable", "diagnostic", "subgroupAdd", "subgroupShuffleXor", "subgroupAny"] {
        assert!(!wgsl(&none).contains(word), "{word} without subgroups");
    }
}

#[test]
fn wgsl_of_kernels_that_differ_differs() {
    let all = all_kernels();
    let texts: HashSet<String> = all.iter().map(Kernel::wgsl).collect();
    assert_eq!(texts.len(), all.len(), "a part of the cache key does not reach the WGSL");
}

#[test]
fn lanes_that_may_be_apart_in_a_subgroup_operation_are_found() {
    let body = |body: &str| {
        format!(
            "var<private> seen: u32;
            var<workgroup> shared_value: u32;
            @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
            fn picked(index: u32) -> u32 {{
                if index > 3u {{ return 1u; }}
                return 2u;
            }}
            @compute @workgroup_size(64)
            fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {{
                {body}
            }}"
        )
    };
    for (holds, text) in [
        (true, "seen = subgroupAdd(lane);"),
        (true, "if group.x > 3u { return; } seen = subgroupAdd(lane);"),
        (true, "seen = select(1u, 2u, lane > 3u); seen = subgroupAdd(seen);"),
        (true, "if lane > 3u { seen = 1u; } workgroupBarrier(); seen = subgroupAdd(seen);"),
        (true, "if subgroupAdd(lane) > 3u { seen = subgroupMax(lane); }"),
        (true, "seen = subgroupAdd(lane); if lane == 0u { buffer[0] = seen; }"),
        (true, "for (var i = 0u; i < 4u; i++) { seen = subgroupAdd(lane); }"),
        (
            true,
            "if lane == 0u { shared_value = 1u; } if workgroupUniformLoad(&shared_value) > 0u { seen = subgroupAdd(lane); }",
        ),
        (false, "if lane > 3u { seen = subgroupAdd(lane); }"),
        (false, "if lane > 3u { seen = 1u; } seen = subgroupAdd(lane);"),
        (false, "seen = picked(lane); seen = subgroupAdd(seen);"),
        (false, "if lane > 3u { return; } seen = subgroupAdd(lane);"),
        (false, "if buffer[group.x] > 3u { seen = 1u; } seen = subgroupAdd(lane);"),
        (false, "for (var i = lane; i < 99u; i++) { seen += 1u; } seen = subgroupAdd(lane);"),
        (false, "loop { if lane > 3u { break; } seen = subgroupAdd(lane); }"),
        (false, "for (var i = 0u; i < 4u; i++) { seen = subgroupAdd(lane); if lane == 0u { buffer[0] = seen; } }"),
        (false, "if lane > 3u { return; } workgroupBarrier();"),
        (false, "seen = lane; if seen > 3u { seen = 1u; } seen = subgroupShuffleXor(seen, 1u);"),
    ] {
        let wgsl = body(text);
        let (module, _) = parse_wgsl(text, &wgsl, true);
        let found = convergence::check(&module, &wgsl);
        assert_eq!(found.is_ok(), holds, "{text}: {found:?}");
    }
}

#[test]
fn rewritten_modules_are_valid_and_differ() {
    for kernel in all_kernels().iter().take(200) {
        let (module, _) = parse(kernel);
        let rewritten = rewrite::rewrite(&rewrite::inline(&module), rewrite::Rewriting::ALL, 1);
        let capabilities = NagaCapabilities::SUBGROUP | NagaCapabilities::SHADER_FLOAT16_IN_FLOAT32;
        Validator::new(ValidationFlags::all(), capabilities)
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(&rewritten)
            .unwrap_or_else(|error| panic!("{}: {error:?}", kernel.label()));
        let expressions =
            |module: &naga::Module| module.functions.iter().map(|(_, it)| it.expressions.len()).sum::<usize>();
        assert!(expressions(&rewritten) > expressions(&module), "{}", kernel.label());
    }
}

#[test]
fn the_tools_of_these_tests_do_what_they_should() {
    convergence::self_test();
    rewrite::self_test();
}
