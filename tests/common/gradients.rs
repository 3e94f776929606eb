//! What the gradients of a backward pass are, and how far off they may be.

use gpu_layer_norm::kernel::{Plan, Problem, Role};
use gpu_layer_norm::reference::{self, Condition, Gradients, ModulatedGradients, RowStatistics};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Modulation, Normalization, Tensor,
    Variance,
};

use super::{Data, STRATEGIES, error_bound, scale, submit};

pub fn is_gradient(role: Role) -> bool {
    role.is_sum()
        || matches!(role, Role::OutputGradient | Role::SumGradient | Role::InputGradient | Role::ResidualGradient)
}

/// What Σ|dy| · max(1, |x̂| / 4) is multiplied by to bound the error of a parameter's gradient: x̂ is off by so much, and up to 512
/// terms are added one after another.
pub fn chain_bound(width: usize, rows: usize) -> f64 {
    error_bound(width) + 3e-8 * rows.min(512) as f64
}

/// Mean and rstd in f64. RMS normalization has the mean 0.
pub fn statistics<T: Copy + Into<f64>>(
    normalization: Normalization,
    row: &[T],
    eps: f64,
    unbiased: bool,
) -> RowStatistics {
    match normalization {
        Normalization::LayerNorm => reference::row_statistics(row, eps, unbiased),
        Normalization::RmsNorm => RowStatistics { mean: 0.0, rstd: reference::root_mean_square_rstd(row, eps) },
    }
}

/// Mean and rstd of every row; in causal normalization, in sequences of so many rows, those of its sequence up to it.
pub fn all_statistics<T: Copy + Into<f64>>(
    normalization: Normalization,
    source: &[T],
    width: usize,
    causal: Option<usize>,
    eps: f64,
    unbiased: bool,
) -> Vec<RowStatistics> {
    let Some(length) = causal else {
        return source.chunks_exact(width).map(|row| statistics(normalization, row, eps, unbiased)).collect();
    };
    let mut all = Vec::with_capacity(source.len() / width);
    for sequence in source.chunks(length * width) {
        match normalization {
            Normalization::LayerNorm => all.extend(reference::causal_statistics(sequence, width, eps, unbiased)),
            Normalization::RmsNorm => {
                let mut squares = 0.0;
                for (t, row) in sequence.chunks_exact(width).enumerate() {
                    squares += row.iter().map(|&x| -> f64 { x.into() }).map(|x| x * x).sum::<f64>();
                    let sum = squares / ((t + 1) * width) as f64 + eps;
                    all.push(RowStatistics { mean: 0.0, rstd: if sum == 0.0 { 0.0 } else { 1.0 / sum.sqrt() } });
                }
            }
        }
    }
    all
}

/// x̂ of every row by its statistics.
pub fn all_normalized<T: Copy + Into<f64>>(source: &[T], width: usize, statistics: &[RowStatistics]) -> Vec<f64> {
    let of_row = |(row, of): (&[T], &RowStatistics)| {
        let RowStatistics { mean, rstd } = *of;
        row.iter().map(|&x| (x.into() - mean) * rstd).collect::<Vec<f64>>()
    };
    source.chunks_exact(width).zip(statistics).flat_map(of_row).collect()
}

/// How far a row's statistics and x̂ may move where its elements x are known only up to e.
///
/// With δ the difference of the elements, |δ| ≤ e, and c = δ − mean(δ) (RMS normalization: c = δ), x̂ becomes (x̂ + rstd · c) / N. N is
/// the length of (x̂ + rstd · c) / √n and rstd · √eps as one vector. That of x̂ / √n and rstd · √eps is 1, so that by the triangle
/// inequality N is within ρ = rstd · sqrt(Σc² / n) of 1. Therefore x̂ moves by (rstd · |c| + |x̂| · ρ) / (1 − ρ) at most, and rstd, which
/// becomes rstd / N, by ρ / (1 − ρ) of itself. For the unbiased variance n is n − 1 in all of this.
pub struct Moves {
    /// By how much the mean.
    pub mean: f64,
    /// By what part of itself rstd.
    pub rstd: f64,
    /// By how much each x̂.
    pub normalized: Vec<f64>,
}

