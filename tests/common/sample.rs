//! A sample of the whole space of problems, forward and backward: storage types, regions, residual, gate, modulation, statistics, places,
//! buffers. It is run on bytes, so that what must not be touched is seen to be untouched.

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::kernel::{Kernel, Plan, Problem, Role};
use gpu_layer_norm::reference::{self, Condition, RowStatistics};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, LayerNormConfig, Modulation, Normalization, Operation, Region,
    StorageType, Strategy, Variance, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::gradients::{self, Bounds, Moves, Pass, chain_bound};
use super::{Data, bare, error_bound, rstd_bound, scale, submit};

/// As many storage buffers as any kernel of any problem needs.
pub const ENOUGH_BUFFERS: u32 = 12;

/// Where a tensor lies: so many elements are left free before it, and so many between two rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spot {
    pub storage: StorageType,
    pub before: usize,
    pub between: usize,
}

/// Where something that is written goes.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Own(Spot),
    InPlaceOf(Role),
}

/// What a backward problem has that a forward one has not. Gradients of what the sample has not count for nothing, but for that of the
/// shift, which the backward pass does not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backward {
    pub output_gradient: Spot,
    pub sum_gradient: Option<Spot>,
    pub weight_gradient: Option<Spot>,
    pub bias_gradient: Option<Spot>,
    pub residual_gradient: Option<Target>,
    pub scale_gradient: Option<Spot>,
    pub shift_gradient: Option<Spot>,
    pub gate_gradient: Option<Spot>,
    pub accumulate: bool,
}

/// A problem with its data. In a backward one, `output` is where the input gradient goes, `sum` and `shift` count for nothing, and mean
/// and rstd are given. Without a residual the gate counts for nothing.
#[derive(Clone, Debug)]
pub struct Sample {
    pub backward: Option<Backward>,
    pub rows: usize,
    pub width: usize,
    pub normalization: Normalization,
    pub affine: Affine,
    pub zero_centred_weight: bool,
    pub variance: Variance,
    pub eps: f32,
    pub modulation: Modulation,
    pub rows_per_condition: usize,
    /// Rows of a sequence, where the normalization is causal. Mean and rstd then count for nothing in a backward problem.
    pub causal: Option<usize>,
    pub strategy: Option<Strategy>,
    pub input: Spot,
    pub residual: Option<Spot>,
    pub parameters: Spot,
    pub scale: Option<Spot>,
    pub shift: Option<Spot>,
    pub gate: Option<Spot>,
    pub output: Target,
    pub sum: Option<Target>,
    pub mean: Option<Spot>,
    pub rstd: Option<Spot>,
    /// All in one buffer, or each in its own.
    pub pooled: bool,
    /// As on a device whose bindings hold about so many rows.
    pub chunk_rows: Option<usize>,
    /// Rows that the count in a buffer on the device asks for, if there is one.
    pub row_count: Option<u32>,
    /// Rows that the prepared operation is set to, if it is.
    pub set_rows: Option<usize>,
    pub seed: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            backward: None,
            rows: 5,
            width: 33,
            normalization: Normalization::LayerNorm,
            affine: Affine::WeightAndBias,
            zero_centred_weight: false,
            variance: Variance::Biased,
            eps: 1e-5,
            modulation: Modulation::Adaptive,
            rows_per_condition: 1,
            causal: None,
            strategy: None,
            input: Spot::default(),
            residual: None,
            parameters: Spot::default(),
            scale: None,
            shift: None,
            gate: None,
            output: Target::Own(Spot::default()),
            sum: None,
            mean: None,
            rstd: None,
            pooled: false,
            chunk_rows: None,
            row_count: None,
            set_rows: None,
            seed: 1,
        }
    }
}

/// A tensor's place in the bytes of its buffer.
#[derive(Clone, Copy, Debug)]
struct Placed {
    role: Role,
    storage: StorageType,
    buffer: usize,
    offset: usize,
    stride: usize,
    rows: usize,
    width: usize,
}

impl Placed {
    fn byte(&self, row: usize, column: usize) -> usize {
        (self.offset + row * self.stride + column) * self.storage.bytes() as usize
    }

    fn get(&self, bytes: &[u8], row: usize, column: usize) -> f32 {
        let bytes = &bytes[self.byte(row, column)..];
        match self.storage {
            StorageType::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            StorageType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            StorageType::Bf16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        }
    }

