//! A sample of the whole space of forward problems: storage types, regions, residual, statistics, places, buffers. It is run
//! on bytes, so that what must not be touched is seen to be untouched.

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::kernel::{Plan, Problem, Role};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, LayerNormConfig, Normalization, Region, StorageType, Strategy,
    Variance, reference, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

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

/// A forward problem with its data.
#[derive(Clone, Debug)]
pub struct Sample {
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
                Role::Weight | Role::Bias => (1, self.width),
                Role::Mean | Role::Rstd => (self.rows, 1),
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
        for &role in self.affine.parameters() {
            put(role, self.parameters);
        }
        for (role, target) in [(Role::Output, Some(self.output)), (Role::Sum, self.sum)] {
            if let Some(Target::Own(spot)) = target {
                put(role, spot);
            }
        }
        for (role, target) in [(Role::Output, Some(self.output)), (Role::Sum, self.sum)] {
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
            capabilities.max_binding_bytes = (rows * stride) as u64 + alignment + 4;
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
        for tensor in placed.iter().filter(|tensor| !tensor.role.is_written()) {
            let seed = self.seed ^ tensor.role as u64;
            let data = if tensor.role.is_parameter() { Data::STANDARD } else { Data::Normal { mean: 3.0, std: 2.0 } };
            for (i, value) in data.values(tensor.rows, tensor.width, seed).into_iter().enumerate() {
                let bytes = &mut before[tensor.buffer];
                tensor.set(bytes, i / tensor.width, i % tensor.width, value);
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
        let (input, output) = (region(Role::Input).expect("an input"), region(Role::Output).expect("an output"));
        let mut bindings = Bindings::new(self.rows as u64, input, output);
        for (role, with) in [
            (Role::Residual, Bindings::residual as fn(Bindings, Region) -> Bindings),
            (Role::Sum, Bindings::sum),
            (Role::Mean, Bindings::mean),
            (Role::Rstd, Bindings::rstd),
            (Role::Weight, Bindings::weight),
            (Role::Bias, Bindings::bias),
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
        self.compare(&placed, rows, before, &after).map_err(|error| format!("{what}: {error}"))
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
        let source = |row, column| match at(Role::Residual, row, column) {
            None => at(Role::Input, row, column).expect("an input"),
            Some(residual) => at(Role::Input, row, column).expect("an input") + residual,
        };
        let source: Vec<f32> = (0..rows)
            .flat_map(|row| (0..self.width).map(move |column| (row, column)))
            .map(|(r, c)| source(r, c))
            .collect();
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
            let statistics = reference::row_statistics(values, f64::from(self.eps), unbiased);
            let rstd = match self.normalization {
                Normalization::LayerNorm => statistics.rstd,
                Normalization::RmsNorm => reference::root_mean_square_rstd(values, f64::from(self.eps)),
            };
            for (role, exact, allowed) in [
                (Role::Mean, statistics.mean, statistics.mean.abs() * 1.2e-7 + 1e-6 / rstd),
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
        for (buffer, (expected, after)) in expected.iter().zip(after).enumerate() {
            if let Some(byte) = expected.iter().zip(after).position(|(a, b)| a != b) {
                return Err(format!("byte {byte} of buffer {buffer} was touched; the tensors are {placed:?}"));
            }
        }
        Ok(())
    }
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
