//! What the tests, the accuracy table and the benchmarks share: adapters, data, comparison with the f64 reference.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

pub mod bare;
pub mod gradients;
pub mod sample;
#[cfg(not(target_arch = "wasm32"))]
pub mod tensors;

use std::fmt;

use gpu_layer_norm::kernel::{Access, Geometry, Kernel, Problem, Reduction};
use gpu_layer_norm::{
    Affine, Bindings, Capabilities, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Normalization, Plan,
    PreparedPlan, Strategy, Tensor, Variance, reference, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

pub const STRATEGIES: [Strategy; 3] = [Strategy::Resident, Strategy::Streaming, Strategy::Split];
pub const AFFINES: [Affine; 3] = [Affine::None, Affine::Weight, Affine::WeightAndBias];

/// An adapter by the short name that it has in this project: `lavapipe`, `swiftshader`, `gl`, or its own name.
pub fn short_name(info: &wgpu::AdapterInfo) -> String {
    match info.backend {
        wgpu::Backend::Gl => "gl".into(),
        wgpu::Backend::Vulkan if info.driver == "llvmpipe" => "lavapipe".into(),
        wgpu::Backend::Vulkan if info.name.contains("SwiftShader") => "swiftshader".into(),
        backend => format!("{} {backend}", info.name),
    }
}

/// By an adapter's short name.
pub type Named<T> = Vec<(String, T)>;

#[cfg(not(target_arch = "wasm32"))]
fn adapters(backends: wgpu::Backends) -> impl Iterator<Item = (String, wgpu::Adapter)> {
    let adapters = pollster::block_on(GpuDevice::builder().backends(backends).adapters());
    adapters.into_iter().map(|adapter| (short_name(&adapter.get_info()), adapter))
}

/// A device on every adapter there is; two adapters of one name count once. And the adapters that gave none.
#[cfg(not(target_arch = "wasm32"))]
pub fn devices() -> (Named<GpuDevice>, Named<Error>) {
    let mut devices: Named<GpuDevice> = Vec::new();
    let mut unusable = Vec::new();
    for (name, adapter) in adapters(wgpu::Backends::all()) {
        if devices.iter().any(|(known, _)| *known == name) {
            continue;
        }
        match pollster::block_on(GpuDevice::from_adapter(&adapter)) {
            Ok(device) => devices.push((name, device)),
            Err(error) => unusable.push((name, error)),
        }
    }
    (devices, unusable)
}

/// One more device on an adapter of this name, of another instance than all others.
#[cfg(not(target_arch = "wasm32"))]
pub fn another_device(name: &str, backend: wgpu::Backend) -> Result<GpuDevice, Error> {
    let mut outcome = Err(Error::NoAdapter { requested: name.into(), found: Vec::new() });
    for (_, adapter) in adapters(backend.into()).filter(|(other, _)| other == name) {
        outcome = pollster::block_on(GpuDevice::from_adapter(&adapter));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Records an operation, and submits it.
pub fn submit(device: &GpuDevice, prepared: &PreparedPlan) {
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    prepared.encode(&mut encoder);
    device.queue().submit([encoder.finish()]);
}

/// Elements that one case may have on this adapter: some are slow.
pub fn element_budget(name: &str) -> usize {
    match name {
        "swiftshader" => 1 << 17,
        _ => 1 << 20,
    }
}

/// Of many cases that are much alike, every adapter tries every `step`-th, and all with `GPU_LAYER_NORM_ALL_CASES=1`.
fn step_everywhere(step: usize) -> usize {
    if std::env::var_os("GPU_LAYER_NORM_ALL_CASES").is_some() { 1 } else { step }
}

/// The same for SwiftShader, which is slow, and GL, whose compiler is lavapipe's too; others try all.
pub fn step(name: &str, step: usize) -> usize {
    if ["swiftshader", "gl"].contains(&name) { step_everywhere(step) } else { 1 }
}

/// The same for cases of nested loops: about one of so many, picked without a period, so that no dimension of the loops is left out.
pub struct Turns {
    step: usize,
    turn: u32,
}

impl Turns {
    pub fn new(name: &str, step: usize) -> Self {
        Self { step: self::step(name, step), turn: 0 }
    }

    pub fn everywhere(step: usize) -> Self {
        Self { step: step_everywhere(step), turn: 0 }
    }

    /// Whether the next case is tried.
    pub fn takes(&mut self) -> bool {
        self.turn += 1;
        // By Fibonacci hashing.
        (self.turn.wrapping_mul(0x9e37_79b9) >> 16).is_multiple_of(self.step as u32)
    }
}

/// What the rows are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Data {
    /// Normally distributed with this mean and standard deviation.
    Normal { mean: f32, std: f32 },
    /// Standard normal, but for the first element of each row.
    Outlier { first: f32 },
    /// Standard normal, but for the elements that a kernel looks at to find out about where the mean is.
    Peaks { height: f32 },
}

impl Data {
    pub const STANDARD: Self = Self::Normal { mean: 0.0, std: 1.0 };

    pub fn values(self, rows: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = || rng.sample::<f32, _>(StandardNormal);
        match self {
            Self::Normal { mean, std } => (0..rows * width).map(|_| mean + std * normal()).collect(),
            Self::Outlier { first } => {
                (0..rows * width).map(|i| if i % width == 0 { first } else { normal() }).collect()
            }
            Self::Peaks { height } => {
                // As `span_shift` in `shaders/access/reread.wgsl` has them.
                let unit = if width.is_multiple_of(4) { 4 } else { 1 };
                let (units, samples) = (width / unit, 16 / unit);
                let stride = (units / samples).max(1);
                let mut values: Vec<f32> = (0..rows * width).map(|_| normal()).collect();
                for row in values.chunks_mut(width) {
                    for i in 0..samples {
                        let first = (i * stride + stride / 2).min(units - 1) * unit;
                        row[first..first + unit].fill(height);
                    }
                }
                values
            }
        }
    }
}

/// The data of the accuracy table.
pub const ACCURACY_DATA: [Data; 7] = [
    Data::Normal { mean: 0.0, std: 1.0 },
    Data::Normal { mean: 1e2, std: 1.0 },
    Data::Normal { mean: 1e2, std: 0.01 },
    Data::Normal { mean: 1e6, std: 1.0 },
    Data::Normal { mean: -1e6, std: 1.0 },
    Data::Outlier { first: 1e4 },
    Data::Peaks { height: 1e4 },
];

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal { mean, std } => write!(f, "mean {mean:e} std {std}"),
            Self::Outlier { first } => write!(f, "first element {first:e}"),
            Self::Peaks { height } => write!(f, "16 peaks of {height:e}"),
        }
    }
}

