//! Every kernel variant that a plan can produce: which problems, devices and geometries give them all.

use std::collections::HashSet;

use gpu_layer_norm::kernel::{
    Access, AdapterClass, Capabilities, Dialect, Dimension, Geometry, Grid, Kernel, Layout, Plan, Problem, Reduction,
    Role, SubgroupSizes,
};
use gpu_layer_norm::{Affine, Modulation, Normalization, Operation, StorageType};

use super::common::{AFFINES, STRATEGIES, geometries, kernels};

/// One width for each way that units, lanes, blocks and segments may come out.
const WIDTHS: [u64; 16] = [1, 2, 3, 4, 5, 8, 63, 64, 70, 127, 128, 768, 1000, 4097, 65_536, 1_000_003];

const PARTS: [Operation; 4] = [Operation::Moments, Operation::Normalize, Operation::GradientSums, Operation::Gradients];

fn all_capabilities(dialect: Dialect) -> impl Iterator<Item = Capabilities> {
    let classes = [AdapterClass::Discrete, AdapterClass::Integrated, AdapterClass::Cpu, AdapterClass::Other];
    let subgroups = [None, Some((4, 4)), Some((8, 8)), Some((8, 32)), Some((32, 32)), Some((64, 64)), Some((4, 128))];
    classes.into_iter().flat_map(move |class| {
        subgroups.map(|sizes| Capabilities {
            class,
            subgroups: sizes.map(|(min, max)| SubgroupSizes { min, max }),
            dialect,
            max_buffer_bytes: 1 << 50,
            // Together with others, so that each occurs with and without.
            exact_unpack_f16: sizes.is_some(),
            exact_pack_f16: sizes.is_some_and(|(min, _)| min > 8),
            ..Capabilities::webgpu_baseline()
        })
    })
}

/// What the planner picks, what each strategy gives, and the geometries that tests force, in WGSL for this reader.
pub fn all_kernels(dialect: Dialect) -> HashSet<Kernel> {
    let mut all = HashSet::new();
    for capabilities in all_capabilities(dialect) {
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
                    if everywhere && [64, 1_000_003].contains(&width) {
                        problems.extend(parts(forward));
                    }
                    if everywhere && width == 5 {
                        let rms = forward.normalization(Normalization::RmsNorm).expect("a valid problem");
                        problems.extend(parts(rms));
                        problems.extend(parts(with_conditions(forward.modulation(modulation))));
                    }
                    for problem in problems {
                        all.extend(kernels(Plan::new(&problem, &capabilities).ok()));
                        for strategy in STRATEGIES {
                            all.extend(kernels(Plan::with_strategy(&problem, &capabilities, strategy).ok()));
                        }
                        // A forced geometry is the same on every class of adapters; what follows it backward comes with the strategies.
                        if capabilities.class == AdapterClass::Discrete {
                            all.extend(kernels(geometries(&problem, &capabilities)));
                        }
                    }
                }
            }
        }
    }
    for problem in tensor_problems() {
        for capabilities in
            all_capabilities(dialect).filter(|capabilities| capabilities.class != AdapterClass::Integrated)
        {
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
        for capabilities in all_capabilities(dialect).filter(|it| classes.contains(&it.class) && picked(it)) {
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
            problems.extend(PARTS.map(|operation| stored.with_operation(operation)));
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

/// All tensors of a problem one after another in one buffer.
fn in_one_buffer(problem: Problem, storage: StorageType) -> Problem {
    let roles: Vec<_> = problem.tensors().map(|(role, _)| role).collect();
    roles.into_iter().enumerate().fold(problem, |problem, (i, role)| {
        let storage = if role.words().is_some() { StorageType::F32 } else { storage };
        let layout = Layout { storage, offset: (i as u64) << 20, row_stride: None, buffer: Some(1) };
        problem.tensor(role, layout).expect("a valid problem")
    })
}

/// The operations on rows that are parts of others, with every statistic and every gradient.
fn parts(problem: Problem) -> Vec<Problem> {
    let rstd = |it: Problem| it.tensor(Role::Rstd, StorageType::F32).expect("a valid problem");
    vec![
        problem.with_operation(Operation::Moments),
        problem.with_operation(Operation::Normalize),
        rstd(problem.with_operation(Operation::Normalize)),
        problem.with_operation(Operation::GradientSums),
        with_gradients(problem).with_operation(Operation::Gradients),
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
                    let storage = if role.words().is_some() { StorageType::F32 } else { storage };
                    with(problem, role, place(storage, None, 0))
                });
                all.zero_centred_weight(true)
            };
            problems.extend([all(plain), all(plain.backward()).accumulate(true)]);
            problems.extend(PARTS.map(|operation| all(plain.with_operation(operation))));
            problems.extend(PARTS.map(|operation| in_one_buffer(plain.with_operation(operation), storage)));
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
