//! Products, and the gradients of tables, by kernels whose float arithmetic was rewritten as a compiler for GPUs may rewrite it; on
//! lavapipe, which rewrites nothing itself. Kernels for GPUs run there too.
//!
//! A sample of the variants runs by default, and with `GPU_LAYER_NORM_REWRITINGS=all` all of them.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

use super::*;
use crate::Tensor;
use crate::kernel::{ENTRY_POINT, all_projection_kernels};

#[path = "../../../tests/common/rewrite.rs"]
mod rewrite;

const ROWS: usize = 5;
const COLUMNS: usize = 7;
/// No multiple of the terms that are added up as they come, nor of those that a tile has.
const TERMS: usize = 75;
/// Rows of a table.
const TABLE: usize = 4;

/// A matrix as the kernel reads it, in memory row by row or column by column.
struct Laid {
    values: Vec<f32>,
    row: usize,
    column: usize,
}

impl Laid {
    fn new(rows: usize, columns: usize, is_transposed: bool, mut value: impl FnMut() -> f32) -> Self {
        let values = (0..rows * columns).map(|_| value()).collect();
        let [row, column] = if is_transposed { [1, rows] } else { [columns, 1] };
        Self { values, row, column }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        f64::from(self.values[row * self.row + column * self.column])
    }

    fn upload(&self, device: &GpuDevice) -> GpuTensor {
        upload(device, &self.values)
    }
}

fn upload(device: &GpuDevice, values: &[f32]) -> GpuTensor {
    let tensor = Tensor::from_f32([values.len()], values.to_vec()).expect("a tensor");
    GpuTensor::upload(device, &tensor).expect("an upload")
}

/// An activation and its derivative.
fn activated(activation: Activation, x: f64) -> [f64; 2] {
    match activation {
        Activation::Identity => [x, 1.0],
        Activation::Relu => [x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }],
        Activation::Silu => {
            let share = 1.0 / (1.0 + (-x).exp());
            [x * share, share * (1.0 + x * (1.0 - share))]
        }
        Activation::Tanh => [x.tanh(), 1.0 - x.tanh() * x.tanh()],
    }
}

/// With other shaders in the place of the kernel's own.
fn rewritten(device: &GpuDevice, kernel: ProjectionKernel, step: Step, seed: u64) -> Step {
    let wgsl = kernel.wgsl();
    let module = naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&wgsl)));
    let module = rewrite::rewrite(&rewrite::inline(&module), rewrite::Rewriting::ALL, seed);
    let source = wgpu::ShaderSource::Naga(Cow::Owned(module));
    let gpu = device.device();
    let module = gpu.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let Pipeline { layout, .. } = device.pipeline(Shader::Projection(kernel)).expect("a pipeline");
    let layout = gpu.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&layout),
        module: &module,
        entry_point: Some(ENTRY_POINT),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    Step { pipeline, ..step }
}

