//! The buffers of the cases, and what is checked in them.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use std::ops::Range;

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::reference::{self, Condition};
use gpu_layer_norm::{Bindings, Error, GpuDevice, Modulation, Region, StorageType, wgpu};

use super::case::{Case, Operation, ROWS_PER_CONDITION};
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
    /// As long as the conditions of the cases so far.
    scale: wgpu::Buffer,
    shift: wgpu::Buffer,
    gate: wgpu::Buffer,
    pub(super) scale_gradient: wgpu::Buffer,
    pub(super) shift_gradient: wgpu::Buffer,
    pub(super) elements: usize,
    // What input and residual hold.
    storage: Option<StorageType>,
}

impl Pool {
    pub fn new(device: &GpuDevice, elements: usize) -> Self {
        let [input, residual, output, sum] = [elements; 4].map(|elements| buffer(device, elements));
        let [mean, rstd, weight_gradient, bias_gradient] = [1; 4].map(|elements| buffer(device, elements));
        let [scale, shift, gate, scale_gradient, shift_gradient] = [1; 5].map(|elements| buffer(device, elements));
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
            scale,
            shift,
            gate,
            scale_gradient,
            shift_gradient,
            elements,
            storage: None,
        }
    }

    /// Sees to it that there is a buffer for whatever a case has one f32 a row or a column of, or a row for each condition; and that
    /// the conditions are there.
    pub(super) fn make_room(&mut self, case: &Case) -> Result<(), Error> {
        let operation = case.operation;
        let if_so = |has: bool, elements: usize| if has { elements } else { 0 };
        let of_rows = if_so(operation.is_backward(), case.rows);
        let of_columns = if_so(operation.is_backward(), case.width);
        let of_conditions = if_so(operation.has_conditions(), case.conditions() * case.width);
        for (room, elements) in [
            (&mut self.mean, of_rows),
            (&mut self.rstd, of_rows),
            (&mut self.weight_gradient, of_columns),
            (&mut self.bias_gradient, of_columns),
            (&mut self.scale, of_conditions),
            (&mut self.shift, of_conditions),
            (&mut self.gate, of_conditions),
            (&mut self.scale_gradient, of_conditions),
            (&mut self.shift_gradient, of_conditions),
        ] {
            if room.size() < elements as u64 * 4 {
                *room = buffer(&self.device, elements);
            }
        }
        for (which, buffer) in [&self.scale, &self.shift, &self.gate].into_iter().enumerate() {
            self.write(buffer, case.storage, of_conditions, |i| Self::condition_value(case.storage, which, i))?;
        }
        Ok(())
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
        stored(storage, (hash >> 40) as f32 / (1 << 24) as f32)
    }

    /// Element `i` of the scale (0), from −0.5 to 0.5, of the shift (1), from −1 to 1, or of the gate (2), from 0.5 to 1.5, as it is
    /// stored. It is made as [`value`](Self::value) is, of elements past those of the input.
    pub fn condition_value(storage: StorageType, which: usize, i: usize) -> f32 {
        let value = Self::value(StorageType::F32, 0, i + ((which + 1) << 28));
        stored(storage, [value - 0.5, value * 2.0 - 1.0, value + 0.5][which])
    }

    pub(super) fn fill(&mut self, storage: StorageType) -> Result<(), Error> {
        if self.storage == Some(storage) {
            return Ok(());
        }
        for (which, buffer) in [(0, &self.input), (1, &self.residual)] {
            self.write(buffer, storage, self.elements, |i| Self::value(storage, which, i))?;
        }
        self.storage = Some(storage);
        Ok(())
    }

    /// Writes so many elements to the beginning of a buffer.
    fn write(
        &self,
        buffer: &wgpu::Buffer,
        storage: StorageType,
        elements: usize,
        value: impl Fn(usize) -> f32,
    ) -> Result<(), Error> {
        const PART: usize = 1 << 22;
        let bytes = storage.bytes() as usize;
        for first in (0..elements).step_by(PART) {
            let values = (first..elements.min(first + PART)).map(&value);
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
        let operation = case.operation;
        let mut bindings = if operation.is_backward() {
            Bindings::backward(rows, input, region(&self.residual), output)
                .weight_gradient(single(&self.weight_gradient))
                .bias_gradient(single(&self.bias_gradient))
        } else {
            Bindings::new(rows, input, output)
        };
        if operation.reads_statistics() {
            bindings = bindings.mean(single(&self.mean)).rstd(single(&self.rstd));
        }
        if operation.has_residual() {
            bindings = bindings.residual(region(&self.residual)).sum(region(&self.sum));
        }
        if operation == Operation::Gated {
            bindings = bindings.gate(region(&self.gate));
        }
        if operation.has_conditions() {
            bindings = bindings.scale(region(&self.scale)).rows_per_condition(ROWS_PER_CONDITION as u64);
            bindings = if operation.is_backward() {
                bindings.scale_gradient(single(&self.scale_gradient)).shift_gradient(single(&self.shift_gradient))
            } else {
                bindings.shift(region(&self.shift))
            };
        }
        if operation == Operation::ChannelsFirst {
            bindings = bindings.input_shape(case.image_shape());
        }
        if operation.is_causal() { bindings.sequence_length(case.sequence_length() as u64) } else { bindings }
    }

    /// The forward pass that saves what a backward pass reads; `None` for what needs none before it.
    pub(super) fn saving_statistics(&self, case: &Case) -> Option<Bindings> {
        let region = |buffer| Region::new(buffer, case.storage);
        let single = |buffer| Region::new(buffer, StorageType::F32);
        case.operation.reads_statistics().then(|| {
            Bindings::new(case.rows as u64, region(&self.input), region(&self.sum))
                .mean(single(&self.mean))
                .rstd(single(&self.rstd))
        })
    }

    /// What a case writes, where there is any of it.
    pub(super) fn written(&self) -> [&wgpu::Buffer; 6] {
        let Self { output, sum, weight_gradient, bias_gradient, scale_gradient, shift_gradient, .. } = self;
        [output, sum, weight_gradient, bias_gradient, scale_gradient, shift_gradient]
    }

    /// What a copy of the same bytes reads and writes.
    pub(super) fn moves(&self, case: &Case) -> Vec<(Vec<&wgpu::Buffer>, &wgpu::Buffer)> {
        let Self { input, residual, output, sum, .. } = self;
        match (case.operation.is_backward(), case.operation.has_residual()) {
            (true, _) => vec![(vec![input, residual], output)],
            (_, true) => vec![(vec![input], output), (vec![residual], sum)],
            _ => vec![(vec![input], output)],
        }
    }

    /// Compares what the last run of a case left with the f64 reference, in all rows, or in the first, middle and last of them
    /// where they are many. Returns the largest error, the rounding to storage taken off; that of an input's gradient as a share
    /// of what [`ExactGradients::input_error`] says.
    ///
    /// # Panics
    /// If the result is wrong: a wrong result has no time.
    pub(super) fn check(&self, case: &Case) -> Result<f64, Error> {
        if case.operation.is_backward() { self.check_gradients(case) } else { self.check_output(case, &self.output) }
    }

    /// Compares what a forward pass left in one of the buffers.
    ///
    /// # Panics
    /// If the result is wrong.
    pub(super) fn check_output(&self, case: &Case, written: &wgpu::Buffer) -> Result<f64, Error> {
        let &Case { operation, storage, width, .. } = case;
        let rounding = case.rounding();
        let exact = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
        let (weight, bias) = (exact(case.weight()), exact(case.bias()));
        let (of_weight, of_bias, eps) = (Some(&weight[..]), Some(&bias[..]), f64::from(1e-5_f32));
        // The product and the sum of a gate are rounded to f32; both terms are positive, so neither is larger than the sum.
        let sum_rounding = rounding + if operation == Operation::Gated { f64::from(f32::EPSILON) } else { 0.0 };
        let mut largest = 0.0;
        for elements in checked(case) {
            let [scale, shift, gate] = [0, 1, 2].map(|which| exact(self.conditions(case, which, &elements)));
            let values = |which| elements.clone().map(move |i| Self::value(storage, which, i));
            let source: Vec<f64> = match operation {
                Operation::Residual => exact(values(0).zip(values(1)).map(|(x, residual)| x + residual).collect()),
                Operation::Gated => {
                    let [input, residual] = [0, 1].map(|which| exact(values(which).collect()));
                    reference::gated_residual(&input, &residual, &gate, width, ROWS_PER_CONDITION)
                }
                _ => exact(values(0).collect()),
            };
            let expected = match operation {
                Operation::Rms => reference::rms_norm(&source, width, of_weight, None, eps),
                Operation::Modulated | Operation::Gated => {
                    let condition = Condition {
                        modulation: Modulation::Adaptive,
                        rows_per_condition: ROWS_PER_CONDITION,
                        scale: Some(&scale[..]),
                        shift: Some(&shift[..]),
                    };
                    reference::modulated_layer_norm(&source, width, of_weight, of_bias, &condition, eps, false)
                }
                Operation::Causal => {
                    // The last sequence may be shorter.
                    let of_sequence = |sequence: &[f64]| {
                        let length = sequence.len() / width;
                        reference::causal_layer_norm(sequence, length, width, of_weight, of_bias, eps, false)
                    };
                    source.chunks(case.sequence_length() * width).flat_map(of_sequence).collect()
                }
                Operation::ChannelsFirst => {
                    let [_, channels, pixels] = case.image_shape();
                    let of_image = |image: &[f64]| {
                        let rows = transposed(image, pixels);
                        transposed(&reference::layer_norm(&rows, channels, of_weight, of_bias, eps, false), channels)
                    };
                    source.chunks(channels * pixels).flat_map(of_image).collect()
                }
                _ => reference::layer_norm(&source, width, of_weight, of_bias, eps, false),
            };
            let output = self.download(written, storage, elements.clone())?;
            for (y, exact) in output.iter().zip(expected) {
                let error = (f64::from(*y) - exact).abs() - exact.abs() * rounding;
                // f64::max would pass over a NaN.
                if error.is_nan() || error > largest {
                    largest = error;
                }
            }
            if operation.has_residual() {
                let sum = self.download(&self.sum, storage, elements)?;
                let wrong = sum.iter().zip(&source).any(|(sum, exact)| {
                    let error = (f64::from(*sum) - exact).abs();
                    error.is_nan() || error > exact.abs() * sum_rounding
                });
                assert!(!wrong, "{case:?}: a sum is wrong, not timed");
            }
        }
        // x̂ is multiplied by up to 1.5 more where there is a scale.
        let bound = if operation.has_conditions() { 4.5e-6 } else { 3e-6 };
        assert!(largest <= bound, "{case:?} is {largest:e} off the reference, not timed");
        Ok(largest)
    }

    fn check_gradients(&self, case: &Case) -> Result<f64, Error> {
        let &Case { operation, storage, width, .. } = case;
        let (weight, bias) = (case.weight(), case.bias());
        let mut errors = Vec::new();
        for elements in checked(case) {
            let [input, output_gradient] =
                [0, 1].map(|which| elements.clone().map(|i| Self::value(storage, which, i)).collect::<Vec<_>>());
            let scale = self.conditions(case, 0, &elements);
            let exact = match operation {
                Operation::ModulatedBackward => {
                    let condition = Condition {
                        modulation: Modulation::Adaptive,
                        rows_per_condition: ROWS_PER_CONDITION,
                        scale: Some(&scale[..]),
                        shift: None,
                    };
                    ExactGradients::modulated(&input, &output_gradient, width, &weight, &bias, &condition)
                }
                Operation::CausalBackward => {
                    ExactGradients::causal(&input, &output_gradient, case.sequence_length(), width, Some(&weight))
                }
                _ => ExactGradients::new(&input, &output_gradient, width, Some(&weight)),
            };
            let input_gradient = self.download(&self.output, storage, elements.clone())?;
            errors.push(exact.input_error(&input_gradient, case.rounding()));
            if operation.has_conditions() {
                let values = condition_elements(case, &elements);
                let [scale, shift] = [&self.scale_gradient, &self.shift_gradient]
                    .map(|buffer| self.download(buffer, StorageType::F32, values.clone()));
                let error = exact.condition_error(&scale?, &shift?);
                assert!(error <= 1e-5, "{case:?}: a gradient of scale or shift is {error:e} off, not timed");
            }
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

    /// Scale (0), shift (1) or gate (2) of the conditions of these elements; nothing where the case has none.
    fn conditions(&self, case: &Case, which: usize, elements: &Range<usize>) -> Vec<f32> {
        let values = if case.operation.has_conditions() { condition_elements(case, elements) } else { 0..0 };
        values.map(|i| Self::condition_value(case.storage, which, i)).collect()
    }
}

/// The elements of scale, shift and gate that these elements, whole rows from the first of a condition on, are under.
fn condition_elements(case: &Case, elements: &Range<usize>) -> Range<usize> {
    let condition = ROWS_PER_CONDITION * case.width;
    elements.start / condition * case.width..elements.end.div_ceil(condition) * case.width
}

/// A matrix of so many columns with rows and columns exchanged.
fn transposed(matrix: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns).copied()).collect()
}

/// `value` as it is stored.
fn stored(storage: StorageType, value: f32) -> f32 {
    match storage {
        StorageType::F32 => value,
        StorageType::F16 => f16::from_f32(value).to_f32(),
        StorageType::Bf16 => bf16::from_f32(value).to_f32(),
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
/// Conditions, sequences and images among them are whole, so that of long sequences of wide rows they may still be all.
fn checked(case: &Case) -> Vec<Range<usize>> {
    const ALL: usize = 1 << 22;
    let &Case { operation, rows, width, .. } = case;
    let unit = match operation {
        _ if operation.is_causal() => case.sequence_length(),
        _ if operation.has_conditions() => ROWS_PER_CONDITION,
        Operation::ChannelsFirst => case.image_shape()[2],
        _ => 1,
    };
    let some = (ALL / 4 / width).max(1).next_multiple_of(unit);
    let blocks = if case.elements() <= ALL || some >= rows {
        std::iter::once(0..rows).collect()
    } else {
        let whole = |row: usize| row / unit * unit;
        let middle = whole(rows / 2);
        vec![0..some, middle..(middle + some).min(rows), whole(rows - some)..rows]
    };
    blocks.into_iter().map(|block| block.start * width..block.end * width).collect()
}