/// A case: what is computed, with the answer.
pub struct Case {
    pub rows: usize,
    pub width: usize,
    pub eps: f32,
    pub variance: Variance,
    pub normalization: Normalization,
    pub input: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    /// x̂ in f64.
    pub normalized: Vec<f64>,
}

impl Case {
    pub fn new(rows: usize, width: usize, data: Data, seed: u64) -> Self {
        Self::with_values(rows, width, data.values(rows, width, seed), seed)
    }

    pub fn with_values(rows: usize, width: usize, input: Vec<f32>, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let weight = (0..width).map(|_| rng.random_range(0.5..1.5)).collect();
        let bias = (0..width).map(|_| rng.random_range(-1.0..1.0)).collect();
        let (eps, variance, normalization) = (1e-5, Variance::Biased, Normalization::LayerNorm);
        let normalized = Vec::new();
        Self { rows, width, eps, variance, normalization, input, weight, bias, normalized }.recomputed()
    }

    pub fn eps(self, eps: f32) -> Self {
        Self { eps, ..self }.recomputed()
    }

    pub fn variance(self, variance: Variance) -> Self {
        Self { variance, ..self }.recomputed()
    }

    pub fn rms(self) -> Self {
        Self { normalization: Normalization::RmsNorm, ..self }.recomputed()
    }

    fn recomputed(self) -> Self {
        let unbiased = self.variance == Variance::Unbiased;
        let normalized = normalize(self.normalization, &self.input, self.width, self.eps, unbiased);
        Self { normalized, ..self }
    }

    pub fn config(&self, affine: Affine) -> LayerNormConfig {
        let config = match self.normalization {
            Normalization::LayerNorm => LayerNormConfig::new(self.width),
            Normalization::RmsNorm => LayerNormConfig::rms(self.width),
        };
        config.affine(affine).eps(self.eps).variance(self.variance)
    }

    pub fn problem(&self, affine: Affine) -> Problem {
        self.config(affine).problem(self.rows as u64).expect("the case is valid")
    }

    pub fn tensor(&self) -> Tensor {
        Tensor::from_f32([self.rows, self.width], self.input.clone()).expect("the case is whole")
    }

