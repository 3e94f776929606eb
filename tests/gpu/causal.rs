//! Causal normalization, forward and backward, against the f64 reference.

use std::collections::HashSet;

use gpu_layer_norm::kernel::{Capabilities, Kernel, Plan, Problem, Role};
use gpu_layer_norm::reference::Condition;
use gpu_layer_norm::{
    Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Modulation, Normalization, Region,
    StorageType, Strategy, Tensor, Variance,
};
use libtest_mimic::Failed;

use crate::Outcome;
use crate::common::gradients::{Bounds, Found, Pass, all_normalized, all_statistics, strategies};
use crate::common::sample::{Backward, Sample, Spot, Target, where_it_fits};
use crate::common::{AFFINES, Data, STRATEGIES, error_bound, geometries, rstd_bound, scale, step, submit};

/// Rows of a tile of the scans.
const TILE: usize = 64;

/// Positions of a sequence, on both sides of one and of several tiles.
const LENGTHS: [usize; 7] = [1, 2, 63, 64, 65, 200, 1000];

const KINDS: [(Normalization, Variance); 3] = [
    (Normalization::LayerNorm, Variance::Biased),
    (Normalization::LayerNorm, Variance::Unbiased),
    (Normalization::RmsNorm, Variance::Biased),
];

fn spot(storage: StorageType) -> Spot {
    Spot { storage, ..Spot::default() }
}

/// Output, mean (empty for RMS normalization) and rstd.
type Forward = [Vec<f32>; 3];

/// Sequences of f32, and what they are normalized with.
#[derive(Clone)]
struct Sequences {
    length: usize,
    width: usize,
    normalization: Normalization,
    variance: Variance,
    eps: f32,
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    output_gradient: Vec<f32>,
}

impl Sequences {
    /// As many as the input has, one after another.
    fn new(length: usize, width: usize, input: Vec<f32>) -> Self {
        let standard = |rows, seed| Data::STANDARD.values(rows, width, seed);
        let weight = standard(1, 0xc1).iter().map(|x| 1.0 + x / 8.0).collect();
        let output_gradient = standard(input.len() / width, 0xc2);
        let (normalization, variance) = (Normalization::LayerNorm, Variance::Biased);
        let bias = standard(1, 0xc3);
        Self { length, width, normalization, variance, eps: 1e-5, input, weight, bias, output_gradient }
    }

    fn rows(&self) -> usize {
        self.input.len() / self.width
    }

    fn is_unbiased(&self) -> bool {
        self.variance == Variance::Unbiased
    }

    fn config(&self) -> LayerNormConfig {
        let config = match self.normalization {
            Normalization::LayerNorm => LayerNormConfig::new(self.width),
            Normalization::RmsNorm => LayerNormConfig::rms(self.width),
        };
        let config = config.affine(gpu_layer_norm::Affine::WeightAndBias).variance(self.variance).eps(self.eps);
        config.causal(true).expect_nothing()
    }

    fn layer(&self, device: &GpuDevice) -> Result<GpuLayerNorm, Error> {
        let layer = GpuLayerNorm::new(device, &self.config())?;
        layer.set_weight(&Tensor::from_f32([self.width], self.weight.clone())?)?;
        layer.set_bias(&Tensor::from_f32([self.width], self.bias.clone())?)?;
        Ok(layer)
    }

    fn shape(&self) -> [usize; 3] {
        [self.rows() / self.length, self.length, self.width]
    }

    fn upload(&self, device: &GpuDevice, values: &[f32]) -> Result<GpuTensor, Error> {
        GpuTensor::upload(device, &Tensor::from_f32(self.shape(), values.to_vec())?)
    }

    /// The forward pass by each of the plans that `pick` makes.
    fn forward(
        &self,
        device: &GpuDevice,
        pick: impl FnOnce(&Problem) -> Vec<Plan>,
    ) -> Result<Vec<(String, Forward)>, Error> {
        let layer = self.layer(device)?;
        let input = self.upload(device, &self.input)?;
        let output = GpuTensor::zeros(device, self.shape())?;
        let shape = self.shape();
        let leading = &shape[..2];
        let (mean, rstd) = (GpuTensor::zeros(device, leading)?, GpuTensor::zeros(device, leading)?);
        let mut bindings = Bindings::of(&input, &output).rstd(&rstd);
        if self.normalization == Normalization::LayerNorm {
            bindings = bindings.mean(&mean);
        }
        let mut all = Vec::new();
        for plan in pick(&layer.problem(device, &bindings)?) {
            let what = plan.to_string();
            submit(device, &layer.prepare_plan(device, plan, &bindings)?);
            let mean = match self.normalization {
                Normalization::LayerNorm => mean.download()?.into_values(),
                Normalization::RmsNorm => Vec::new(),
            };
            all.push((what, [output.download()?.into_values(), mean, rstd.download()?.into_values()]));
        }
        Ok(all)
    }

    /// The backward pass by each of the plans that `pick` makes.
    fn backward(
        &self,
        device: &GpuDevice,
        pick: impl FnOnce(&Problem) -> Vec<Plan>,
    ) -> Result<Vec<(String, Found)>, Error> {
        let layer = self.layer(device)?;
        let (input, output_gradient) = (self.upload(device, &self.input)?, self.upload(device, &self.output_gradient)?);
        let gradient = GpuTensor::zeros(device, self.shape())?;
        let (weight, bias) = (GpuTensor::zeros(device, [self.width])?, GpuTensor::zeros(device, [self.width])?);
        let bindings = Bindings::backward_of(&input, &output_gradient, &gradient);
        let bindings = bindings.weight_gradient(&weight).bias_gradient(&bias);
        let mut all = Vec::new();
        for plan in pick(&layer.problem(device, &bindings)?) {
            let what = plan.to_string();
            submit(device, &layer.prepare_plan(device, plan, &bindings)?);
            let found = [&gradient, &weight, &bias].map(|tensor| tensor.download().map(Tensor::into_values));
            let [input, weight, bias] = found;
            all.push((what, [input?, weight?, bias?]));
        }
        Ok(all)
    }

