//! A sample of the whole space of problems, forward and backward: storage types, regions, residual, statistics, places, buffers. It is run
//! on bytes, so that what must not be touched is seen to be untouched.

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::kernel::{Plan, Problem, Role};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, LayerNormConfig, Normalization, Operation, Region, StorageType,
    Strategy, Variance, reference, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::gradients::{self, Bounds};
use super::{Data, error_bound, normalize, rstd_bound, scale, submit};

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

/// What a backward problem has that a forward one has not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backward {
    pub output_gradient: Spot,
    pub sum_gradient: Option<Spot>,
    pub weight_gradient: Option<Spot>,
    pub bias_gradient: Option<Spot>,
    pub accumulate: bool,
}

/// A problem with its data. In a backward one, `output` is where the input gradient goes, `sum` counts for nothing, and mean and rstd
/// are given.
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
    pub strategy: Option<Strategy>,
    pub input: Spot,
    pub residual: Option<Spot>,
    pub parameters: Spot,
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
            strategy: None,
            input: Spot::default(),
            residual: None,
            parameters: Spot::default(),
            output: Target::Own(Spot::default()),
            sum: None,
            mean: None,
            rstd: None,
            pooled: false,
            chunk_rows: None,
            row_count: None,
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
        config.variance(self.variance).eps(self.eps)
    }

    /// Every tensor's place, and the bytes that each buffer has.
    fn place(&self) -> (Vec<Placed>, Vec<usize>) {
        let mut placed: Vec<Placed> = Vec::new();
        let mut ends = Vec::new();
        let mut put = |role: Role, spot: Spot| {
            let (rows, width) = match role {
                _ if role.is_parameter() => (1, self.width),
                _ if role.is_statistic() => (self.rows, 1),
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
        let optional = [(Role::Residual, self.residual), (Role::Mean, self.mean), (Role::Rstd, self.rstd)];
        for (role, spot) in optional {
            if let Some(spot) = spot {
                put(role, spot);
            }
        }
        let operation = self.operation();
        for &role in self.affine.parameters().iter().filter(|role| operation.reads(**role)) {
            put(role, self.parameters);
        }
        if let Some(backward) = self.backward {
            put(Role::OutputGradient, backward.output_gradient);
            let optional = [
                (Role::SumGradient, backward.sum_gradient),
                (Role::WeightGradient, backward.weight_gradient.filter(|_| self.affine.has_weight())),
                (Role::BiasGradient, backward.bias_gradient.filter(|_| self.affine.has_bias())),
            ];
            for (role, spot) in optional {
                if let Some(spot) = spot {
                    put(role, spot);
                }
            }
        }
        let targets = match operation {
            Operation::Forward => [(Role::Output, Some(self.output)), (Role::Sum, self.sum)],
            Operation::Backward => [(Role::InputGradient, Some(self.output)), (Role::Sum, None)],
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

    /// Runs it, and compares every byte of every buffer with what should be there.
    pub fn check(&self, device: &GpuDevice) -> Result<(), String> {
        let layer = GpuLayerNorm::new(device, &self.config().expect_nothing()).map_err(|error| error.to_string())?;
        let mut capabilities = *device.capabilities();
        if let Some(rows) = self.chunk_rows {
            let (placed, _) = self.place();
            let stride = placed.iter().map(|tensor| tensor.byte(1, 0) - tensor.byte(0, 0)).max().unwrap_or(0);
            let alignment = u64::from(capabilities.storage_offset_alignment.max(32));
            // Those of two walks over the rows, with two sums each, are bound too.
            let sums = if self.backward.is_some() { 16 * self.width } else { 0 };
            capabilities.max_binding_bytes = (rows * stride).max(sums) as u64 + alignment + 4;
        }
        self.check_with(device, &layer, |problem| match self.strategy {
            None => Plan::new(problem, &capabilities),
            Some(strategy) => match Plan::with_strategy(problem, &capabilities, strategy) {
                // Not every strategy can run everything.
                Err(Error::Strategy { .. }) => Plan::new(problem, &capabilities),
                decided => decided,
            },
        })
    }

    /// As [`check`](Self::check), with a layer and a plan of the caller's choice.
    pub fn check_with(
        &self,
        device: &GpuDevice,
        layer: &GpuLayerNorm,
        plan: impl FnOnce(&Problem) -> Result<Plan, Error>,
    ) -> Result<(), String> {
        let (placed, sizes) = self.place();
        let find = |role: Role| placed.iter().find(|tensor| tensor.role == role);
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut before: Vec<Vec<u8>> = sizes.iter().map(|&size| (0..size).map(|_| rng.random()).collect()).collect();
        let accumulates = self.backward.is_some_and(|backward| backward.accumulate);
        for tensor in &placed {
            let is_old = tensor.role.is_parameter() && accumulates;
            let is_given = self.operation().reads(tensor.role) && !tensor.role.is_statistic();
            if !is_old && !is_given {
                continue;
            }
            let seed = self.seed ^ tensor.role as u64;
            let is_standard = tensor.role.is_parameter() || gradients::is_gradient(tensor.role);
            let data = if is_standard { Data::STANDARD } else { Data::Normal { mean: 3.0, std: 2.0 } };
            for (i, value) in data.values(tensor.rows, tensor.width, seed).into_iter().enumerate() {
                let bytes = &mut before[tensor.buffer];
                tensor.set(bytes, i / tensor.width, i % tensor.width, value);
            }
        }
        if self.backward.is_some() {
            let source = self.source(&placed, &before, self.rows);
            for (row, values) in source.chunks(self.width).enumerate() {
                for (role, value) in [Role::Mean, Role::Rstd].into_iter().zip(self.statistics(values)) {
                    if let Some(tensor) = find(role) {
                        tensor.set(&mut before[tensor.buffer], row, 0, value as f32);
                    }
                }
            }
        }

        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let buffers: Vec<_> = before.iter().map(|bytes| upload(device, usage, bytes)).collect();
        let region = |role: Role| {
            find(role).map(|tensor| {
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
        for (role, with) in [
            (Role::Residual, Bindings::residual as fn(Bindings, Region) -> Bindings),
            (Role::Sum, Bindings::sum),
            (Role::Mean, Bindings::mean),
            (Role::Rstd, Bindings::rstd),
            (Role::Weight, Bindings::weight),
            (Role::Bias, Bindings::bias),
            (Role::SumGradient, Bindings::sum_gradient),
            (Role::WeightGradient, Bindings::weight_gradient),
            (Role::BiasGradient, Bindings::bias_gradient),
        ] {
            if let Some(region) = region(role) {
                bindings = with(bindings, region);
            }
        }
        let mut rows = self.rows;
        if let Some(count) = self.row_count {
            let words: Vec<u8> = [u32::MAX, 77, count].iter().flat_map(|word| word.to_le_bytes()).collect();
            bindings = bindings.row_count(&upload(device, wgpu::BufferUsages::STORAGE, &words), 2);
            rows = rows.min(count as usize);
        }

        let problem = layer.problem(device, &bindings).map_err(|error| error.to_string())?;
        let plan = plan(&problem).map_err(|error| error.to_string())?;
        let what = plan.to_string();
        let prepared = layer.prepare_plan(device, plan, &bindings).map_err(|error| format!("{what}: {error}"))?;
        submit(device, &prepared);
        let after: Vec<Vec<u8>> = buffers.iter().map(|buffer| download(device, buffer)).collect();
        let compared = match self.backward {
            None => self.compare(&placed, rows, before, &after),
            Some(backward) => self.compare_gradients(&placed, rows, before, &after, backward),
        };
        compared.map_err(|error| format!("{what}: {error}"))
    }

    /// What is normalized: input + residual, of the first rows.
    fn source(&self, placed: &[Placed], bytes: &[Vec<u8>], rows: usize) -> Vec<f32> {
        let at = |role: Role, row: usize, column: usize| {
            let tensor = placed.iter().find(|tensor| tensor.role == role)?;
            Some(tensor.get(&bytes[tensor.buffer], row, column))
        };
        let source = |row, column| {
            at(Role::Input, row, column).expect("an input") + at(Role::Residual, row, column).unwrap_or(0.0)
        };
        (0..rows * self.width).map(|i| source(i / self.width, i % self.width)).collect()
    }

    /// Mean and rstd.
    fn statistics(&self, row: &[f32]) -> [f64; 2] {
        let statistics = reference::row_statistics(row, f64::from(self.eps), self.variance == Variance::Unbiased);
        match self.normalization {
            Normalization::LayerNorm => [statistics.mean, statistics.rstd],
            Normalization::RmsNorm => [0.0, reference::root_mean_square_rstd(row, f64::from(self.eps))],
        }
    }

    /// Every byte of a backward pass.
    fn compare_gradients(
        &self,
        placed: &[Placed],
        rows: usize,
        mut expected: Vec<Vec<u8>>,
        after: &[Vec<u8>],
        backward: Backward,
    ) -> Result<(), String> {
        let find = |role: Role| placed.iter().find(|tensor| tensor.role == role);
        let before = expected.clone();
        let values = |role: Role, rows: usize| -> Option<Vec<f32>> {
            let tensor = find(role)?;
            let at = |i| tensor.get(&before[tensor.buffer], i / self.width, i % self.width);
            Some((0..rows * self.width).map(at).collect())
        };
        let source = self.source(placed, &before, rows);
        let output_gradient = values(Role::OutputGradient, rows).expect("an output gradient");
        let one = if self.zero_centred_weight { 1.0 } else { 0.0 };
        let weight: Option<Vec<f32>> =
            values(Role::Weight, 1).map(|weight| weight.iter().map(|weight| weight + one).collect());
        let bounds = Bounds::new(
            (self.normalization, f64::from(self.eps), self.variance == Variance::Unbiased),
            self.width,
            &source,
            &output_gradient,
            weight.as_deref(),
        );
        let mut compare = |role: Role, exact: &[f64], allowed: &[f64], added: Option<Vec<f32>>| {
            let Some(tensor) = find(role) else { return Ok(()) };
            for (i, (&exact, &allowed)) in exact.iter().zip(allowed).enumerate() {
                let (row, column) = (i / self.width, i % self.width);
                let found = tensor.get(&after[tensor.buffer], row, column);
                let exact = exact + added.as_ref().map_or(0.0, |added| f64::from(added[i]));
                let storage = unit_in_the_last_place(tensor.storage, exact);
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
        let of_sum = values(Role::SumGradient, rows);
        let old = |role| if backward.accumulate { values(role, 1) } else { None };
        let (old_weight, old_bias) = (old(Role::WeightGradient), old(Role::BiasGradient));
        compare(Role::InputGradient, &bounds.exact.input, &bounds.input, of_sum)?;
        compare(Role::WeightGradient, &bounds.exact.weight, &bounds.weight, old_weight)?;
        compare(Role::BiasGradient, &bounds.exact.bias, &bounds.bias, old_bias)?;
        untouched(placed, &expected, after)
    }

    fn compare(
        &self,
        placed: &[Placed],
        rows: usize,
        mut expected: Vec<Vec<u8>>,
        after: &[Vec<u8>],
    ) -> Result<(), String> {
        let find = |role: Role| placed.iter().find(|tensor| tensor.role == role);
        let at = |role: Role, row: usize, column: usize| {
            find(role).map(|tensor| tensor.get(&expected[tensor.buffer], row, column))
        };
        let source = self.source(placed, &expected, rows);
        let unbiased = self.variance == Variance::Unbiased;
        let normalized = normalize(self.normalization, &source, self.width, self.eps, unbiased);
        let one = if self.zero_centred_weight { 1.0 } else { 0.0 };
        let parameters: Vec<(f64, f64)> = (0..self.width)
            .map(|column| {
                let weight = at(Role::Weight, 0, column).map_or(1.0, |weight| f64::from(weight) + one);
                (weight, f64::from(at(Role::Bias, 0, column).unwrap_or(0.0)))
            })
            .collect();

        for row in 0..rows {
            let values = &source[row * self.width..(row + 1) * self.width];
            let [mean, rstd] = self.statistics(values);
            for (role, exact, allowed) in [
                (Role::Mean, mean, mean.abs() * 1.2e-7 + 1e-6 / rstd),
                (Role::Rstd, rstd, rstd * rstd_bound(self.width)),
            ] {
                if let Some(tensor) = find(role) {
                    let found = tensor.get(&after[tensor.buffer], row, 0);
                    let error = (f64::from(found) - exact).abs();
                    if error.is_nan() || error > allowed {
                        return Err(format!("{role} of row {row}: {found:e} in place of {exact:e}"));
                    }
                    tensor.set(&mut expected[tensor.buffer], row, 0, found);
                }
            }
            for (column, &(weight, bias)) in parameters.iter().enumerate() {
                let i = row * self.width + column;
                if let Some(tensor) = find(Role::Sum) {
                    let found = tensor.get(&after[tensor.buffer], row, column);
                    let exact = stored(tensor.storage, source[i]);
                    if found.to_bits() != exact.to_bits() {
                        return Err(format!("sum at row {row}, {column}: {found:e} in place of {exact:e}"));
                    }
                    tensor.set(&mut expected[tensor.buffer], row, column, found);
                }
                let tensor = find(Role::Output).expect("an output");
                let found = tensor.get(&after[tensor.buffer], row, column);
                let exact = normalized[i] * weight + bias;
                // What x̂ may be off, what 1 + weight, the product and the sum round, and the rounding to storage.
                let rounding = f64::from(f32::EPSILON) * ((normalized[i] * weight).abs() + exact.abs());
                let storage = match tensor.storage {
                    StorageType::F32 => 0.0,
                    storage => unit_in_the_last_place(storage, exact),
                };
                let allowed = error_bound(self.width) * weight.abs() * scale(normalized[i]) + rounding + storage;
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