    pub fn layer(&self, device: &GpuDevice, affine: Affine) -> Result<GpuLayerNorm, Error> {
        let layer = GpuLayerNorm::new(device, &self.config(affine).expect_nothing())?;
        if affine.has_weight() {
            layer.set_weight(&Tensor::from_f32([self.width], self.weight.clone())?)?;
        }
        if affine.has_bias() {
            layer.set_bias(&Tensor::from_f32([self.width], self.bias.clone())?)?;
        }
        Ok(layer)
    }

    /// Submits the case with a plan; the output.
    pub fn start(&self, device: &GpuDevice, affine: Affine, plan: Plan) -> Result<GpuTensor, Error> {
        let layer = self.layer(device, affine)?;
        let input = GpuTensor::upload(device, &self.tensor())?;
        let output = GpuTensor::zeros(device, input.shape())?;
        let prepared = layer.prepare_plan(device, plan, &Bindings::of(&input, &output))?;
        submit(device, &prepared);
        Ok(output)
    }

    /// Runs the case with a plan.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, device: &GpuDevice, affine: Affine, plan: Plan) -> Result<Vec<f32>, Error> {
        Ok(self.start(device, affine, plan)?.download()?.into_values())
    }

    /// The largest error of an x̂, as [`Worst::scaled`], whatever it is; infinite where it is NaN.
    pub fn largest_error(&self, output: &[f32]) -> f64 {
        let error = |(&y, &normalized): (&f32, &f64)| {
            let error = (f64::from(y) - normalized).abs() / scale(normalized);
            if error.is_nan() { f64::INFINITY } else { error }
        };
        output.iter().zip(&self.normalized).map(error).fold(0.0, f64::max)
    }

    /// Compares an output with the reference.
    pub fn compare(&self, affine: Affine, output: &[f32]) -> Result<Worst, String> {
        self.compare_within(affine, output, 1.0)
    }

    /// The same, where so many times the bound are allowed.
    pub fn compare_within(&self, affine: Affine, output: &[f32], times: f64) -> Result<Worst, String> {
        if output.len() != self.normalized.len() {
            return Err(format!("{} values in place of {}", output.len(), self.normalized.len()));
        }
        let bound = times * error_bound(self.width);
        let mut worst = Worst::default();
        for (i, (&y, &normalized)) in output.iter().zip(&self.normalized).enumerate() {
            let weight = if affine.has_weight() { f64::from(self.weight[i % self.width]) } else { 1.0 };
            let bias = if affine.has_bias() { f64::from(self.bias[i % self.width]) } else { 0.0 };
            let expected = normalized * weight + bias;
            let error = (f64::from(y) - expected).abs();
            // The output's own rounding, and that of the product before a bias: half a unit in the last place each.
            let product = if affine.has_bias() { (normalized * weight).abs() } else { 0.0 };
            let rounding = f64::from(f32::EPSILON) / 2.0 * (product + expected.abs());
            // max passes over a NaN, so it comes last.
            let scaled = (error - rounding) / (weight * scale(normalized));
            if scaled.is_nan() || scaled > bound {
                return Err(format!(
                    "row {} element {}: {y:e} in place of {expected:e}, {scaled:e} off where {bound:e} is allowed",
                    i / self.width,
                    i % self.width
                ));
            }
            worst.scaled = worst.scaled.max(scaled);
            worst.absolute = worst.absolute.max(error);
        }
        Ok(worst)
    }
}

/// How far an output was off at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Worst {
    /// |x̂ − x̂_f64|, for |x̂| above 4 times 4 / |x̂|.
    pub scaled: f64,
    /// |y − y_f64|
    pub absolute: f64,
}

/// x̂ in f64.
pub fn normalize(normalization: Normalization, input: &[f32], width: usize, eps: f32, unbiased: bool) -> Vec<f64> {
    match normalization {
        Normalization::LayerNorm => reference::layer_norm(input, width, None, None, f64::from(eps), unbiased),
        Normalization::RmsNorm => reference::rms_norm(input, width, None, None, f64::from(eps)),
    }
}

/// The largest error allowed in x̂.
pub fn error_bound(width: usize) -> f64 {
    if width <= 65_536 { 1e-6 } else { 2e-6 }
}

/// What the bound is multiplied by: absolute up to |x̂| = 4, which few elements of ordinary rows reach. An outlier has x̂ up to
/// √width, and f32 numbers near 256 lie 3e-5 apart, so beyond 4 the bound is relative: 2.5e-7 · |x̂|.
pub fn scale(normalized: f64) -> f64 {
    (normalized.abs() / 4.0).max(1.0)
}

