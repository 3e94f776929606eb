//! What the host's side costs, beside the same by bare wgpu calls: recording a prepared operation on the backend without a
//! driver, and a small `run` on the best adapter, or the one that `GPU_LAYER_NORM_ADAPTER` names. And what the first run of a
//! kernel takes longer than a later one, because it is compiled.
//!
//!     cargo bench --bench host                 criterion's report
//!     cargo bench --bench host -- --json FILE  medians, ratios, and compilation
//!
//! Mesa keeps what it compiled in files; with `MESA_SHADER_CACHE_DISABLE=1` it does not.

mod measure;

use std::time::{Duration, Instant};

use criterion::Criterion;
use gpu_layer_norm::kernel::{BindingRole, ENTRY_POINT, Plan, Role};
use gpu_layer_norm::{
    Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, PreparedPlan, StorageType, Tensor, wgpu,
};
use measure::report::{device, fail, write};
use measure::{largest_difference, median};
use serde_json::json;
use wgpu::util::DeviceExt as _;

/// Recordings of one pass.
const RECORDINGS: usize = 100;
const ROWS: usize = 64;
const WIDTH: usize = 768;
/// Of the kernels whose compilation is timed, and the elements of the tensors.
const COLD_WIDTHS: [usize; 6] = [32, 512, 1001, 4096, 65_536, 1 << 20];
const COLD_ELEMENTS: usize = 1 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let noop = GpuDevice::builder().backends(wgpu::Backends::NOOP).build().unwrap_or_else(|error| fail(&error));
    let device = device();
    let small = Small::new(&device).unwrap_or_else(|error| fail(&error));
    let recording = Recording::new(&noop).unwrap_or_else(|error| fail(&error));
    match arguments.iter().position(|argument| argument == "--json") {
        Some(i) => report(&device, &recording, &small, arguments.get(i + 1)),
        None => criterion(&recording, &small),
    }
}

fn criterion(recording: &Recording, small: &Small) {
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3)).configure_from_args();
    let mut group = criterion.benchmark_group(format!("record {RECORDINGS} times"));
    group.bench_function("prepared", |bencher| bencher.iter_custom(|turns| sum(turns, || recording.prepared())));
    group.bench_function("bare wgpu", |bencher| bencher.iter_custom(|turns| sum(turns, || recording.bare())));
    group.finish();
    let mut group = criterion.benchmark_group(format!("run {ROWS}x{WIDTH}"));
    group.bench_function("GpuLayerNorm::run", |bencher| bencher.iter(|| small.run()));
    group.bench_function("hand-written", |bencher| bencher.iter(|| small.by_hand()));
    group.finish();
    criterion.final_summary();
}

fn sum(turns: u64, work: impl Fn() -> Duration) -> Duration {
    (0..turns).map(|_| work()).sum()
}

fn report(device: &GpuDevice, recording: &Recording, small: &Small, file: Option<&String>) {
    const SAMPLES: usize = 201;
    let timed = |work: &dyn Fn()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    // In turn, so that noise hits both.
    let compare = |a: &dyn Fn() -> Duration, b: &dyn Fn() -> Duration| {
        let (first, second): (Vec<_>, Vec<_>) = (0..SAMPLES).map(|_| (a(), b())).unzip();
        [median(first), median(second)].map(|time| time.as_secs_f64() * 1e6)
    };
    let record = compare(&|| recording.prepared(), &|| recording.bare());
    let run = compare(&|| timed(&|| drop(small.run())), &|| timed(&|| drop(small.by_hand())));
    let info = device.adapter_info();
    println!(
        "{}, {:?}, {} {}; medians of {SAMPLES}, microseconds",
        info.name, info.backend, info.driver, info.driver_info
    );
    for (what, [own, bare]) in
        [("recording 100 times, prepared beside bare wgpu", record), ("run 64 × 768 beside by hand", run)]
    {
        println!("{what:<48} {own:>9.1} {bare:>9.1}  ratio {:.2}", own / bare);
    }
    let cold: Vec<_> = StorageType::ALL
        .into_iter()
        .flat_map(|storage| COLD_WIDTHS.map(|width| (storage, width)))
        .map(|(storage, width)| {
            let milliseconds = cold_start(device, storage, width).unwrap_or_else(|error| fail(&error));
            println!("first run of {storage} {width} less a later one {milliseconds:>20.0} ms");
            json!({ "storage": storage.to_string(), "width": width, "milliseconds": milliseconds })
        })
        .collect();
    let Some(file) = file else { return };
    let report = json!({
        "cold_start": cold,
        "adapter": info.name,
        "driver": format!("{} {}", info.driver, info.driver_info),
        "samples": SAMPLES,
        "record_100_microseconds": { "prepared": record[0], "bare": record[1] },
        "run_64x768_microseconds": { "run": run[0], "by_hand": run[1] },
    });
    write(file, &report);
}

