//! What the gradients of a backward pass are, and how far off they may be.

use gpu_layer_norm::kernel::{Plan, Problem, Role};
use gpu_layer_norm::reference::{self, Gradients};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Normalization, Tensor, Variance,
};

use super::{Data, STRATEGIES, error_bound, normalize, scale, submit};

pub fn is_gradient(role: Role) -> bool {
    matches!(
        role,
        Role::OutputGradient | Role::SumGradient | Role::InputGradient | Role::WeightGradient | Role::BiasGradient
    )
}

/// What Σ|dy| · max(1, |x̂| / 4) is multiplied by to bound the error of a parameter's gradient: x̂ is off by so much, and up to 512
/// terms are added one after another.
pub fn chain_bound(width: usize, rows: usize) -> f64 {
    error_bound(width) + 3e-8 * rows.min(512) as f64
}

/// The exact gradients, and for each element how far off it may be, as `GpuLayerNorm::backward` promises; besides the rounding of
/// results to what they are stored as.
pub struct Bounds {
    pub exact: Gradients,
    pub input: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
}

impl Bounds {
    /// Of a normalization with its eps, its variance unbiased or not.
    pub fn new(
        (normalization, eps, unbiased): (Normalization, f64, bool),
        width: usize,
        input: &[f32],
        output_gradient: &[f32],
        weight: Option<&[f32]>,
    ) -> Self {
        let exact = match normalization {
            Normalization::LayerNorm => {
                reference::layer_norm_backward(input, output_gradient, width, weight, eps, unbiased)
            }
            Normalization::RmsNorm => reference::rms_norm_backward(input, output_gradient, width, weight, eps),
        };
        let normalized = normalize(normalization, input, width, eps as f32, unbiased);
        let rows = input.len() / width;
        // Wider rows have twice the bound in x̂ too.
        let wide = error_bound(width) / 1e-6;
        let chain = chain_bound(width, rows);
        let mut bounds = Self { exact, input: Vec::new(), weight: vec![0.0; width], bias: vec![0.0; width] };
        for (i, (x, dy)) in input.chunks(width).zip(output_gradient.chunks(width)).enumerate() {
            let rstd = match normalization {
                Normalization::LayerNorm => reference::row_statistics(x, eps, unbiased).rstd,
                Normalization::RmsNorm => reference::root_mean_square_rstd(x, eps),
            };
            let g = |(i, dy): (usize, &f32)| f64::from(*dy * weight.map_or(1.0, |weight| weight[i])).abs();
            let largest = dy.iter().enumerate().map(g).fold(0.0, f64::max);
            let largest_dx = largest_of(&bounds.exact.input[i * width..(i + 1) * width]);
            bounds.input.extend(std::iter::repeat_n(2e-6 * wide * largest_dx.max(rstd * largest), width));
        }
        for (i, (&dy, &normalized)) in output_gradient.iter().zip(&normalized).enumerate() {
            // What is subnormal on the way may be 0, and slope · rstd, which x̂ is multiplied by, is on the way.
            bounds.input[i] += 4.0 * f64::from(f32::MIN_POSITIVE) * normalized.abs().max(1.0);
            bounds.weight[i % width] += chain * f64::from(dy).abs() * scale(normalized);
            bounds.bias[i % width] += chain * f64::from(dy).abs();
        }
        bounds
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