/// The largest relative error allowed in rstd.
pub fn rstd_bound(width: usize) -> f64 {
    error_bound(width) / 4.0
}

/// Every geometry worth running on a device: each access, each reduction that the device has, rows whole and split.
pub fn geometries(problem: &Problem, capabilities: &Capabilities) -> Vec<Plan> {
    // Lanes, groups of lanes in a workgroup, spans a lane where rows are whole.
    let mut shapes = vec![(Reduction::Lane, 1, 1, 2), (Reduction::Lane, 1, 64, 4)];
    shapes.extend([
        (Reduction::Workgroup, 2, 8, 2),
        (Reduction::Workgroup, 16, 4, 1),
        (Reduction::Workgroup, 64, 1, 4),
    ]);
    if let Some(sizes) = capabilities.subgroups {
        shapes.extend([
            (Reduction::Subgroup, 2, sizes.max, 1),
            (Reduction::Subgroup, sizes.min, 1, 4),
            (Reduction::Subgroup, sizes.min, 128 / sizes.min, 2),
            (Reduction::SubgroupThenWorkgroup, sizes.max, 1, 1),
            (Reduction::SubgroupThenWorkgroup, 128.max(sizes.max), 1, 2),
        ]);
    }
    let mut plans = Vec::new();
    for (reduction, lanes, groups, most) in shapes {
        let partly = |registers, shared| Access::Partly { registers, shared };
        for access in [Access::Held, partly(1, 0), partly(1, 2), partly(4, 2), Access::Reread] {
            let third = (problem.width() / 3).next_multiple_of(8 * lanes);
            for segment_width in [None, Some(8 * lanes), Some(third)] {
                let spans_per_lane = if segment_width.is_some() { 1 } else { most };
                let spans_per_workgroup = groups * spans_per_lane;
                let geometry =
                    Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width };
                plans.extend(Plan::with_geometry(problem, capabilities, geometry).ok());
            }
        }
    }
    plans
}

/// Every kernel that these plans run.
pub fn kernels(plans: impl IntoIterator<Item = Plan>) -> impl Iterator<Item = Kernel> {
    plans.into_iter().flat_map(|plan| plan.kernels().to_vec())
}

/// A fixture from tests/data.
pub fn fixture(name: &str) -> serde_json::Value {
    // At run time, because a test may be run on another machine than it was built on.
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    let path = std::path::Path::new(&folder).join("tests/data").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

pub struct OnnxTensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A case of the ONNX backend suite.
pub struct OnnxCase {
    pub name: String,
    axis: i64,
    pub epsilon: f64,
    pub input: OnnxTensor,
    pub weight: OnnxTensor,
    pub output: OnnxTensor,
    /// Empty, as the next two, for RMSNormalization.
    pub bias: Vec<f32>,
    pub mean: Vec<f32>,
    pub rstd: Vec<f32>,
}

impl OnnxCase {
    /// ONNX names the first normalized axis, from the front or, if negative, from the back.
    pub fn normalized_shape(&self) -> &[usize] {
        let rank = self.input.shape.len() as i64;
        let first = if self.axis < 0 { rank + self.axis } else { self.axis };
        &self.input.shape[first as usize..]
    }
}

/// The 19 cases of an operator.
pub fn onnx_cases(normalization: Normalization) -> Vec<OnnxCase> {
    let fixture = fixture(match normalization {
        Normalization::LayerNorm => "onnx/layer_normalization.json",
        Normalization::RmsNorm => "onnx/rms_normalization.json",
    });
    let case = |case: &serde_json::Value| {
        let floats = |value: &serde_json::Value| numbers(value).iter().map(|&x| x as f32).collect();
        let tensor = |name: &str| OnnxTensor {
            shape: numbers(&case[name]["shape"]).iter().map(|&x| x as usize).collect(),
            values: floats(&case[name]["values"]),
        };
        let optional = |name: &str| case.get(name).map_or(Vec::new(), |tensor| floats(&tensor["values"]));
        OnnxCase {
            name: case["name"].as_str().expect("a name").into(),
            axis: case["axis"].as_i64().expect("an axis"),
            epsilon: case["epsilon"].as_f64().expect("an epsilon"),
            input: tensor("X"),
            weight: tensor("W"),
            output: tensor("Y"),
            bias: optional("B"),
            mean: optional("Mean"),
            rstd: optional("InvStdDev"),
        }
    };
    let cases: Vec<_> = fixture["cases"].as_array().expect("cases").iter().map(case).collect();
    assert_eq!(cases.len(), 19);
    cases
}