/// Products of factors of these magnitudes, with terms that cancel in the first row.
fn check(device: &GpuDevice, kernel: ProjectionKernel, magnitudes: [f32; 2], seed: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (picked, finish, accumulate, transposed) = match kernel {
        ProjectionKernel::Product { sharing, picked, finish, accumulate } => {
            let transposed = match sharing {
                Sharing::Tiled { left_along_terms, right_along_terms, .. } => [!left_along_terms, right_along_terms],
                Sharing::Alone { .. } => [false, false],
            };
            (picked, finish, accumulate, transposed)
        }
        ProjectionKernel::TableGradient { .. } => {
            (Picked::Nothing, Finish::Activated(Activation::Identity), false, [false; 2])
        }
    };
    let is_table_gradient = matches!(kernel, ProjectionKernel::TableGradient { .. });
    let left_rows = if picked == Picked::Left { TABLE } else { ROWS };
    let right_rows = if picked == Picked::Right { TABLE } else { TERMS };
    let mut left = Laid::new(left_rows, TERMS, transposed[0], || magnitudes[0] * rng.sample::<f32, _>(StandardNormal));
    let right = Laid::new(right_rows, COLUMNS, transposed[1], || magnitudes[1] * rng.sample::<f32, _>(StandardNormal));
    for term in 0..TERMS - 1 {
        left.values[term * left.column] = magnitudes[0] * if term % 2 == 0 { 1e4 } else { -1e4 };
    }
    let mut around = |factor: f32, count: usize| {
        (0..count).map(|_| factor * rng.sample::<f32, _>(StandardNormal)).collect::<Vec<f32>>()
    };
    let old = around(magnitudes[0] * magnitudes[1], ROWS * COLUMNS);
    let before = around(2.0, ROWS * COLUMNS);
    // The first of them belongs to others, and one of those that count is too large: it stands for the largest there is.
    let categories: Vec<u32> = (0..=TERMS).map(|_| rng.random_range(0..TABLE as u32 + 1)).collect();
    let category = |sample: usize| (categories[1 + sample] as usize).min(TABLE - 1);

    let bytes = bytemuck::cast_slice(&categories);
    let categories = Categories {
        buffer: device.create_buffer_with("categories", wgpu::BufferUsages::STORAGE, bytes).expect("a buffer"),
        first: 1,
        batch: if picked == Picked::Left { ROWS } else { TERMS },
    };
    let result_rows = if is_table_gradient { TABLE } else { ROWS };
    let (left_tensor, right_tensor) = (left.upload(device), right.upload(device));
    let (result, before_tensor) = (upload(device, &old[..result_rows * COLUMNS]), upload(device, &before));
    let params = ProjectionParams {
        rows: result_rows as u32,
        columns: COLUMNS as u32,
        terms: TERMS as u32,
        left_row: left.row as u32,
        left_term: left.column as u32,
        right_term: right.row as u32,
        right_column: right.column as u32,
        last_category: TABLE as u32 - 1,
        ..ProjectionParams::default()
    };
    let buffers = Buffers {
        left: Some(left_tensor.buffer()),
        right: right_tensor.buffer(),
        result: result.buffer(),
        categories: Some(&categories),
        before: Some(before_tensor.buffer()),
    };
    let step = Step::new(device, kernel, params, &buffers).expect("a step").expect("work");
    let step = rewritten(device, kernel, step, seed);
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    step.encode_pass(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
    device.queue().submit([encoder.finish()]);
    let found = result.download().expect("a download");

    for (i, &found) in found.values().iter().enumerate() {
        let (row, column) = (i / COLUMNS, i % COLUMNS);
        let term = |term: usize| match (is_table_gradient, picked) {
            (true, _) => {
                if category(term) == row {
                    right.at(term, column)
                } else {
                    0.0
                }
            }
            (_, Picked::Nothing) => left.at(row, term) * right.at(term, column),
            (_, Picked::Left) => left.at(category(row), term) * right.at(term, column),
            (_, Picked::Right) => left.at(row, term) * right.at(category(term), column),
        };
        let added = if accumulate { f64::from(old[i]) } else { 0.0 };
        let sum = (0..TERMS).map(term).sum::<f64>() + added;
        let sizes = (0..TERMS).map(|it| term(it).abs()).sum::<f64>() + added.abs();
        // Sixteen products in f32 are added up as they come, and what they are added to, and what is added to that, round; what is
        // subnormal may be 0.
        let off = 20.0 * f64::from(f32::EPSILON) / 2.0 * sizes + TERMS as f64 * f64::from(f32::MIN_POSITIVE);
        // No activation is steeper than 1.1. Their own error is some units in the last place of 1 or of the result.
        let (exact, allowed) = match finish {
            Finish::Activated(Activation::Identity | Activation::Relu) => {
                let Finish::Activated(activation) = finish else { unreachable!() };
                (activated(activation, sum)[0], off)
            }
            Finish::Activated(activation) => {
                let exact = activated(activation, sum)[0];
                (exact, 1.1 * off + 2e-6 * exact.abs())
            }
            Finish::Sloped(activation) => {
                let slope = activated(activation, f64::from(before[i]))[1];
                (sum * slope, 1.1 * off + 2e-6 * sum.abs())
            }
        };
        let error = (f64::from(found) - exact).abs();
        if error.is_nan() || error > allowed {
            return Err(format!("row {row}, column {column}: {found:e} in place of {exact:e}, {allowed:e} is allowed"));
        }
    }
    Ok(())
}

#[test]
fn rewritten_projections_keep_their_bounds() {
    let adapters = pollster::block_on(GpuDevice::builder().backends(wgpu::Backends::VULKAN).adapters());
    let Some(adapter) = adapters.iter().find(|adapter| adapter.get_info().driver == "llvmpipe") else {
        let required = std::env::var("GPU_LAYER_NORM_ADAPTERS").unwrap_or_default();
        assert!(!required.contains("lavapipe"), "lavapipe is required and was not found");
        println!("no lavapipe, nothing is tried");
        return;
    };
    let device = pollster::block_on(GpuDevice::from_adapter(adapter)).expect("a device");
    let mut rng = StdRng::seed_from_u64(20_261_125);
    let mut kernels = all_projection_kernels();
    kernels.shuffle(&mut rng);
    // There is only one of these.
    kernels.sort_by_key(|kernel| matches!(kernel, ProjectionKernel::Product { .. }));
    let limit = match std::env::var("GPU_LAYER_NORM_REWRITINGS").as_deref() {
        Ok("all") => Duration::MAX,
        _ => Duration::from_secs(20),
    };
    let (start, mut tried, mut failures) = (Instant::now(), 0, Vec::new());
    for &kernel in &kernels {
        for magnitudes in [[1.0, 1.0], [1e-20, 1e20], [1e16, 1e16], [1e-20, 1e-18]] {
            if let Err(error) = check(&device, kernel, magnitudes, rng.random()) {
                failures.push(format!("{}, {magnitudes:?}: {error}", kernel.label()));
            }
        }
        tried += 1;
        if start.elapsed() > limit {
            break;
        }
    }
    println!("{tried} of {} projections in {:.0} s", kernels.len(), start.elapsed().as_secs_f64());
    assert!(tried >= 20, "{tried} projections in {limit:?} are too few");
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}
