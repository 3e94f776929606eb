//! Every WGSL variant that a plan can produce, read by naga and translated to what drivers take. No GPU.

mod common;
#[path = "common/convergence.rs"]
mod convergence;
#[path = "common/rewrite.rs"]
mod rewrite;

use std::collections::HashSet;
use std::sync::LazyLock;

use common::{AFFINES, STRATEGIES, geometries, kernels};
use gpu_layer_norm::kernel::{
    ARGUMENTS_WGSL, Access, AdapterClass, BindingRole, Capabilities, Dialect, Dimension, ENTRY_POINT, Entry, Geometry,
    Grid, Kernel, Layout, Params, Plan, Problem, Reduction, Role, SubgroupSizes, Unit,
};
use gpu_layer_norm::{Affine, Modulation, Normalization, StorageType};
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities as NagaCapabilities, ModuleInfo, ValidationFlags, Validator};

/// One width for each way that units, lanes, blocks and segments may come out.
const WIDTHS: [u64; 16] = [1, 2, 3, 4, 5, 8, 63, 64, 70, 127, 128, 768, 1000, 4097, 65_536, 1_000_003];

fn all_capabilities() -> impl Iterator<Item = Capabilities> {
    let classes = [AdapterClass::Discrete, AdapterClass::Integrated, AdapterClass::Cpu, AdapterClass::Other];
    let subgroups = [None, Some((4, 4)), Some((8, 8)), Some((8, 32)), Some((32, 32)), Some((64, 64)), Some((4, 128))];
    classes.into_iter().flat_map(move |class| {
        subgroups.map(|sizes| Capabilities {
            class,
            subgroups: sizes.map(|(min, max)| SubgroupSizes { min, max }),
            max_buffer_bytes: 1 << 50,
            // Together with others, so that each occurs with and without.
            exact_unpack_f16: sizes.is_some(),
            exact_pack_f16: sizes.is_some_and(|(min, _)| min > 8),
            ..Capabilities::webgpu_baseline()
        })
    })
}

/// What the planner picks, what each strategy gives, and the geometries that tests force.
fn all_kernels() -> &'static HashSet<Kernel> {
    static ALL: LazyLock<HashSet<Kernel>> = LazyLock::new(make_all_kernels);
    &ALL
}

fn make_all_kernels() -> HashSet<Kernel> {
    let mut all = HashSet::new();
    for capabilities in all_capabilities() {
        for width in WIDTHS {
            for rows in [1, 100_000] {
                for (affine, modulation) in AFFINES.into_iter().zip([
                    Modulation::Conditional,
                    Modulation::Adaptive,
                    if rows == 1 { Modulation::Conditional } else { Modulation::Adaptive },
                ]) {
                    let forward = Problem::new(rows, width).expect("a valid problem").affine(affine);
                    let mut problems = vec![forward, with_gradients(forward)];
                    // Where each is a kernel of its own, and not everywhere.
                    let classes = [AdapterClass::Cpu, AdapterClass::Discrete];
                    let everywhere = classes.contains(&capabilities.class) && rows > 1;
                    if everywhere && [5, 64, 4097].contains(&width) {
                        let modulated = with_conditions(forward.modulation(modulation));
                        problems.extend([modulated, with_gradients(modulated)]);
                    }
                    if everywhere && [5, 1000].contains(&width) {
                        problems.extend(causal(forward));
                    }
                    for problem in problems {
                        all.extend(kernels(Plan::new(&problem, &capabilities).ok()));
                        for strategy in STRATEGIES {
                            all.extend(kernels(Plan::with_strategy(&problem, &capabilities, strategy).ok()));
                        }
                        all.extend(kernels(geometries(&problem, &capabilities)));
                    }
                }
            }
        }
    }
    for problem in tensor_problems() {
        for capabilities in all_capabilities().filter(|capabilities| capabilities.class != AdapterClass::Integrated) {
            for strategy in STRATEGIES {
                all.extend(kernels(Plan::with_strategy(&problem, &capabilities, strategy).ok()));
            }
        }
    }
    for problem in grid_problems() {
        let picked = |capabilities: &Capabilities| match capabilities.subgroups {
            None => true,
            Some(SubgroupSizes { min, max }) => (min, max) == (8, 8) || (min, max) == (32, 32),
        };
        let classes = [AdapterClass::Cpu, AdapterClass::Discrete];
        for capabilities in all_capabilities().filter(|it| classes.contains(&it.class) && picked(it)) {
            let capabilities = Capabilities { max_storage_buffers: 16, ..capabilities };
            for strategy in STRATEGIES {
                all.extend(kernels(Plan::with_strategy(&problem, &capabilities, strategy).ok()));
            }
            // Several invocations for each of some rows, which may lie side by side.
            for (access, segment_width) in [(Access::Held, None), (Access::Reread, None), (Access::Reread, Some(16))] {
                let (reduction, lanes) = (Reduction::Workgroup, 2);
                let geometry =
                    Geometry { access, reduction, lanes, spans_per_lane: 1, spans_per_workgroup: 8, segment_width };
                all.extend(kernels(Plan::with_geometry(&problem, &capabilities, geometry).ok()));
            }
        }
    }
    all
}

