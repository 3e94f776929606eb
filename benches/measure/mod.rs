//! Timing on a device, beside a copy of the same bytes. Shared by the benchmarks and the demo.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use std::time::{Duration, Instant};

use gpu_layer_norm::kernel::AdapterClass;
use gpu_layer_norm::{
    Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, PreparedPlan, Tensor, reference, wgpu,
};

/// What is timed: work recorded into a compute pass.
pub trait Work {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>);
}

impl Work for PreparedPlan {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_pass(pass);
    }
}

/// Times work on a device: by GPU timestamps where the device has them, else from submission until the device is idle. Where
/// the device is the processor, its timestamps are those of the thread that hands out the work, so they are not used.
pub struct Stopwatch<'a> {
    device: &'a GpuDevice,
    timestamps: Option<Timestamps>,
}

struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
}

impl<'a> Stopwatch<'a> {
    pub fn new(device: &'a GpuDevice) -> Self {
        let gpu = device.device();
        let usable = gpu.features().contains(wgpu::Features::TIMESTAMP_QUERY)
            && device.capabilities().class != AdapterClass::Cpu;
        let buffer = |usage| {
            gpu.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false })
        };
        let timestamps = usable.then(|| Timestamps {
            queries: gpu.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
        });
        Self { device, timestamps }
    }

    /// How it measures, in words.
    pub fn method(&self) -> &'static str {
        if self.timestamps.is_some() { "GPU timestamps" } else { "submission to idle" }
    }

    /// Runs the work once.
    pub fn time(&self, work: &dyn Work) -> Result<Duration, Error> {
        let gpu = self.device.device();
        let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = self.timestamps.as_ref().map(|timestamps| wgpu::ComputePassTimestampWrites {
            query_set: &timestamps.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        {
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            work.record(&mut encoder.begin_compute_pass(&descriptor));
        }
        if let Some(timestamps) = &self.timestamps {
            encoder.resolve_query_set(&timestamps.queries, 0..2, &timestamps.resolved, 0);
            encoder.copy_buffer_to_buffer(&timestamps.resolved, 0, &timestamps.readable, 0, 16);
        }
        let commands = encoder.finish();
        let start = Instant::now();
        self.device.queue().submit([commands]);
        self.device.wait()?;
        let elapsed = start.elapsed();
        let Some(timestamps) = &self.timestamps else { return Ok(elapsed) };

        timestamps.readable.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.wait()?;
        let ticks = {
            let view = timestamps.readable.get_mapped_range(..).expect("mapped");
            let [begin, end]: [u64; 2] = bytemuck::pod_read_unaligned(&view);
            end.saturating_sub(begin)
        };
        timestamps.readable.unmap();
        Ok(Duration::from_nanos((ticks as f64 * f64::from(self.device.queue().get_timestamp_period())) as u64))
    }
}

/// A copy of one buffer to another.
pub struct Copy {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: (u32, u32),
}

impl Copy {
    /// The ways to copy that are tried; which is fastest differs by adapter.
    pub const VARIANTS: [(u32, u32); 4] = [(256, 1), (256, 4), (64, 1), (64, 4)];

    pub fn new(device: &GpuDevice, source: &wgpu::Buffer, target: &wgpu::Buffer, (size, turns): (u32, u32)) -> Self {
        let gpu = device.device();
        let wgsl = format!("const SIZE: u32 = {size}u;\nconst TURNS: u32 = {turns}u;\n{}", include_str!("copy.wgsl"));
        let module = gpu.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("copy"),
            source: wgpu::ShaderSource::Wgsl(wgsl.into()),
        });
        let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("copy"),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let bind_group = gpu.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("copy"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: source.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: target.as_entire_binding() },
            ],
        });
        let workgroups = (target.size() / 16).div_ceil(u64::from(size * turns)) as u32;
        let x = workgroups.clamp(1, device.capabilities().max_workgroups_per_dimension);
        Self { pipeline, bind_group, workgroups: (x, workgroups.div_ceil(x)) }
    }
}

impl Work for Copy {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.workgroups.0, self.workgroups.1, 1);
    }
}

/// Layer normalization of one shape, checked, and the fastest copy of the same bytes.
pub struct Bench {
    pub rows: usize,
    pub width: usize,
    pub layer_norm: PreparedPlan,
    pub copy: Copy,
    /// |y − y_f64| at most.
    pub largest_error: f64,
    // The operation reads it; dropped last.
    _layer: GpuLayerNorm,
}

impl Bench {
    /// Bytes that either one moves: the tensor once in and once out.
    pub fn bytes(&self) -> u64 {
        self.rows as u64 * self.width as u64 * 8
    }

    /// Prepares both, and compares a result with the f64 reference before anything is timed.
    ///
    /// # Panics
    /// If the result is wrong: a wrong result has no time.
    pub fn new(device: &GpuDevice, rows: usize, width: usize) -> Result<Self, Error> {
        // A cheap sequence that no row repeats; mean 0.5, standard deviation 0.29.
        let values: Vec<f32> = (0..(rows * width) as u64)
            .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32)
            .collect();
        let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(width))?;
        let input = GpuTensor::upload(device, &Tensor::from_f32([rows, width], values.clone())?)?;
        let output = GpuTensor::zeros(device, input.shape())?;
        let layer_norm = layer.prepare(device, &Bindings::of(&input, &output))?;
        let stopwatch = Stopwatch::new(device);
        stopwatch.time(&layer_norm)?;

        let (ones, zeros) = (vec![1.0; width], vec![0.0; width]);
        let expected = reference::layer_norm(&values, width, Some(&ones), Some(&zeros), 1e-5, false);
        let actual = output.download()?;
        let largest_error = largest_difference(&actual.values(), &expected);
        assert!(largest_error <= 2e-6, "{rows} × {width} is {largest_error:e} off the reference: not timed");

        let target = GpuTensor::zeros(device, input.shape())?;
        let mut copies: Vec<_> = Copy::VARIANTS
            .map(|variant| {
                let copy = Copy::new(device, input.buffer(), target.buffer(), variant);
                let times = (0..5).map(|_| stopwatch.time(&copy)).collect::<Result<Vec<_>, _>>();
                times.map(|times| (median(times), copy))
            })
            .into_iter()
            .collect::<Result<_, _>>()?;
        assert_eq!(*target.download()?.values(), values, "the copy copies");
        copies.sort_by_key(|(time, _)| *time);
        let (_, copy) = copies.swap_remove(0);
        Ok(Self { rows, width, layer_norm, copy, largest_error, _layer: layer })
    }

    /// Median times of layer normalization and of the copy, taken in turn so that noise hits both.
    pub fn compare(&self, stopwatch: &Stopwatch<'_>, samples: usize) -> Result<(Duration, Duration), Error> {
        let (mut layer_norm, mut copy) = (Vec::new(), Vec::new());
        for _ in 0..samples {
            copy.push(stopwatch.time(&self.copy)?);
            layer_norm.push(stopwatch.time(&self.layer_norm)?);
        }
        Ok((median(layer_norm), median(copy)))
    }
}

/// The largest |y − exact|; NaN if one of them is.
pub fn largest_difference(output: &[f32], exact: &[f64]) -> f64 {
    let differences = output.iter().zip(exact).map(|(&y, exact)| (f64::from(y) - exact).abs());
    // f64::max would pass over a NaN.
    differences.fold(0.0, |largest: f64, next| if largest.is_nan() || next <= largest { largest } else { next })
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

pub fn gigabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9) / 1e9
}