/// Milliseconds that the first run of the planner's pick takes longer than a later one.
fn cold_start(device: &GpuDevice, storage: StorageType, width: usize) -> Result<f64, Error> {
    let shape = [COLD_ELEMENTS.div_ceil(width), width];
    let input = GpuTensor::zeros_as(device, shape, storage)?;
    let output = GpuTensor::zeros_as(device, shape, storage)?;
    let bindings = Bindings::of(&input, &output);
    let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(width).expect_nothing())?;
    let run = || {
        let start = Instant::now();
        layer.execute(device, &bindings)?;
        device.wait()?;
        Ok::<_, Error>(start.elapsed())
    };
    let first = run()?;
    let later = (0..5).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
    Ok((first.as_secs_f64() - median(later).as_secs_f64()) * 1e3)
}

/// A plan by bare wgpu calls: a pipeline, and what its bind group holds beside input and output.
struct Bare {
    pipeline: wgpu::ComputePipeline,
    params: wgpu::Buffer,
    weight: wgpu::Buffer,
    bias: wgpu::Buffer,
    workgroups: [u32; 3],
}

impl Bare {
    /// The same kernel as the plan's.
    fn new(device: &wgpu::Device, plan: &Plan) -> Self {
        let kernel = &plan.kernels()[0];
        let [chunk] = plan.chunks() else { panic!("{plan} has more than one chunk") };
        let [dispatch] = chunk.dispatches.as_slice() else { panic!("{plan} has more than one dispatch") };
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(kernel.wgsl().into()) };
        // Safety: as where the crate does so. The two are to differ in the host's part alone.
        let module = unsafe {
            device.create_shader_module_trusted(
                descriptor,
                wgpu::ShaderRuntimeChecks { force_loop_bounding: true, ..wgpu::ShaderRuntimeChecks::unchecked() },
            )
        };
        let entry = |binding: u32, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let entries: Vec<_> = kernel
            .bindings()
            .iter()
            .map(|binding| match binding.role {
                BindingRole::Params => entry(0, wgpu::BufferBindingType::Uniform),
                role => entry(role.binding(), wgpu::BufferBindingType::Storage { read_only: !binding.writable }),
            })
            .collect();
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(ENTRY_POINT),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let buffer = |contents: &[u8], usage| {
            device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
        };
        Self {
            pipeline,
            params: buffer(bytemuck::bytes_of(&dispatch.params), wgpu::BufferUsages::UNIFORM),
            weight: buffer(bytemuck::cast_slice(&[1.0_f32; WIDTH]), wgpu::BufferUsages::STORAGE),
            bias: buffer(bytemuck::cast_slice(&[0.0_f32; WIDTH]), wgpu::BufferUsages::STORAGE),
            workgroups: dispatch.workgroups,
        }
    }

    fn bind(&self, device: &wgpu::Device, input: &wgpu::Buffer, output: &wgpu::Buffer) -> wgpu::BindGroup {
        let entry =
            |role: BindingRole, buffer: &wgpu::Buffer| -> (u32, wgpu::Buffer) { (role.binding(), buffer.clone()) };
        let buffers = [
            entry(BindingRole::Params, &self.params),
            entry(BindingRole::Tensor(Role::Input), input),
            entry(BindingRole::Tensor(Role::Weight), &self.weight),
            entry(BindingRole::Tensor(Role::Bias), &self.bias),
            entry(BindingRole::Tensor(Role::Output), output),
        ];
        let entries: Vec<_> = buffers
            .iter()
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding: *binding, resource: buffer.as_entire_binding() })
            .collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    }

    fn record(&self, bind_group: &wgpu::BindGroup, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.workgroups;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

fn plan(layer: &GpuLayerNorm, device: &GpuDevice) -> Result<(GpuTensor, GpuTensor, PreparedPlan), Error> {
    let input = GpuTensor::zeros(device, [ROWS, WIDTH])?;
    let output = GpuTensor::zeros(device, [ROWS, WIDTH])?;
    let prepared = layer.prepare(device, &Bindings::of(&input, &output))?;
    Ok((input, output, prepared))
}

/// Recording, without a driver. Two operations in turn: wgpu leaves out what is set already.
struct Recording {
    device: GpuDevice,
    prepared: [PreparedPlan; 2],
    bare: Bare,
    bind_groups: [wgpu::BindGroup; 2],
}

impl Recording {
    fn new(device: &GpuDevice) -> Result<Self, Error> {
        let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(WIDTH))?;
        let (input, output, first) = plan(&layer, device)?;
        let (other_input, other_output, second) = plan(&layer, device)?;
        let bare = Bare::new(device.device(), first.plan());
        let bind = |input: &GpuTensor, output: &GpuTensor| bare.bind(device.device(), input.buffer(), output.buffer());
        let bind_groups = [bind(&input, &output), bind(&other_input, &other_output)];
        Ok(Self { device: device.clone(), prepared: [first, second], bare, bind_groups })
    }

    /// The time of what is recorded into a pass, and of ending the pass, where wgpu does its part.
    fn timed(&self, record: impl Fn(usize, &mut wgpu::ComputePass<'_>)) -> Duration {
        let descriptor = wgpu::CommandEncoderDescriptor::default();
        let mut encoder = self.device.device().create_command_encoder(&descriptor);
        let start = Instant::now();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            (0..RECORDINGS).for_each(|i| record(i % 2, &mut pass));
        }
        start.elapsed()
    }

    fn prepared(&self) -> Duration {
        self.timed(|which, pass| self.prepared[which].encode_pass(pass))
    }

    fn bare(&self) -> Duration {
        self.timed(|which, pass| self.bare.record(&self.bind_groups[which], pass))
    }
}