impl Moves {
    /// Of a row with these e and x̂.
    pub fn new(normalization: Normalization, unbiased: bool, slack: &[f64], normalized: &[f64], rstd: f64) -> Self {
        let n = slack.len() as f64;
        let divisor = if unbiased { n - 1.0 } else { n };
        let mean = slack.iter().sum::<f64>() / n;
        // c is δ · (1 − 1 / n) − (what the others have of δ) / n.
        let centred: Vec<f64> = match normalization {
            Normalization::LayerNorm => slack.iter().map(|e| (e * (1.0 - 2.0 / n) + mean).max(0.0)).collect(),
            Normalization::RmsNorm => slack.to_vec(),
        };
        let squares = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
        // To take the mean off makes no sum of squares larger.
        let rho = rstd * (squares(&centred).min(squares(slack)) / divisor).sqrt();
        let rest = (1.0 - rho).max(0.0);
        let move_of = |(c, x): (&f64, &f64)| (rstd * c + x.abs() * rho) / rest;
        let normalized = centred.iter().zip(normalized).map(move_of).collect();
        Self { mean, rstd: rho / rest, normalized }
    }

    /// Of every row, as [`new`](Self::new); in causal normalization n counts the elements of all rows of a sequence up to the row, and
    /// Σc² counts as Σe², which is not less.
    pub fn of_rows(
        normalization: Normalization,
        unbiased: bool,
        width: usize,
        causal: Option<usize>,
        slack: &[f64],
        normalized: &[f64],
        statistics: &[RowStatistics],
    ) -> Vec<Self> {
        let rows = || slack.chunks_exact(width).zip(normalized.chunks_exact(width)).zip(statistics);
        let Some(length) = causal else {
            let of_row = |((slack, normalized), of): ((&[f64], &[f64]), &RowStatistics)| {
                Self::new(normalization, unbiased, slack, normalized, of.rstd)
            };
            return rows().map(of_row).collect();
        };
        let (mut sum, mut squares) = (0.0, 0.0);
        let mut of_row = |row: usize, (slack, normalized): (&[f64], &[f64]), of: &RowStatistics| {
            let position = row % length;
            if position == 0 {
                (sum, squares) = (0.0, 0.0);
            }
            sum += slack.iter().sum::<f64>();
            squares += slack.iter().map(|e| e * e).sum::<f64>();
            let n = ((position + 1) * width) as f64;
            let mean = match normalization {
                Normalization::LayerNorm => sum / n,
                Normalization::RmsNorm => 0.0,
            };
            let rho = of.rstd * (squares / (n - if unbiased { 1.0 } else { 0.0 })).sqrt();
            let rest = (1.0 - rho).max(0.0);
            let move_of = |(e, x): (&f64, &f64)| (of.rstd * (e + mean) + x.abs() * rho) / rest;
            Self { mean, rstd: rho / rest, normalized: slack.iter().zip(normalized).map(move_of).collect() }
        };
        rows().enumerate().map(|(row, (values, of))| of_row(row, values, of)).collect()
    }

    /// Of a row whose elements are known.
    pub fn none(width: usize) -> Self {
        Self { mean: 0.0, rstd: 0.0, normalized: vec![0.0; width] }
    }
}

/// A backward pass: what goes into it.
pub struct Pass<'a, T> {
    pub normalization: Normalization,
    pub eps: f64,
    pub unbiased: bool,
    pub width: usize,
    /// Rows of a sequence, where the normalization is causal.
    pub causal: Option<usize>,
    /// What is normalized.
    pub source: &'a [T],
    /// How far off each element of it may be in f32; `None` where it is exact.
    pub slack: Option<&'a [f64]>,
    pub output_gradient: &'a [T],
    pub weight: Option<&'a [T]>,
    pub bias: Option<&'a [T]>,
    pub condition: Condition<'a, T>,
}

