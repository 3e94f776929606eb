//! Kernels whose float arithmetic was rewritten as a compiler for GPUs may rewrite it keep their bounds. On lavapipe, which
//! rewrites nothing itself.
//!
//! A sample of the variants runs by default; `GPU_LAYER_NORM_REWRITINGS=all cargo test --release --test rewriting` runs all of
//! them, with several seeds each, and with a number in the place of `all` so many of each operation.

mod common;
#[path = "common/rewrite.rs"]
mod rewrite;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use common::gradients::{Bounds, Pass, all_normalized, all_statistics, chain_bound};
use common::sample::{stored, unit_in_the_last_place};
use common::{Data, bare, devices, error_bound, geometries};
use gpu_layer_norm::kernel::{Dimension, Grid, Kernel, Operation, Problem, Role, Unit};
use gpu_layer_norm::reference::{self, Condition};
use gpu_layer_norm::{Affine, GpuDevice, Modulation, Normalization, Plan, RowMoments, StorageType, Variance, wgpu};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

fn rewritten(kernel: &Kernel, seed: u64) -> wgpu::ShaderSource<'static> {
    let wgsl = kernel.wgsl();
    let module = naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&wgsl)));
    let module = rewrite::rewrite(&rewrite::inline(&module), rewrite::Rewriting::ALL, seed);
    wgpu::ShaderSource::Naga(Cow::Owned(module))
}