    fn set(&self, bytes: &mut [u8], row: usize, column: usize, value: f32) {
        let at = self.byte(row, column);
        match self.storage {
            StorageType::F32 => bytes[at..at + 4].copy_from_slice(&value.to_le_bytes()),
            StorageType::F16 => bytes[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            StorageType::Bf16 => bytes[at..at + 2].copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
    }
}

/// A value as it is after it was stored.
pub fn stored(storage: StorageType, value: f32) -> f32 {
    match storage {
        StorageType::F32 => value,
        StorageType::F16 => f16::from_f32(value).to_f32(),
        StorageType::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

/// The distance between neighbouring numbers of a storage type at this magnitude.
pub fn unit_in_the_last_place(storage: StorageType, value: f64) -> f64 {
    let (digits, smallest) = match storage {
        StorageType::F32 => (23, -126),
        StorageType::F16 => (10, -14),
        StorageType::Bf16 => (7, -126),
    };
    let exponent = if value == 0.0 { smallest } else { (value.abs().log2().floor() as i32).max(smallest) };
    2_f64.powi(exponent - digits)
}

/// What is normalized.
struct Source {
    /// input + residual as f32 has it; with a gate, residual + gate · input in f64.
    values: Vec<f64>,
    /// What it may be in f32. With a gate, the product is rounded or goes into the sum as it is.
    sums: Vec<[f32; 2]>,
    /// With a gate, how far off the sum in f32 may be: by what the product and the sum round.
    slack: Option<Vec<f64>>,
}

/// A sample on a device.
pub struct Staged {
    plan: Plan,
    bindings: Bindings,
    placed: Vec<Placed>,
    /// Rows that are worked on.
    rows: usize,
    /// The bytes of each buffer.
    before: Vec<Vec<u8>>,
    /// What it is run on.
    pub buffers: Vec<wgpu::Buffer>,
}

/// Mean 0, standard deviation 1/4.
const FACTORS: Data = Data::Normal { mean: 0.0, std: 0.25 };

impl Sample {
    pub fn operation(&self) -> Operation {
        if self.backward.is_some() { Operation::Backward } else { Operation::Forward }
    }

    fn config(&self) -> LayerNormConfig {
        let config = match self.normalization {
            Normalization::LayerNorm => LayerNormConfig::new(self.width),
            Normalization::RmsNorm => LayerNormConfig::rms(self.width),
        };
        let config = config.affine(self.affine).zero_centred_weight(self.zero_centred_weight);
        let config = config.variance(self.variance).eps(self.eps).modulation(self.modulation);
        config.causal(self.causal.is_some()).expect_nothing()
    }

    /// The layer that it is run with.
    pub fn layer(&self, device: &GpuDevice) -> Result<GpuLayerNorm, String> {
        GpuLayerNorm::new(device, &self.config()).map_err(|error| error.to_string())
    }

    /// The conditions of so many rows.
    fn conditions(&self, rows: usize) -> usize {
        rows.div_ceil(self.rows_per_condition)
    }

    fn is_unbiased(&self) -> bool {
        self.variance == Variance::Unbiased
    }

    /// Without those that another pass has, or that take part only together with what this sample has not.
    fn condition_tensors(&self) -> [(Role, Option<Spot>); 3] {
        let is_forward = self.backward.is_none();
        [
            (Role::Scale, self.scale),
            (Role::Shift, self.shift.filter(|_| is_forward)),
            (Role::Gate, self.gate.filter(|_| self.residual.is_some())),
        ]
    }

    /// Whether the affine map's parameter is read. The gradient of the scale needs the bias that the scale multiplies.
    fn reads_parameter(&self, role: Role) -> bool {
        let needs_bias = |backward: Backward| {
            self.modulation == Modulation::Adaptive && self.scale.and(backward.scale_gradient).is_some()
        };
        role != Role::Bias || self.backward.is_none_or(needs_bias)
    }

    /// Every tensor's place, and the bytes that each buffer has.
    fn place(&self) -> (Vec<Placed>, Vec<usize>) {
        let mut placed: Vec<Placed> = Vec::new();
        let mut ends = Vec::new();
        let mut put = |role: Role, spot: Spot| {
            let (rows, width) = match role {
                _ if role.is_parameter() => (1, self.width),
                _ if role.is_statistic() => (self.rows, 1),
                _ if role.is_condition() => (self.conditions(self.rows), self.width),
                _ => (self.rows, self.width),
            };
            if !self.pooled || ends.is_empty() {
                ends.push(0_usize);
            }
            let buffer = ends.len() - 1;
            let size = spot.storage.bytes() as usize;
            let offset = ends[buffer].div_ceil(size) + spot.before;
            let stride = width + spot.between;
            let tensor = Placed { role, storage: spot.storage, buffer, offset, stride, rows, width };
            // Without the free elements behind the last row, so that the next tensor is its neighbour.
            ends[buffer] = tensor.byte(rows - 1, width);
            placed.push(tensor);
        };
        put(Role::Input, self.input);
        let is_given = self.causal.is_none() || self.backward.is_none();
        let [mean, rstd] = [self.mean, self.rstd].map(|spot| spot.filter(|_| is_given));
        let optional = [(Role::Residual, self.residual), (Role::Mean, mean), (Role::Rstd, rstd)];
        for (role, spot) in optional {
            if let Some(spot) = spot {
                put(role, spot);
            }
        }
        for &role in self.affine.parameters().iter().filter(|role| self.reads_parameter(**role)) {
            put(role, self.parameters);
        }
        for (role, spot) in self.condition_tensors() {
            if let Some(spot) = spot {
                put(role, spot);
            }
        }
        if let Some(backward) = self.backward {
            put(Role::OutputGradient, backward.output_gradient);
            let optional = [
                (Role::SumGradient, backward.sum_gradient),
                (Role::WeightGradient, backward.weight_gradient.filter(|_| self.affine.has_weight())),
                (Role::BiasGradient, backward.bias_gradient.filter(|_| self.affine.has_bias())),
                (Role::ScaleGradient, self.scale.and(backward.scale_gradient)),
                (Role::ShiftGradient, backward.shift_gradient),
                (Role::GateGradient, self.residual.and(self.gate).and(backward.gate_gradient)),
            ];
            for (role, spot) in optional {
                if let Some(spot) = spot {
                    put(role, spot);
                }
            }
        }
        let targets = match self.backward {
            None => [(Role::Output, Some(self.output)), (Role::Sum, self.sum)],
            Some(backward) => {
                let residual = backward.residual_gradient.filter(|_| self.residual.is_some());
                [(Role::InputGradient, Some(self.output)), (Role::ResidualGradient, residual)]
            }
        };
        for (role, target) in targets {
            if let Some(Target::Own(spot)) = target {
                put(role, spot);
            }
        }
        for (role, target) in targets {
            if let Some(Target::InPlaceOf(other)) = target {
                let other = *placed.iter().find(|tensor| tensor.role == other).expect("there is such a tensor");
                placed.push(Placed { role, ..other });
            }
        }
        (placed, ends.into_iter().map(|end| end.next_multiple_of(4)).collect())
    }

    /// The plan that it asks for.
    pub fn plan(&self, device: &GpuDevice, problem: &Problem) -> Result<Plan, Error> {
        let mut capabilities = *device.capabilities();
        if let Some(rows) = self.chunk_rows {
            let (placed, _) = self.place();
            let stride = placed.iter().map(|tensor| tensor.byte(1, 0) - tensor.byte(0, 0)).max().unwrap_or(0);
            let alignment = u64::from(capabilities.storage_offset_alignment.max(32));
            // The sums that walks over the rows leave are bound too: those of two walks, two sums each; where there are conditions, up
            // to three sums each, and what is carried from one chunk to the next.
            let has_conditions = placed.iter().any(|tensor| tensor.role.is_condition());
            let sums = match (&self.backward, has_conditions) {
                (None, _) => 0,
                (Some(_), false) => 16 * self.width,
                (Some(_), true) => 48 * self.width,
            };
            capabilities.max_binding_bytes = (rows * stride).max(sums) as u64 + alignment + 4;
        }
        match self.strategy {
            None => Plan::new(problem, &capabilities),
            Some(strategy) => match Plan::with_strategy(problem, &capabilities, strategy) {
                // Not every strategy can run everything.
                Err(Error::Strategy { .. }) => Plan::new(problem, &capabilities),
                decided => decided,
            },
        }
    }

    /// Submits it with a plan of the caller's choice.
    pub fn start(
        &self,
        device: &GpuDevice,
        layer: &GpuLayerNorm,
        plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
    ) -> Result<Staged, String> {
        let staged = self.stage(device, layer, plan)?;
        let failed = |error: Error| format!("{}: {error}", staged.plan);
        let mut prepared = layer.prepare_plan(device, staged.plan.clone(), &staged.bindings).map_err(failed)?;
        if let Some(rows) = self.set_rows {
            prepared.set_rows(rows as u64).map_err(failed)?;
        }
        submit(device, &prepared);
        Ok(staged)
    }

    /// Compares every byte of every buffer with what should be there.
    pub fn compare(&self, staged: Staged, after: &[Vec<u8>]) -> Result<(), String> {
        let Staged { plan, placed, rows, before, .. } = staged;
        let compared = match self.backward {
            None => self.compare_outputs(&placed, rows, before, after),
            Some(backward) => self.compare_gradients(&placed, rows, before, after, backward),
        };
        compared.map_err(|error| format!("{plan}: {error}"))
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Sample {
    /// Runs it, and compares every byte of every buffer with what should be there.
    pub fn check(&self, device: &GpuDevice) -> Result<(), String> {
        self.check_with(device, &self.layer(device)?, |problem| self.plan(device, problem))
    }

    /// As [`check`](Self::check), where the device binds buffers enough ([`where_it_fits`]).
    pub fn check_where_it_fits(&self, device: &GpuDevice) -> Result<(), String> {
        where_it_fits(device, self.check(device))
    }

    /// As [`check`](Self::check), with a layer and a plan of the caller's choice.
    pub fn check_with(
        &self,
        device: &GpuDevice,
        layer: &GpuLayerNorm,
        plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
    ) -> Result<(), String> {
        let (staged, after) = self.run(device, layer, plan)?;
        self.compare(staged, &after)
    }

    /// As [`check_with`](Self::check_with), by bare calls, with WGSL of the caller's choice in place of the kernels' own. Each tensor
    /// must have a buffer of its own, from its beginning on.
    pub fn check_wgsl(
        &self,
        device: &GpuDevice,
        layer: &GpuLayerNorm,
        plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
        wgsl: impl Fn(&Kernel) -> String,
    ) -> Result<(), String> {
        let staged = self.stage(device, layer, plan)?;
        let Staged { plan, placed, before, .. } = &staged;
        assert!(placed.iter().enumerate().all(|(i, tensor)| tensor.buffer == i && tensor.offset == 0));
        let mut tensors: Vec<_> =
            placed.iter().zip(before).map(|(tensor, bytes)| (tensor.role, bytes.clone())).collect();
        bare::run(device, plan, |kernel| bare::wgsl(wgsl(kernel)), &mut tensors);
        let after: Vec<_> = tensors.into_iter().map(|(_, bytes)| bytes).collect();
        self.compare(staged, &after)
    }

    /// Compares with what this sample asks for what another one gives, which has the same tensors with the same data.
    pub fn check_another(&self, device: &GpuDevice, other: &Self) -> Result<(), String> {
        let plan = |problem: &Problem| Plan::new(problem, device.capabilities());
        let (staged, after) = other.run(device, &other.layer(device)?, plan)?;
        self.compare(staged, &after)
    }

    /// The bytes of every buffer after it was run.
    pub fn bytes(
        &self,
        device: &GpuDevice,
        layer: &GpuLayerNorm,
        plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
    ) -> Result<Vec<Vec<u8>>, String> {
        Ok(self.run(device, layer, plan)?.1)
    }

    fn run(
        &self,
        device: &GpuDevice,
        layer: &GpuLayerNorm,
        plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
    ) -> Result<(Staged, Vec<Vec<u8>>), String> {
        let staged = self.start(device, layer, plan)?;
        let after = staged.buffers.iter().map(|buffer| download(device, buffer)).collect();
        Ok((staged, after))
    }
}

impl Sample {
    /// Uploads everything.
    fn stage(
        &self,
        device: &GpuDevice,
        layer: &GpuLayerNorm,
        plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
    ) -> Result<Staged, String> {
        let (placed, sizes) = self.place();
        let before = self.data(&placed, sizes);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let buffers: Vec<_> = before.iter().map(|bytes| upload(device, usage, bytes)).collect();
        let mut bindings = self.bindings(&placed, &buffers);
        let mut rows = self.rows.min(self.set_rows.unwrap_or(self.rows));
        if let Some(count) = self.row_count {
            let words: Vec<u8> = [u32::MAX, 77, count].iter().flat_map(|word| word.to_le_bytes()).collect();
            bindings = bindings.row_count(&upload(device, wgpu::BufferUsages::STORAGE, &words), 2);
            rows = rows.min(count as usize);
        }
        let problem = layer.problem(device, &bindings).map_err(|error| error.to_string())?;
        let plan = plan(&problem).map_err(|error| error.to_string())?;
        Ok(Staged { plan, bindings, placed, rows, before, buffers })
    }

    /// The bytes of the buffers before it is run: what is read in what is read, and anything elsewhere.
    fn data(&self, placed: &[Placed], sizes: Vec<usize>) -> Vec<Vec<u8>> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut before: Vec<Vec<u8>> = sizes.iter().map(|&size| (0..size).map(|_| rng.random()).collect()).collect();
        let accumulates = self.backward.is_some_and(|backward| backward.accumulate);
        for tensor in placed {
            let is_old = tensor.role.is_sum() && accumulates;
            let is_given = self.operation().reads(tensor.role) && !tensor.role.is_statistic();
            if !is_old && !is_given {
                continue;
            }
            let data = match tensor.role {
                Role::Scale | Role::Shift => FACTORS,
                role if role.is_parameter() || role == Role::Gate || gradients::is_gradient(role) => Data::STANDARD,
                _ => Data::Normal { mean: 3.0, std: 2.0 },
            };
            let seed = self.seed ^ tensor.role as u64;
            for (i, value) in data.values(tensor.rows, tensor.width, seed).into_iter().enumerate() {
                let bytes = &mut before[tensor.buffer];
                tensor.set(bytes, i / tensor.width, i % tensor.width, value);
            }
        }
        if self.backward.is_some() {
            let source = self.source(placed, &before, self.rows);
            for (row, of) in self.statistics(&source.values).into_iter().enumerate() {
                let RowStatistics { mean, rstd } = of;
                for (role, value) in [(Role::Mean, mean), (Role::Rstd, rstd)] {
                    if let Some(tensor) = find(placed, role) {
                        tensor.set(&mut before[tensor.buffer], row, 0, value as f32);
                    }
                }
            }
        }
        before
    }

    fn bindings(&self, placed: &[Placed], buffers: &[wgpu::Buffer]) -> Bindings {
        let region = |role: Role| {
            find(placed, role).map(|tensor| {
                let region = Region::new(&buffers[tensor.buffer], tensor.storage).offset(tensor.offset as u64);
                if tensor.stride == tensor.width { region } else { region.row_stride(tensor.stride as u64) }
            })
        };
        let rows = self.rows as u64;
        let of = |role: Role| region(role).expect("a tensor that every problem has");
        let mut bindings = match self.backward {
            None => Bindings::new(rows, of(Role::Input), of(Role::Output)),
            Some(backward) => {
                let (output_gradient, input_gradient) = (of(Role::OutputGradient), of(Role::InputGradient));
                let bindings = Bindings::backward(rows, of(Role::Input), output_gradient, input_gradient);
                bindings.accumulate(backward.accumulate)
            }
        };
        bindings = with_optional(bindings, region);
        if placed.iter().any(|tensor| tensor.role.is_condition()) {
            bindings = bindings.rows_per_condition(self.rows_per_condition as u64);
        }
        if let Some(length) = self.causal {
            bindings = bindings.sequence_length(length as u64);
        }
        bindings
    }

    /// What is normalized, of the first rows.
    fn source(&self, placed: &[Placed], bytes: &[Vec<u8>], rows: usize) -> Source {
        let of = |role: Role| find(placed, role);
        let (residual, gate) = (of(Role::Residual), of(Role::Gate));
        let input = of(Role::Input).expect("an input");
        let at = |tensor: &Placed, row: usize, column: usize| tensor.get(&bytes[tensor.buffer], row, column);
        let count = rows * self.width;
        let (mut values, mut sums) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut slack = gate.map(|_| Vec::with_capacity(count));
        for i in 0..count {
            let (row, column) = (i / self.width, i % self.width);
            let x = at(input, row, column);
            let residual = residual.map_or(0.0, |tensor| at(tensor, row, column));
            match (gate, &mut slack) {
                (Some(gate), Some(slack)) => {
                    let gate = at(gate, row / self.rows_per_condition, column);
                    sums.push([gate.mul_add(x, residual), gate * x + residual]);
                    let product = f64::from(gate) * f64::from(x);
                    let sum = f64::from(residual) + product;
                    values.push(sum);
                    slack.push(f64::from(f32::EPSILON) / 2.0 * (product.abs() + sum.abs()));
                }
                _ => {
                    sums.push([x + residual; 2]);
                    values.push(f64::from(x + residual));
                }
            }
        }
        Source { values, sums, slack }
    }

    /// Those of every row.
    fn statistics(&self, source: &[f64]) -> Vec<RowStatistics> {
        let (eps, unbiased) = (f64::from(self.eps), self.is_unbiased());
        gradients::all_statistics(self.normalization, source, self.width, self.causal, eps, unbiased)
    }

    /// The values of the first rows of a tensor, if there is one.
    fn values(&self, placed: &[Placed], bytes: &[Vec<u8>], role: Role, rows: usize) -> Option<Vec<f64>> {
        let tensor = find(placed, role)?;
        let at = |i| tensor.get(&bytes[tensor.buffer], i / self.width, i % self.width);
        Some((0..rows * self.width).map(|i| f64::from(at(i))).collect())
    }

    /// The weight, if there is one.
    fn weight(&self, placed: &[Placed], bytes: &[Vec<u8>]) -> Option<Vec<f64>> {
        let one = if self.zero_centred_weight { 1.0 } else { 0.0 };
        let weight = self.values(placed, bytes, Role::Weight, 1)?;
        Some(weight.into_iter().map(|weight| weight + one).collect())
    }

    fn compare_gradients(
        &self,
        placed: &[Placed],
        rows: usize,
        mut expected: Vec<Vec<u8>>,
        after: &[Vec<u8>],
        backward: Backward,
    ) -> Result<(), String> {
        let before = expected.clone();
        let width = self.width;
        let conditions = self.conditions(rows);
        let values = |role: Role, rows: usize| self.values(placed, &before, role, rows);
        let source = self.source(placed, &before, rows);
        let output_gradient = values(Role::OutputGradient, rows).expect("an output gradient");
        let (weight, bias) = (self.weight(placed, &before), values(Role::Bias, 1));
        let scale = values(Role::Scale, conditions);
        let bounds = Bounds::of(&Pass {
            normalization: self.normalization,
            eps: f64::from(self.eps),
            unbiased: self.is_unbiased(),
            width,
            causal: self.causal,
            source: &source.values,
            slack: source.slack.as_deref(),
            output_gradient: &output_gradient,
            weight: weight.as_deref(),
            bias: bias.as_deref(),
            condition: Condition {
                modulation: self.modulation,
                rows_per_condition: self.rows_per_condition,
                scale: scale.as_deref(),
                shift: None,
            },
        });

        // By what is normalized; with a gate, by the input and by the gate.
        let mut sum = bounds.exact.input.clone();
        if let Some(more) = values(Role::SumGradient, rows) {
            sum.iter_mut().zip(more).for_each(|(gradient, more)| *gradient += more);
        }
        let input = values(Role::Input, rows).expect("an input");
        let gate = values(Role::Gate, conditions);
        let (mut by_input, mut by_input_bounds) = (sum.clone(), bounds.input.clone());
        let mut by_gate = vec![0.0; conditions * width];
        let mut by_gate_bounds = by_gate.clone();
        if let Some(gate) = &gate {
            for (i, &gradient) in sum.iter().enumerate() {
                let (row, column) = (i / width, i % width);
                let condition = row / self.rows_per_condition;
                let of_condition = condition * width + column;
                // The gradient in f32, and the sum with the gradient from elsewhere is rounded too.
                let allowed = bounds.input[i] + f64::from(f32::EPSILON) * gradient.abs();
                by_input[i] = gradient * gate[of_condition];
                by_input_bounds[i] = allowed * gate[of_condition].abs();
                let terms = self.rows_per_condition.min(rows - condition * self.rows_per_condition);
                by_gate[of_condition] += gradient * input[i];
                by_gate_bounds[of_condition] += input[i].abs() * (allowed + chain_bound(width, terms) * gradient.abs());
            }
        }

        let all_conditions = self.conditions(self.rows);
        let mut compare = |role: Role, exact: &[f64], allowed: &[f64]| {
            let Some(tensor) = find(placed, role) else { return Ok(()) };
            let old = if role.is_sum() && backward.accumulate { values(role, tensor.rows) } else { None };
            // Conditions that have no row left have no terms.
            let none = if role.is_condition() { (all_conditions - conditions) * width } else { 0 };
            let exact = exact.iter().copied().chain(std::iter::repeat_n(0.0, none));
            let allowed = allowed.iter().copied().chain(std::iter::repeat_n(0.0, none));
            for (i, (exact, allowed)) in exact.zip(allowed).enumerate() {
                let (row, column) = (i / width, i % width);
                let found = tensor.get(&after[tensor.buffer], row, column);
                let exact = exact + old.as_ref().map_or(0.0, |old| old[i]);
                // What nothing is added to is not rounded.
                let storage = if allowed == 0.0 { 0.0 } else { unit_in_the_last_place(tensor.storage, exact) };
                let error = (f64::from(found) - exact).abs();
                if error.is_nan() || error > allowed + storage {
                    return Err(format!(
                        "{role} at row {row}, {column}: {found:e} in place of {exact:e}, {error:e} off where {:e} is allowed",
                        allowed + storage
                    ));
                }
                tensor.set(&mut expected[tensor.buffer], row, column, found);
            }
            Ok(())
        };
        compare(Role::InputGradient, &by_input, &by_input_bounds)?;
        compare(Role::ResidualGradient, &sum, &bounds.input)?;
        compare(Role::WeightGradient, &bounds.exact.weight, &bounds.weight)?;
        compare(Role::BiasGradient, &bounds.exact.bias, &bounds.bias)?;
        compare(Role::ScaleGradient, &bounds.exact.scale, &bounds.scale)?;
        compare(Role::ShiftGradient, &bounds.exact.shift, &bounds.shift)?;
        compare(Role::GateGradient, &by_gate, &by_gate_bounds)?;
        untouched(placed, &expected, after)
    }

    fn compare_outputs(
        &self,
        placed: &[Placed],
        rows: usize,
        mut expected: Vec<Vec<u8>>,
        after: &[Vec<u8>],
    ) -> Result<(), String> {
        let width = self.width;
        let values = |role: Role, rows: usize| self.values(placed, &expected, role, rows);
        let source = self.source(placed, &expected, rows);
        let (weight, bias) = (self.weight(placed, &expected), values(Role::Bias, 1));
        let conditions = self.conditions(rows);
        let (scales, shifts) = (values(Role::Scale, conditions), values(Role::Shift, conditions));
        let condition = Condition {
            modulation: self.modulation,
            rows_per_condition: self.rows_per_condition,
            scale: scales.as_deref(),
            shift: shifts.as_deref(),
        };
        let (of_weight, of_bias) = (weight.as_deref(), bias.as_deref());
        let (eps, unbiased) = (f64::from(self.eps), self.is_unbiased());
        let statistics = self.statistics(&source.values);
        let normalized = gradients::all_normalized(&source.values, width, &statistics);
        let at = |tensor: &Option<Vec<f64>>, i: usize, absent| tensor.as_ref().map_or(absent, |all| all[i]);
        let exact = match self.normalization {
            // There is no reference for causal and modulated at once.
            _ if self.causal.is_some() => {
                let of = |(i, x): (usize, &f64)| {
                    let column = i % width;
                    let of_condition = i / width / self.rows_per_condition * width + column;
                    let (weight, bias) = (at(&weight, column, 1.0), at(&bias, column, 0.0));
                    let (scale, shift) = (at(&scales, of_condition, 0.0), at(&shifts, of_condition, 0.0));
                    match self.modulation {
                        Modulation::Adaptive => (x * weight + bias) * (1.0 + scale) + shift,
                        Modulation::Conditional => x * (weight + scale) + (bias + shift),
                    }
                };
                normalized.iter().enumerate().map(of).collect()
            }
            Normalization::LayerNorm => {
                reference::modulated_layer_norm(&source.values, width, of_weight, of_bias, &condition, eps, unbiased)
            }
            Normalization::RmsNorm => {
                reference::modulated_rms_norm(&source.values, width, of_weight, of_bias, &condition, eps)
            }
        };
        let is_modulated = scales.is_some() || shifts.is_some();
        let all_moves = source.slack.as_ref().map(|slack| {
            Moves::of_rows(self.normalization, unbiased, width, self.causal, slack, &normalized, &statistics)
        });
        let no_moves = Moves::none(width);

        for row in 0..rows {
            let RowStatistics { mean, rstd } = statistics[row];
            let normalized = &normalized[row * width..(row + 1) * width];
            let moves = all_moves.as_ref().map_or(&no_moves, |all| &all[row]);
            for (role, exact, allowed) in [
                (Role::Mean, mean, mean.abs() * 1.2e-7 + 1e-6 / rstd + moves.mean),
                (Role::Rstd, rstd, rstd * (rstd_bound(width) + moves.rstd)),
            ] {
                if let Some(tensor) = find(placed, role) {
                    let found = tensor.get(&after[tensor.buffer], row, 0);
                    let error = (f64::from(found) - exact).abs();
                    if error.is_nan() || error > allowed {
                        return Err(format!("{role} of row {row}: {found:e} in place of {exact:e}"));
                    }
                    tensor.set(&mut expected[tensor.buffer], row, 0, found);
                }
            }
            for (column, &normalized) in normalized.iter().enumerate() {
                let i = row * width + column;
                if let Some(tensor) = find(placed, Role::Sum) {
                    let found = tensor.get(&after[tensor.buffer], row, column);
                    let exact = source.sums[i].map(|sum| stored(tensor.storage, sum));
                    if exact.iter().all(|exact| found.to_bits() != exact.to_bits()) {
                        let [exact, other] = exact;
                        return Err(format!(
                            "sum at row {row}, {column}: {found:e} in place of {exact:e} or {other:e}"
                        ));
                    }
                    tensor.set(&mut expected[tensor.buffer], row, column, found);
                }
                let of_condition = row / self.rows_per_condition * width + column;
                let (weight, bias) = (at(&weight, column, 1.0), at(&bias, column, 0.0));
                let (by, shift) = (at(&scales, of_condition, 0.0), at(&shifts, of_condition, 0.0));
                // What x̂ is multiplied by, the magnitudes of what that is made of, and those of what is added.
                let (factor, terms, added) = match self.modulation {
                    Modulation::Adaptive => {
                        let terms = 1.0 + by.abs();
                        (weight * (1.0 + by), weight.abs() * terms, bias.abs() * terms + shift.abs())
                    }
                    Modulation::Conditional => (weight + by, weight.abs() + by.abs(), bias.abs() + shift.abs()),
                };
                let exact = exact[i];
                // What 1 + weight, the product and the sum round; with a condition up to five times each product that x̂ is in, and up
                // to three times what is added, half a unit in the last place each time.
                let rounded = if is_modulated {
                    3.0 * normalized.abs() * terms + 2.0 * added + exact.abs()
                } else {
                    (normalized * weight).abs() + exact.abs()
                };
                let rounding = f64::from(f32::EPSILON) * rounded;
                let tensor = find(placed, Role::Output).expect("an output");
                let storage = match tensor.storage {
                    StorageType::F32 => 0.0,
                    storage => unit_in_the_last_place(storage, exact),
                };
                // What x̂ may be off, and the rounding to storage.
                let of_normalized = error_bound(width) * scale(normalized) + moves.normalized[column];
                let allowed = of_normalized * factor.abs() + rounding + storage;
                let found = tensor.get(&after[tensor.buffer], row, column);
                let error = (f64::from(found) - exact).abs();
                if error.is_nan() || error > allowed {
                    return Err(format!(
                        "output at row {row}, {column}: {found:e} in place of {exact:e}, {error:e} off where {allowed:e} is \
                         allowed"
                    ));
                }
                tensor.set(&mut expected[tensor.buffer], row, column, found);
            }
        }
        untouched(placed, &expected, after)
    }
}

/// A check, but a device that binds too few buffers for it passes, unless it binds as many as anything needs.
pub fn where_it_fits(device: &GpuDevice, checked: Result<(), String>) -> Result<(), String> {
    let buffers = device.capabilities().max_storage_buffers;
    match checked {
        Err(error) if buffers < ENOUGH_BUFFERS && error.contains("storage buffers a shader") => Ok(()),
        decided => decided,
    }
}

/// The tensor in a role, if there is one.
fn find(placed: &[Placed], role: Role) -> Option<&Placed> {
    placed.iter().find(|tensor| tensor.role == role)
}

/// That nothing was touched but what was found to be right and entered into what is expected.
fn untouched(placed: &[Placed], expected: &[Vec<u8>], after: &[Vec<u8>]) -> Result<(), String> {
    for (buffer, (expected, after)) in expected.iter().zip(after).enumerate() {
        if let Some(byte) = expected.iter().zip(after).position(|(a, b)| a != b) {
            return Err(format!("byte {byte} of buffer {buffer} was touched; the tensors are {placed:?}"));
        }
    }
    Ok(())
}

/// A buffer with these bytes; the usage gains what the upload needs.
pub fn upload(device: &GpuDevice, usage: wgpu::BufferUsages, bytes: &[u8]) -> wgpu::Buffer {
    use wgpu::util::DeviceExt as _;
    device.device().create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents: bytes, usage })
}

/// The bytes of a buffer, which must have `COPY_SRC`.
#[cfg(not(target_arch = "wasm32"))]
pub fn download(device: &GpuDevice, buffer: &wgpu::Buffer) -> Vec<u8> {
    let staging = device.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: buffer.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    device.queue().submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |_| {});
    device.wait().expect("the device is there");
    let bytes = staging.get_mapped_range(..).expect("mapped").to_vec();
    staging.unmap();
    bytes
}

/// With the regions of the tensors that a problem need not have, as far as it has them.
pub fn with_optional(mut bindings: Bindings, region: impl Fn(Role) -> Option<Region>) -> Bindings {
    for (role, with) in [
        (Role::Residual, Bindings::residual as fn(Bindings, Region) -> Bindings),
        (Role::Sum, Bindings::sum),
        (Role::Mean, Bindings::mean),
        (Role::Rstd, Bindings::rstd),
        (Role::Weight, Bindings::weight),
        (Role::Bias, Bindings::bias),
        (Role::Scale, Bindings::scale),
        (Role::Shift, Bindings::shift),
        (Role::Gate, Bindings::gate),
        (Role::SumGradient, Bindings::sum_gradient),
        (Role::WeightGradient, Bindings::weight_gradient),
        (Role::BiasGradient, Bindings::bias_gradient),
        (Role::ResidualGradient, Bindings::residual_gradient),
        (Role::ScaleGradient, Bindings::scale_gradient),
        (Role::ShiftGradient, Bindings::shift_gradient),
        (Role::GateGradient, Bindings::gate_gradient),
    ] {
        if let Some(region) = region(role) {
            bindings = with(bindings, region);
        }
    }
    bindings
}