/// Upload, dispatch, download.
struct Small {
    device: GpuDevice,
    layer: GpuLayerNorm,
    bare: Bare,
    input: Tensor,
}

impl Small {
    fn new(device: &GpuDevice) -> Result<Self, Error> {
        let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(WIDTH))?;
        let (_, _, prepared) = plan(&layer, device)?;
        let values: Vec<f32> = (0..ROWS * WIDTH).map(|i| (i * 37 % 1001) as f32 / 1001.0).collect();
        let small = Self {
            device: device.clone(),
            layer,
            bare: Bare::new(device.device(), prepared.plan()),
            input: Tensor::from_f32([ROWS, WIDTH], values)?,
        };
        // Both compute the same, or the times say nothing.
        let (own, by_hand) = (small.run(), small.by_hand());
        let exact: Vec<f64> = by_hand.iter().map(|&y| y.into()).collect();
        let difference = largest_difference(&own.values(), &exact);
        assert!(difference <= 1e-6, "the two are {difference:e} apart");
        Ok(small)
    }

    fn run(&self) -> Tensor {
        self.layer.run(&self.device, &self.input).unwrap_or_else(|error| fail(&error))
    }

    fn by_hand(&self) -> Vec<f32> {
        let (device, queue) = (self.device.device(), self.device.queue());
        let size = (ROWS * WIDTH * 4) as u64;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let input = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(&self.input.values()),
            usage: wgpu::BufferUsages::STORAGE,
        });
        let output = buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
        let staging = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let bind_group = self.bare.bind(device, &input, &output);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.bare.record(&bind_group, &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        encoder.copy_buffer_to_buffer(&output, 0, &staging, 0, size);
        queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        device.poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
        bytemuck::cast_slice(&staging.get_mapped_range(..).expect("mapped")).to_vec()
    }
}