impl<T: Copy + Into<f64>> Pass<'_, T> {
    fn exact(&self) -> ModulatedGradients {
        let &Self { normalization, eps, unbiased, width, source, output_gradient, weight, bias, .. } = self;
        let condition = &self.condition;
        if let Some(length) = self.causal {
            return self.exact_causal(length);
        }
        match normalization {
            Normalization::LayerNorm => reference::modulated_layer_norm_backward(
                source,
                output_gradient,
                width,
                weight,
                bias,
                condition,
                eps,
                unbiased,
            ),
            Normalization::RmsNorm => {
                reference::modulated_rms_norm_backward(source, output_gradient, width, weight, bias, condition, eps)
            }
        }
    }

    /// In causal normalization, sequence by sequence: by the input from g in place of the output gradient, and the sums over rows term by
    /// term.
    fn exact_causal(&self, length: usize) -> ModulatedGradients {
        let &Self { normalization, eps, unbiased, width, source, output_gradient, .. } = self;
        let Condition { modulation, rows_per_condition, scale, .. } = self.condition;
        let at = |tensor: Option<&[T]>, i: usize, absent: f64| tensor.map_or(absent, |tensor| tensor[i].into());
        let sums = (source.len() / width).div_ceil(rows_per_condition) * width;
        let statistics = all_statistics(normalization, source, width, Some(length), eps, unbiased);
        let normalized = all_normalized(source, width, &statistics);
        let mut exact = ModulatedGradients {
            input: Vec::with_capacity(source.len()),
            weight: vec![0.0; width],
            bias: vec![0.0; width],
            scale: vec![0.0; sums],
            shift: vec![0.0; sums],
        };
        let mut factored = Vec::with_capacity(source.len());
        for (i, x) in normalized.into_iter().enumerate() {
            let (row, column) = (i / width, i % width);
            let of_condition = row / rows_per_condition * width + column;
            let dy: f64 = output_gradient[i].into();
            let (weight, bias) = (at(self.weight, column, 1.0), at(self.bias, column, 0.0));
            let scale = at(scale, of_condition, 0.0);
            let (factor, scaled, by_scale) = match modulation {
                Modulation::Adaptive => (weight * (1.0 + scale), dy * (1.0 + scale), dy * (x * weight + bias)),
                Modulation::Conditional => (weight + scale, dy, dy * x),
            };
            factored.push(dy * factor);
            exact.weight[column] += scaled * x;
            exact.bias[column] += scaled;
            exact.scale[of_condition] += by_scale;
            exact.shift[of_condition] += dy;
        }
        let values: Vec<f64> = source.iter().map(|&x| x.into()).collect();
        for (x, g) in values.chunks(length * width).zip(factored.chunks(length * width)) {
            let rows = x.len() / width;
            let gradients = match normalization {
                Normalization::LayerNorm => {
                    reference::causal_layer_norm_backward(x, g, rows, width, None, eps, unbiased)
                }
                Normalization::RmsNorm => reference::causal_rms_norm_backward(x, g, rows, width, None, eps),
            };
            exact.input.extend(gradients.input);
        }
        exact
    }
}

/// The exact gradients, and for each element how far off it may be, as `GpuLayerNorm::backward` promises; besides the rounding of
/// results to what they are stored as.
///
/// Where there is a scale, W, which x̂ is multiplied by, is rounded where weight and scale go together, so it counts as the sum of the
/// magnitudes of what it is made of: |weight| · (1 + |scale|), or |weight| + |scale|. So do 1 + scale in the gradients of weight and bias,
/// and x̂ · weight + bias in that of the scale. The gradients of a condition are sums over its own rows.
///
/// In causal normalization a row's gradient has terms of all later rows t of its sequence, and may be off by 2e-6 of each of them too: of
/// rstd(t) · Σ|g(t)| / N(t) and of rstd(t)² · Σ|g(t)| · max(1, |x̂(t)|) / N(t) times |x − mean(t)|. The latter difference counts as that from
/// the row's own mean and those from mean to mean up to t, which it is made of.
pub struct Bounds {
    pub exact: ModulatedGradients,
    pub input: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    pub scale: Vec<f64>,
    pub shift: Vec<f64>,
}

