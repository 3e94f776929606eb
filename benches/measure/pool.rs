//! The buffers of the cases, and what is checked in them.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use std::ops::Range;

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::{Bindings, Error, GpuDevice, Region, StorageType, reference, wgpu};

use super::case::{Case, Operation};
use super::gradients::ExactGradients;
use super::largest;

/// The buffers of all cases up to a number of elements.
pub struct Pool {
    pub(super) device: GpuDevice,
    pub(super) input: wgpu::Buffer,
    /// For a backward pass the output's gradient.
    pub(super) residual: wgpu::Buffer,
    /// For a backward pass the input's gradient.
    pub(super) output: wgpu::Buffer,
    /// For a backward pass the output of the forward pass before it.
    pub(super) sum: wgpu::Buffer,
    /// As long as the rows and columns of the backward passes so far.
    mean: wgpu::Buffer,
    rstd: wgpu::Buffer,
    pub(super) weight_gradient: wgpu::Buffer,
    pub(super) bias_gradient: wgpu::Buffer,
    pub(super) elements: usize,
    // What input and residual hold.
    storage: Option<StorageType>,
}

impl Pool {
    pub fn new(device: &GpuDevice, elements: usize) -> Self {
        let [input, residual, output, sum] = [elements; 4].map(|elements| buffer(device, elements));
        let [mean, rstd, weight_gradient, bias_gradient] = [1; 4].map(|elements| buffer(device, elements));
        Self {
            device: device.clone(),
            input,
            residual,
            output,
            sum,
            mean,
            rstd,
            weight_gradient,
            bias_gradient,
            elements,
            storage: None,
        }
    }

    /// Sees to it that there is a buffer for whatever a case has one f32 a row or a column of.
    pub(super) fn make_room(&mut self, case: &Case) {
        if case.operation != Operation::Backward {
            return;
        }
        for (room, elements) in [
            (&mut self.mean, case.rows),
            (&mut self.rstd, case.rows),
            (&mut self.weight_gradient, case.width),
            (&mut self.bias_gradient, case.width),
        ] {
            if room.size() < elements as u64 * 4 {
                *room = buffer(&self.device, elements);
            }
        }
    }

    /// As many elements as the device can bind, up to those wanted.
    pub fn elements(device: &GpuDevice, wanted: usize) -> usize {
        let capabilities = device.capabilities();
        let most = (capabilities.max_binding_bytes.min(capabilities.max_buffer_bytes) - 1024) / 4;
        wanted.min(most as usize)
    }

    /// Element `i` of the input (0) or the residual (1), as it is stored: a cheap sequence that no row repeats, from 0 to 1. The
    /// second is the first moved on by 0.618, and back by 1 where that is past 1: where it is the output's gradient, neither its
    /// mean nor its correlation with the input is 0, so that each term of the input's gradient counts, whatever the width.
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

    /// Bytes of a buffer, from one multiple of 4 to another.
    pub(super) fn bytes(&self, buffer: &wgpu::Buffer, bytes: Range<u64>) -> Result<Vec<u8>, Error> {
        let size = bytes.end - bytes.start;
        let gpu = self.device.device();
        let staging = gpu.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench staging"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, bytes.start, &staging, 0, size);
        self.device.queue().submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.wait()?;
        let view = staging.get_mapped_range(..).expect("mapped");
        Ok(view.to_vec())
    }

    /// Elements of a buffer.
    pub(super) fn download(
        &self,
        buffer: &wgpu::Buffer,
        storage: StorageType,
        elements: Range<usize>,
    ) -> Result<Vec<f32>, Error> {
        let bytes = storage.bytes();
        let (start, end) = (elements.start as u64 * bytes, elements.end as u64 * bytes);
        let from = start - start % 4;
        let words = self.bytes(buffer, from..end.next_multiple_of(4))?;
        let bytes = &words[(start - from) as usize..(end - from) as usize];
        let half = |bytes: &[u8]| [bytes[0], bytes[1]];
        Ok(match storage {
            StorageType::F32 => bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect(),
            StorageType::F16 => bytes.chunks_exact(2).map(|x| f16::from_le_bytes(half(x)).to_f32()).collect(),
            StorageType::Bf16 => bytes.chunks_exact(2).map(|x| bf16::from_le_bytes(half(x)).to_f32()).collect(),
        })
    }