/// How rows may lie otherwise than one after another, with their number and width: images with channels first, of pixels that vectors
/// divide and others; two dimensions kept and two normalized, with weight and bias in the same order and in the other one; groups of
/// channels whose positions share weight and bias, and groups of single positions.
fn grids() -> Vec<(Grid, u64, u64)> {
    let dimension = |size, stride, parameter_stride| Dimension { size, stride, parameter_stride };
    let grid = |rows: &[Dimension], elements: &[Dimension]| {
        let count = |dimensions: &[Dimension]| dimensions.iter().map(|it| u64::from(it.size)).product();
        (Grid::new(rows, elements).expect("a grid"), count(rows), count(elements))
    };
    let images = |channels: u32, pixels: u32| {
        grid(&[dimension(2, channels * pixels, 0), dimension(pixels, 1, 0)], &[dimension(channels, pixels, 1)])
    };
    let kept = [dimension(3, 160, 0), dimension(5, 8, 0)];
    let groups = |samples: u32, groups: u32, channels: u32, positions: u32| {
        let width = channels * positions;
        grid(
            &[dimension(samples, width * groups, 0), dimension(groups, width, channels)],
            &[dimension(channels, positions, 1), dimension(positions, 1, 0)],
        )
    };
    vec![
        images(40, 64),
        images(33, 15),
        grid(&kept, &[dimension(4, 40, 8), dimension(8, 1, 1)]),
        grid(&kept, &[dimension(4, 40, 1), dimension(8, 1, 4)]),
        grid(&[dimension(16, 1, 0)], &[dimension(24, 16, 1)]),
        groups(2, 3, 4, 16),
        groups(2, 3, 4, 15),
        groups(1, 1, 4, 16),
        groups(2, 12, 1, 16),
        groups(2, 3, 8, 1),
    ]
}

/// Every storage type in each of these grids: forward with everything and with little, backward with every gradient that there is.
fn grid_problems() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (grid, rows, width) in grids() {
        for storage in StorageType::ALL {
            let with = |problem: Problem, roles: &[(Role, StorageType)]| {
                let all = roles.iter().try_fold(problem, |problem, &(role, storage)| problem.tensor(role, storage));
                all.expect("a valid problem")
            };
            let plain = Problem::new(rows, width).expect("a valid problem").affine(Affine::WeightAndBias);
            let plain = plain.grid(grid).expect("a valid problem");
            let stored = [Role::Input, Role::Weight, Role::Bias, Role::Output].map(|role| (role, storage));
            let stored = with(plain, &stored);
            let statistics = [Role::Mean, Role::Rstd].map(|role| (role, StorageType::F32));
            let stream = with(stored, &[(Role::Residual, storage), (Role::Sum, storage)]);
            let conditional = [Role::Scale, Role::Shift, Role::Residual, Role::Gate].map(|role| (role, storage));
            let conditional = with(stored, &conditional).rows_per_condition(rows / 2).unwrap_or(stored);
            let rms = stored.normalization(Normalization::RmsNorm).expect("a valid problem");
            let place = Layout { storage, offset: 0, row_stride: None, buffer: Some(1) };
            let in_place = stored.tensor(Role::Input, place).and_then(|it| it.tensor(Role::Output, place));
            problems.extend([
                stored,
                with(stream, &statistics),
                conditional,
                conditional.modulation(Modulation::Conditional),
                rms.affine(Affine::None),
                stored.zero_centred_weight(true),
                in_place.expect("a valid problem"),
            ]);
            for forward in [stored, conditional, conditional.modulation(Modulation::Conditional), rms] {
                let dy = [(Role::OutputGradient, storage), (Role::InputGradient, storage)];
                let backward = with(with_gradients(forward), &dy);
                let more = [(Role::Rstd, StorageType::F32), (Role::SumGradient, storage)];
                problems.extend([backward.accumulate(true), with(forward.backward(), &dy)]);
                if backward.normalization_kind() == Normalization::RmsNorm {
                    problems.push(with(backward, &more));
                } else {
                    problems.push(with(with(backward, &more), &[(Role::Mean, StorageType::F32)]));
                }
            }
        }
    }
    problems
}