    /// Compares with the reference; where that has no number, there must be none.
    fn compare(&self, [output, mean, rstd]: &Forward) -> Result<(), String> {
        let (width, eps) = (self.width, f64::from(self.eps));
        let statistics =
            all_statistics(self.normalization, &self.input, width, Some(self.length), eps, self.is_unbiased());
        let normalized = all_normalized(&self.input, width, &statistics);
        let near = |found: f32, exact: f64, allowed: f64| {
            found.is_nan() && exact.is_nan() || (f64::from(found) - exact).abs() <= allowed
        };
        for (row, of) in statistics.iter().enumerate() {
            let at = |what: &str| format!("{what} of sequence {}, position {}", row / self.length, row % self.length);
            if !near(rstd[row], of.rstd, of.rstd * rstd_bound(width)) {
                return Err(format!("{}: {:e} in place of {:e}", at("rstd"), rstd[row], of.rstd));
            }
            let spread = if of.rstd > 0.0 { 1e-6 / of.rstd } else { 0.0 };
            if !mean.is_empty() && !near(mean[row], of.mean, of.mean.abs() * 1.2e-7 + spread) {
                return Err(format!("{}: {:e} in place of {:e}", at("mean"), mean[row], of.mean));
            }
            for column in 0..width {
                let i = row * width + column;
                let (x, weight) = (normalized[i], f64::from(self.weight[column]));
                let exact = x * weight + f64::from(self.bias[column]);
                // Half a unit in the last place of the product and of the sum.
                let rounding = f64::from(f32::EPSILON) / 2.0 * ((x * weight).abs() + exact.abs());
                let allowed = error_bound(width) * scale(x) * weight.abs() + rounding;
                if !near(output[i], exact, allowed) {
                    let found = output[i];
                    return Err(format!("{}, {column}: {found:e} in place of {exact:e} ± {allowed:e}", at("output")));
                }
            }
        }
        Ok(())
    }

    /// Compares with the reference, within the bounds of [`Bounds`].
    fn compare_gradients(&self, [input, weight, bias]: &Found) -> Result<(), String> {
        let width = self.width;
        let bounds = Bounds::of(&Pass {
            normalization: self.normalization,
            eps: f64::from(self.eps),
            unbiased: self.is_unbiased(),
            width,
            causal: Some(self.length),
            source: &self.input[..],
            slack: None,
            output_gradient: &self.output_gradient[..],
            weight: Some(&self.weight[..]),
            bias: None,
            condition: Condition {
                modulation: Modulation::default(),
                rows_per_condition: self.rows(),
                scale: None,
                shift: None,
            },
        });
        for (what, found, exact, allowed) in [
            ("dx", input, &bounds.exact.input, &bounds.input),
            ("dweight", weight, &bounds.exact.weight, &bounds.weight),
            ("dbias", bias, &bounds.exact.bias, &bounds.bias),
        ] {
            for (i, (&found, (&exact, &allowed))) in found.iter().zip(exact.iter().zip(allowed)).enumerate() {
                let error = (f64::from(found) - exact).abs() - f64::from(f32::EPSILON) / 2.0 * exact.abs();
                if error.is_nan() || error > allowed {
                    let (row, column) = (i / width, i % width);
                    return Err(format!(
                        "{what} at sequence {}, position {}, {column}: {found:e} in place of {exact:e} ± {allowed:e}",
                        row / self.length,
                        row % self.length
                    ));
                }
            }
        }
        Ok(())
    }

    /// By every strategy that runs.
    fn check(&self, device: &GpuDevice) -> Result<(), String> {
        let runs = self.forward(device, |problem| strategies(problem, device)).map_err(|error| error.to_string())?;
        runs.iter().try_for_each(|(what, found)| self.compare(found).map_err(|error| format!("{what}: {error}")))
    }

    fn check_gradients(&self, device: &GpuDevice) -> Result<(), String> {
        let runs = self.backward(device, |problem| strategies(problem, device)).map_err(|error| error.to_string())?;
        let compare =
            |(what, found): &(String, Found)| self.compare_gradients(found).map_err(|error| format!("{what}: {error}"));
        runs.iter().try_for_each(compare)
    }
}