impl Bounds {
    /// Of a normalization with its eps, its variance unbiased or not, without conditions.
    pub fn new(
        (normalization, eps, unbiased): (Normalization, f64, bool),
        width: usize,
        input: &[f32],
        output_gradient: &[f32],
        weight: Option<&[f32]>,
    ) -> Self {
        let rows_per_condition = (input.len() / width).max(1);
        let condition = Condition { modulation: Modulation::default(), rows_per_condition, scale: None, shift: None };
        let Gradients { input: by_input, weight: by_weight, bias } = match normalization {
            Normalization::LayerNorm => {
                reference::layer_norm_backward(input, output_gradient, width, weight, eps, unbiased)
            }
            Normalization::RmsNorm => reference::rms_norm_backward(input, output_gradient, width, weight, eps),
        };
        let exact =
            ModulatedGradients { input: by_input, weight: by_weight, bias, scale: Vec::new(), shift: Vec::new() };
        let pass = Pass {
            normalization,
            eps,
            unbiased,
            width,
            causal: None,
            source: input,
            slack: None,
            output_gradient,
            weight,
            bias: None,
            condition,
        };
        Self::about(exact, &pass)
    }

    pub fn of<T: Copy + Into<f64>>(pass: &Pass<T>) -> Self {
        Self::about(pass.exact(), pass)
    }

    fn about<T: Copy + Into<f64>>(exact: ModulatedGradients, pass: &Pass<T>) -> Self {
        let &Pass { normalization, eps, unbiased, width, source, slack, output_gradient, weight, bias, .. } = pass;
        let (modulation, rows_per_condition) = (pass.condition.modulation, pass.condition.rows_per_condition);
        let scales = pass.condition.scale;
        let at = |tensor: Option<&[T]>, i: usize, absent: f64| tensor.map_or(absent, |tensor| tensor[i].into()).abs();
        let rows = source.len() / width;
        let sums = rows.div_ceil(rows_per_condition) * width;
        // Wider rows have twice the bound in x̂ too.
        let wide = error_bound(width) / 1e-6;
        let chain = chain_bound(width, rows);
        let divisor = if unbiased { width as f64 - 1.0 } else { width as f64 };
        let statistics = all_statistics(normalization, source, width, pass.causal, eps, unbiased);
        let all_normalized = all_normalized(source, width, &statistics);
        let moves = slack.map(|slack| {
            Moves::of_rows(normalization, unbiased, width, pass.causal, slack, &all_normalized, &statistics)
        });
        let mut magnitudes = Vec::with_capacity(source.len());
        let mut bounds = Self {
            exact,
            input: Vec::with_capacity(source.len()),
            weight: vec![0.0; width],
            bias: vec![0.0; width],
            scale: vec![0.0; sums],
            shift: vec![0.0; sums],
        };
        for row in 0..rows {
            let span = row * width..(row + 1) * width;
            let dy = &output_gradient[span.clone()];
            let condition = row / rows_per_condition;
            let first = condition * width;
            let rows_of_condition = rows_per_condition.min(rows - condition * rows_per_condition);
            let chain_of_condition = chain_bound(width, rows_of_condition);
            let rstd = statistics[row].rstd;
            let normalized = &all_normalized[span.clone()];
            let moves = moves.as_ref().map(|moves| &moves[row]);

            let g = |i: usize| {
                let (weight, scale) = (at(weight, i, 1.0), at(scales, first + i, 0.0));
                let w = match modulation {
                    Modulation::Adaptive => weight * (1.0 + scale),
                    Modulation::Conditional => weight + scale,
                };
                dy[i].into().abs() * w
            };
            let largest = (0..width).map(g).fold(0.0, f64::max);
            magnitudes.extend((0..width).map(g));
            let exact = &bounds.exact.input[span];
            let bound = 2e-6 * wide * largest_of(exact).max(rstd * largest);
            // What is subnormal on the way may be 0, and slope · rstd, which x̂ is multiplied by, is on the way.
            let subnormal = |x: &f64| 4.0 * f64::from(f32::MIN_POSITIVE) * x.abs().max(1.0);
            bounds.input.extend(normalized.iter().map(|x| bound + subnormal(x)));
            if let Some(moves) = moves.filter(|_| pass.causal.is_none()) {
                // The slope Σ(g · x̂) / n at most, and what it may be off.
                let mean_with =
                    |by: &[f64]| by.iter().enumerate().map(|(i, by)| g(i) * by.abs()).sum::<f64>() / divisor;
                let (slope, slope_move) = (mean_with(normalized), mean_with(&moves.normalized));
                for (i, exact) in exact.iter().enumerate() {
                    let (x, x_move) = (normalized[i].abs(), moves.normalized[i]);
                    let inner = x_move * (slope + slope_move) + x * slope_move;
                    bounds.input[row * width + i] += moves.rstd * exact.abs() + rstd * (1.0 + moves.rstd) * inner;
                }
            }

            for (i, &x) in normalized.iter().enumerate() {
                let dy = dy[i].into().abs();
                let factor = match modulation {
                    Modulation::Adaptive => 1.0 + at(scales, first + i, 0.0),
                    Modulation::Conditional => 1.0,
                };
                let x_move = moves.map_or(0.0, |moves| moves.normalized[i]);
                bounds.weight[i] += factor * dy * (chain * scale(x) + x_move);
                bounds.bias[i] += factor * dy * chain;
                let product = dy * (chain_of_condition * scale(x) + x_move);
                bounds.scale[first + i] += match modulation {
                    Modulation::Adaptive => {
                        let (weight, bias) = (at(weight, i, 1.0), at(bias, i, 0.0));
                        // What the products with weight and bias and their sum round.
                        let rounding = 2.0 * f64::from(f32::EPSILON) * (weight * x.abs() + bias);
                        weight * product + dy * (bias * chain_of_condition + rounding)
                    }
                    Modulation::Conditional => product,
                };
                bounds.shift[first + i] += dy * chain_of_condition;
            }
        }
        if let Some(length) = pass.causal {
            bounds.add_later_rows(pass, length, &statistics, &all_normalized, &magnitudes, moves.as_deref());
        }
        bounds
    }