/// The backward pass of a problem, with the gradients of the parameters that it has, and those of its conditions if it has any.
fn with_gradients(problem: Problem) -> Problem {
    let of_conditions =
        [(Role::Scale, Role::ScaleGradient), (Role::Shift, Role::ShiftGradient), (Role::Gate, Role::GateGradient)];
    let of_conditions = of_conditions.into_iter().filter(|(of, _)| problem.layout(*of).is_some()).map(|(_, role)| role);
    [Role::WeightGradient, Role::BiasGradient]
        .into_iter()
        .chain(of_conditions)
        .fold(problem.backward(), |problem, role| problem.tensor(role, StorageType::F32).unwrap_or(problem))
}

/// Causal normalization of sequences of several tiles and of one, forward, with a state and with every statistic, and backward.
fn causal(problem: Problem) -> Vec<Problem> {
    let with = |problem: Problem, role| problem.tensor(role, StorageType::F32).expect("a valid problem");
    let long = problem.causal(1000).expect("a valid problem");
    let short = problem.causal(3).expect("a valid problem");
    let rms = |problem: Problem| problem.normalization(Normalization::RmsNorm).expect("a valid problem");
    vec![
        long,
        with(with(with(short, Role::Mean), Role::Rstd), Role::State),
        rms(with(long, Role::Rstd)),
        with_gradients(long),
        with_gradients(short),
        with_gradients(rms(long)),
    ]
}

/// A forward problem with scale, shift, residual and gate, four rows to a condition.
fn with_conditions(problem: Problem) -> Problem {
    let roles = [Role::Scale, Role::Shift, Role::Residual, Role::Gate];
    let with = |problem: Problem, role| problem.tensor(role, StorageType::F32).expect("a valid problem");
    roles.into_iter().fold(problem, with).rows_per_condition(4).expect("a valid problem")
}