fn to_bytes(storage: StorageType, values: &[f32]) -> Vec<u8> {
    use gpu_layer_norm::half::{bf16, f16};
    let mut bytes: Vec<u8> = match storage {
        StorageType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        StorageType::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        StorageType::Bf16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn from_bytes(storage: StorageType, bytes: &[u8]) -> Vec<f32> {
    use gpu_layer_norm::half::{bf16, f16};
    let pairs = bytes.chunks_exact(2).map(|x| [x[0], x[1]]);
    match storage {
        StorageType::F32 => bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect(),
        StorageType::F16 => pairs.map(|x| f16::from_le_bytes(x).to_f32()).collect(),
        StorageType::Bf16 => pairs.map(|x| bf16::from_le_bytes(x).to_f32()).collect(),
    }
}

/// Rows of every kind: ordinary ones, tiny and huge ones, an outlier first, large means, constants, and what is no number.
fn rows(storage: StorageType, width: usize, seed: u64) -> Vec<Vec<f32>> {
    let standard = |seed| Data::STANDARD.values(1, width, seed);
    let times = |factor: f32, seed| standard(seed).iter().map(|x| x * factor).collect::<Vec<f32>>();
    let mut rows: Vec<Vec<f32>> =
        vec![standard(seed), Data::Normal { mean: 100.0, std: 0.5 }.values(1, width, seed + 1)];
    rows.push(Data::Outlier { first: 1e4 }.values(1, width, seed + 2));
    rows.push(Data::Peaks { height: 1e4 }.values(1, width, seed + 3));
    rows.extend([0.0, 1.0, -0.1, 1000.0].map(|constant| vec![constant; width]));
    if storage == StorageType::F16 {
        rows.extend([1e-3_f32, 1e3].map(|factor| times(factor, seed + 4)));
    } else {
        rows.extend([1e-30_f32, 1e-24, 1e-18, 1e-12, 1e12, 1e18, 1e24, 1e30, 1e37].map(|f| times(f, seed + 5)));
        rows.extend([1e6, 3.3e-7, 1e-30, 1e15, 1e37].map(|constant| vec![constant; width]));
        rows.push(Data::Normal { mean: 1e6, std: 1.0 }.values(1, width, seed + 6));
        let mut extreme = standard(seed + 7);
        extreme[0] = f32::MAX;
        extreme[width - 1] = -f32::MAX;
        rows.push(extreme);
        rows.push((0..width).map(|i| if i < width / 2 { 1e30 } else { -1e30 }).collect());
    }
    for (i, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
        let mut row = standard(seed + 8);
        row[(width / 2 + i) % width] = bad;
        rows.push(row);
        rows.push(standard(seed + 9 + i as u64));
    }
    let round = |row: Vec<f32>| row.into_iter().map(|x| stored(storage, x)).collect();
    rows.into_iter().map(round).collect()
}

/// Rows of a sequence that all rows are of.
const LONG: usize = 1000;

/// Rows that share a condition, where there are conditions.
const ROWS_PER_CONDITION: usize = 3;

/// Groups of a sample, where rows are groups of channels.
const GROUPS: usize = 4;

/// How rows lie in memory, and whose weight and bias their elements have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lies {
    /// One after another, with a parameter for each element.
    InARow,
    /// Side by side: neighbouring elements belong to neighbouring rows.
    Beside,
    /// A row is a group of so many channels of a sample, and a parameter belongs to all positions of its channel.
    Groups { channels: usize },
}

#[derive(Clone, Copy, Debug)]
struct Variant {
    storage: StorageType,
    normalization: Normalization,
    affine: Affine,
    variance: Variance,
    eps: f32,
    /// With scale and shift, and how they go together with weight and bias.
    modulation: Option<Modulation>,
    /// With a residual of 0 and a gate of 1, so that rows are what they would be without.
    gate: bool,
    /// Rows of a sequence, where it is causal.
    causal: Option<usize>,
    lies: Lies,
    width: usize,
}

impl Variant {
    /// Its rows; before those that a long sequence may have too many ordinary ones for a single tile of the scans.
    fn rows(&self, seed: u64) -> Vec<Vec<f32>> {
        let rows = rows(self.storage, self.width, seed);
        let ordinary = if self.causal == Some(LONG) { 80 } else { 0 };
        let more = self.whole(rows.len()) - rows.len();
        rows.iter().take(4).cycle().take(ordinary + more).chain(&rows).cloned().collect()
    }

    /// So many rows and a few more: those side by side are taken four at a time, and a sample has all its groups.
    fn whole(&self, rows: usize) -> usize {
        match self.lies {
            Lies::InARow => rows,
            Lies::Beside => rows.next_multiple_of(4),
            Lies::Groups { .. } => rows.next_multiple_of(GROUPS),
        }
    }

    /// Values, row by row, as they lie in memory; and the other way round with rows and width changed.
    fn laid(&self, values: &[f32], width: usize) -> Vec<f32> {
        let rows = values.len() / width;
        let at = |i: usize| values[if self.lies == Lies::Beside { i % rows * width + i / rows } else { i }];
        (0..values.len()).map(at).collect()
    }

    /// Elements of weight and bias.
    fn parameters(&self) -> usize {
        if let Lies::Groups { channels } = self.lies { GROUPS * channels } else { self.width }
    }

    /// Which of them an element of a row has.
    fn parameter_of(&self, row: usize, column: usize) -> usize {
        let Lies::Groups { channels } = self.lies else { return column };
        row % GROUPS * channels + column / (self.width / channels)
    }

    fn grid(&self, rows: usize) -> Option<Grid> {
        let dimension = |size: usize, stride: usize, parameter_stride: usize| Dimension {
            size: size as u32,
            stride: stride as u32,
            parameter_stride: parameter_stride as u32,
        };
        let grid = match self.lies {
            Lies::InARow => return None,
            Lies::Beside => Grid::new(&[dimension(rows, 1, 0)], &[dimension(self.width, rows, 1)]),
            Lies::Groups { channels } => {
                let positions = self.width / channels;
                Grid::new(
                    &[dimension(rows / GROUPS, GROUPS * self.width, 0), dimension(GROUPS, self.width, channels)],
                    &[dimension(channels, positions, 1), dimension(positions, 1, 0)],
                )
            }
        };
        Some(grid.expect("a grid"))
    }

    /// The roles of scale, shift, gate and residual that it has in the forward pass.
    fn more_roles(&self) -> impl Iterator<Item = Role> {
        let modulated = self.modulation.map(|_| [Role::Scale, Role::Shift]);
        let gated = self.gate.then_some([Role::Residual, Role::Gate]);
        modulated.into_iter().chain(gated).flatten()
    }

    fn conditions(&self, rows: usize) -> usize {
        if self.modulation.is_some() || self.gate { rows.div_ceil(ROWS_PER_CONDITION) } else { 0 }
    }

    fn problem(&self, rows: usize) -> Problem {
        let problem = Problem::new(rows as u64, self.width as u64).expect("a problem").affine(self.affine);
        let problem = problem.eps(self.eps).expect("an eps").normalization(self.normalization).expect("a problem");
        let mut problem = problem.variance(self.variance).expect("a problem");
        for role in [Role::Input, Role::Output, Role::Weight, Role::Bias] {
            if problem.layout(role).is_some() {
                problem = problem.tensor(role, self.storage).expect("a problem");
            }
        }
        for role in self.more_roles() {
            problem = problem.tensor(role, self.storage).expect("a problem");
        }
        problem = problem.modulation(self.modulation.unwrap_or_default());
        problem = problem.rows_per_condition(ROWS_PER_CONDITION as u64).expect("a problem");
        if let Some(grid) = self.grid(rows) {
            problem = problem.grid(grid).expect("a problem");
        }
        if let Some(length) = self.causal {
            problem = problem.causal(length as u64).expect("a problem");
        }
        if self.normalization == Normalization::LayerNorm {
            problem = problem.tensor(Role::Mean, StorageType::F32).expect("a problem");
        }
        problem.tensor(Role::Rstd, StorageType::F32).expect("a problem")
    }

    /// Its backward pass; the gradients of the parameters are f32.
    fn backward_problem(&self, rows: usize, given: bool) -> Problem {
        let problem = self.problem(rows).backward();
        let mut roles = vec![
            (Role::OutputGradient, self.storage),
            (Role::InputGradient, self.storage),
            (Role::WeightGradient, StorageType::F32),
            (Role::BiasGradient, StorageType::F32),
        ];
        if given {
            roles.extend([Role::Mean, Role::Rstd].map(|role| (role, StorageType::F32)));
        }
        if self.modulation.is_some() {
            roles.extend([Role::ScaleGradient, Role::ShiftGradient].map(|role| (role, StorageType::F32)));
        }
        if self.gate {
            roles.push((Role::ResidualGradient, self.storage));
        }
        // Without those that its affine map or its normalization has not.
        let with = |problem: Problem, (role, storage)| problem.tensor(role, storage).unwrap_or(problem);
        let problem = roles.into_iter().fold(problem, with);
        // Which the gradient of the scale may take.
        if problem.layout(Role::Bias).is_some() { with(problem, (Role::Bias, self.storage)) } else { problem }
    }

    /// An operation on rows that are parts of others.
    fn problem_of_parts(&self, operation: Operation) -> Problem {
        let statistics = [Role::Mean, Role::Rstd].map(|role| (role, StorageType::F32));
        let with = |problem: Problem, (role, storage)| problem.tensor(role, storage).unwrap_or(problem);
        match operation {
            Operation::Normalize => {
                let problem = self.problem(self.rows(0).len()).with_operation(operation);
                statistics.into_iter().fold(problem, with)
            }
            _ => {
                let rows = self.whole(finite_rows(self, self.rows(0)).len());
                let problem = self.backward_problem(rows, false).with_operation(operation);
                if problem.layout(Role::Bias).is_some() { with(problem, (Role::Bias, self.storage)) } else { problem }
            }
        }
    }

    /// Mean and rstd in f64.
    fn statistics(&self, row: &[f32]) -> [f64; 2] {
        let statistics = reference::row_statistics(row, f64::from(self.eps), self.variance == Variance::Unbiased);
        match self.normalization {
            Normalization::LayerNorm => [statistics.mean, statistics.rstd],
            Normalization::RmsNorm => [0.0, reference::root_mean_square_rstd(row, f64::from(self.eps))],
        }
    }
}

/// Without what is no number, which spoils the gradients of the parameters, and without rows whose rstd counts as zero.
fn finite_rows(variant: &Variant, rows: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let is_finite = |row: &Vec<f32>| {
        let [_, rstd] = variant.statistics(row);
        row.iter().all(|x| x.is_finite()) && (rstd == 0.0 || rstd > f64::from(f32::MIN_POSITIVE))
    };
    rows.into_iter().filter(is_finite).collect()
}

/// What goes into a backward pass or a part of one, all finite.
struct Inputs {
    rows: Vec<Vec<f32>>,
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    scale: Vec<f32>,
    output_gradient: Vec<f32>,
}

impl Inputs {
    /// For as many rows as the plan has been made for.
    fn new(variant: &Variant, plan: &Plan, seed: u64) -> Self {
        let mut rows = finite_rows(variant, variant.rows(seed % 100));
        rows.resize(plan.problem().rows() as usize, vec![1.0; variant.width]);
        let random = |count: usize, low, high, salt: u64| {
            let mut rng = StdRng::seed_from_u64(seed ^ salt);
            (0..count).map(|_| stored(variant.storage, rng.random_range(low..high))).collect::<Vec<f32>>()
        };
        let parameters = variant.parameters();
        let of_conditions = variant.conditions(rows.len()) * parameters;
        Self {
            input: rows.concat(),
            weight: random(parameters, 0.5_f32, 1.5, 1),
            bias: random(parameters, -1.0, 1.0, 3),
            scale: random(of_conditions, -0.5, 0.5, 4),
            output_gradient: random(rows.len() * variant.width, -2.0, 2.0, 2),
            rows,
        }
    }

    /// What a tensor in this role holds, if it is one of these.
    fn values(&self, variant: &Variant, role: Role) -> Option<Vec<f32>> {
        Some(match role {
            Role::Input => variant.laid(&self.input, variant.width),
            Role::Residual => vec![0.0; self.input.len()],
            Role::Weight => self.weight.clone(),
            Role::Bias => self.bias.clone(),
            Role::Scale => self.scale.clone(),
            Role::Gate => vec![1.0; self.scale.len()],
            Role::OutputGradient => variant.laid(&self.output_gradient, variant.width),
            _ => return None,
        })
    }
}

/// Of groups of channels: from the gradients of rows that each have a scale and shift of their own, the scale being what x̂ is multiplied by
/// less 1, and from these summed up by channel.
fn group_bounds(
    variant: &Variant,
    input: &[f32],
    output_gradient: &[f32],
    [weight, bias, scale]: [Option<&Vec<f32>>; 3],
) -> Bounds {
    let &Variant { normalization, variance, eps, width, .. } = variant;
    let (parameters, rows) = (variant.parameters(), input.len() / width);
    let parameter_of = |i: usize| variant.parameter_of(i / width, i % width);
    let condition_of = |i: usize| i / width / ROWS_PER_CONDITION * parameters + parameter_of(i);
    let at = |values: Option<&Vec<f32>>, i: usize, absent: f64| values.map_or(absent, |values| f64::from(values[i]));
    // What x̂ is multiplied by, and what dy counts as for weight and bias.
    let factors = |i: usize| {
        let (weight, scale) = (at(weight, parameter_of(i), 1.0), at(scale, condition_of(i), 0.0));
        match variant.modulation.unwrap_or_default() {
            Modulation::Adaptive => [weight * (1.0 + scale), 1.0 + scale],
            Modulation::Conditional => [weight + scale, 1.0],
        }
    };
    let exact = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let own_scale: Vec<f64> = (0..input.len()).map(|i| factors(i)[0] - 1.0).collect();
    let (source, output_gradient) = (exact(input), exact(output_gradient));
    let mut bounds = Bounds::of(&Pass {
        normalization,
        eps: eps.into(),
        unbiased: variance == Variance::Unbiased,
        width,
        causal: None,
        source: &source,
        slack: None,
        output_gradient: &output_gradient,
        weight: None,
        bias: None,
        condition: Condition {
            modulation: Modulation::Conditional,
            rows_per_condition: 1,
            scale: Some(&own_scale),
            shift: None,
        },
    });
    // What a scale of less than 0 takes off counts as much as one that adds.
    bounds.input.iter_mut().for_each(|bound| *bound *= if scale.is_some() { 2.0 } else { 1.0 });
    // Each sum over a row's own element counts as one term of its channel's.
    let more = chain_bound(width, input.len() / parameters) / chain_bound(width, 1);
    let sums = |count: usize, place: &dyn Fn(usize) -> usize, term: &dyn Fn(usize) -> f64| {
        let mut sums = vec![0.0; count];
        (0..input.len()).for_each(|i| sums[place(i)] += term(i));
        sums
    };
    let (products, gradients) = (bounds.exact.scale.clone(), bounds.exact.shift.clone());
    let (product_bounds, gradient_bounds) = (bounds.scale.clone(), bounds.shift.clone());
    bounds.exact.weight = sums(parameters, &parameter_of, &|i| factors(i)[1] * products[i]);
    bounds.exact.bias = sums(parameters, &parameter_of, &|i| factors(i)[1] * gradients[i]);
    bounds.weight = sums(parameters, &parameter_of, &|i| more * factors(i)[1].abs() * product_bounds[i]);
    bounds.bias = sums(parameters, &parameter_of, &|i| more * factors(i)[1].abs() * gradient_bounds[i]);
    // What a scale is multiplied by.
    let scaled = |i: usize| match variant.modulation.unwrap_or_default() {
        Modulation::Adaptive => [at(weight, parameter_of(i), 1.0), at(bias, parameter_of(i), 0.0)],
        Modulation::Conditional => [1.0, 0.0],
    };
    let conditions = rows.div_ceil(ROWS_PER_CONDITION) * parameters;
    bounds.exact.scale = sums(conditions, &condition_of, &|i| scaled(i)[0] * products[i] + scaled(i)[1] * gradients[i]);
    bounds.exact.shift = sums(conditions, &condition_of, &|i| gradients[i]);
    bounds.scale = sums(conditions, &condition_of, &|i| {
        more * (scaled(i)[0].abs() * product_bounds[i] + scaled(i)[1].abs() * gradient_bounds[i])
    });
    bounds.shift = sums(conditions, &condition_of, &|i| more * gradient_bounds[i]);
    bounds
}

fn check_gradients(device: &GpuDevice, variant: &Variant, plan: &Plan, seed: u64) -> Result<(), String> {
    let &Variant { normalization, affine, variance, eps, causal, width, .. } = variant;
    let inputs = Inputs::new(variant, plan, seed);
    let Inputs { rows, input, weight, bias, scale, output_gradient } = &inputs;
    let (parameters, of_conditions) = (variant.parameters(), scale.len());
    let statistic = |which: usize| rows.iter().map(|row| variant.statistics(row)[which] as f32).collect::<Vec<f32>>();
    let sums = match plan.problem().operation() {
        Operation::Gradients => {
            let factors = [affine.has_weight().then_some(weight), variant.modulation.map(|_| scale)];
            exact_sums(variant, rows, output_gradient, factors).into_iter().map(|(exact, _)| exact).collect()
        }
        _ => Vec::new(),
    };
    let mut tensors: Vec<(Role, Vec<u8>)> = plan
        .problem()
        .tensors()
        .map(|(role, layout)| {
            if let Some(values) = inputs.values(variant, role) {
                return (role, to_bytes(layout.storage, &values));
            }
            let values = match role {
                Role::InputGradient | Role::ResidualGradient => vec![7.0; input.len()],
                Role::ScaleGradient | Role::ShiftGradient => vec![7.0; of_conditions],
                Role::Mean => statistic(0),
                Role::Rstd => statistic(1),
                Role::Moments => return (role, moments_of(variant, rows)),
                Role::GradientSums => sums.iter().flatten().map(|sum| *sum as f32).collect(),
                _ => vec![7.0; parameters],
            };
            (role, to_bytes(layout.storage, &values))
        })
        .collect();
    bare::run(device, plan, |kernel| rewritten(kernel, seed), &mut tensors);
    let (eps, unbiased) = (f64::from(eps), variance == Variance::Unbiased);
    let of_weight = affine.has_weight().then_some(&weight[..]);
    let bounds = match variant.modulation {
        modulation if matches!(variant.lies, Lies::Groups { .. }) => {
            let has = [affine.has_weight(), affine.has_bias(), modulation.is_some()];
            let factors = [(has[0], weight), (has[1], bias), (has[2], scale)].map(|(has, it)| has.then_some(it));
            group_bounds(variant, input, output_gradient, factors)
        }
        None if causal.is_none() => {
            Bounds::new((normalization, eps, unbiased), width, input, output_gradient, of_weight)
        }
        modulation => Bounds::of(&Pass {
            normalization,
            eps,
            unbiased,
            width,
            causal,
            source: input,
            slack: None,
            output_gradient,
            weight: of_weight,
            bias: affine.has_bias().then_some(&bias[..]),
            condition: Condition {
                modulation: modulation.unwrap_or_default(),
                rows_per_condition: ROWS_PER_CONDITION,
                scale: modulation.map(|_| &scale[..]),
                shift: None,
            },
        }),
    };
    for (role, exact, allowed) in [
        (Role::InputGradient, &bounds.exact.input, &bounds.input),
        (Role::ResidualGradient, &bounds.exact.input, &bounds.input),
        (Role::WeightGradient, &bounds.exact.weight, &bounds.weight),
        (Role::BiasGradient, &bounds.exact.bias, &bounds.bias),
        (Role::ScaleGradient, &bounds.exact.scale, &bounds.scale),
        (Role::ShiftGradient, &bounds.exact.shift, &bounds.shift),
    ] {
        let Some((_, bytes)) = tensors.iter().find(|(other, _)| *other == role) else { continue };
        let layout = plan.problem().layout(role).copied().unwrap_or_default();
        let mut found = from_bytes(layout.storage, bytes);
        if role.is_of_rows() {
            found = variant.laid(&found[..exact.len()], rows.len());
        }
        for (i, (found, (exact, allowed))) in found.into_iter().zip(exact.iter().zip(allowed)).enumerate() {
            let last = unit_in_the_last_place(layout.storage, *exact);
            let error = (f64::from(found) - exact).abs();
            // What is too large becomes infinity.
            if f64::from(found) == f64::from(stored(layout.storage, *exact as f32)) {
                continue;
            }
            let allowed = allowed * parts_factor(plan);
            if error.is_nan() || error > allowed + last {
                return Err(format!(
                    "{role}, row {} ({:e}, …), element {}: {found:e} in place of {exact:e}, {error:e} off where {:e} is allowed",
                    i / width,
                    input[i / width * width],
                    i % width,
                    allowed + last
                ));
            }
        }
    }
    Ok(())
}

fn check(device: &GpuDevice, variant: &Variant, plan: &Plan, seed: u64) -> Result<(), String> {
    let &Variant { storage, normalization, affine, variance, eps, causal, width, .. } = variant;
    let rows = variant.rows(seed % 100);
    let input: Vec<f32> = rows.concat();
    let random = |count: usize, low, high, salt: u64| {
        let mut rng = StdRng::seed_from_u64(seed ^ salt);
        (0..count).map(|_| stored(storage, rng.random_range(low..high))).collect::<Vec<f32>>()
    };
    let parameters = variant.parameters();
    let (weight, mut bias) = (random(parameters, 0.5_f32, 1.5, 1), random(parameters, -1.0, 1.0, 2));
    let of_conditions = variant.conditions(rows.len()) * parameters;
    let (mut scale, mut shift) = (random(of_conditions, -0.5, 0.5, 3), random(of_conditions, -1.0, 1.0, 4));
    // Eighths: what a constant row gives is a sum of products that no order of evaluation rounds.
    if variant.modulation.is_some() {
        for values in [&mut bias, &mut scale, &mut shift] {
            values.iter_mut().for_each(|x| *x = (8.0 * *x).round() / 8.0);
        }
    }
    let mut tensors: Vec<(Role, Vec<u8>)> = plan
        .problem()
        .tensors()
        .map(|(role, layout)| {
            let bytes = match role {
                Role::Input => to_bytes(layout.storage, &variant.laid(&input, width)),
                Role::Weight => to_bytes(layout.storage, &weight),
                Role::Bias => to_bytes(layout.storage, &bias),
                Role::Scale => to_bytes(layout.storage, &scale),
                Role::Shift => to_bytes(layout.storage, &shift),
                Role::Residual => to_bytes(layout.storage, &vec![0.0; input.len()]),
                Role::Gate => to_bytes(layout.storage, &vec![1.0; of_conditions]),
                Role::Output => to_bytes(layout.storage, &vec![7.0; input.len()]),
                Role::Moments => moments_of(variant, &rows),
                _ => to_bytes(StorageType::F32, &vec![7.0; rows.len()]),
            };
            (role, bytes)
        })
        .collect();
    bare::run(device, plan, |kernel| rewritten(kernel, seed), &mut tensors);
    let values = |role: Role| {
        let (_, bytes) = tensors.iter().find(|(other, _)| *other == role)?;
        Some(from_bytes(if role.is_statistic() { StorageType::F32 } else { storage }, bytes))
    };
    let (output, mean) = (values(Role::Output).expect("an output"), values(Role::Mean));
    let output = variant.laid(&output, rows.len());
    let rstd = values(Role::Rstd).expect("an rstd");

    let unbiased = variance == Variance::Unbiased;
    let statistics = all_statistics(normalization, &input, width, causal, f64::from(eps), unbiased);
    let all_exact = all_normalized(&input, width, &statistics);
    for (i, row) in rows.iter().enumerate() {
        let exact = &all_exact[i * width..(i + 1) * width];
        // The rows that the statistics are of.
        let measured = &rows[i - causal.map_or(0, |length| i % length)..=i];
        let same = measured.iter().flatten().all(|x| *x == row[0]);
        let constant = normalization == Normalization::LayerNorm && same;
        for (column, &normalized) in exact.iter().enumerate() {
            let y = output[i * width + column];
            let parameter = variant.parameter_of(i, column);
            let weight = if affine.has_weight() { f64::from(weight[parameter]) } else { 1.0 };
            let bias = if affine.has_bias() { f64::from(bias[parameter]) } else { 0.0 };
            let of_condition = i / ROWS_PER_CONDITION * parameters + parameter;
            // What x̂ is multiplied by, what is added, and the magnitudes of what the two are made of.
            let (weight, bias, terms) = match variant.modulation {
                None => (weight, bias, None),
                Some(modulation) => {
                    let (scale, shift) = (f64::from(scale[of_condition]), f64::from(shift[of_condition]));
                    match modulation {
                        Modulation::Adaptive => {
                            let terms = (weight * (1.0 + scale.abs()), bias.abs() * (1.0 + scale.abs()) + shift.abs());
                            (weight * (1.0 + scale), bias * (1.0 + scale) + shift, Some(terms))
                        }
                        Modulation::Conditional => {
                            let terms = (weight + scale.abs(), bias.abs() + shift.abs());
                            (weight + scale, bias + shift, Some(terms))
                        }
                    }
                }
            };
            let expected = normalized * weight + bias;
            let at = || format!("row {i} {column} ({:e}, …): {y:e} in place of {expected:e}", row[0]);
            if expected.is_nan() {
                // An infinity spoils its row, and leaves 0 or NaN of the others.
                if !y.is_nan() {
                    return Err(at());
                }
                continue;
            }
            if constant && f64::from(y) != expected {
                return Err(format!("{}: a constant row gives exactly the bias", at()));
            }
            // As `Sample` has it.
            let rounded = match terms {
                None => (normalized * weight).abs(),
                Some((weight, bias)) => 3.0 * normalized.abs() * weight + 2.0 * bias,
            };
            let rounding = f64::from(f32::EPSILON) * (rounded + expected.abs());
            let last = if storage == StorageType::F32 { 0.0 } else { unit_in_the_last_place(storage, expected) };
            let allowed =
                parts_factor(plan) * error_bound(width) * weight.abs() * common::scale(normalized) + rounding + last;
            let error = (f64::from(y) - expected).abs();
            if error.is_nan() || error > allowed {
                return Err(format!("{}, {error:e} off where {allowed:e} is allowed", at()));
            }
        }
        let (exact_mean, exact_rstd) = (statistics[i].mean, statistics[i].rstd);
        let near = |found: f32, exact: f64, allowed: f64| {
            (f64::from(found) - exact).abs() <= allowed || found.is_nan() && exact.is_nan()
        };
        // What is subnormal may be 0. Twice the bound: a sum that is not fused, and each that is cut, rounds once more.
        let is_flushed = exact_rstd < f64::from(f32::MIN_POSITIVE) && rstd[i] == 0.0;
        if !is_flushed && !near(rstd[i], exact_rstd, 2.0 * common::rstd_bound(width) * exact_rstd) {
            return Err(format!("rstd of row {i} ({:e}, …): {:e} in place of {exact_rstd:e}", row[0], rstd[i]));
        }
        if let Some(mean) = &mean {
            let spread = if exact_rstd > 0.0 { 1e-6 / exact_rstd } else { 0.0 };
            if !near(mean[i], exact_mean, exact_mean.abs() * 1.2e-7 + spread) {
                return Err(format!("mean of row {i} ({:e}, …): {:e} in place of {:e}", row[0], mean[i], exact_mean));
            }
        }
    }
    Ok(())
}

/// What is allowed where whole rows are allowed 1.
fn parts_factor(plan: &Plan) -> f64 {
    if matches!(plan.problem().operation(), Operation::Normalize | Operation::Gradients) { 2.0 } else { 1.0 }
}

/// The moments of rows, as they are given.
fn moments_of(variant: &Variant, rows: &[Vec<f32>]) -> Vec<u8> {
    let of = |row: &Vec<f32>| match variant.normalization {
        Normalization::LayerNorm => RowMoments::of(row),
        Normalization::RmsNorm => RowMoments::of_squares(row),
    };
    bytemuck::cast_slice(&rows.iter().map(of).collect::<Vec<_>>()).to_vec()
}

/// Σg and Σ(g · x̂) of each row in f64, and the same of magnitudes, where an x̂ below 1 counts as 1.
fn exact_sums(
    variant: &Variant,
    rows: &[Vec<f32>],
    output_gradient: &[f32],
    [weight, scale]: [Option<&Vec<f32>>; 2],
) -> Vec<([f64; 2], [f64; 2])> {
    let parameters = variant.parameters();
    let of_row = |(i, row): (usize, &Vec<f32>)| {
        let [mean, rstd] = variant.statistics(row);
        let (mut exact, mut magnitudes) = ([0.0; 2], [0.0; 2]);
        for (column, &x) in row.iter().enumerate() {
            let parameter = variant.parameter_of(i, column);
            let weight = weight.map_or(1.0, |weight| f64::from(weight[parameter]));
            let of_condition = i / ROWS_PER_CONDITION * parameters + parameter;
            let scale = scale.map_or(0.0, |scale| f64::from(scale[of_condition]));
            let factor = match variant.modulation.unwrap_or_default() {
                Modulation::Adaptive => weight * (1.0 + scale),
                Modulation::Conditional => weight + scale,
            };
            let g = f64::from(output_gradient[i * variant.width + column]) * factor;
            let normalized = (f64::from(x) - mean) * rstd;
            let sum = if variant.normalization == Normalization::RmsNorm { 0.0 } else { g };
            exact = [exact[0] + sum, exact[1] + g * normalized];
            magnitudes = [magnitudes[0] + g.abs(), magnitudes[1] + g.abs() * normalized.abs().max(1.0)];
        }
        (exact, magnitudes)
    };
    rows.iter().enumerate().map(of_row).collect()
}

/// The first passes over parts: what they leave of each row.
fn check_first_pass(device: &GpuDevice, variant: &Variant, plan: &Plan, seed: u64) -> Result<(), String> {
    let &Variant { normalization, affine, width, .. } = variant;
    let is_backward = plan.problem().operation().is_backward();
    let inputs = Inputs::new(variant, plan, seed);
    let Inputs { rows, weight, scale, output_gradient, .. } = &inputs;
    let mut tensors: Vec<(Role, Vec<u8>)> = plan
        .problem()
        .tensors()
        .map(|(role, layout)| {
            if let Some(values) = inputs.values(variant, role) {
                return (role, to_bytes(layout.storage, &values));
            }
            let values = match role {
                Role::Moments if is_backward => return (role, moments_of(variant, rows)),
                Role::Moments => vec![7.0; 4 * rows.len()],
                _ => vec![7.0; 2 * rows.len()],
            };
            (role, to_bytes(layout.storage, &values))
        })
        .collect();
    bare::run(device, plan, |kernel| rewritten(kernel, seed), &mut tensors);
    let bytes = |role: Role| &tensors.iter().find(|(other, _)| *other == role).expect("a tensor").1;
    if is_backward {
        let factors = [affine.has_weight().then_some(weight), variant.modulation.map(|_| scale)];
        let found = from_bytes(StorageType::F32, bytes(Role::GradientSums));
        let exact = exact_sums(variant, rows, output_gradient, factors);
        for (row, (found, (exact, magnitudes))) in found.chunks(2).zip(exact).enumerate() {
            for i in 0..2 {
                let error = (f64::from(found[i]) - exact[i]).abs();
                let allowed = 2.0 * error_bound(width) * magnitudes[i];
                if error.is_nan() || error > allowed {
                    return Err(format!(
                        "sum {i} of row {row} ({:e}, …): {:e} in place of {:e}, {error:e} off where {allowed:e} is allowed",
                        rows[row][0], found[i], exact[i]
                    ));
                }
            }
        }
        return Ok(());
    }
    let found: Vec<RowMoments> = bytemuck::pod_collect_to_vec(bytes(Role::Moments));
    for (row, found) in rows.iter().zip(found) {
        let exact = reference::row_statistics(row, 0.0, false);
        let [mean, rstd] = match normalization {
            Normalization::LayerNorm => [exact.mean, exact.rstd],
            Normalization::RmsNorm => [0.0, reference::root_mean_square_rstd(row, 0.0)],
        };
        let deviation = if rstd == 0.0 { 0.0 } else { 1.0 / rstd };
        // What is subnormal may be 0.
        let subnormal = f64::from(f32::MIN_POSITIVE);
        let of_mean = (found.mean() - mean).abs();
        let of_deviation = (f64::from(found.deviation) - deviation).abs();
        let is_right = found.count as usize == width
            && of_mean <= 1e-6 * deviation + 2.0_f64.powi(-45) * mean.abs() + subnormal
            && of_deviation <= 2.0 * common::rstd_bound(width) * deviation + subnormal;
        if !is_right {
            return Err(format!("({:e}, …): {found:?}, mean {mean:e} and deviation {deviation:e}", row[0]));
        }
    }
    Ok(())
}

/// Every variant with every plan that can run it, in this operation. A third of them have conditions, a fifth are causal, and of the
/// others rows lie side by side in a third or are groups of channels in some.
fn variants(device: &GpuDevice, operation: Operation) -> Vec<(Variant, Plan)> {
    let mut all = Vec::new();
    let mut count = 0;
    for width in [2, 5, 40, 64, 129, 768, 1000, 4104] {
        for storage in StorageType::ALL {
            for normalization in [Normalization::LayerNorm, Normalization::RmsNorm] {
                for (i, eps) in [0.0, 1e-30, 1e-12, 1e-5, 10.0].into_iter().enumerate() {
                    let affine = common::AFFINES[i % 3];
                    let variance = match normalization {
                        Normalization::LayerNorm if i % 2 == 1 => Variance::Unbiased,
                        _ => Variance::Biased,
                    };
                    // Not in step with eps, storage or width.
                    count += 1;
                    let (modulation, gate) = match (count + count / 9) % 9 {
                        0 => (Some(Modulation::Adaptive), false),
                        3 => (Some(Modulation::Conditional), false),
                        6 => (Some(Modulation::Adaptive), true),
                        _ => (None, false),
                    };
                    let causal = match (count + count / 10) % 10 {
                        1 => Some(3),
                        5 => Some(LONG),
                        _ => None,
                    };
                    let lies = match (count % 6, normalization) {
                        _ if causal.is_some() => Lies::InARow,
                        (1 | 4, _) => Lies::Beside,
                        // A channel is a group of its own, or a group has some.
                        (2, Normalization::RmsNorm) => Lies::Groups { channels: 1 },
                        (2, Normalization::LayerNorm) => {
                            Lies::Groups { channels: (2..=width).find(|it| width % it == 0).unwrap_or(1) }
                        }
                        _ => Lies::InARow,
                    };
                    let variant = Variant {
                        storage,
                        normalization,
                        affine,
                        variance,
                        eps,
                        modulation,
                        gate,
                        causal,
                        lies,
                        width,
                    };
                    let problem = match operation {
                        Operation::Forward => variant.problem(variant.rows(0).len()),
                        // Given statistics and measured ones in turn.
                        Operation::Backward => {
                            let rows = finite_rows(&variant, variant.rows(0)).len();
                            variant.backward_problem(variant.whole(rows), (i + width) % 2 == 0)
                        }
                        // Rows are parts of others only where each is on its own.
                        _ if variant.causal.is_some() => continue,
                        _ => variant.problem_of_parts(operation),
                    };
                    let plans = geometries(&problem, device.capabilities());
                    all.extend(plans.into_iter().map(|plan| (variant, plan)));
                }
            }
        }
    }
    all
}

/// Tries so many of these, or all of them if that is asked for.
fn try_some(
    operation: Operation,
    count: usize,
    check: impl Fn(&GpuDevice, &Variant, &Plan, u64) -> Result<(), String>,
) {
    const SEED: u64 = 20_261_124;
    let (devices, _) = devices();
    let Some((_, device)) = devices.iter().find(|(name, _)| name == "lavapipe") else {
        let required = std::env::var("GPU_LAYER_NORM_ADAPTERS").unwrap_or_default();
        assert!(!required.contains("lavapipe"), "lavapipe is required and was not found");
        println!("no lavapipe, nothing is tried");
        return;
    };
    let asked_for = std::env::var("GPU_LAYER_NORM_REWRITINGS").ok();
    let all_of_them = asked_for.as_deref() == Some("all");
    let number = asked_for.as_ref().and_then(|number| number.parse().ok());
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut all = variants(device, operation);
    all.shuffle(&mut rng);
    // Some of the few that take four rows at once come first, and some of those of channels.
    let takes_four = |(_, plan): &(Variant, Plan)| plan.kernels().iter().any(|kernel| kernel.unit == Unit::Rows);
    let has_groups = |(variant, _): &(Variant, Plan)| matches!(variant.lies, Lies::Groups { .. });
    let (mut first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(takes_four);
    let (mut groups, mut others): (Vec<_>, Vec<_>) = others.into_iter().partition(has_groups);
    assert!(first.len() >= 12 || operation != Operation::Forward, "{} take four rows at once", first.len());
    assert!(groups.len() >= 16, "{} have groups", groups.len());
    others.extend(first.split_off(first.len().min(12)));
    others.extend(groups.split_off(16));
    let all = [first, groups, others].concat();
    let limit = if asked_for.is_some() { Duration::MAX } else { Duration::from_secs(120) };
    let (start, mut failures, mut tried) = (Instant::now(), Vec::new(), 0);
    for (variant, plan) in &all {
        for _ in 0..if all_of_them { 3 } else { 1 } {
            let seed = rng.random();
            tried += 1;
            if let Err(error) = check(device, variant, plan, seed) {
                failures.push(format!("{variant:?}, {}, seed {seed}: {error}", plan.geometry()));
            }
        }
        if start.elapsed() > limit || !all_of_them && tried == number.unwrap_or(count) {
            break;
        }
    }
    println!("{operation}: {tried} of {} variants in {:.0} s", all.len(), start.elapsed().as_secs_f64());
    assert!(tried >= 40, "{tried} variants in {limit:?} are too few");
    let shown: Vec<_> = failures.sample(&mut rng, 20).cloned().collect();
    assert!(failures.is_empty(), "{} of {tried} fail:\n{}", failures.len(), shown.join("\n"));
}

#[test]
fn rewritten_kernels_keep_their_bounds() {
    try_some(Operation::Forward, 160, check);
}

#[test]
fn rewritten_kernels_keep_the_bounds_of_rows_in_parts() {
    try_some(Operation::Moments, 60, check_first_pass);
    try_some(Operation::Normalize, 60, check);
    try_some(Operation::GradientSums, 60, check_first_pass);
    try_some(Operation::Gradients, 60, check_gradients);
}

#[test]
fn rewritten_kernels_keep_the_bounds_of_their_gradients() {
    try_some(Operation::Backward, 240, check_gradients);
}