    /// What the terms of a row's own and later rows add to the bounds by the input; `magnitudes` are those of g.
    fn add_later_rows<T: Copy + Into<f64>>(
        &mut self,
        pass: &Pass<T>,
        length: usize,
        statistics: &[RowStatistics],
        normalized: &[f64],
        magnitudes: &[f64],
        moves: Option<&[Moves]>,
    ) {
        let &Pass { normalization, unbiased, width, source, slack, .. } = pass;
        let relative = 2e-6 * error_bound(width) / 1e-6;
        let rows = source.len() / width;
        for first in (0..rows).step_by(length) {
            let last = rows.min(first + length);
            let most_slack = slack.map_or(0.0, |slack| largest_of(&slack[first * width..last * width]));
            // Sums over the rows from this one on: of the means' terms, of the factors of x − mean, and of these times the means' distance
            // from this row's. And by how much they may move.
            let (mut means, mut factors, mut apart) = (0.0, 0.0, 0.0);
            let (mut mean_moves, mut factor_moves, mut apart_moves) = (0.0, 0.0, 0.0);
            let mut next_mean = None;
            for row in (first..last).rev() {
                let RowStatistics { mean, rstd } = statistics[row];
                let span = row * width..(row + 1) * width;
                let (x, g) = (&normalized[span.clone()], &magnitudes[span.clone()]);
                let n = ((row - first + 1) * width) as f64;
                let divisor = n - if unbiased { 1.0 } else { 0.0 };
                let distance = (mean - next_mean.unwrap_or(mean)).abs();
                next_mean = Some(mean);
                apart += distance * factors;
                apart_moves += distance * factor_moves;
                let term = match normalization {
                    Normalization::LayerNorm => rstd * g.iter().sum::<f64>() / n,
                    Normalization::RmsNorm => 0.0,
                };
                let sum_with = |by: &dyn Fn(usize) -> f64| g.iter().enumerate().map(|(i, g)| g * by(i)).sum::<f64>();
                means += term;
                factors += rstd * rstd * sum_with(&|i| x[i].abs().max(1.0)) / divisor;
                let moved = moves.map(|moves| &moves[row]);
                if let Some(moved) = moved {
                    let products = sum_with(&|i| 2.0 * moved.rstd * x[i].abs() + moved.normalized[i]);
                    mean_moves += moved.rstd * term;
                    factor_moves += rstd * rstd * products / divisor;
                }
                for (i, &value) in source[span].iter().enumerate() {
                    let away = (value.into() - mean).abs();
                    let mut more = relative * (means + factors * away + apart);
                    if let Some(moved) = moved {
                        // To first order, and a tenth.
                        let own = moved.rstd * rstd * g[i] + mean_moves + factor_moves * away + apart_moves;
                        more += 1.1 * (own + 2.0 * factors * most_slack);
                    }
                    self.input[row * width + i] += more;
                }
            }
        }
    }
}

