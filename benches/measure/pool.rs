//! The buffers of the cases, and what is checked in them.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::{Bindings, Error, GpuDevice, Region, StorageType, reference, wgpu};

use super::case::{Case, Operation};

/// The buffers of all cases up to a number of elements.
pub struct Pool {
    pub(super) device: GpuDevice,
    pub(super) input: wgpu::Buffer,
    pub(super) residual: wgpu::Buffer,
    pub(super) output: wgpu::Buffer,
    pub(super) sum: wgpu::Buffer,
    pub(super) elements: usize,
    // What input and residual hold.
    storage: Option<StorageType>,
}

impl Pool {
    pub fn new(device: &GpuDevice, elements: usize) -> Self {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let size = (elements as u64 * 4).next_multiple_of(16);
        let buffer = || {
            device.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("bench"),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let [input, residual, output, sum] = [(); 4].map(|()| buffer());
        Self { device: device.clone(), input, residual, output, sum, elements, storage: None }
    }

    /// As many elements as the device can bind, up to those wanted.
    pub fn elements(device: &GpuDevice, wanted: usize) -> usize {
        let capabilities = device.capabilities();
        let most = (capabilities.max_binding_bytes.min(capabilities.max_buffer_bytes) - 1024) / 4;
        wanted.min(most as usize)
    }

    /// Element `i` of the input (0) or the residual (1), as it is stored: a cheap sequence that no row repeats, from 0 to 1.
    pub fn value(storage: StorageType, which: u64, i: usize) -> f32 {
        let hash = (i as u64 * 2 + which).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value = (hash >> 40) as f32 / (1 << 24) as f32;
        match storage {
            StorageType::F32 => value,
            StorageType::F16 => f16::from_f32(value).to_f32(),
            StorageType::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    pub(super) fn fill(&mut self, storage: StorageType) -> Result<(), Error> {
        const PART: usize = 1 << 22;
        if self.storage == Some(storage) {
            return Ok(());
        }
        let bytes = storage.bytes() as usize;
        for (which, buffer) in [(0, &self.input), (1, &self.residual)] {
            for first in (0..self.elements).step_by(PART) {
                let values = (first..self.elements.min(first + PART)).map(|i| Self::value(storage, which, i));
                let mut part: Vec<u8> = match storage {
                    StorageType::F32 => values.flat_map(f32::to_le_bytes).collect(),
                    StorageType::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                    StorageType::Bf16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
                };
                part.resize(part.len().next_multiple_of(4), 0);
                self.device.queue().write_buffer(buffer, (first * bytes) as u64, &part);
                self.device.queue().submit([]);
                self.device.wait()?;
            }
        }
        self.storage = Some(storage);
        Ok(())
    }

    /// Elements of a buffer.
    pub(super) fn download(
        &self,
        buffer: &wgpu::Buffer,
        storage: StorageType,
        elements: std::ops::Range<usize>,
    ) -> Result<Vec<f32>, Error> {
        let bytes = storage.bytes();
        let (start, end) = (elements.start as u64 * bytes, elements.end as u64 * bytes);
        let from = start - start % 4;
        let size = end.next_multiple_of(4) - from;
        let gpu = self.device.device();
        let staging = gpu.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench staging"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, from, &staging, 0, size);
        self.device.queue().submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.wait()?;
        let view = staging.get_mapped_range(..).expect("mapped");
        let bytes = &view[(start - from) as usize..(end - from) as usize];
        let half = |bytes: &[u8]| [bytes[0], bytes[1]];
        Ok(match storage {
            StorageType::F32 => bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect(),
            StorageType::F16 => bytes.chunks_exact(2).map(|x| f16::from_le_bytes(half(x)).to_f32()).collect(),
            StorageType::Bf16 => bytes.chunks_exact(2).map(|x| bf16::from_le_bytes(half(x)).to_f32()).collect(),
        })
    }

    pub(super) fn bindings(&self, case: &Case) -> Bindings {
        let region = |buffer| Region::new(buffer, case.storage);
        let bindings = Bindings::new(case.rows as u64, region(&self.input), region(&self.output));
        match case.operation {
            Operation::Plain | Operation::Rms => bindings,
            Operation::Residual => bindings.residual(region(&self.residual)).sum(region(&self.sum)),
        }
    }

    /// Compares what the last run of a case left with the f64 reference, in all rows, or in the first, middle and last of them
    /// where they are many. Returns the largest error, the rounding to storage taken off.
    ///
    /// # Panics
    /// If the result is wrong: a wrong result has no time.
    pub(super) fn check(&self, case: &Case) -> Result<f64, Error> {
        const ALL: usize = 1 << 22;
        let &Case { operation, storage, rows, width } = case;
        let (block, firsts) = if case.elements() <= ALL {
            (rows, vec![0])
        } else {
            let some = (ALL / 4 / width).max(1);
            (some, vec![0, rows / 2, rows - some])
        };
        let (weight, bias) = (case.weight(), case.bias());
        // Half a unit in the last place.
        let rounding = match storage {
            StorageType::F32 => 0.0,
            StorageType::F16 => 2.0_f64.powi(-11),
            StorageType::Bf16 => 2.0_f64.powi(-8),
        };
        let mut largest = 0.0;
        for first in firsts {
            let elements = first * width..(first + block) * width;
            let source: Vec<f32> = elements
                .clone()
                .map(|i| match operation {
                    Operation::Plain | Operation::Rms => Self::value(storage, 0, i),
                    Operation::Residual => Self::value(storage, 0, i) + Self::value(storage, 1, i),
                })
                .collect();
            let expected = match operation {
                Operation::Rms => reference::rms_norm(&source, width, Some(&weight), None, f64::from(1e-5_f32)),
                _ => reference::layer_norm(&source, width, Some(&weight), Some(&bias), f64::from(1e-5_f32), false),
            };
            let output = self.download(&self.output, storage, elements.clone())?;
            for (y, exact) in output.iter().zip(expected) {
                let error = (f64::from(*y) - exact).abs() - exact.abs() * rounding;
                // f64::max would pass over a NaN.
                if error.is_nan() || error > largest {
                    largest = error;
                }
            }
            if operation == Operation::Residual {
                let sum = self.download(&self.sum, storage, elements)?;
                let wrong = sum.iter().zip(&source).any(|(sum, exact)| {
                    let error = f64::from((sum - exact).abs());
                    error.is_nan() || error > f64::from(exact.abs()) * rounding
                });
                assert!(!wrong, "{case:?}: a sum is wrong, not timed");
            }
        }
        assert!(largest <= 3e-6, "{case:?} is {largest:e} off the reference, not timed");
        Ok(largest)
    }
}
