//! Planning, without a GPU.

mod common;

use common::{AFFINES, STRATEGIES};
use gpu_layer_norm::kernel::{
    Access, AdapterClass, BindingRole, Capabilities, Dialect, Dimension, Dispatch, Entry, Geometry, Grid, Kernel,
    Layout, MAX_TURNS, MAX_WIDTH, Operation, Place, Plan, Problem, Reduction, Role, SubgroupSizes, Tunings, Unit,
};
use gpu_layer_norm::{Affine, Error, LayerNormConfig, Modulation, Normalization, StorageType, Variance, kernel};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn config(cases: u32) -> ProptestConfig {
    let (failure_persistence, rng_seed) = (None, RngSeed::Fixed(30));
    // Milliseconds; a failing property ends soon after.
    ProptestConfig { cases, failure_persistence, rng_seed, max_shrink_time: 2000, ..ProptestConfig::default() }
}

/// WebGPU's default limits, but buffers of any size.
fn large_baseline() -> Capabilities {
    Capabilities { max_buffer_bytes: 1 << 50, ..Capabilities::webgpu_baseline() }
}

fn any_capabilities() -> impl proptest::strategy::Strategy<Value = Capabilities> {
    let class = prop_oneof![
        Just(AdapterClass::Discrete),
        Just(AdapterClass::Integrated),
        Just(AdapterClass::Cpu),
        Just(AdapterClass::Other)
    ];
    let subgroups = prop_oneof![
        Just(None),
        (2_u32..=7, 0_u32..=5)
            .prop_map(|(min, more)| Some(SubgroupSizes { min: 1 << min, max: 1 << (min + more).min(7) }))
    ];
    let invocations = prop_oneof![Just(128_u32), Just(256), Just(1024)];
    let workgroups = prop_oneof![4 => Just(65_535_u32), 1 => Just(1024)];
    (class, subgroups, invocations, 4_u32..=32, 27_u32..=32, workgroups).prop_map(
        |(class, subgroups, invocations, buffers, log, workgroups)| Capabilities {
            max_workgroups_per_dimension: workgroups,
            class,
            subgroups,
            cores: invocations / 128,
            max_invocations_per_workgroup: invocations,
            max_storage_buffers: buffers,
            max_binding_bytes: (1 << log) - 1,
            max_buffer_bytes: 1 << 40,
            ..large_baseline()
        },
    )
}

fn any_affine() -> impl proptest::strategy::Strategy<Value = Affine> {
    prop_oneof![Just(Affine::None), Just(Affine::Weight), Just(Affine::WeightAndBias)]
}

/// Tensors of any storage type at any offset and stride, each in its own buffer; some absent.
fn any_tensors() -> impl proptest::strategy::Strategy<Value = Vec<(Role, StorageType, u64, u64)>> {
    let storage = || prop::sample::select(StorageType::ALL.to_vec());
    let elements = || prop_oneof![Just(0_u64), 0_u64..=9, Just(1 << 20), 0_u64..=1 << 33];
    let roles = prop::sample::subsequence(Role::ALL.to_vec(), 0..=Role::ALL.len());
    (roles, prop::collection::vec((storage(), elements(), elements()), Role::ALL.len())).prop_map(|(roles, layouts)| {
        roles.into_iter().zip(layouts).map(|(role, (storage, offset, gap))| (role, storage, offset, gap)).collect()
    })
}

/// The problem with those of these tensors that it may have.
fn with_tensors(problem: Problem, tensors: &[(Role, StorageType, u64, u64)]) -> Problem {
    tensors.iter().fold(problem, |problem, &(role, storage, offset, gap)| {
        let (storage, width) = match role.words() {
            Some(words) => (StorageType::F32, words),
            None => (storage, u64::from(problem.width())),
        };
        let layout = Layout { storage, offset, row_stride: Some(width + gap), buffer: None };
        problem.tensor(role, layout).unwrap_or(problem)
    })
}

fn any_operation() -> impl proptest::strategy::Strategy<Value = Operation> {
    prop_oneof![
        4 => Just(Operation::Forward),
        4 => Just(Operation::Backward),
        1 => Just(Operation::Moments),
        1 => Just(Operation::Normalize),
        1 => Just(Operation::GradientSums),
        1 => Just(Operation::Gradients),
    ]
}

fn is_of_parts(operation: Operation) -> bool {
    !matches!(operation, Operation::Forward | Operation::Backward)
}

fn any_width() -> impl proptest::strategy::Strategy<Value = u64> {
    prop_oneof![1_u64..=100, 100_u64..=20_000, 20_000_u64..=MAX_WIDTH]
}

fn base_and_stride(params: &kernel::Params, role: Role) -> (u32, u32) {
    match role {
        Role::Input => (params.input_base, params.input_stride),
        Role::Residual => (params.residual_base, params.residual_stride),
        Role::Weight => (params.weight_base, 0),
        Role::Bias => (params.bias_base, 0),
        Role::Output => (params.output_base, params.output_stride),
        Role::Sum => (params.sum_base, params.sum_stride),
        Role::Mean => (params.mean_base, params.mean_stride),
        Role::Rstd => (params.rstd_base, params.rstd_stride),
        Role::OutputGradient => (params.output_gradient_base, params.output_gradient_stride),
        Role::SumGradient => (params.sum_gradient_base, params.sum_gradient_stride),
        Role::InputGradient => (params.input_gradient_base, params.input_gradient_stride),
        Role::WeightGradient => (params.weight_gradient_base, 0),
        Role::BiasGradient => (params.bias_gradient_base, 0),
        Role::Scale => (params.scale_base, params.scale_stride),
        Role::Shift => (params.shift_base, params.shift_stride),
        Role::Gate => (params.gate_base, params.gate_stride),
        Role::ResidualGradient => (params.residual_gradient_base, params.residual_gradient_stride),
        Role::ScaleGradient => (params.scale_gradient_base, params.scale_gradient_stride),
        Role::ShiftGradient => (params.shift_gradient_base, params.shift_gradient_stride),
        Role::GateGradient => (params.gate_gradient_base, params.gate_gradient_stride),
        Role::State | Role::Moments => (params.state_base, params.state_stride),
        Role::GradientSums => (params.rstd_base, params.rstd_stride),
    }
}

/// A grid of rows, in which of a contiguous tensor of these sizes the dimensions of `is_normalized` are normalized. Weight and bias have
/// these in the same order, or in the reverse.
fn grid_of(sizes: &[u32], is_normalized: &[bool], reversed: bool) -> (Grid, u64, u64) {
    let (mut rows, mut elements) = (Vec::new(), Vec::new());
    let product = |sizes: &mut dyn Iterator<Item = u32>| sizes.product::<u32>();
    for (axis, &size) in sizes.iter().enumerate() {
        let stride = product(&mut sizes[axis + 1..].iter().copied());
        let is_inner = |other: usize| if reversed { other < axis } else { other > axis };
        let inner = (0..sizes.len()).filter(|&other| is_normalized[other] && is_inner(other));
        let parameter_stride = if is_normalized[axis] { product(&mut inner.map(|other| sizes[other])) } else { 0 };
        let list = if is_normalized[axis] { &mut elements } else { &mut rows };
        list.push(Dimension { size, stride, parameter_stride });
    }
    let count = |dimensions: &[Dimension]| dimensions.iter().map(|it| u64::from(it.size)).product();
    (Grid::new(&rows, &elements).expect("a grid"), count(&rows), count(&elements))
}

/// A grid of groups of channels.
fn grid_of_groups(samples: u32, groups: u32, channels: u32, positions: u32) -> (Grid, u64, u64) {
    let dimension = |size, stride, parameter_stride| Dimension { size, stride, parameter_stride };
    let width = channels * positions;
    let rows = [dimension(samples, width * groups, 0), dimension(groups, width, channels)];
    let elements = [dimension(channels, positions, 1), dimension(positions, 1, 0)];
    let grid = Grid::new(&rows, &elements).expect("a grid");
    (grid, u64::from(samples) * u64::from(groups), width.into())
}

/// Elements of weight and bias, and of a row of what a condition has.
fn parameter_elements(problem: &Problem) -> u64 {
    let Some(grid) = problem.grid_of_rows() else { return problem.width().into() };
    let last = |it: &Dimension| u64::from(it.size).saturating_sub(1) * u64::from(it.parameter_stride);
    grid.rows().iter().chain(grid.elements()).map(last).sum::<u64>() + 1
}

/// Whether the elements of a row lie in blocks of positions that share weight and bias.
fn shares_parameters(problem: &Problem) -> bool {
    let innermost = problem.grid_of_rows().and_then(|grid| grid.elements().last());
    innermost.is_some_and(|dimension| dimension.parameter_stride == 0)
}