    pub(super) fn bindings(&self, case: &Case) -> Bindings {
        let region = |buffer| Region::new(buffer, case.storage);
        let single = |buffer| Region::new(buffer, StorageType::F32);
        let (rows, input, output) = (case.rows as u64, region(&self.input), region(&self.output));
        match case.operation {
            Operation::Plain | Operation::Rms => Bindings::new(rows, input, output),
            Operation::Residual => {
                Bindings::new(rows, input, output).residual(region(&self.residual)).sum(region(&self.sum))
            }
            Operation::Backward => Bindings::backward(rows, input, region(&self.residual), output)
                .mean(single(&self.mean))
                .rstd(single(&self.rstd))
                .weight_gradient(single(&self.weight_gradient))
                .bias_gradient(single(&self.bias_gradient)),
        }
    }

    /// The forward pass that saves what a backward pass reads; `None` for what needs none before it.
    pub(super) fn saving_statistics(&self, case: &Case) -> Option<Bindings> {
        let region = |buffer| Region::new(buffer, case.storage);
        let single = |buffer| Region::new(buffer, StorageType::F32);
        (case.operation == Operation::Backward).then(|| {
            Bindings::new(case.rows as u64, region(&self.input), region(&self.sum))
                .mean(single(&self.mean))
                .rstd(single(&self.rstd))
        })
    }

    /// What a copy of the same bytes reads and writes.
    pub(super) fn moves(&self, case: &Case) -> Vec<(Vec<&wgpu::Buffer>, &wgpu::Buffer)> {
        let Self { input, residual, output, sum, .. } = self;
        match case.operation {
            Operation::Plain | Operation::Rms => vec![(vec![input], output)],
            Operation::Residual => vec![(vec![input], output), (vec![residual], sum)],
            Operation::Backward => vec![(vec![input, residual], output)],
        }
    }

    /// Compares what the last run of a case left with the f64 reference, in all rows, or in the first, middle and last of them
    /// where they are many. Returns the largest error, the rounding to storage taken off; that of an input's gradient as a share
    /// of what [`ExactGradients::input_error`] says.
    ///
    /// # Panics
    /// If the result is wrong: a wrong result has no time.
    pub(super) fn check(&self, case: &Case) -> Result<f64, Error> {
        match case.operation {
            Operation::Plain | Operation::Residual | Operation::Rms => self.check_output(case),
            Operation::Backward => self.check_gradients(case),
        }
    }

    fn check_output(&self, case: &Case) -> Result<f64, Error> {
        let &Case { operation, storage, width, .. } = case;
        let (weight, bias) = (case.weight(), case.bias());
        let rounding = case.rounding();
        let mut largest = 0.0;
        for elements in checked(case) {
            let source: Vec<f32> = elements
                .clone()
                .map(|i| match operation {
                    Operation::Residual => Self::value(storage, 0, i) + Self::value(storage, 1, i),
                    _ => Self::value(storage, 0, i),
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

    fn check_gradients(&self, case: &Case) -> Result<f64, Error> {
        let &Case { storage, width, .. } = case;
        let weight = case.weight();
        let mut errors = Vec::new();
        for elements in checked(case) {
            let [input, output_gradient] =
                [0, 1].map(|which| elements.clone().map(|i| Self::value(storage, which, i)).collect::<Vec<_>>());
            let exact = ExactGradients::new(&input, &output_gradient, width, Some(&weight));
            let input_gradient = self.download(&self.output, storage, elements.clone())?;
            errors.push(exact.input_error(&input_gradient, case.rounding()));
            // The gradients of weight and bias are sums over all rows. Where the tensors are so large that some rows must do, they
            // are not checked: the reference would take gigabytes, and many seconds for each plan.
            if elements.len() == case.elements() {
                let [weight, bias] = [&self.weight_gradient, &self.bias_gradient]
                    .map(|buffer| self.download(buffer, StorageType::F32, 0..width));
                let error = exact.parameter_error(&weight?, &bias?);
                assert!(error <= 1e-5, "{case:?}: a gradient of weight or bias is {error:e} off, not timed");
            }
        }
        let largest = largest(errors);
        assert!(largest <= 2e-6, "{case:?} is {largest:e} off the reference, not timed");
        Ok(largest)
    }
}

/// A buffer of so many f32, at least 16 bytes.
fn buffer(device: &GpuDevice, elements: usize) -> wgpu::Buffer {
    device.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("bench"),
        size: (elements as u64 * 4).next_multiple_of(16),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// The elements whose results are compared, whole rows: all, or those of the first, middle and last rows where they are many.
fn checked(case: &Case) -> Vec<Range<usize>> {
    const ALL: usize = 1 << 22;
    let &Case { rows, width, .. } = case;
    let (block, firsts) = if case.elements() <= ALL {
        (rows, vec![0])
    } else {
        let some = (ALL / 4 / width).max(1);
        (some, vec![0, rows / 2, rows - some])
    };
    firsts.into_iter().map(|first| first * width..(first + block) * width).collect()
}