/// Every storage type in every role, every tensor present and absent, in place, shared, RMS, zero-centred.
fn tensor_problems() -> Vec<Problem> {
    let mut problems = Vec::new();
    for width in [5, 4096] {
        let plain = Problem::new(20, width).expect("a valid problem").affine(Affine::WeightAndBias);
        let place = |storage, buffer, offset| Layout { storage, offset, row_stride: None, buffer };
        for storage in StorageType::ALL {
            let with = |problem: Problem, role, layout: Layout| problem.tensor(role, layout).expect("a valid problem");
            let own = place(storage, None, 0);
            for role in [Role::Input, Role::Residual, Role::Weight, Role::Bias, Role::Output, Role::Sum] {
                problems.push(with(plain, role, own));
            }
            // Each of what a condition has alone, and two of them, of every storage type.
            for modulation in [Modulation::Adaptive, Modulation::Conditional] {
                let modulated = plain.modulation(modulation).rows_per_condition(4).expect("a valid problem");
                let scaled = with(modulated, Role::Scale, own);
                let gated = with(with(scaled, Role::Residual, own), Role::Gate, own);
                let apart = with(gated.backward(), Role::ResidualGradient, own);
                problems.extend([
                    scaled,
                    with(modulated, Role::Shift, own),
                    with(scaled, Role::Shift, own),
                    scaled.affine(Affine::None),
                    gated,
                    with(gated, Role::Sum, own),
                    scaled.backward(),
                    with(scaled.backward(), Role::ScaleGradient, own),
                    with(modulated.backward(), Role::ShiftGradient, own),
                    with(with(scaled.backward(), Role::ScaleGradient, own), Role::WeightGradient, own),
                    with(with(scaled.backward(), Role::ShiftGradient, own), Role::BiasGradient, own),
                    gated.backward(),
                    apart,
                    with(apart, Role::GateGradient, own),
                    with(apart, Role::SumGradient, own),
                ]);
            }
            let all = |problem: Problem| {
                let operation = problem.operation();
                let takes = |role: &Role| operation.reads(*role) || operation.writes(*role);
                let roles = Role::ALL.into_iter().filter(|role| takes(role) && *role != Role::State);
                let all = roles.fold(problem, |problem, role| {
                    let storage = if role.is_statistic() { StorageType::F32 } else { storage };
                    with(problem, role, place(storage, None, 0))
                });
                all.zero_centred_weight(true)
            };
            problems.extend([all(plain), all(plain.backward()).accumulate(true)]);
            let backward = with_gradients(plain);
            for role in Role::ALL.into_iter().filter(|role| !role.is_statistic()) {
                problems.extend(backward.tensor(role, own));
            }
            let small = [Role::Input, Role::Weight, Role::OutputGradient, Role::InputGradient, Role::BiasGradient];
            let small = small.into_iter().fold(backward, |problem, role| with(problem, role, own));
            problems.extend([small, small.normalization(Normalization::RmsNorm).expect("a valid problem")]);
            for (offset, place_of) in [(0, Role::Input), (1, Role::OutputGradient), (2, Role::SumGradient)] {
                let pool = |offset: u64| place(storage, Some(1), offset << 20);
                let pooled = with(with(small, Role::Input, pool(0)), Role::OutputGradient, pool(1));
                let pooled = with(with(pooled, Role::SumGradient, pool(2)), Role::Weight, pool(4));
                assert!(pooled.layout(place_of).is_some());
                problems.extend([
                    with(pooled, Role::InputGradient, pool(3)),
                    with(pooled, Role::InputGradient, pool(offset)),
                ]);
            }
            let pool = |offset: u64| place(storage, Some(1), offset << 20);
            let pooled = with(with(with(plain, Role::Input, pool(0)), Role::Weight, pool(1)), Role::Output, pool(2));
            problems.push(pooled);
            problems.push(with(pooled, Role::Output, pool(0)));
            let stream = with(with(pooled, Role::Residual, pool(3)), Role::Sum, pool(3));
            problems.extend([stream, with(stream, Role::Output, pool(0))]);
            problems.push(with(with(pooled, Role::Residual, pool(3)), Role::Output, pool(3)));
        }
        let statistics = plain.tensor(Role::Rstd, StorageType::F32).expect("a valid problem");
        problems.extend([statistics, plain.tensor(Role::Mean, StorageType::F32).expect("a valid problem")]);
        // Modulated and gated, a state in a pool with the rest, and sums in the place of what they are sums of.
        for rows in [3, 1000] {
            let causal = |problem: Problem| problem.causal(rows).expect("a valid problem");
            let conditional = with_conditions(plain.modulation(Modulation::Conditional));
            problems.extend([with_conditions(plain), conditional].map(causal));
            problems.extend([with_conditions(plain), conditional].map(|problem| causal(with_gradients(problem))));
            let pool = |offset: u64| place(StorageType::F32, Some(1), offset << 20);
            let pooled = [(Role::Input, 0), (Role::Output, 0), (Role::Residual, 1), (Role::Sum, 1), (Role::State, 2)];
            let pooled = pooled.into_iter().try_fold(causal(plain), |it, (role, at)| it.tensor(role, pool(at)));
            problems.push(pooled.expect("a valid problem"));
        }
        let rms = |problem: Problem| problem.normalization(Normalization::RmsNorm).expect("a valid problem");
        problems.extend([rms(plain), rms(statistics), rms(plain.affine(Affine::None))]);
    }
    problems
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
fn every_variant_validates_and_translates_and_binds_what_the_host_binds() {
    let all = all_kernels();
    println!("{} kernel variants", all.len());
    assert!(all.len() > 1000, "{} variants are too few to have come from every axis", all.len());
    for entry in [
        Entry::CausalTiles,
        Entry::CausalCarries,
        Entry::CausalRows,
        Entry::CausalNormalize,
        Entry::CausalGradientTiles,
        Entry::CausalGradientCarries,
        Entry::CausalGradientRows,
    ] {
        assert!(all.iter().any(|kernel| kernel.entry == entry), "no {entry:?}");
    }
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
    let kernels: Vec<_> = all.iter().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for some in kernels.chunks(kernels.len().div_ceil(threads)) {
            scope.spawn(move || some.iter().for_each(|kernel| check_variant(kernel)));
        }
    });
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