/// Rows of a tile of the scans of causal normalization.
const TILE: u64 = 64;

fn goes_over_sequences(entry: Entry) -> bool {
    matches!(entry, Entry::CausalCarries | Entry::CausalGradientCarries)
}

fn scans(entry: Entry) -> bool {
    let of_tiles = matches!(
        entry,
        Entry::CausalTiles | Entry::CausalRows | Entry::CausalGradientTiles | Entry::CausalGradientRows
    );
    of_tiles || goes_over_sequences(entry)
}

/// What must hold of any plan: it covers the problem once, and asks nothing that the device does not have.
fn check(plan: &Plan, capabilities: &Capabilities) {
    let problem = plan.problem();
    let has_conditions = problem.tensors().any(|(role, _)| role.is_condition());
    let condition_rows = problem.condition_rows();
    let length = problem.sequence_rows();
    let mut next_row = 0;
    for chunk in plan.chunks() {
        assert_eq!(chunk.rows.start, next_row);
        if problem.rows() == 0 {
            // Of no rows the gradients of parameters are 0.
            assert!(problem.operation().is_backward());
            assert!(
                chunk
                    .dispatches
                    .iter()
                    .all(|dispatch| plan.kernels()[dispatch.kernel].entry == Entry::GradientParameters)
            );
            continue;
        }
        assert!(chunk.rows.end > next_row);
        next_row = chunk.rows.end;
        if has_conditions && matches!(problem.operation(), Operation::Backward | Operation::Gradients) {
            let of_one = chunk.rows.start / condition_rows == (chunk.rows.end - 1) / condition_rows;
            assert!(of_one || chunk.rows.start.is_multiple_of(condition_rows), "parts of several conditions: {plan}");
        }

        if let Some(length) = length {
            let (starts, ends) = (chunk.rows.start.is_multiple_of(length), chunk.rows.end.is_multiple_of(length));
            let of_one = chunk.rows.start / length == (chunk.rows.end - 1) / length;
            assert!(of_one || starts, "parts of several sequences: {plan}");
            if problem.operation().is_backward() {
                assert!(starts && (ends || chunk.rows.end == problem.rows()), "a part of a sequence: {plan}");
            }
            let carries = plan.kernels().iter().any(|kernel| kernel.entry == Entry::CausalCarries);
            assert!(carries || starts, "what comes before is not known: {plan}");
            assert!(carries || problem.layout(Role::State).is_none(), "the state is not read: {plan}");
        }

        assert_eq!(chunk.tensors.len(), problem.tensors().count());
        for (role, layout) in problem.tensors() {
            let bytes = chunk.bytes(role).expect("every tensor is bound");
            let row = match role.words() {
                Some(words) => words,
                None if role.is_of_rows() => u64::from(problem.width()),
                None => parameter_elements(problem),
            };
            let stride = if role.is_parameter() { 0 } else { layout.row_stride.unwrap_or(row) };
            let row_of = |row: u64| match role {
                _ if role.is_condition() => row / condition_rows,
                Role::State => row / length.unwrap_or(u64::MAX),
                _ => row,
            };
            let (first_row, last_row) = (row_of(chunk.rows.start), row_of(chunk.rows.end - 1));
            let first = (layout.offset + first_row * stride) * layout.storage.bytes();
            let end = (layout.offset + last_row * stride + row) * layout.storage.bytes();
            assert_eq!(bytes.start % u64::from(capabilities.storage_offset_alignment), 0);
            assert!(bytes.start <= first);
            assert_eq!(bytes.end, end.next_multiple_of(4));
            assert!(bytes.end - bytes.start <= capabilities.max_binding_bytes);
            let has_it = |dispatch: &&Dispatch| plan.kernels()[dispatch.kernel].slot(role).is_some();
            for dispatch in chunk.dispatches.iter().filter(has_it) {
                let of_parameter = role.is_parameter() || role.is_condition();
                let is_single = role.words().is_some() || of_parameter && shares_parameters(problem);
                let unit = match plan.kernels()[dispatch.kernel].unit {
                    _ if is_single => 1,
                    // Of four rows, or what they share.
                    Unit::Rows => {
                        if of_parameter {
                            1
                        } else {
                            4
                        }
                    }
                    unit => unit.elements().into(),
                };
                let (base, found) = base_and_stride(&dispatch.params, role);
                assert_eq!(
                    bytes.start + u64::from(base) * unit * layout.storage.bytes(),
                    first,
                    "the base of the {role} leads to the first row"
                );
                // In a grid, strides do not say where rows are.
                let has_stride = !role.is_parameter() && (problem.grid_of_rows().is_none() || !role.is_of_rows());
                if last_row > first_row && has_stride {
                    assert_eq!(u64::from(found) * unit, stride, "the stride of the {role} leads to the next row");
                }
                // Indices are u32.
                assert!((bytes.end - bytes.start) / (unit * layout.storage.bytes()) <= u32::MAX.into());
            }
        }

        for dispatch in &chunk.dispatches {
            let kernel = &plan.kernels()[dispatch.kernel];
            let params = dispatch.params;
            let rows = chunk.rows.end - chunk.rows.start;
            assert_eq!(u64::from(params.rows), rows);
            match kernel.entry {
                Entry::Gradient | Entry::GradientColumns => {
                    assert_eq!(
                        params.workgroups * kernel.spans_per_workgroup,
                        params.groups * kernel.segments(),
                        "each walk has its invocations, and none are left over"
                    );
                    if kernel.unit == Unit::Pair {
                        assert_eq!(params.groups % 2, 0, "the rows of a walk begin in the same half of a word");
                    }
                    // All loops of an invocation together stay below what llvmpipe lets run.
                    let rounds = params.rows.min(params.condition_rows).div_ceil(params.walks);
                    assert!(params.conditions * params.walks <= params.groups);
                    assert!(
                        rounds * (1 + 3 * kernel.turns()) + kernel.turns() < 65_534,
                        "{rounds} in {}",
                        kernel.label()
                    );
                }
                Entry::GradientParameters => {
                    let units = kernel.width / kernel.unit.elements();
                    assert_eq!(params.workgroups, units.div_ceil(kernel.spans_per_workgroup));
                    let ends_conditions = has_conditions && chunk.rows.end.is_multiple_of(condition_rows);
                    assert!(chunk.rows.end == problem.rows() || ends_conditions, "after all rows of some conditions");
                }
                Entry::GradientConditions => {
                    let units = kernel.width / kernel.unit.elements();
                    let columns = units.div_ceil(kernel.spans_per_workgroup);
                    assert_eq!(params.workgroups, columns * params.conditions);
                    let ends_conditions = chunk.rows.end.is_multiple_of(condition_rows);
                    assert!(chunk.rows.end == problem.rows() || ends_conditions, "after all rows of some conditions");
                }
                Entry::GradientChannelConditions => {
                    let spans = kernel.width * params.conditions;
                    assert_eq!(params.workgroups, spans.div_ceil(kernel.spans_per_workgroup));
                    assert_eq!(
                        plan.chunks().len(),
                        1,
                        "what is added up over the samples of a condition lies in one chunk"
                    );
                }
                Entry::GradientChannels => {
                    assert_eq!(params.workgroups, kernel.width.div_ceil(kernel.spans_per_workgroup));
                    assert_eq!(plan.chunks().len(), 1, "what is added up over all samples lies in one chunk");
                }
                entry if scans(entry) => {
                    let length = length.expect("a sequence");
                    let (sequences, tiles) = (rows.div_ceil(length), length.min(rows).div_ceil(TILE));
                    let groups = if goes_over_sequences(entry) { sequences } else { sequences * tiles };
                    assert_eq!((u64::from(params.groups), u64::from(params.tiles)), (groups, tiles));
                    assert_eq!(u64::from(params.sequence_rows), length.min(u32::MAX.into()));
                    assert_eq!(params.workgroups, params.groups.div_ceil(kernel.spans_per_workgroup));
                    if entry == Entry::CausalCarries {
                        let goes_on = !chunk.rows.start.is_multiple_of(length);
                        let is_known = problem.layout(Role::State).is_some();
                        assert_eq!(params.accumulate != 0, goes_on || is_known);
                        assert_eq!(kernel.slot(Role::State).is_some(), is_known && problem.writes(Role::State));
                    }
                }
                entry => {
                    let of_rows = matches!(entry, Entry::GradientMerge | Entry::GradientCoefficients);
                    let segments = if of_rows { 1 } else { kernel.segments() };
                    assert_eq!(u64::from(params.spans), rows * u64::from(segments));
                    assert_eq!(params.workgroups, params.spans.div_ceil(kernel.spans_per_workgroup));
                }
            }
            for binding in kernel.bindings() {
                let bytes = match binding.role {
                    BindingRole::Partials | BindingRole::SegmentSums => rows * u64::from(kernel.segments()) * 16,
                    BindingRole::Coefficients => rows * 32,
                    BindingRole::Prefixes | BindingRole::Carry => u64::from(params.groups) * 32,
                    BindingRole::Scalings => rows * 16,
                    // A channel of a group is a segment of its row.
                    BindingRole::ChannelSums if kernel.entry != Entry::GradientChannelSums => {
                        rows * u64::from(kernel.segment_width) * 8
                    }
                    BindingRole::ChannelSums => rows * u64::from(kernel.segments()) * 8,
                    BindingRole::ColumnSums => {
                        // Of conditions in several chunks, the sum of all walks lies behind them.
                        let carry = u64::from(has_conditions && kernel.entry == Entry::GradientParameters);
                        let carry = if plan.chunks().len() > 1 { carry } else { 0 };
                        let sums = u64::from(kernel.column_sums.count()) * 4;
                        (u64::from(params.groups) + carry) * sums * u64::from(kernel.width)
                    }
                    BindingRole::Tensor(role) if problem.layout(role).is_none() => rows * 4,
                    BindingRole::Params | BindingRole::Tensor(_) => continue,
                };
                let scratch = plan.scratch().iter().find(|(role, _)| *role == binding.role);
                let (_, length) = scratch.expect("what is no tensor is in scratch memory");
                assert!(bytes <= *length, "{bytes} of {length} bytes of {:?}", binding.role);
            }
            let [x, y, z] = dispatch.workgroups;
            assert_eq!((x, z), (params.workgroups_x, 1));
            assert!(x.max(y) <= capabilities.max_workgroups_per_dimension);
            assert!(u64::from(x) * u64::from(y) >= params.workgroups.into());
            // The kernel computes both in u32.
            assert!(u64::from(x) * u64::from(y) <= u32::MAX.into());
            assert!(u64::from(params.workgroups) * u64::from(kernel.spans_per_workgroup) <= u32::MAX.into());
            assert_eq!(u64::from(kernel.width) % u64::from(kernel.unit.elements()), 0);
        }
    }
    assert_eq!(next_row, problem.rows());
    assert!(plan.scratch().iter().all(|(_, bytes)| *bytes <= capabilities.max_binding_bytes));
    // A sequence is taken as a whole, whatever it needs.
    if problem.operation().is_backward() && length.is_none() {
        let bytes: u64 = plan.scratch().iter().map(|(_, bytes)| bytes).sum();
        // Two walks of two sums, with conditions of three sums and the sum of all walks, and what is kept of the one row that a chunk
        // has at least.
        let longest = if has_conditions { 36 } else { 16 } * u64::from(problem.width()) + (32 << 20);
        assert!(bytes <= longest.max(64 << 20), "{bytes} bytes of scratch");
    }
    for kernel in plan.kernels() {
        assert!(kernel.workgroup_size() <= capabilities.max_invocations_per_workgroup);
        assert!(kernel.workgroup_storage() <= capabilities.max_workgroup_storage);
        assert!(kernel.bindings().len() as u32 - 1 <= capabilities.max_storage_buffers);
        assert!(!kernel.uses_subgroups() || capabilities.subgroups.is_some());
        // All loops of an invocation together stay below what llvmpipe lets run. A span is measured three times, four turns at
        // once where it is read again anyway, in blocks of 16, looked through twice, and normalized once; a merge has
        // six loops over the segments.
        let (turns, spans) = (kernel.turns(), kernel.spans_per_lane);
        let step = if kernel.access == Access::Reread { 4 } else { 1 };
        let merged = if kernel.segments() > 1 { kernel.segments().div_ceil(kernel.lanes) } else { 0 };
        let all = match kernel.entry {
            Entry::Merge | Entry::GradientMerge => turns + 6 * merged,
            // Above, with the number of rows.
            Entry::Gradient | Entry::GradientColumns => continue,
            Entry::GradientParameters | Entry::GradientConditions => {
                let walks = plan.chunks().iter().map(|chunk| chunk.dispatches[0].params.groups).max().unwrap_or(0);
                2 * walks.div_ceil(kernel.lanes)
            }
            // Each tile of a sequence, or each segment of the rows of a tile, and these themselves.
            entry if goes_over_sequences(entry) => {
                let dispatches = plan.chunks().iter().flat_map(|chunk| &chunk.dispatches);
                dispatches.map(|dispatch| dispatch.params.tiles).max().unwrap_or(0)
            }
            entry if scans(entry) => TILE as u32 * (1 + kernel.segments()),
            _ => spans * (3 * (turns.div_ceil(step) + turns.div_ceil(16)) + 3 * turns),
        };
        assert!(all < 65_534, "{all} turns in {}", kernel.label());
        assert!(turns * spans <= MAX_TURNS);
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn a_plan_covers_every_row_once_within_the_limits(
        capabilities in any_capabilities(),
        rows in prop_oneof![0_u64..=300, 1_u64..=5_000_000_000],
        width in any_width(),
        affine in any_affine(),
        rms in any::<bool>(),
        operation in any_operation(),
        conditional in any::<bool>(),
        rows_per_condition in prop_oneof![1_u64..=9, 1_u64..=5_000_000_000],
        length in prop::option::weighted(0.3, prop_oneof![1_u64..=9, 1_u64..=1000, 1_u64..=5_000_000_000]),
        tensors in prop_oneof![Just(vec![]), any_tensors()],
    ) {
        let normalization = if rms { Normalization::RmsNorm } else { Normalization::LayerNorm };
        let modulation = if conditional { Modulation::Conditional } else { Modulation::Adaptive };
        let problem = Problem::new(rows, width)?.affine(affine).normalization(normalization)?.modulation(modulation);
        let problem = problem.rows_per_condition(rows_per_condition)?;
        let problem = match length {
            Some(length) => problem.causal(length)?,
            None => problem,
        };
        let backward = operation.is_backward();
        let problem = with_tensors(problem.with_operation(operation), &tensors);
        let has = |role| problem.layout(role).is_some();
        let lacks_another = has(Role::Gate) && !has(Role::Residual)
            || has(Role::ResidualGradient) && !has(Role::Residual)
            || has(Role::GateGradient) && !has(Role::Gate)
            || has(Role::ScaleGradient) && !has(Role::Scale)
            || has(Role::State) && length.is_none();
        let end = |(role, layout): (Role, &Layout)| {
            let row = role.words().unwrap_or(width);
            let rows = match role {
                Role::State => u128::from(rows.div_ceil(length.unwrap_or(u64::MAX))),
                _ if role.is_parameter() => 1,
                _ if role.is_condition() => u128::from(rows.div_ceil(rows_per_condition)),
                _ => u128::from(rows),
            };
            let stride = u128::from(layout.row_stride.unwrap_or(row));
            (u128::from(layout.offset) + rows * stride) * u128::from(layout.storage.bytes())
        };
        let buffers = problem.tensors().count() as u32;
        // Only a device that binds fewer buffers than a split needs may be without a plan, for rows past what one
        // workgroup can stream.
        match Plan::new(&problem, &capabilities) {
            Ok(plan) => check(&plan, &capabilities),
            Err(Error::BufferSize { .. }) => prop_assert!(problem.tensors().map(end).any(|end| end > 1 << 40)),
            // As many as eleven for the tensors of a row, and what normalizes it.
            Err(Error::DeviceTooSmall { needed, actual, .. }) if length.is_some() => {
                prop_assert!(needed > actual && needed <= 12 && actual == u64::from(capabilities.max_storage_buffers));
            }
            // A sequence that is too long for a backward pass, or not in step with conditions; rows of too many segments.
            Err(Error::Geometry { reason }) if length.is_some() => prop_assert!(!reason.is_empty()),
            Err(Error::DeviceTooSmall { needed, actual, .. }) if !backward => {
                prop_assert_eq!((needed, actual), (buffers.into(), capabilities.max_storage_buffers.into()));
                prop_assert!(needed > actual);
            }
            // Eleven are always enough; eight without conditions.
            Err(Error::DeviceTooSmall { needed, actual, .. }) => {
                prop_assert_eq!(actual, u64::from(capabilities.max_storage_buffers));
                prop_assert!(needed > actual && needed <= 11);
            }
            Err(Error::Needs { .. }) => prop_assert!(lacks_another),
            Err(Error::Parts { .. }) => prop_assert!(length.is_some() && is_of_parts(operation)),
            Err(Error::Statistics { .. }) => {
                prop_assert!(problem.layout(Role::Mean).is_some() != problem.layout(Role::Rstd).is_some() && !rms);
            }
            // Too few buffers, or the sums of a walk are longer than a binding, or those of the two that rows in pairs take and the sum
            // of all, three sums each at most.
            Err(Error::Geometry { .. }) if backward => {
                prop_assert!(capabilities.max_storage_buffers < 12 || 36 * width > capabilities.max_binding_bytes);
            }
            Err(Error::Geometry { .. }) => {
                prop_assert!(capabilities.max_storage_buffers < buffers + 1 && width > 1 << 20);
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
        for strategy in STRATEGIES {
            match Plan::with_strategy(&problem, &capabilities, strategy) {
                Ok(plan) => {
                    prop_assert_eq!(plan.strategy(), strategy);
                    check(&plan, &capabilities);
                }
                Err(Error::Strategy { .. } | Error::BufferSize { .. } | Error::DeviceTooSmall { .. }) => {}
                Err(Error::Statistics { .. }) if backward => {}
                Err(Error::Needs { .. }) if lacks_another => {}
                Err(Error::Parts { .. }) if length.is_some() && is_of_parts(operation) => {}
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn any_geometry_gives_a_plan_that_holds_or_a_typed_error(
        capabilities in any_capabilities(),
        rows in 0_u64..=100_000,
        width in any_width(),
        held in any::<bool>(),
        reduction in prop_oneof![
            Just(Reduction::Lane), Just(Reduction::Subgroup), Just(Reduction::SubgroupThenWorkgroup),
            Just(Reduction::Workgroup)
        ],
        lanes in prop_oneof![any::<u32>(), (0_u32..=11).prop_map(|log| 1 << log)],
        spans_per_lane in prop_oneof![Just(1_u32), 0_u32..=5],
        spans_per_workgroup in prop_oneof![any::<u32>(), 0_u32..=64],
        segment_width in prop_oneof![Just(None), any::<u32>().prop_map(Some), (1_u32..=64).prop_map(|n| Some(n * 256))],
        operation in any_operation(),
        storage in prop::sample::select(StorageType::ALL.to_vec()),
        rows_per_condition in prop::option::of(prop_oneof![1_u64..=9, 1_u64..=100_000]),
        length in prop::option::weighted(0.3, prop_oneof![1_u64..=9, 1_u64..=100_000]),
    ) {
        let mut problem = Problem::new(rows, width)?.affine(Affine::WeightAndBias);
        if let Some(length) = length {
            problem = problem.causal(length)?;
        }
        if let Some(rows) = rows_per_condition {
            problem = problem.tensor(Role::Scale, storage)?.tensor(Role::Residual, storage)?.tensor(Role::Gate, storage)?;
            problem = problem.rows_per_condition(rows)?;
        }
        if matches!(operation, Operation::Backward | Operation::Gradients) {
            problem = with_gradients(problem.with_operation(operation));
            for role in [Role::ScaleGradient, Role::ShiftGradient, Role::GateGradient] {
                if rows_per_condition.is_some() {
                    problem = problem.tensor(role, storage)?;
                }
            }
        }
        problem = problem.with_operation(operation);
        for role in Role::ALL.into_iter().filter(|role| role.words().is_none()) {
            if problem.layout(role).is_some() {
                problem = problem.tensor(role, storage)?;
            }
        }
        let access = if held { Access::Held } else { Access::Reread };
        let geometry = Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width };
        match Plan::with_geometry(&problem, &capabilities, geometry) {
            Ok(plan) => check(&plan, &capabilities),
            Err(Error::Geometry { reason }) => prop_assert!(!reason.is_empty()),
            Err(Error::Parts { .. }) => prop_assert!(length.is_some() && is_of_parts(operation)),
            Err(Error::BufferSize { .. }) => prop_assert!(rows * width * 4 > 1 << 40),
            Err(Error::DeviceTooSmall { needed, actual, .. }) => {
                prop_assert!(needed > actual && actual == u64::from(capabilities.max_storage_buffers));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn a_plan_of_rows_in_a_grid_covers_every_row_once_within_the_limits(
        capabilities in any_capabilities(),
        binding_bytes in prop_oneof![Just(2048_u64), Just(1 << 16), Just(1 << 27)],
        sizes in prop::collection::vec(prop_oneof![4 => 1_u32..=9, 1 => Just(16), 1 => 1_u32..=40], 1..=4),
        is_normalized in prop::collection::vec(any::<bool>(), 4),
        reversed in any::<bool>(),
        groups in prop::option::weighted(0.3, (1_u32..=40, 1_u32..=4, 1_u32..=9, 1_u32..=70)),
        operation in any_operation(),
        storage in prop::sample::select(StorageType::ALL.to_vec()),
        rows_per_condition in prop::option::weighted(0.4, 1_u64..=60),
        offset in prop_oneof![Just(0_u64), 0_u64..=9],
    ) {
        let capabilities = Capabilities { max_binding_bytes: binding_bytes, ..capabilities };
        let (grid, rows, width) = match groups {
            Some((samples, groups, channels, positions)) => grid_of_groups(samples, groups, channels, positions),
            None => grid_of(&sizes, &is_normalized[..sizes.len()], reversed),
        };
        let mut problem = Problem::new(rows, width)?.affine(Affine::WeightAndBias).grid(grid)?;
        if let Some(rows) = rows_per_condition {
            problem = problem.rows_per_condition(rows)?.tensor(Role::Scale, storage)?.tensor(Role::Residual, storage)?;
            problem = problem.tensor(Role::Gate, storage)?;
        }
        problem = problem.with_operation(operation);
        if matches!(operation, Operation::Backward | Operation::Gradients) {
            let of_parameters = [Role::WeightGradient, Role::BiasGradient];
            let of_conditions = [Role::ScaleGradient, Role::GateGradient];
            let conditions = of_conditions.into_iter().filter(|_| rows_per_condition.is_some());
            for role in of_parameters.into_iter().chain(conditions) {
                problem = match problem.tensor(role, StorageType::F32) {
                    Ok(problem) => problem,
                    Err(error) => {
                        let is_grid = matches!(error, Error::Grid { .. });
                        prop_assert!(is_grid, "{}", error);
                        prop_assert!(groups.is_some() && role == Role::GateGradient);
                        problem
                    }
                };
            }
        }
        let layout = Layout { storage, offset, ..Layout::default() };
        for role in Role::ALL.into_iter().filter(|role| role.is_of_rows()) {
            if problem.layout(role).is_some() {
                problem = problem.tensor(role, layout)?;
            }
        }
        let strided = Layout { row_stride: Some(width + 1), ..layout };
        let is_refused = matches!(problem.tensor(Role::Input, strided), Err(Error::Grid { .. }));
        prop_assert!(is_refused);
        for strategy in [None, Some(STRATEGIES[0]), Some(STRATEGIES[1]), Some(STRATEGIES[2])] {
            let plan = match strategy {
                None => Plan::new(&problem, &capabilities),
                Some(strategy) => Plan::with_strategy(&problem, &capabilities, strategy),
            };
            match plan {
                Ok(plan) => check(&plan, &capabilities),
                Err(Error::Strategy { .. }) if strategy.is_some() => {}
                // What cannot be cut, or so small a binding, or so few of them, that the scratch memory has no place.
                Err(Error::Geometry { reason }) => prop_assert!(!reason.is_empty()),
                Err(Error::RowSize { bytes, max }) => prop_assert!(bytes > max && max == binding_bytes),
                Err(Error::DeviceTooSmall { needed, actual, .. }) => {
                    prop_assert!(needed > actual && actual == u64::from(capabilities.max_storage_buffers));
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn rows_and_width_are_the_products_of_the_leading_and_trailing_dimensions(
        leading in prop::collection::vec(0_usize..=9, 0..=4),
        trailing in prop::collection::vec(1_usize..=9, 1..=4),
    ) {
        let config = LayerNormConfig::new(trailing.clone());
        let shape: Vec<usize> = leading.iter().chain(&trailing).copied().collect();
        let rows = config.rows(&shape)?;
        prop_assert_eq!(rows, leading.iter().product::<usize>() as u64);
        let problem = config.problem(rows)?;
        prop_assert_eq!(u64::from(problem.width()), trailing.iter().product::<usize>() as u64);
        let mut wrong = shape.clone();
        *wrong.last_mut().expect("trailing has a dimension") += 1;
        prop_assert_eq!(
            config.rows(&wrong),
            Err(Error::ShapeMismatch { normalized_shape: trailing, shape: wrong })
        );
    }
}

/// Two tensors of 8 rows in one buffer: (offset, row stride) of an input of f32, and what an output there is.
#[test]
fn what_is_written_takes_the_place_of_what_is_read_or_overlaps_nothing() {
    let in_one = |storage, offset, row_stride| Layout { storage, offset, row_stride, buffer: Some(0) };
    let (f32s, bf16) = (StorageType::F32, StorageType::Bf16);
    let own = Ok(Some(Place::Own));
    let overlap = || Err(Error::Overlap { written: "output", other: "input" });
    for (input, output, expected) in [
        (in_one(f32s, 0, None), in_one(f32s, 0, None), Ok(Some(Place::InPlaceOf(Role::Input)))),
        (in_one(f32s, 40, Some(11)), in_one(f32s, 40, Some(11)), Ok(Some(Place::InPlaceOf(Role::Input)))),
        (in_one(f32s, 0, None), in_one(f32s, 80, None), own.clone()),
        (in_one(f32s, 80, None), in_one(f32s, 0, None), own.clone()),
        (in_one(f32s, 0, None), in_one(f32s, 79, None), overlap()),
        (in_one(f32s, 79, None), in_one(f32s, 0, None), overlap()),
        (in_one(f32s, 0, None), in_one(bf16, 0, None), overlap()),
        (in_one(f32s, 0, None), in_one(bf16, 160, None), own.clone()),
        (in_one(f32s, 0, None), in_one(bf16, 159, None), overlap()),
        // Columns beside each other, also where the second begins before the end of the stride and goes past it.
        (in_one(f32s, 0, Some(20)), in_one(f32s, 10, Some(20)), own.clone()),
        (in_one(f32s, 5, Some(20)), in_one(f32s, 15, Some(20)), own.clone()),
        (in_one(f32s, 5, Some(20)), in_one(f32s, 35, Some(20)), own.clone()),
        (in_one(f32s, 0, Some(20)), in_one(f32s, 11, Some(20)), overlap()),
        (in_one(f32s, 0, Some(20)), in_one(f32s, 9, Some(20)), overlap()),
        // 40 bytes of every 80, and 20 of every 80.
        (in_one(f32s, 0, Some(20)), in_one(bf16, 20, Some(40)), own.clone()),
        (in_one(f32s, 0, Some(20)), in_one(bf16, 31, Some(40)), overlap()),
        (in_one(f32s, 0, Some(20)), in_one(f32s, 10, Some(21)), overlap()),
    ] {
        let problem = Problem::new(8, 10).and_then(|problem| problem.tensor(Role::Input, input));
        let problem = problem.and_then(|problem| problem.tensor(Role::Output, output)).expect("a valid problem");
        let plan = Plan::new(&problem, &large_baseline());
        let place = plan.as_ref().map(|plan| plan.kernels()[0].slot(Role::Output).map(|slot| slot.place));
        assert_eq!(place.map_err(Clone::clone), expected, "{problem}");
        if let Ok(plan) = plan {
            let input = plan.kernels()[0].slot(Role::Input).map(|slot| slot.place);
            assert_eq!(input, Some(Place::Shared), "{problem}");
            // One buffer is never bound for reading and for writing.
            assert!(plan.kernels()[0].bindings()[1..].iter().all(|binding| binding.writable), "{problem}");
        }
    }
    // Whatever is not an output or a sum has no place but its own.
    let same = in_one(f32s, 0, None);
    let problem = Problem::new(8, 1).expect("a valid problem");
    for (a, b) in
        [(Role::Input, Role::Mean), (Role::Input, Role::Rstd), (Role::Output, Role::Sum), (Role::Mean, Role::Rstd)]
    {
        let problem = problem.tensor(a, same).and_then(|problem| problem.tensor(b, same)).expect("a valid problem");
        assert!(matches!(Plan::new(&problem, &large_baseline()), Err(Error::Overlap { .. })), "{problem}");
    }
    // Two may take two places, and not one.
    let other = in_one(f32s, 100, None);
    let two = problem.tensor(Role::Input, same).and_then(|problem| problem.tensor(Role::Residual, other));
    let two = two.and_then(|problem| problem.tensor(Role::Output, same)).expect("a valid problem");
    let apart = two.tensor(Role::Sum, other).expect("a valid problem");
    assert!(Plan::new(&apart, &large_baseline()).is_ok());
    let together = two.tensor(Role::Sum, same).expect("a valid problem");
    assert!(matches!(Plan::new(&together, &large_baseline()), Err(Error::Overlap { .. })));
}

#[test]
fn in_a_browser_the_bound_parts_of_one_buffer_must_not_overlap() {
    let browser = Capabilities { dialect: Dialect::Browser, ..large_baseline() };
    let in_one = |offset| Layout { offset, buffer: Some(0), ..Layout::default() };
    let problem = |output| {
        let problem = Problem::new(10, 10).and_then(|problem| problem.tensor(Role::Input, in_one(0)));
        problem.and_then(|problem| problem.tensor(Role::Output, in_one(output))).expect("a valid problem")
    };
    let refused = Error::SharedRange { first: "input", second: "output", alignment: 256 };
    assert_eq!(Plan::new(&problem(100), &browser), Err(refused));
    assert!(Plan::new(&problem(128), &browser).is_ok());
    assert!(Plan::new(&problem(0), &browser).is_ok(), "in place there is one binding");
    assert!(Plan::new(&problem(100), &large_baseline()).is_ok(), "naga's backends do not mind");
}

#[test]
fn vectors_are_used_where_width_offsets_and_strides_are_multiples_of_four() {
    let unit = |rows, width, role, offset, row_stride| {
        let layout = Layout { storage: StorageType::Bf16, offset, row_stride, buffer: None };
        let problem = Problem::new(rows, width).expect("a valid problem").affine(Affine::Weight);
        let problem = problem.tensor(role, layout).expect("a valid problem");
        Plan::new(&problem, &large_baseline()).expect("a plan").kernels()[0].unit
    };
    assert_eq!(unit(5, 12, Role::Input, 4, Some(16)), Unit::Vector);
    assert_eq!(unit(5, 13, Role::Input, 4, Some(16)), Unit::Scalar);
    assert_eq!(unit(5, 12, Role::Residual, 2, Some(16)), Unit::Scalar);
    assert_eq!(unit(5, 12, Role::Output, 4, Some(17)), Unit::Pair);
    assert_eq!(unit(1, 12, Role::Output, 4, Some(17)), Unit::Vector, "a single row has no next one");
    assert_eq!(unit(5, 12, Role::Weight, 1, None), Unit::Scalar);
}

#[test]
fn fewer_rows_have_fewer_spans_and_the_same_first_row() {
    let problem = Problem::new(3_000_000, 100).expect("a valid problem");
    let plan = Plan::new(&problem, &Capabilities { max_binding_bytes: 1 << 28, ..large_baseline() }).expect("a plan");
    assert!(plan.chunks().len() > 3);
    for rows in [0, 1, 700_000, 2_999_999, 3_000_000, u64::MAX] {
        let mut left = rows.min(3_000_000);
        for chunk in plan.chunks() {
            for (fewer, all) in chunk.dispatches_for(rows).zip(&chunk.dispatches) {
                let here = left.min(chunk.rows.end - chunk.rows.start);
                assert_eq!(u64::from(fewer.params.spans), here * u64::from(all.params.segments));
                assert_eq!(fewer.params.input_base, all.params.input_base);
                let [x, y, z] = fewer.workgroups;
                assert!(x <= all.workgroups[0] && y <= all.workgroups[1] && z == 1);
                assert!(u64::from(x) * u64::from(y) >= u64::from(fewer.params.workgroups));
                assert_eq!(x == 0, here == 0);
            }
            left -= left.min(chunk.rows.end - chunk.rows.start);
        }
    }
}

#[test]
fn processor_plans_have_no_barrier() {
    let subgroups = [None, Some(SubgroupSizes { min: 4, max: 4 }), Some(SubgroupSizes { min: 8, max: 8 })];
    for subgroups in subgroups {
        let capabilities = Capabilities { class: AdapterClass::Cpu, subgroups, ..large_baseline() };
        for width in [1, 17, 768, 4097, 65_536, 1_000_003, MAX_WIDTH - 1, MAX_WIDTH] {
            for rows in [1, 15, 16, 100_000] {
                for affine in AFFINES {
                    let problem = Problem::new(rows, width).expect("a valid problem").affine(affine);
                    let plan = Plan::new(&problem, &capabilities).expect("a plan");
                    assert!(plan.kernels().iter().all(|kernel| !kernel.uses_barriers()), "{plan}");
                }
            }
        }
    }
}

#[test]
fn gpu_plans_hold_rows_whole_then_in_part_and_split_few_long_rows() {
    let capabilities = Capabilities {
        class: AdapterClass::Discrete,
        subgroups: Some(SubgroupSizes { min: 32, max: 32 }),
        max_invocations_per_workgroup: 1024,
        max_workgroup_storage: 49_152,
        ..large_baseline()
    };
    let plan =
        |rows, width| Plan::new(&Problem::new(rows, width).expect("a valid problem"), &capabilities).expect("a plan");
    for width in [1, 64, 100, 768, 1000, 3072, 4096, 16_384] {
        assert_eq!(plan(100_000, width).strategy(), kernel::Strategy::Resident, "width {width}");
    }
    for width in [32_768, 50_257, 65_536, 1 << 20] {
        assert_eq!(plan(100_000, width).strategy(), kernel::Strategy::PartlyResident, "width {width}");
    }
    assert_eq!(plan(1, 65_536).strategy(), kernel::Strategy::PartlyResident);
    assert_eq!(plan(4, 1 << 20).strategy(), kernel::Strategy::Split);
    let short = plan(100_000, 64);
    assert_eq!((short.geometry().lanes, short.geometry().spans_per_workgroup), (8, 32));
    // Where rows are few, more lanes share one.
    assert_eq!((plan(100_000, 768).geometry().lanes, plan(1, 768).geometry().lanes), (32, 64));
    let half = |problem: Problem| {
        let problem = problem.tensor(Role::Input, StorageType::Bf16)?.tensor(Role::Output, StorageType::Bf16)?;
        Plan::new(&problem, &capabilities)
    };
    let half = Problem::new(100_000, 4096).and_then(half).expect("a plan");
    assert_eq!(half.kernels()[0].unit, Unit::Octet);
}

/// The backward pass, or that over parts of rows, with the gradients of weight and bias.
fn with_gradients(problem: Problem) -> Problem {
    let backward = if problem.operation() == Operation::Gradients { problem } else { problem.backward() };
    [Role::WeightGradient, Role::BiasGradient].into_iter().fold(backward, |problem, role| {
        problem.tensor(role, StorageType::F32).expect("the problem has weight and bias")
    })
}

/// Intel's GPUs, whose compilers make subgroups of large workgroups wide, and so leave each invocation few registers.
#[test]
fn workgroups_are_small_where_subgroups_may_be() {
    for class in [AdapterClass::Discrete, AdapterClass::Integrated] {
        let subgroups = Some(SubgroupSizes { min: 8, max: 32 });
        let max_invocations_per_workgroup = 1024;
        let capabilities = Capabilities { class, subgroups, max_invocations_per_workgroup, ..large_baseline() };
        for width in [64, 768, 1001, 8192, 16_384, 65_536, 1 << 20] {
            for rows in [1, 5000] {
                let problem = Problem::new(rows, width).expect("a valid problem").affine(Affine::WeightAndBias);
                for problem in [problem, with_gradients(problem)] {
                    let pick = Plan::new(&problem, &capabilities).expect("a plan");
                    assert!(pick.kernels().iter().all(|kernel| kernel.workgroup_size() <= 256), "{pick}");
                    for plan in Plan::candidates(&problem, &capabilities).expect("plans") {
                        let is_small = plan.kernels().iter().all(|kernel| kernel.workgroup_size() <= 256);
                        // Rows that are read again may be too wide for small ones.
                        assert!(is_small || plan.strategy() == kernel::Strategy::Streaming, "{plan}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_widest_rows_have_plans_where_subgroups_may_be_small() {
    for subgroups in [SubgroupSizes { min: 8, max: 32 }, SubgroupSizes { min: 4, max: 64 }] {
        let capabilities = Capabilities {
            class: AdapterClass::Integrated,
            subgroups: Some(subgroups),
            max_invocations_per_workgroup: 1024,
            max_binding_bytes: 1 << 31,
            ..large_baseline()
        };
        for width in [3_000_001, 8_000_001] {
            let problem = Problem::new(100, width).expect("a valid problem").causal(10).expect("sequences");
            check(&Plan::new(&problem, &capabilities).expect("a plan"), &capabilities);
        }
    }
}

#[test]
fn walks_over_parts_of_rows_fit_small_bindings() {
    let capabilities =
        Capabilities { class: AdapterClass::Discrete, max_binding_bytes: 4096, ..Capabilities::webgpu_baseline() };
    for width in [1, 32, 100] {
        let problem = Problem::new(40, width).expect("a valid problem").affine(Affine::WeightAndBias);
        let plan = Plan::new(&with_gradients(problem.with_operation(Operation::Gradients)), &capabilities);
        check(&plan.expect("a plan"), &capabilities);
    }
}

#[test]
fn gpu_plans_of_the_backward_pass_hold_rows_read_long_ones_twice_and_split_few_long_ones() {
    let capabilities = Capabilities {
        class: AdapterClass::Discrete,
        subgroups: Some(SubgroupSizes { min: 32, max: 32 }),
        max_invocations_per_workgroup: 1024,
        max_workgroup_storage: 49_152,
        max_storage_buffers: 16,
        max_binding_bytes: 1 << 31,
        ..large_baseline()
    };
    let plan = |rows, width| {
        let problem = Problem::new(rows, width).expect("a valid problem").affine(Affine::WeightAndBias);
        let given = |problem: Problem, role| problem.tensor(role, StorageType::F32);
        let problem = [Role::Mean, Role::Rstd].into_iter().try_fold(with_gradients(problem), given);
        Plan::new(&problem.expect("a valid problem"), &capabilities).expect("a plan")
    };
    let entries = |plan: &Plan| plan.kernels().iter().map(|kernel| kernel.entry).collect::<Vec<_>>();
    for width in [1, 64, 100, 768, 1000, 3072, 4096, 8192] {
        let plan = plan(100_000, width);
        assert_eq!(entries(&plan), [Entry::Gradient, Entry::GradientParameters], "width {width}");
        let [held, _] = plan.kernels() else { panic!("two kernels") };
        assert!(held.turns() * held.unit.elements() <= 16, "width {width}");
    }
    for width in [16_384, 50_257, 1 << 20] {
        let all = [Entry::GradientSums, Entry::GradientColumns, Entry::GradientParameters];
        assert_eq!(entries(&plan(100_000, width)), all, "width {width}");
    }
    let all = [Entry::GradientSums, Entry::GradientMerge, Entry::GradientColumns, Entry::GradientParameters];
    assert_eq!(entries(&plan(4, 1 << 20)), all);
    // Statistics that are not given are measured first, where they are needed.
    let problem = Problem::new(1000, 768).expect("a valid problem").backward();
    let measured = Plan::new(&problem, &capabilities).expect("a plan");
    assert_eq!(entries(&measured), [Entry::Row, Entry::Gradient]);
    assert_eq!(measured.scratch().iter().map(|(_, bytes)| bytes).sum::<u64>(), 8 * 1000);
}

/// Good for ten million rows: what lies between the kernels does not grow with them, and no walk is longer than promised.
#[test]
fn scratch_memory_of_the_backward_pass_is_bounded_whatever_the_number_of_rows() {
    for capabilities in [
        Capabilities { class: AdapterClass::Cpu, cores: 2, max_binding_bytes: 1 << 31, ..large_baseline() },
        Capabilities { class: AdapterClass::Discrete, max_binding_bytes: 1 << 31, ..large_baseline() },
        large_baseline(),
    ] {
        for width in [1, 3, 64, 768, 4096, 65_536] {
            for rows in [1, 1000, 10_000_000] {
                let problem = Problem::new(rows, width).expect("a valid problem").affine(Affine::WeightAndBias);
                let plan = Plan::new(&with_gradients(problem), &capabilities).expect("a plan");
                check(&plan, &capabilities);
                let bytes: u64 = plan.scratch().iter().map(|(_, bytes)| bytes).sum();
                assert!(bytes <= 64 << 20, "{rows} × {width}: {bytes} bytes");
                for chunk in plan.chunks() {
                    let groups = u64::from(chunk.dispatches[0].params.groups);
                    let longest = (chunk.rows.end - chunk.rows.start).div_ceil(groups);
                    assert!(longest <= 512, "{rows} × {width}: {longest} rows of a walk");
                }
            }
        }
    }
}

#[test]
fn causal_plans_measure_rows_scan_tiles_and_carry_between_them() {
    let capabilities = Capabilities { max_storage_buffers: 16, ..large_baseline() };
    let plan = |problem: Problem| Plan::new(&problem, &capabilities).expect("a plan");
    let entries = |plan: &Plan| plan.kernels().iter().map(|kernel| kernel.entry).collect::<Vec<_>>();
    let problem = Problem::new(2500, 24).expect("a valid problem").affine(Affine::WeightAndBias);
    let causal = |length| problem.causal(length).expect("a valid problem");
    let measuring = [Entry::Partial, Entry::CausalTiles, Entry::CausalCarries, Entry::CausalRows];
    let long = plan(causal(1000));
    assert_eq!(entries(&long), [&measuring[..], &[Entry::NormalizeKnown]].concat());
    let groups = |plan: &Plan| plan.chunks()[0].dispatches.iter().map(|it| it.params.groups).collect::<Vec<_>>();
    // Three sequences of 16 tiles, the last of which has none of the last rows.
    assert_eq!(groups(&long)[1..4], [48, 3, 48]);
    let backward = plan(with_gradients(causal(1000)));
    let scans = [Entry::CausalGradientTiles, Entry::CausalGradientCarries, Entry::CausalGradientRows];
    let rest = [Entry::GradientColumns, Entry::GradientParameters];
    assert_eq!(entries(&backward), [&measuring[..], &[Entry::GradientSums], &scans, &rest].concat());
    // A sequence of one tile needs nothing from before it, unless its state is known.
    let short = plan(causal(64));
    assert_eq!(entries(&short), [Entry::Partial, Entry::CausalRows, Entry::NormalizeKnown]);
    assert_eq!(groups(&short)[1], 40);
    let known = plan(causal(64).tensor(Role::State, StorageType::F32).expect("a valid problem"));
    assert_eq!(entries(&known), entries(&long));
    for plan in [long, backward, short, known] {
        check(&plan, &capabilities);
    }
}

#[test]
fn causal_chunks_are_whole_sequences_or_parts_of_one_that_begin_with_a_tile() {
    let starts = |length: u64, rows_at_once: u64| {
        let capabilities = Capabilities { max_binding_bytes: rows_at_once * 4000 + 260, ..large_baseline() };
        let problem = Problem::new(600, 1000).and_then(|problem| problem.causal(length)).expect("a valid problem");
        let plan = Plan::new(&problem, &capabilities).expect("a plan");
        check(&plan, &capabilities);
        plan.chunks().iter().map(|chunk| chunk.rows.start).collect::<Vec<_>>()
    };
    assert_eq!(starts(300, 140), [0, 128, 256, 300, 428, 556]);
    assert_eq!(starts(100, 250), [0, 200, 400]);
    assert_eq!(starts(200, 200), [0, 200, 400]);
    // Of less than a tile, what there is room for.
    assert_eq!(starts(50, 30)[..4], [0, 30, 50, 80]);
}

#[test]
fn a_device_without_subgroups_gets_kernels_without_them() {
    let capabilities = large_baseline();
    for width in [1, 64, 768, 65_536] {
        let forward = Problem::new(64, width).expect("a valid problem");
        for problem in [forward, forward.backward()] {
            let plan = Plan::new(&problem, &capabilities).expect("a plan");
            assert!(plan.kernels().iter().all(|kernel| !kernel.uses_subgroups()), "{plan}");
        }
    }
}

#[test]
fn rows_past_one_dimension_of_a_dispatch_take_a_second() {
    let capabilities = Capabilities { class: AdapterClass::Cpu, ..large_baseline() };
    let problem = Problem::new(64 * 65_535 * 2 + 1, 1).expect("a valid problem");
    let plan = Plan::new(&problem, &capabilities).expect("a plan");
    assert_eq!(plan.chunks().len(), 1);
    let [x, y, _] = plan.chunks()[0].dispatches[0].workgroups;
    assert_eq!((x, y), (65_535, 3));
}

#[test]
fn a_tensor_larger_than_a_binding_runs_in_chunks_of_rows() {
    let capabilities = large_baseline();
    let problem = Problem::new(3, MAX_WIDTH).expect("a valid problem");
    let plan = Plan::new(&problem, &capabilities).expect("a plan");
    assert_eq!(plan.chunks().len(), 3, "128 MiB hold one row of 64 MiB and the room to align a second");
    let odd = Problem::new(400_000, 1001).expect("a valid problem");
    let plan = Plan::new(&odd, &capabilities).expect("a plan");
    assert!(plan.chunks().len() > 1);
    assert!(plan.chunks().iter().any(|chunk| chunk.dispatches[0].params.input_base > 0), "chunks begin anywhere");
}

#[test]
fn chunks_of_rows_in_a_grid_are_whole_places_of_the_outermost_dimension() {
    // 40 images of 6 channels and 15 pixels, 360 bytes each.
    let (grid, rows, width) = grid_of(&[40, 6, 15], &[false, true, false], false);
    let problem = Problem::new(rows, width).and_then(|problem| problem.grid(grid)).expect("a valid problem");
    let small = |max_binding_bytes| Capabilities { max_binding_bytes, ..large_baseline() };
    // Room for the alignment, and for 10 images and a part of the next.
    let plan = Plan::new(&problem, &small(260 + 3650)).expect("a plan");
    let ends: Vec<u64> = plan.chunks().iter().map(|chunk| chunk.rows.end).collect();
    assert_eq!(ends, [150, 300, 450, 600]);
    // Less than an image; and conditions that are not in step with images.
    assert!(matches!(Plan::new(&problem, &small(260 + 350)), Err(Error::Geometry { .. })));
    let of = |rows: u64| problem.tensor(Role::Scale, StorageType::F32)?.rows_per_condition(rows);
    for (rows, fits) in [(15, true), (45, true), (5, true), (7, false), (20, false), (165, false)] {
        let problem = of(rows).expect("a valid problem");
        assert_eq!(Plan::new(&problem, &small(260 + 3650)).is_ok(), fits, "{rows} rows a condition");
        assert!(Plan::new(&problem, &large_baseline()).is_ok());
    }
    // Images are not the outermost dimension of what is normalized over them.
    let (grid, rows, width) = grid_of(&[40, 6, 15], &[true, false, false], false);
    let problem = Problem::new(rows, width).and_then(|problem| problem.grid(grid)).expect("a valid problem");
    assert!(matches!(Plan::new(&problem, &small(260 + 3650)), Err(Error::Geometry { .. })));
    assert_eq!(Plan::new(&problem, &large_baseline()).expect("a plan").chunks().len(), 1);
}

#[test]
fn gpu_plans_of_rows_side_by_side_have_neighbouring_invocations_on_neighbouring_rows() {
    let discrete = Capabilities { class: AdapterClass::Discrete, ..large_baseline() };
    for (channels, backward) in [(64, false), (768, false), (64, true), (256, true)] {
        let (grid, rows, width) = grid_of(&[8, channels, 1024], &[false, true, false], false);
        let problem = Problem::new(rows, width).and_then(|problem| problem.grid(grid)).expect("a valid problem");
        let problem = if backward { with_gradients(problem.affine(Affine::WeightAndBias)) } else { problem };
        let plan = Plan::new(&problem, &discrete).expect("a plan");
        assert!(plan.kernels().iter().any(|kernel| kernel.rows_first), "{plan}");
    }
    // Where elements are neighbours too, or vectors of them, they stay with them.
    let (grid, rows, width) = grid_of(&[8, 64, 32, 16], &[false, true, false, true], false);
    let problem = Problem::new(rows, width).and_then(|problem| problem.grid(grid)).expect("a valid problem");
    let plan = Plan::new(&problem, &discrete).expect("a plan");
    assert!(plan.kernels().iter().all(|kernel| !kernel.rows_first && kernel.unit == Unit::Vector), "{plan}");
}

#[test]
fn a_row_larger_than_a_binding_is_an_error_with_both_sizes() {
    let capabilities = Capabilities { max_binding_bytes: 1 << 20, ..large_baseline() };
    let problem = Problem::new(1, 1 << 18).expect("a valid problem");
    assert_eq!(Plan::new(&problem, &capabilities), Err(Error::RowSize { bytes: (1 << 20) + 260, max: 1 << 20 }));
}

#[test]
fn a_tensor_larger_than_a_buffer_is_an_error_with_both_sizes() {
    let problem = Problem::new(5_000_000_000, MAX_WIDTH).expect("a valid problem");
    assert_eq!(
        Plan::new(&problem, &Capabilities::webgpu_baseline()),
        Err(Error::BufferSize { bytes: 5_000_000_000 << 26, max: 256 << 20 })
    );
}

#[test]
fn the_smallest_devices_get_plans_too() {
    // What Vulkan promises at least.
    let capabilities = Capabilities { max_invocations_per_workgroup: 128, max_storage_buffers: 4, ..large_baseline() };
    let problem = Problem::new(1000, 16_388).expect("a valid problem").affine(Affine::WeightAndBias);
    let plan = Plan::new(&problem, &capabilities).expect("a plan");
    check(&plan, &capabilities);
    assert_eq!(plan.geometry().lanes, 128);
}

#[test]
fn capabilities_that_no_device_has_are_errors_at_worst() {
    let problem = Problem::new(1000, 70_000).expect("a valid problem");
    let sizes = |min, max| Some(SubgroupSizes { min, max });
    for impossible in [
        Capabilities { max_workgroups_per_dimension: 0, ..large_baseline() },
        Capabilities { storage_offset_alignment: 24, ..large_baseline() },
        Capabilities { storage_offset_alignment: 0, ..large_baseline() },
        Capabilities { storage_offset_alignment: 1 << 31, max_binding_bytes: u64::MAX, ..large_baseline() },
        Capabilities { subgroups: sizes(0, 32), class: AdapterClass::Cpu, ..large_baseline() },
        Capabilities { subgroups: sizes(48, 48), ..large_baseline() },
        Capabilities { subgroups: sizes(64, 32), ..large_baseline() },
    ] {
        assert!(matches!(Plan::new(&problem, &impossible), Err(Error::Geometry { .. })), "{impossible:?}");
    }
    let all = Capabilities {
        max_invocations_per_workgroup: u32::MAX,
        max_workgroups_per_dimension: u32::MAX,
        max_workgroup_storage: u32::MAX,
        max_storage_buffers: u32::MAX,
        max_binding_bytes: u64::MAX,
        max_buffer_bytes: u64::MAX,
        ..large_baseline()
    };
    // Strides of more than half of what 64 bits can count.
    let far = |offset| Layout { offset, row_stride: Some((1 << 62) - (1 << 45)), buffer: Some(0), ..Layout::default() };
    let sparse = Problem::new(2, 4).and_then(|sparse| sparse.tensor(Role::Input, far(0)));
    let sparse = sparse.and_then(|sparse| sparse.tensor(Role::Output, far(1 << 40)));
    check(&Plan::new(&sparse.expect("a valid problem"), &all).expect("a plan"), &all);
    let geometry = Geometry {
        access: Access::Reread,
        reduction: Reduction::Workgroup,
        lanes: 1 << 30,
        spans_per_lane: 1,
        spans_per_workgroup: 1,
        segment_width: Some(64),
    };
    assert!(matches!(Plan::with_geometry(&problem, &all, geometry), Err(Error::Geometry { .. })));
    check(&Plan::new(&problem, &all).expect("a plan"), &all);
}

#[test]
fn candidates_begin_with_the_pick_and_all_run() {
    for class in [AdapterClass::Cpu, AdapterClass::Discrete] {
        for subgroups in [None, Some(SubgroupSizes { min: 8, max: 8 }), Some(SubgroupSizes { min: 32, max: 32 })] {
            let capabilities = Capabilities { class, subgroups, cores: 4, ..large_baseline() };
            for (rows, width) in [(1, 1), (4, 768), (10_000, 64), (3, 1_000_003), (5000, 4096), (0, 7)] {
                let problem = Problem::new(rows, width).expect("a valid problem");
                let candidates = Plan::candidates(&problem, &capabilities).expect("plans");
                assert_eq!(Some(&candidates[0]), Plan::new(&problem, &capabilities).ok().as_ref());
                assert!(rows < 1000 || candidates.len() > 2, "{rows} × {width}: {candidates:?}");
                for (i, plan) in candidates.iter().enumerate() {
                    check(plan, &capabilities);
                    assert!(!candidates[..i].contains(plan), "{plan} stands twice");
                }
            }
        }
    }
}

#[test]
fn processors_of_any_number_of_cores_have_plans_without_barriers() {
    for subgroups in [None, Some(SubgroupSizes { min: 4, max: 4 }), Some(SubgroupSizes { min: 8, max: 8 })] {
        for cores in [0, 1, 2, 192, u32::MAX] {
            let capabilities = Capabilities { class: AdapterClass::Cpu, subgroups, cores, ..large_baseline() };
            for width in [1, 768, 4097, 8191, 32_764, 65_536, 1_000_003, MAX_WIDTH] {
                for rows in [1, 3, 1000] {
                    let forward = Problem::new(rows, width).expect("a valid problem").affine(Affine::WeightAndBias);
                    for problem in [forward, with_gradients(forward)] {
                        let plan = Plan::new(&problem, &capabilities).unwrap_or_else(|error| {
                            panic!("{problem}, {cores} cores, subgroups {subgroups:?}: {error}")
                        });
                        check(&plan, &capabilities);
                        assert!(!plan.kernels().iter().any(Kernel::uses_barriers), "{cores} cores: {plan}");
                    }
                }
            }
        }
    }
}

#[test]
fn geometries_are_read_as_they_are_written() {
    for capabilities in [large_baseline(), Capabilities { class: AdapterClass::Cpu, ..large_baseline() }] {
        let problem = Problem::new(40, 70_000).expect("a valid problem");
        for plan in Plan::candidates(&problem, &capabilities).expect("plans") {
            assert_eq!(plan.geometry().to_string().parse(), Ok(*plan.geometry()));
        }
    }
    for text in ["", "Held", "Held Lane 1 1 1", "Held Lane 1 1 1 0 0", "Held Lane 1 -1 1 0", "held Lane 1 1 1 0"] {
        assert!(matches!(text.parse::<Geometry>(), Err(Error::Geometry { .. })), "{text}");
    }
}

#[test]
fn tunings_are_kept_by_task_and_read_by_the_same_adapter_only() {
    let problem = |rows, width| Problem::new(rows, width).expect("a valid problem");
    let geometry: Geometry = "Reread Lane 1 4 64 0".parse().expect("a geometry");
    let mut tunings = Tunings::new("an adapter\nwith two lines");
    assert!(tunings.is_empty() && tunings.get(&problem(100, 768)).is_none());
    tunings.insert(&problem(100, 768), geometry);
    tunings.insert(&problem(128, 768), geometry);
    assert_eq!(tunings.len(), 1, "the same to the next power of two");
    for (rows, width, found) in [(65, 768, true), (64, 768, false), (129, 768, false), (100, 769, false)] {
        assert_eq!(tunings.get(&problem(rows, width)).is_some(), found, "{rows} × {width}");
    }
    let shifted = problem(100, 768).tensor(Role::Input, Layout { offset: 1, ..Layout::default() });
    assert!(tunings.get(&shifted.expect("a valid problem")).is_none(), "vectors do not fit there");
    // What does not bear on speed.
    assert!(tunings.get(&problem(100, 768).eps(0.5).expect("a valid problem")).is_some());

    let text = tunings.to_string();
    let mut same = Tunings::new("an adapter\nwith two lines");
    assert_eq!((same.read(&text), &same), (1, &tunings));
    let mut another = Tunings::new("another adapter");
    assert_eq!((another.read(&text), another.is_empty()), (0, true));
    assert_eq!(another.read(""), 0);
}

#[test]
fn more_chunks_than_anybody_could_run_are_refused() {
    let capabilities = Capabilities {
        max_binding_bytes: 4096,
        max_buffer_bytes: 1 << 40,
        max_workgroups_per_dimension: 65_535,
        ..large_baseline()
    };
    let problem = Problem::new(1 << 31, 8).expect("a valid problem");
    match Plan::new(&problem, &capabilities) {
        Err(Error::Geometry { reason }) => assert!(reason.contains("chunks"), "{reason}"),
        other => panic!("{:?}", other.map(|plan| plan.chunks().len())),
    }
}

#[test]
fn problems_outside_the_domain_are_errors() {
    assert_eq!(Problem::new(1, 0), Err(Error::Width { width: 0, max: MAX_WIDTH }));
    assert_eq!(Problem::new(1, MAX_WIDTH + 1), Err(Error::Width { width: MAX_WIDTH + 1, max: MAX_WIDTH }));
    assert!(matches!(Problem::new(u64::MAX / 8, 4), Err(Error::Size { .. })));
    let single = Problem::new(1, 1).expect("a valid problem");
    assert_eq!(single.variance(Variance::Unbiased), Err(Error::UnbiasedWidth { width: 1 }));
    for eps in [f32::NAN, f32::INFINITY, -1e-5] {
        assert!(matches!(single.eps(eps), Err(Error::Eps { .. })));
    }
    assert_eq!(single.eps(-0.0).map(|problem| problem.eps_value().to_bits()), Ok(0));
}

#[test]
fn a_plan_prints_what_it_does() {
    let problem = Problem::new(2, 1 << 20).expect("a valid problem").affine(Affine::Weight);
    let capabilities = Capabilities { dialect: Dialect::Naga, ..large_baseline() };
    let text = Plan::new(&problem, &capabilities).expect("a plan").to_string();
    for part in ["split", "2 rows of 1048576", "Weight", "segments", "Partial", "then Merge", "rows 0..2"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