/// So many bits alike from the beginning on.
fn same_bits_up_to(a: &[f32], b: &[f32], count: usize) -> bool {
    a[..count].iter().zip(&b[..count]).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// A forward sample with both statistics, all in `storage`.
fn sample(storage: StorageType, sequences: usize, length: usize, width: usize) -> Sample {
    Sample {
        rows: sequences * length,
        width,
        causal: Some(length),
        input: spot(storage),
        parameters: spot(storage),
        output: Target::Own(spot(storage)),
        mean: Some(Spot::default()),
        rstd: Some(Spot::default()),
        ..Sample::default()
    }
}

/// Its backward pass, with the gradients of weight and bias.
fn backward_of(sample: Sample) -> Sample {
    let storage = sample.input.storage;
    let backward = Backward {
        output_gradient: spot(storage),
        weight_gradient: Some(Spot::default()),
        bias_gradient: Some(spot(storage)),
        ..Backward::default()
    };
    Sample { backward: Some(backward), ..sample }
}

fn of_kind(sample: Sample, (normalization, variance): (Normalization, Variance)) -> Sample {
    let mean = sample.mean.filter(|_| normalization == Normalization::LayerNorm);
    Sample { normalization, variance, mean, ..sample }
}

/// Every strategy, storage type, normalization and kind of variance, each with each of the others, over sequences of every length; the
/// last one cut short.
pub fn every_strategy(name: &str, device: &GpuDevice) -> Outcome {
    for (s, storage) in StorageType::ALL.into_iter().enumerate() {
        for (k, kind) in KINDS.into_iter().enumerate() {
            let strategy = STRATEGIES[(s + 2 * k) % 3];
            // Rows that can be split, and not of one unit.
            let width = [130, 264, 129][(s + k) % 3];
            let is_long = (s + k) % 3 == 0 && name != "swiftshader";
            let lengths = LENGTHS.iter().filter(|length| **length < 1000 || is_long);
            for &length in lengths {
                let sequences = if length > 200 { 2 } else { 3 };
                let sample = of_kind(sample(storage, sequences, length, width), kind);
                let rows = sample.rows - length / 2;
                Sample { rows, affine: AFFINES[(s + k) % 3], strategy: Some(strategy), ..sample }.check(device)?;
            }
        }
    }
    // Of one element a position.
    for kind in [KINDS[0], KINDS[2]] {
        of_kind(sample(StorageType::F32, 3, 100, 1), kind).check(device)?;
    }
    Ok(())
}

/// The same backward, with a gradient that the sum has from elsewhere and a residual every other time.
pub fn every_gradient(name: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0;
    for (s, storage) in StorageType::ALL.into_iter().enumerate() {
        for (k, kind) in KINDS.into_iter().enumerate() {
            i += 1;
            if name == "swiftshader" && i % 2 > 0 {
                continue;
            }
            let strategy = [Strategy::Streaming, Strategy::Split][(s + k) / 2 % 2];
            let width = [130, 264, 129][(s + k) % 3];
            for length in LENGTHS.into_iter().filter(|length| *length < 1000) {
                let sample = backward_of(of_kind(sample(storage, 3, length, width), kind));
                let more = ((i + i / 9) % 2 == 0).then_some(spot(storage));
                let backward = sample.backward.map(|backward| Backward { sum_gradient: more, ..backward });
                let rows = sample.rows - length / 2;
                let sample = Sample {
                    backward,
                    rows,
                    residual: more,
                    affine: AFFINES[(s + 2 * k) % 3],
                    strategy: Some(strategy),
                    ..sample
                };
                sample.check_where_it_fits(device)?;
            }
        }
    }
    for kind in [KINDS[0], KINDS[2]] {
        backward_of(of_kind(sample(StorageType::F32, 3, 100, 1), kind)).check_where_it_fits(device)?;
    }
    Ok(())
}

/// Each reduction and segmentation, also those that the planner would not pick here, forward and backward. Each width tries some of
/// them.
pub fn every_geometry(name: &str, device: &GpuDevice) -> Outcome {
    let step = if name == "swiftshader" { 4 } else { 3 };
    let mut total = 0;
    let widths = [(2, Variance::Unbiased), (129, Variance::Biased), (1000, Variance::Biased)];
    for (w, (width, variance)) in widths.into_iter().enumerate() {
        let forward = Sample { variance, ..sample(StorageType::F32, 2, 70, width) };
        for sample in [forward.clone(), backward_of(forward)] {
            let layer = sample.layer(device)?;
            let mut i = w;
            let mut left = true;
            while left {
                let pick = |problem: &Problem| {
                    let mut all = geometries(problem, device.capabilities());
                    left = i + step < all.len();
                    Ok(all.swap_remove(i.min(all.len() - 1)))
                };
                where_it_fits(device, sample.check_with(device, &layer, pick))?;
                i += step;
            }
            total += i;
        }
    }
    if total < 40 {
        return Err(format!("{total} geometries are too few").into());
    }
    Ok(())
}

/// Sequences of every kind, each of `length` positions, by name.
fn kinds_of_sequences(length: usize, width: usize) -> Vec<(&'static str, Vec<f32>)> {
    let normal = |mean, std, seed| Data::Normal { mean, std }.values(length, width, seed);
    let standard = |seed| normal(0.0, 1.0, seed);
    let drift = |most: f32| {
        let per_row = most / length as f32;
        standard(3).iter().enumerate().map(|(i, x)| x + per_row * (i / width) as f32).collect::<Vec<f32>>()
    };
    // From a position on, another sequence.
    let then = |first: Vec<f32>, position: usize, rest: Vec<f32>| {
        first[..position * width].iter().chain(&rest[position * width..]).copied().collect::<Vec<f32>>()
    };
    let mut outlier = standard(4);
    outlier[0] = 1e6;
    vec![
        ("standard", standard(1)),
        ("mean 1e6", normal(1e6, 1.0, 2)),
        ("mean −1e6", normal(-1e6, 1.0, 2)),
        ("drift to 100", drift(100.0)),
        ("drift to 1e5", drift(1e5)),
        ("drift from 1e5", drift(-1e5)),
        ("outlier", outlier),
        ("first position 1e6 high", then(normal(1e6, 1.0, 5), 1, standard(6))),
        ("a constant", vec![0.1; length * width]),
        ("a constant, then not", then(vec![0.1; length * width], 70, standard(7))),
        ("zeros, then not", then(vec![0.0; length * width], 3, standard(8))),
        ("a constant, then another mean", then(vec![1e4; length * width], 65, standard(9))),
        ("magnitude 1e-30", normal(0.0, 1e-30, 10)),
        ("magnitude 1e-12", normal(0.0, 1e-12, 11)),
        ("magnitude 1e12", normal(0.0, 1e12, 12)),
        ("magnitude 1e30", normal(0.0, 1e30, 13)),
        ("magnitude 1e37", normal(0.0, 1e37, 14)),
        ("1e18, then 1", then(normal(0.0, 1e18, 15), 1, standard(16))),
        ("1e20, then 1", then(normal(0.0, 1e20, 15), 1, standard(16))),
    ]
}

/// Sequences that go over to another magnitude after so many positions.
fn changes_of_magnitude(length: usize, width: usize) -> Vec<(&'static str, Vec<f32>)> {
    let normal = |mean, std, seed| Data::Normal { mean, std }.values(length, width, seed);
    let then = |first: Vec<f32>, position: usize, rest: Vec<f32>| {
        first[..position * width].iter().chain(&rest[position * width..]).copied().collect::<Vec<f32>>()
    };
    vec![
        ("1, then 1e20", then(normal(0.0, 1.0, 1), 1, normal(1e20, 1e19, 2))),
        ("1, then 1e20, a tile later", then(normal(0.0, 1.0, 1), TILE, normal(1e20, 1e19, 2))),
        ("1, then 1e12", then(normal(0.0, 1.0, 1), 1, normal(1e12, 1e11, 2))),
        ("0, then 1e37", then(vec![0.0; length * width], 3, normal(0.0, 1e37, 3))),
        ("1e-15, then 1e20", then(normal(0.0, 1e-15, 4), 2, normal(1e20, 1e19, 2))),
        ("constant 1e37", vec![1e37; length * width]),
        ("constant 1e37, then others", then(vec![1e37; length * width], 5, normal(0.0, 1e37, 5))),
    ]
}

/// Both normalizations, eps 0 and not.
fn ways() -> impl Iterator<Item = (Normalization, f32)> {
    let normalizations = [Normalization::LayerNorm, Normalization::RmsNorm];
    normalizations.into_iter().flat_map(|normalization| [1e-5, 0.0].map(|eps| (normalization, eps)))
}

/// x̂ within 1e-6, beyond 4 within 2.5e-7 of itself, wherever the mean is and goes.
pub fn accuracy(name: &str, device: &GpuDevice) -> Outcome {
    let shapes: &[(usize, usize)] =
        if name == "swiftshader" { &[(150, 24)] } else { &[(150, 24), (300, 5), (80, 300)] };
    for &(length, width) in shapes {
        let all = kinds_of_sequences(length, width).into_iter().chain(changes_of_magnitude(length, width));
        for (what, input) in all {
            for (normalization, eps) in ways() {
                let sequences = Sequences { normalization, eps, ..Sequences::new(length, width, input.clone()) };
                sequences.check(device).map_err(|error| format!("{what}, {normalization:?}, eps {eps:e}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// The gradients of the same sequences, of output gradients of one size, of ones that grow and of ones that fade, and of those of the
/// second half alone.
pub fn gradient_accuracy(name: &str, device: &GpuDevice) -> Outcome {
    let shapes: &[(usize, usize)] = if name == "swiftshader" { &[(150, 24)] } else { &[(150, 24), (80, 300)] };
    for &(length, width) in shapes {
        for (i, (what, input)) in kinds_of_sequences(length, width).into_iter().enumerate() {
            for (normalization, eps) in ways() {
                let mut sequences = Sequences { normalization, eps, ..Sequences::new(length, width, input.clone()) };
                for (j, dy) in sequences.output_gradient.iter_mut().enumerate() {
                    let position = (j / width) as f32 / length as f32;
                    *dy *= match i % 4 {
                        0 => 1.0,
                        1 => 1e6_f32.powf(position),
                        2 => 1e-6_f32.powf(position),
                        _ if position < 0.5 => 0.0,
                        _ => 1.0,
                    };
                }
                let checked = sequences.check_gradients(device);
                checked.map_err(|error| format!("{what}, {normalization:?}, eps {eps:e}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// The gradients of sequences that go over to another magnitude, of all positions and of the last one alone: it reaches all before it.
pub fn gradients_across_magnitudes(_: &str, device: &GpuDevice) -> Outcome {
    let (length, width) = (80, 24);
    for (what, input) in changes_of_magnitude(length, width) {
        for (normalization, eps) in ways() {
            for last_alone in [false, true] {
                let mut sequences = Sequences { normalization, eps, ..Sequences::new(length, width, input.clone()) };
                if last_alone {
                    sequences.output_gradient[..(length - 1) * width].fill(0.0);
                }
                sequences.check_gradients(device).map_err(|error| {
                    format!("{what}, {normalization:?}, eps {eps:e}, the last position alone: {last_alone}: {error}")
                })?;
            }
        }
    }
    Ok(())
}

/// As long as a sequence is constant, the output is exactly the bias, and the first positions of a sequence whose eps is 0 have no
/// gradient of their own.
pub fn constant_prefixes(_: &str, device: &GpuDevice) -> Outcome {
    let (length, width) = (100, 33);
    let rest = Data::STANDARD.values(length, width, 1);
    for (i, constant) in [0.0_f32, 1.0, -0.1, 1e6, 3.3e-7, 1e-30, 1e37].into_iter().enumerate() {
        for eps in [0.0, 1e-5] {
            let positions = [1, 64, 70][i % 3];
            let mut input = rest.clone();
            input[..positions * width].fill(constant);
            let sequences = Sequences { eps, ..Sequences::new(length, width, [input, rest.clone()].concat()) };
            for (what, [output, mean, rstd]) in sequences.forward(device, |problem| strategies(problem, device))? {
                for (row, y) in output.chunks(width).take(positions).enumerate() {
                    if y != sequences.bias || mean[row] != constant || rstd[row].is_nan() {
                        let mean = mean[row];
                        return Err(
                            format!("{what}: position {row}, constant {constant:e}, mean {mean:e}: {y:?}").into()
                        );
                    }
                }
            }
        }
    }
    // Of two constant positions and no others nothing comes back.
    let sequences = Sequences { eps: 0.0, ..Sequences::new(2, width, vec![0.3; 4 * width]) };
    for (what, [dx, dweight, _]) in sequences.backward(device, |problem| strategies(problem, device))? {
        if dx.iter().chain(&dweight).any(|gradient| *gradient != 0.0) {
            return Err(format!("{what}: constant sequences have dx {dx:?}, dweight {dweight:?}").into());
        }
    }
    Ok(())
}

/// What comes later changes no bit of what came before, nor of other sequences: neither other numbers, nor other magnitudes, nor what is no
/// number.
pub fn no_future(name: &str, device: &GpuDevice) -> Outcome {
    let (length, width) = (140, 130);
    let values = |seed| Data::Normal { mean: 2.0, std: 1.0 }.values(2 * length, width, seed);
    let base = values(1);
    let others = [values(2), values(3).iter().map(|x| x * 1e30).collect(), vec![f32::NAN; base.len()]];
    let last_positions: &[usize] = if name == "swiftshader" { &[0, 63] } else { &[0, 1, 62, 63, 64, 100] };
    for (normalization, variance) in KINDS {
        // Each storage type once.
        for storage in StorageType::ALL
            .into_iter()
            .filter(|storage| *storage == StorageType::F32 || (normalization, variance) == KINDS[0])
        {
            let sequences = Sequences { normalization, variance, ..Sequences::new(length, width, base.clone()) };
            let layer = sequences.layer(device)?;
            let tensor = |values: &[f32]| {
                Ok::<_, Error>(Tensor::from_f32(sequences.shape(), values.to_vec())?.to_storage(storage))
            };
            let input = GpuTensor::upload(device, &tensor(&base)?)?;
            let output = GpuTensor::zeros_as(device, sequences.shape(), storage)?;
            let shape = sequences.shape();
            let leading = &shape[..2];
            let (mean, rstd) = (GpuTensor::zeros(device, leading)?, GpuTensor::zeros(device, leading)?);
            let mut bindings = Bindings::of(&input, &output).rstd(&rstd);
            if normalization == Normalization::LayerNorm {
                bindings = bindings.mean(&mean);
            }
            for plan in strategies(&layer.problem(device, &bindings)?, device) {
                let what = plan.to_string();
                let prepared = layer.prepare_plan(device, plan, &bindings)?;
                let run = |values: &[f32]| -> Result<Forward, Error> {
                    input.write(&tensor(values)?)?;
                    submit(device, &prepared);
                    let [output, mean, rstd] = [&output, &mean, &rstd].map(GpuTensor::download);
                    Ok([output?.into_values(), mean?.into_values(), rstd?.into_values()])
                };
                let before = run(&base)?;
                for &last in last_positions {
                    for (kind, other) in others.iter().enumerate() {
                        // In the first sequence, or in the second.
                        let sequence = (last + kind) % 2;
                        let first = sequence * length + last + 1;
                        let end = (sequence + 1) * length;
                        let mut changed = base.clone();
                        changed[first * width..end * width].copy_from_slice(&other[first * width..end * width]);
                        let after = run(&changed)?;
                        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                            let per_row = if i == 0 { width } else { 1 };
                            let (count, rest) = (first * per_row, end * per_row);
                            let same = same_bits_up_to(before, after, count)
                                && same_bits_up_to(&before[rest..], &after[rest..], before.len() - rest);
                            if !same {
                                let of = ["output", "mean", "rstd"][i];
                                return Err(format!(
                                    "{what}: {storage}, {of} up to position {last} of sequence {sequence} depends on what \
                                     follows (kind {kind})"
                                )
                                .into());
                            }
                        }
                        if before[0] == after[0] {
                            return Err(format!("{what}: nothing has changed past position {last}").into());
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// What is no number spoils its own position and all later ones of its sequence, and backward its whole sequence, and nothing else.
pub fn nan_stays_in_its_sequence(_: &str, device: &GpuDevice) -> Outcome {
    let (length, width) = (100, 24);
    let clean = Data::Normal { mean: 3.0, std: 2.0 }.values(3 * length, width, 7);
    for (normalization, eps) in ways() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for position in [0, 40, 70] {
                let mut input = clean.clone();
                let row = length + position;
                input[row * width + 5] = bad;
                let dirty = Sequences { normalization, eps, ..Sequences::new(length, width, input) };
                let clean = Sequences { input: clean.clone(), ..dirty.clone() };
                let run = |sequences: &Sequences| sequences.forward(device, |problem| strategies(problem, device));
                for ((what, dirty), (_, clean)) in run(&dirty)?.into_iter().zip(run(&clean)?) {
                    let [output, ..] = &dirty;
                    let after = 2 * length * width;
                    let same = same_bits_up_to(output, &clean[0], row * width)
                        && same_bits_up_to(&output[after..], &clean[0][after..], length * width);
                    if !same {
                        return Err(format!("{what}: a {bad} at position {position} has changed others").into());
                    }
                    // With an infinite mean square rstd is 0, and so is what follows but for the bias.
                    let is_lost = |y: &f32| y.is_nan() || normalization == Normalization::RmsNorm && bad.is_infinite();
                    if !output[row * width..after].iter().all(is_lost) || !output[row * width + 5].is_nan() {
                        return Err(format!("{what}: a {bad} at position {position} has left numbers").into());
                    }
                }
                let run = |sequences: &Sequences| sequences.backward(device, |problem| strategies(problem, device));
                for ((what, [dx, ..]), (_, [clean, ..])) in run(&dirty)?.into_iter().zip(run(&clean)?) {
                    let own = length * width..2 * length * width;
                    let same = same_bits_up_to(&dx, &clean, own.start)
                        && same_bits_up_to(&dx[own.end..], &clean[own.end..], length * width);
                    if !same || !dx[row * width + 5].is_nan() {
                        return Err(format!("{what}: dx where a {bad} is at position {position}").into());
                    }
                }
            }
        }
    }
    Ok(())
}

/// A million positions.
pub fn long(name: &str, device: &GpuDevice) -> Outcome {
    let most = if name == "lavapipe" { 1 << 20 } else { 1 << 15 };
    let pick = |problem: &Problem| vec![Plan::new(problem, device.capabilities()).expect("a plan")];
    for (sequences, length, width) in [(2, most, 1), (1, most, 4)] {
        let mut input = Data::Normal { mean: 1e3, std: 1.0 }.values(sequences * length, width, 1);
        // Slowly up and down.
        for (i, x) in input.iter_mut().enumerate() {
            *x += 30.0 * ((i / width) as f32 / length as f32 * 20.0).sin();
        }
        let sequences = Sequences::new(length, width, input);
        for (what, found) in sequences.forward(device, pick)? {
            sequences.compare(&found).map_err(|error| format!("{what}: {error}"))?;
        }
    }
    let input = Data::Normal { mean: 1e3, std: 1.0 }.values(most / 2, 2, 2);
    let sequences = Sequences::new(most / 2, 2, input);
    for (what, found) in sequences.backward(device, pick)? {
        sequences.compare_gradients(&found).map_err(|error| format!("{what}: {error}"))?;
    }
    Ok(())
}

/// Sequences that come in blocks go on where their states have left them: states that lie apart in one buffer. Blocks of whole tiles give
/// the bits of one call with the same geometry.
pub fn states(_: &str, device: &GpuDevice) -> Outcome {
    const OFFSET: usize = 5;
    const STRIDE: usize = 11;
    let (count, length, width) = (3, 200, 132);
    for (normalization, variance) in KINDS {
        let input = Data::Normal { mean: 100.0, std: 1.0 }.values(count * length, width, 3);
        let sequences = Sequences { normalization, variance, ..Sequences::new(length, width, input) };
        let layer = sequences.layer(device)?;
        // Without a state.
        let mut plans = Vec::new();
        let runs = sequences.forward(device, |problem| {
            plans = strategies(problem, device);
            plans.clone()
        })?;
        for (plan, (what, whole)) in plans.iter().zip(runs) {
            sequences.compare(&whole).map_err(|error| format!("{what}: {error}"))?;
            for blocks in [vec![64], vec![128], vec![1], vec![7, 64], vec![100]] {
                // Many calls, so for one strategy alone.
                if blocks == [1] && ((normalization, variance) != KINDS[0] || plan.strategy() != Strategy::Streaming) {
                    continue;
                }
                let mut words = vec![7.0_f32; OFFSET + count * STRIDE];
                for sequence in 0..count {
                    words[OFFSET + sequence * STRIDE..][..8].fill(0.0);
                }
                let buffer = GpuTensor::upload(device, &Tensor::from_f32([words.len()], words.clone())?)?;
                let state = || {
                    let region = Region::new(buffer.buffer(), StorageType::F32);
                    region.offset(OFFSET as u64).row_stride(STRIDE as u64)
                };
                let mut found: Vec<Vec<f32>> = vec![Vec::new(); count];
                let mut rstds: Vec<Vec<f32>> = vec![Vec::new(); count];
                let mut begin = 0;
                for block in blocks.iter().cycle() {
                    let block = (*block).min(length - begin);
                    let rows = |sequence: usize| {
                        (sequence * length + begin) * width..(sequence * length + begin + block) * width
                    };
                    let values: Vec<f32> = (0..count).flat_map(|i| sequences.input[rows(i)].to_vec()).collect();
                    let input = GpuTensor::upload(device, &Tensor::from_f32([count, block, width], values)?)?;
                    let output = GpuTensor::zeros(device, [count, block, width])?;
                    let rstd = GpuTensor::zeros(device, [count, block])?;
                    let bindings = Bindings::of(&input, &output).rstd(&rstd).state(state());
                    let problem = layer.problem(device, &bindings)?;
                    let plan = Plan::with_geometry(&problem, device.capabilities(), *plan.geometry())?;
                    submit(device, &layer.prepare_plan(device, plan, &bindings)?);
                    for (i, y) in output.download()?.values().chunks(block * width).enumerate() {
                        found[i].extend(y);
                    }
                    for (i, rstd) in rstd.download()?.values().chunks(block).enumerate() {
                        rstds[i].extend(rstd);
                    }
                    begin += block;
                    if begin == length {
                        break;
                    }
                }
                let found: Forward = [found.concat(), Vec::new(), rstds.concat()];
                sequences.compare(&found).map_err(|error| format!("{what}, in blocks of {blocks:?}: {error}"))?;
                let are_tiles = blocks.iter().all(|block| block.is_multiple_of(TILE));
                if are_tiles && !same_bits_up_to(&found[0], &whole[0], found[0].len()) {
                    return Err(format!("{what}: blocks of {blocks:?} give other bits").into());
                }
                let left = buffer.download()?.into_values();
                let is_state = |i: usize| i >= OFFSET && (i - OFFSET) % STRIDE < 8;
                if left.iter().zip(&words).enumerate().any(|(i, (a, b))| !is_state(i) && a != b) {
                    return Err(format!("{what}: words beside the states were touched").into());
                }
            }
        }
    }
    Ok(())
}

/// Of fewer rows than were prepared, the state is that of these: a sequence goes on from there.
pub fn states_of_fewer_rows(_: &str, device: &GpuDevice) -> Outcome {
    let (length, width) = (150, 24);
    let sequences = Sequences::new(length, width, Data::Normal { mean: 5.0, std: 1.0 }.values(length, width, 4));
    let layer = sequences.layer(device)?;
    for fewer in [0, 1, 63, 64, 65, 100] {
        let state = GpuTensor::zeros(device, [1, 8])?;
        let (input, output) =
            (sequences.upload(device, &sequences.input)?, GpuTensor::zeros(device, sequences.shape())?);
        let bindings = Bindings::of(&input, &output).state(&state);
        let mut prepared = layer.prepare(device, &bindings)?;
        prepared.set_rows(fewer as u64)?;
        submit(device, &prepared);
        let mut found = output.download()?.into_values();
        found.truncate(fewer * width);
        let rest = length - fewer;
        let values = sequences.input[fewer * width..].to_vec();
        let input = GpuTensor::upload(device, &Tensor::from_f32([1, rest, width], values)?)?;
        let output = GpuTensor::zeros(device, [1, rest, width])?;
        layer.execute(device, &Bindings::of(&input, &output).state(&state))?;
        found.extend(output.download()?.into_values());
        let statistics = all_statistics(
            sequences.normalization,
            &sequences.input,
            width,
            Some(length),
            f64::from(sequences.eps),
            false,
        );
        let rstd = statistics.iter().map(|of| of.rstd as f32).collect();
        let checked = sequences.compare(&[found, Vec::new(), rstd]);
        checked.map_err(|error| format!("{fewer} rows, then the rest: {error}"))?;
    }
    Ok(())
}

/// Capabilities as of a device whose bindings hold about so many of these rows.
fn narrow(device: &GpuDevice, rows: usize, row_bytes: usize) -> Capabilities {
    let alignment = u64::from(device.capabilities().storage_offset_alignment.max(32));
    Capabilities { max_binding_bytes: (rows * row_bytes) as u64 + alignment + 4, ..*device.capabilities() }
}

/// Runs a sample with a strategy in one chunk and in several, of about so many rows at most; whether those begin where tiles do,
/// and whether the bits are the same. `None` where the strategy cannot run.
fn in_chunks(
    device: &GpuDevice,
    sample: &Sample,
    strategy: Strategy,
    chunk_rows: usize,
) -> Result<Option<(bool, bool)>, Failed> {
    let layer = sample.layer(device)?;
    let capabilities = narrow(device, chunk_rows, sample.width * sample.input.storage.bytes() as usize);
    let mut all_bytes = Vec::new();
    let mut at_tiles = true;
    for is_whole in [true, false] {
        let mut runs = true;
        let mut chunks = 0;
        let mut pick = |problem: &Problem| {
            let whole = match Plan::with_strategy(problem, device.capabilities(), strategy) {
                Err(Error::Strategy { .. }) => {
                    runs = false;
                    return Plan::new(problem, device.capabilities());
                }
                decided => decided?,
            };
            let plan = if is_whole { whole } else { Plan::with_geometry(problem, &capabilities, *whole.geometry())? };
            chunks = plan.chunks().len();
            let length = sample.causal.unwrap_or(1) as u64;
            at_tiles = plan.chunks().iter().all(|chunk| (chunk.rows.start % length).is_multiple_of(TILE as u64));
            Ok(plan)
        };
        sample.check_with(device, &layer, &mut pick)?;
        let bytes = sample.bytes(device, &layer, &mut pick)?;
        if !runs {
            return Ok(None);
        }
        if !is_whole && chunks < 2 {
            return Err(format!("{chunk_rows} rows at most give {chunks} chunks").into());
        }
        all_bytes.push(bytes);
    }
    Ok(Some((at_tiles, all_bytes[0] == all_bytes[1])))
}

/// Chunks of rows that lie within sequences, and that hold several.
pub fn chunks(_: &str, device: &GpuDevice) -> Outcome {
    for strategy in STRATEGIES {
        for storage in [StorageType::F32, StorageType::Bf16] {
            for (sequences, length, chunk_rows, wanted) in [
                // Tiles of a sequence, and what is left of it.
                (3, 150, 70, Some(true)),
                (2, 300, 130, Some(true)),
                // Whole sequences.
                (3, 150, 200, Some(true)),
                (7, 150, 350, Some(true)),
                (40, 20, 50, Some(true)),
                // Less than a tile, of a sequence of several and of one.
                (2, 150, 30, Some(false)),
                (3, 50, 30, Some(false)),
            ] {
                let mut sample = sample(storage, sequences, length, 40);
                sample.rows -= length / 3;
                let Some((at_tiles, same)) = in_chunks(device, &sample, strategy, chunk_rows)? else { continue };
                if wanted.is_some_and(|wanted| wanted != at_tiles) || at_tiles && !same {
                    return Err(format!(
                        "{strategy}, {sequences} sequences of {length} rows, {chunk_rows} at once: chunks begin with tiles: \
                         {at_tiles}; the same bits: {same}"
                    )
                    .into());
                }
            }
            // Backward a sequence is taken as a whole.
            in_chunks(device, &backward_of(sample(storage, 7, 100, 40)), strategy, 250)?;
        }
    }
    // More than the device binds at once.
    let backward = backward_of(sample(StorageType::F32, 2, 150, 40));
    let capabilities = narrow(device, 70, 160);
    let refused = backward.check_with(device, &backward.layer(device)?, |problem| Plan::new(problem, &capabilities));
    match refused {
        Err(error) if error.contains("sequences") => Ok(()),
        other => Err(format!("a backward pass over a part of a sequence: {other:?}").into()),
    }
}

/// The same with conditions: of some rows of a sequence, of a sequence, and of several.
pub fn chunks_of_conditions(_: &str, device: &GpuDevice) -> Outcome {
    for (length, rows_per_condition, chunk_rows) in
        [(150, 1, 70), (150, 50, 70), (150, 150, 70), (150, 150, 200), (150, 300, 200), (150, 300, 350)]
    {
        let scale = Some(Spot::default());
        let sample = Sample { scale, shift: scale, rows_per_condition, ..sample(StorageType::F32, 4, length, 40) };
        in_chunks(device, &sample, Strategy::Streaming, chunk_rows)
            .map_err(|error| format!("{rows_per_condition} rows a condition, {chunk_rows} at once: {error:?}"))?;
    }
    Ok(())
}

/// Row counts in a buffer on the device, and rows that are set, in one chunk and in several.
pub fn row_counts(name: &str, device: &GpuDevice) -> Outcome {
    let counts: &[u32] = if name == "swiftshader" { &[65, 0] } else { &[180, 179, 90, 91, 65, 64, 3, 0, u32::MAX] };
    for strategy in STRATEGIES {
        for &count in counts {
            for chunk_rows in [None, Some(70)] {
                let forward = Sample { strategy: Some(strategy), chunk_rows, ..sample(StorageType::F32, 2, 90, 40) };
                let chunk_rows = chunk_rows.map(|rows| rows + 50);
                for sample in [forward.clone(), Sample { chunk_rows, ..backward_of(forward) }] {
                    let what = |error: String| format!("a count of {count}: {error}");
                    Sample { row_count: Some(count), ..sample.clone() }.check_where_it_fits(device).map_err(what)?;
                    let set_rows = Some(count as usize).filter(|count| *count <= 180);
                    Sample { set_rows, ..sample }.check_where_it_fits(device).map_err(what)?;
                }
            }
        }
    }
    Ok(())
}

/// Together with residual, gate, scale and shift in both forms, and with a sum in the place of the residual.
pub fn together(_: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0;
    for (s, storage) in StorageType::ALL.into_iter().enumerate() {
        for (k, strategy) in STRATEGIES.into_iter().enumerate() {
            i += 1;
            let modulation = [Modulation::Adaptive, Modulation::Conditional][(s + k) % 2];
            let (rows_per_condition, has_gate) = [(70, true), (5, true), (1, false)][(s + 2 * k) % 3];
            let own = Some(spot(storage));
            let base = of_kind(sample(storage, 2, 70, [33, 64][(i + i / 6) % 2]), KINDS[(s + k) % 3]);
            let base = Sample {
                // Not a whole number of sequences.
                rows: 150,
                affine: AFFINES[(i + i / 2) % 3],
                zero_centred_weight: i % 4 == 0,
                modulation,
                rows_per_condition,
                strategy: Some(strategy),
                residual: own,
                gate: own.filter(|_| has_gate),
                scale: own,
                shift: own,
                ..base
            };
            base.check_where_it_fits(device)?;
            let stream = Sample {
                sum: Some(Target::InPlaceOf(Role::Residual)),
                output: Target::InPlaceOf(Role::Input),
                mean: None,
                rstd: None,
                ..base.clone()
            };
            stream.check_where_it_fits(device)?;
            let sample = backward_of(base);
            let backward = Backward {
                sum_gradient: own,
                scale_gradient: Some(Spot::default()),
                shift_gradient: own,
                gate_gradient: Some(Spot::default()).filter(|_| has_gate),
                residual_gradient: Some(Target::InPlaceOf(Role::SumGradient)).filter(|_| has_gate),
                ..sample.backward.unwrap_or_default()
            };
            Sample { backward: Some(backward), ..sample }.check_where_it_fits(device)?;
        }
    }
    Ok(())
}

/// In place and apart, at odd widths, offsets and strides in 16 bits.
pub fn shared_words(_: &str, device: &GpuDevice) -> Outcome {
    for (w, width) in [1, 7, 33, 130].into_iter().enumerate() {
        for (k, strategy) in STRATEGIES.into_iter().enumerate() {
            let storage = [StorageType::F16, StorageType::Bf16][(w + k) % 2];
            let between = (w + k) / 2 % 2;
            let spot = |before| Spot { storage, before, between };
            let base = Sample {
                rows: 75,
                strategy: Some(strategy),
                input: spot(3),
                parameters: spot(1),
                pooled: between == 0,
                ..sample(storage, 1, 70, width)
            };
            Sample { output: Target::Own(spot(1)), ..base.clone() }.check_where_it_fits(device)?;
            let in_place = |role| Target::InPlaceOf(role);
            Sample { output: in_place(Role::Input), ..base.clone() }.check_where_it_fits(device)?;
            let backward = Some(Backward {
                output_gradient: spot(1),
                weight_gradient: Some(spot(1)),
                bias_gradient: Some(spot(0)),
                accumulate: between == 1,
                ..Backward::default()
            });
            for role in [Role::OutputGradient, Role::Input] {
                Sample { backward, output: in_place(role), ..base.clone() }.check_where_it_fits(device)?;
            }
        }
    }
    Ok(())
}

/// Of one position, it is layer normalization.
pub fn single_positions(_: &str, device: &GpuDevice) -> Outcome {
    let (rows, width) = (70, 65);
    let input = Data::Normal { mean: -4.0, std: 3.0 }.values(rows, width, 12);
    for (normalization, variance) in KINDS {
        let sequences = Sequences { normalization, variance, ..Sequences::new(1, width, input.clone()) };
        let plain = GpuLayerNorm::new(device, &sequences.config().causal(false))?;
        plain.set_weight(&Tensor::from_f32([width], sequences.weight.clone())?)?;
        plain.set_bias(&Tensor::from_f32([width], sequences.bias.clone())?)?;
        let expected = plain.run(device, &Tensor::from_f32([rows, width], input.clone())?)?.into_values();
        for (what, [output, ..]) in sequences.forward(device, |problem| strategies(problem, device))? {
            for (y, expected) in output.iter().zip(&expected) {
                if (y - expected).abs() > 3e-6 * expected.abs().max(1.0) {
                    return Err(format!("{what}: {y:e} where layer normalization has {expected:e}").into());
                }
            }
        }
    }
    Ok(())
}

pub fn same_bits(_: &str, device: &GpuDevice) -> Outcome {
    for (sequences, length, width) in [(3, 200, 64), (1, 1000, 33), (2, 70, 1000)] {
        let forward = sample(StorageType::F32, sequences, length, width);
        for sample in [forward.clone(), backward_of(forward)] {
            let layer = sample.layer(device)?;
            for i in 0.. {
                let mut more = true;
                let mut run = || {
                    let pick = |problem: &Problem| {
                        let mut all = strategies(problem, device);
                        more = i + 1 < all.len();
                        Ok(all.swap_remove(i))
                    };
                    sample.bytes(device, &layer, pick)
                };
                if run()? != run()? {
                    return Err(format!("{sequences} × {length} × {width}: other bits in a second run").into());
                }
                if !more {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The comparison that these tests rest on must be able to fail.
pub fn wrong_kernels(name: &str, device: &GpuDevice) -> Outcome {
    let forward = sample(StorageType::F32, 2, 140, 136);
    let few = Sample { variance: Variance::Unbiased, ..sample(StorageType::F32, 2, 3, 8) };
    let backward = backward_of(forward.clone());
    let few_backward = backward_of(few.clone());

    // One sequence is not another, and a whole one not a part.
    forward.check_another(device, &forward)?;
    for causal in [None, Some(139), Some(1), Some(280)] {
        if forward.check_another(device, &Sample { causal, ..forward.clone() }).is_ok() {
            return Err(format!("sequences of {causal:?} rows are accepted").into());
        }
    }
    if few.check_another(device, &Sample { variance: Variance::Biased, ..few.clone() }).is_ok() {
        return Err("another variance is accepted".into());
    }

    // Where only some are tried, each change is tried by one strategy, and in the second half by the first that can run it.
    let turns = step(name, 3);
    let mut tried = HashSet::new();
    for (k, strategy) in STRATEGIES.into_iter().chain(STRATEGIES).enumerate() {
        let plan_of = |problem: &Problem| Plan::with_strategy(problem, device.capabilities(), strategy);
        for (e, (what, sample, from, to)) in [
            ("nothing", &forward, "", ""),
            ("nothing", &few, "", ""),
            ("nothing", &backward, "", ""),
            ("nothing", &few_backward, "", ""),
            ("no δ²", &forward, "add_to(within, kept_scalar(between), 0.0)", "within"),
            ("a share off by one", &forward, "reciprocal(a_count + b_count)", "reciprocal(a_count + b_count + 1.0)"),
            ("a mean that stays", &forward, "kept_scalar(delta * b_share)", "0.0"),
            ("tiles that begin anew", &forward, "var prefix = carry_of(place.first_span);", "var prefix = no_rows();"),
            ("the tile before alone", &forward, "carry = append(carry, own);", "carry = own;"),
            ("a count of rows", &forward, "let elements = rows * f32(WIDTH);", "let elements = rows;"),
            ("n for n − 1", &few, "elements - params.unbiased", "elements"),
            (
                "tiles that begin anew",
                &backward,
                "var suffix = carry_of(place.first_span);",
                "var suffix = no_suffix();",
            ),
            ("the tile after alone", &backward, "carry = prepend(own, carry);", "carry = own;"),
            ("an origin that has not moved", &backward, "kept_scalar(following.factor.value * moved)", "0.0"),
            ("no means", &backward, "mean_part(-rstd * sums.x * share)", "0.0"),
            ("no slopes", &backward, "let factor = -rstd * rstd * products", "let factor = -0.0 * products"),
            ("positions from 1", &backward, "reciprocal(f32(position + 1u))", "reciprocal(f32(position + 2u))"),
            (
                "rows of their own",
                &backward,
                "suffix = prepend(suffix_of_row(",
                "suffix = prepend_nothing(suffix_of_row(",
            ),
            ("n for n − 1", &few_backward, "params.unbiased / max(elements - 1.0, 1.0)", "0.0"),
        ]
        .into_iter()
        .enumerate()
        {
            let is_due = if k < STRATEGIES.len() { (e + k).is_multiple_of(turns) } else { !tried.contains(&e) };
            if !is_due {
                continue;
            }
            let layer = sample.layer(device)?;
            let mut found = None;
            let pick = |problem: &Problem| {
                let plan = plan_of(problem)?;
                found = Some(plan.kernels().iter().any(|kernel| kernel.wgsl().contains(from)));
                Ok(plan)
            };
            let nothing = "fn prepend_nothing(first: Suffix, following: Suffix) -> Suffix {\n    return first;\n}\n";
            let altered = |kernel: &Kernel| {
                let wgsl = kernel.wgsl();
                match to.contains("prepend_nothing") && wgsl.contains(from) {
                    true => wgsl.replace(from, to) + "\n" + nothing,
                    false => wgsl.replace(from, to),
                }
            };
            let checked = if from.is_empty() {
                sample.check_wgsl(device, &layer, pick, Kernel::wgsl)
            } else {
                sample.check_wgsl(device, &layer, pick, altered)
            };
            let checked = where_it_fits(device, checked);
            if found.is_some() {
                tried.insert(e);
            }
            match (found, checked) {
                // Not every strategy can run it.
                (None, _) => {}
                (Some(_), Ok(())) if from.is_empty() => {}
                (Some(true), Err(_)) if !from.is_empty() => {}
                (Some(true), Ok(())) => return Err(format!("{what}: the comparison accepts it; {strategy}").into()),
                (_, error) => return Err(format!("{what}: no kernel of {strategy} has \"{from}\"; {error:?}").into()),
            }
        }
    }
    Ok(())
}