/// The largest magnitude.
fn largest_of(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// A layer with what goes into its backward pass, all f32.
pub struct GradientCase {
    pub rows: usize,
    pub width: usize,
    pub normalization: Normalization,
    pub affine: Affine,
    pub variance: Variance,
    pub eps: f32,
    pub input: Vec<f32>,
    pub output_gradient: Vec<f32>,
    pub weight: Vec<f32>,
}

/// By the input, by the weight, by the bias; the latter two empty where there is no such parameter.
pub type Found = [Vec<f32>; 3];

impl GradientCase {
    pub fn new(rows: usize, width: usize, data: Data, seed: u64) -> Self {
        Self::with_input(rows, width, data.values(rows, width, seed), seed)
    }

    pub fn with_input(rows: usize, width: usize, input: Vec<f32>, seed: u64) -> Self {
        let standard = |rows, salt| Data::STANDARD.values(rows, width, seed ^ salt);
        let (output_gradient, weight) =
            (standard(rows, 0xd1), standard(1, 0xd2).iter().map(|x| 1.0 + x / 4.0).collect());
        let (normalization, affine) = (Normalization::LayerNorm, Affine::WeightAndBias);
        let (variance, eps) = (Variance::Biased, 1e-5);
        Self { rows, width, normalization, affine, variance, eps, input, output_gradient, weight }
    }

    pub fn layer(&self, device: &GpuDevice) -> Result<GpuLayerNorm, Error> {
        let config = match self.normalization {
            Normalization::LayerNorm => LayerNormConfig::new(self.width),
            Normalization::RmsNorm => LayerNormConfig::rms(self.width),
        };
        let config = config.affine(self.affine).variance(self.variance).eps(self.eps).expect_nothing();
        let layer = GpuLayerNorm::new(device, &config)?;
        if self.affine.has_weight() {
            layer.set_weight(&Tensor::from_f32([self.width], self.weight.clone())?)?;
        }
        Ok(layer)
    }

    /// Saves the statistics, where they are to be given, and runs the plans that `pick` makes of the problem; the gradients of each.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(
        &self,
        device: &GpuDevice,
        given: bool,
        pick: impl FnOnce(&Problem) -> Vec<Plan>,
    ) -> Result<Vec<(String, Found)>, Error> {
        let layer = self.layer(device)?;
        let upload =
            |values: &[f32]| GpuTensor::upload(device, &Tensor::from_f32([self.rows, self.width], values.to_vec())?);
        let (input, output_gradient) = (upload(&self.input)?, upload(&self.output_gradient)?);
        let gradient = GpuTensor::zeros(device, input.shape())?;
        let of = |parameter: Option<&GpuTensor>| {
            parameter.map(|parameter| GpuTensor::zeros(device, parameter.shape())).transpose()
        };
        let (weight, bias) = (of(layer.weight())?, of(layer.bias())?);
        let mut bindings = Bindings::backward_of(&input, &output_gradient, &gradient);
        if given {
            let (_, statistics) = layer.forward_for_training(device, &input)?;
            bindings = bindings.rstd(&statistics.rstd);
            if let Some(mean) = &statistics.mean {
                bindings = bindings.mean(mean);
            }
        }
        if let Some(weight) = &weight {
            bindings = bindings.weight_gradient(weight);
        }
        if let Some(bias) = &bias {
            bindings = bindings.bias_gradient(bias);
        }
        let mut all = Vec::new();
        for plan in pick(&layer.problem(device, &bindings)?) {
            let what = plan.to_string();
            submit(device, &layer.prepare_plan(device, plan, &bindings)?);
            let values = |tensor: Option<&GpuTensor>| {
                tensor.map_or(Ok(Vec::new()), |tensor| Ok::<_, Error>(tensor.download()?.into_values()))
            };
            all.push((what, [values(Some(&gradient))?, values(weight.as_ref())?, values(bias.as_ref())?]));
        }
        Ok(all)
    }

    pub fn bounds(&self) -> Bounds {
        let weight = self.affine.has_weight().then_some(&self.weight[..]);
        let how = (self.normalization, f64::from(self.eps), self.variance == Variance::Unbiased);
        Bounds::new(how, self.width, &self.input, &self.output_gradient, weight)
    }

    /// Compares gradients with the bounds that the crate promises. With `of_largest` dx has to be within 2e-6 of the largest |dx| in
    /// its row, which is less than that where g is all but a constant and a multiple of x̂.
    pub fn compare(&self, bounds: &Bounds, [input, weight, bias]: &Found, of_largest: bool) -> Result<(), String> {
        let width = self.width;
        let mut allowed = bounds.input.clone();
        if of_largest {
            for (allowed, exact) in allowed.chunks_mut(width).zip(bounds.exact.input.chunks(width)) {
                allowed.fill(2e-6 * largest_of(exact) * error_bound(width) / 1e-6);
            }
        }
        for (what, found, exact, allowed) in [
            ("dx", input, &bounds.exact.input, &allowed),
            ("dweight", weight, &bounds.exact.weight, &bounds.weight),
            ("dbias", bias, &bounds.exact.bias, &bounds.bias),
        ] {
            for (i, (&found, (&exact, &allowed))) in found.iter().zip(exact.iter().zip(allowed)).enumerate() {
                let error = (f64::from(found) - exact).abs() - f64::from(f32::EPSILON) / 2.0 * exact.abs();
                if error.is_nan() || error > allowed {
                    return Err(format!(
                        "{what} at row {} element {}: {found:e} in place of {exact:e}, {error:e} off where {allowed:e} is allowed",
                        i / width,
                        i % width
                    ));
                }
            }
        }
        Ok(())
    }

    /// The largest errors: of dx, relative to the largest |dx| in its row, of dweight, relative to Σ|dy| · max(1, |x̂| / 4) over the
    /// rows, and of dbias, relative to Σ|dy|. Infinite where one is NaN.
    pub fn largest_errors(&self, bounds: &Bounds, [input, weight, bias]: &Found) -> [f64; 3] {
        let chain = chain_bound(self.width, self.rows);
        let rows = bounds.exact.input.chunks(self.width).flat_map(|row| vec![largest_of(row); self.width]);
        let scaled = |bounds: &[f64]| bounds.iter().map(|bound| bound / chain).collect::<Vec<_>>();
        let worst = |found: &[f32], exact: &[f64], scales: Vec<f64>| {
            let error = |(found, (exact, scale)): (&f32, (&f64, f64))| (f64::from(*found) - exact).abs() / scale;
            let errors = found.iter().zip(exact.iter().zip(scales)).map(error);
            errors.fold(0.0, |worst: f64, error| if error.is_nan() { f64::INFINITY } else { worst.max(error) })
        };
        [
            worst(input, &bounds.exact.input, rows.collect()),
            worst(weight, &bounds.exact.weight, scaled(&bounds.weight)),
            worst(bias, &bounds.exact.bias, scaled(&bounds.bias)),
        ]
    }

    /// Every strategy that can run it, with given statistics and with measured ones.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn check(&self, device: &GpuDevice, of_largest: bool) -> Result<(), String> {
        let bounds = self.bounds();
        for given in [true, false] {
            let runs =
                self.run(device, given, |problem| strategies(problem, device)).map_err(|error| error.to_string())?;
            for (what, gradients) in runs {
                self.compare(&bounds, &gradients, of_largest).map_err(|error| format!("{what}: {error}"))?;
            }
        }
        Ok(())
    }
}

/// The planner's pick and one plan of each strategy that can run.
pub fn strategies(problem: &Problem, device: &GpuDevice) -> Vec<Plan> {
    let mut plans = vec![Plan::new(problem, device.capabilities()).expect("a plan")];
    for strategy in STRATEGIES {
        plans.extend(
            Plan::with_strategy(problem, device.capabilities(), strategy).ok().filter(|plan| *plan != plans[0]),
        );
    }
    plans
}
