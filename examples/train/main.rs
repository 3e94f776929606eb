//! A small sequence model learns, and what learns in it are the weights and biases of its three layer norms. Forward pass, backward
//! pass and optimizer run on the GPU, every step in one encoder:
//!
//!     h₁ = x + Mix(LayerNorm₁(x)) · A,  h₂ = h₁ + tanh(LayerNorm₂(h₁) · B) · C,  y = LayerNorm₃(h₂)
//!
//! Mix replaces every position of a sequence by the mean of the positions up to it. A, B and C are random and stay as they are.
//! The model learns from a teacher: the same model with other weights and biases in its norms. The loss is the mean squared
//! difference of the two outputs.
//!
//! The engine has its own device, buffers and kernels (train.wgsl); this crate's operations are recorded between them, forward
//! and backward, and additions to the residual stream and to its gradient are fused with them. The optimizer's kernels write
//! into the layers' own weights and biases. The training is compared, step by step, with the same training in f64 on the
//! processor; the parameters are saved under PyTorch's names; the loss is drawn as a curve.
//!
//!     cargo run --release --example train -- [--optimizer NAME] [--steps N] [--load FILE] [--save FILE] [--storage TYPE] [--svg FILE]
//!
//! wgpu's environment variables WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.

mod checkpoint;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use checkpoint::{load_parameters, named_parameters, save_parameters};
use gpu_layer_norm::reference::{self, Gradients};
use gpu_layer_norm::wgpu::util::DeviceExt as _;
use gpu_layer_norm::{
    Bindings, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, PreparedPlan, Region, StorageType, Tensor, wgpu,
};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

const SEQUENCES: usize = 4;
const LENGTH: usize = 16;
const ROWS: usize = SEQUENCES * LENGTH;
const MODEL: usize = 32;
const HIDDEN: usize = 64;
const EPS: f32 = 1e-5;

/// Where PyTorch has the three norms in a `TransformerEncoder` of one pre-norm layer.
const PREFIXES: [&str; 3] = ["encoder.layers.0.norm1.", "encoder.layers.0.norm2.", "encoder.norm."];

// How far the training in f32 may be from the training in f64.
//
// The loss: the crate promises a normalized value within 1e-6, and the sums of at most 64 products in f32, and tanh, add as much
// again. At the same parameters an output is therefore a few 1e-6 off at most, and by the triangle inequality the root of the
// mean squared difference is off by no more than that. The errors have no common direction, so what remains of them in a mean
// over 2048 outputs is about 1e-7. The root falls from about 0.6 to 0.02, so the loss is off by 2 · 1e-7 / 0.02 = 1e-5 of itself.
//
// The parameters: a gradient that is off by 1e-6 of itself makes a step that is off by 1e-6 of itself. All steps together move a
// parameter by less than 4 (Adam takes 200 of about 0.02), so it is off by less than 4e-6 at the end.
//
// A simulation in f32, with a random error of 1e-6 added to every normalized value and to every gradient that a norm gives, found
// 1e-5 and 2e-6 at most. The bounds are ten times as large. They are not too wide to find a mistake: any one term of the norms'
// backward pass that is a thousandth too large moves a parameter by more than 5e-5 in the training by gradient descent.
const LOSS_RELATIVE: f64 = 1e-4;
const LOSS_ABSOLUTE: f64 = 1e-10;
const PARAMETER_ABSOLUTE: f64 = 2e-5;
const JUDGED_STEPS: usize = 200;

const HELP: &str = "\
Trains the layer norms of a small sequence model on the GPU, and compares the training with the same one in f64.

  --optimizer NAME  sgd or adam; both, one after the other, if left out
  --steps N         number of steps, 1 to 100000; default 200
  --load FILE       begin with the weights and biases of this safetensors file (F32, F16 or BF16)
  --save FILE       write the weights and biases there at the end; default target/train.safetensors
  --storage TYPE    f32, f16 or bf16: what is written; default f32
  --svg FILE        draw the loss there; default target/train.svg
  --help            show this and stop

If both optimizers run, the parameters that Adam found are saved.";

fn main() {
    if let Err(error) = run(lexopt::Parser::from_env()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

struct Options {
    optimizers: Vec<Optimizer>,
    steps: usize,
    load: Option<PathBuf>,
    save: PathBuf,
    storage: StorageType,
    svg: PathBuf,
}

/// `None` if only help was asked for.
fn options(mut parser: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        optimizers: vec![Optimizer::Sgd, Optimizer::Adam],
        steps: 200,
        load: None,
        save: "target/train.safetensors".into(),
        storage: StorageType::F32,
        svg: "target/train.svg".into(),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("optimizer") => {
                options.optimizers = vec![parser.value()?.parse_with(|name| {
                    let mut all = [Optimizer::Sgd, Optimizer::Adam].into_iter();
                    all.find(|optimizer| optimizer.name() == name).ok_or("sgd or adam was expected")
                })?];
            }
            Long("steps") => {
                options.steps = parser.value()?.parse_with(|text| {
                    let steps = text.parse::<usize>().ok().filter(|steps| (1..=100_000).contains(steps));
                    steps.ok_or("a number from 1 to 100000 was expected")
                })?;
            }
            Long("load") => options.load = Some(parser.value()?.into()),
            Long("save") => options.save = parser.value()?.into(),
            Long("storage") => {
                options.storage = parser.value()?.parse_with(|name| {
                    let mut all = StorageType::ALL.into_iter();
                    all.find(|storage| storage.to_string() == name).ok_or("f32, f16 or bf16 was expected")
                })?;
            }
            Long("svg") => options.svg = parser.value()?.into(),
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(options))
}

fn run(parser: lexopt::Parser) -> Result<(), Box<dyn Error>> {
    let Some(options) = options(parser).map_err(|error| format!("{error}\n\n{HELP}"))? else {
        println!("{HELP}");
        return Ok(());
    };

    // The engine's device, with no more than WebGPU's default limits.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(wgpu::util::initialize_adapter_from_env_or_default(&instance, None))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    println!("adapter: {} ({:?})", adapter.get_info().name, adapter.get_info().backend);
    let engine = Engine::new(&device, &queue);

    // This crate on the engine's device. The layers' weights and biases are what learns.
    let gpu = GpuDevice::from_wgpu(adapter, device.clone(), queue.clone())?;
    let layers = layers(&gpu, StorageType::F32)?;
    let named: Vec<_> = PREFIXES.into_iter().zip(&layers).collect();
    if let Some(path) = &options.load {
        load_parameters(path, &named)?;
        println!("begins with {}", path.display());
    }
    let parameters: Vec<&GpuTensor> = named_parameters(&named).into_iter().map(|(_, parameter)| parameter).collect();
    let start = parameters.iter().map(|parameter| parameter.download()).collect::<Result<Vec<_>, _>>()?;

    let model = Model::random();
    let network = Network::new(&engine, &gpu, &layers, &model)?;
    for (parameter, values) in parameters.iter().zip(&model.teacher) {
        parameter.write(&Tensor::from_f32([MODEL], values.as_slice())?)?;
    }
    network.teach(&engine);

    let exact_teacher: Vec<_> = model.teacher.iter().map(|values| exact(values)).collect();
    let exact_target = model.forward(&exact_teacher).output;
    let exact_start: Vec<_> = start.iter().map(|tensor| exact(&tensor.values())).collect();
    let mut curves = Vec::new();
    for &optimizer in &options.optimizers {
        for (parameter, start) in parameters.iter().zip(&start) {
            parameter.write(start)?;
        }
        let begun = Instant::now();
        let losses = train(&engine, &network, &parameters, optimizer, options.steps)?;
        let seconds = begun.elapsed().as_secs_f64();
        let found = parameters.iter().map(|parameter| Ok(exact(&parameter.download()?.values())));
        let found = found.collect::<Result<Vec<_>, gpu_layer_norm::Error>>()?;
        let trained = Training { losses: exact(&losses), parameters: found };
        let exact_trained = model.train(optimizer, options.steps, &exact_start, &exact_target);
        let (name, steps) = (optimizer.name(), options.steps);
        let (first, last) = (trained.losses[0], trained.losses[steps - 1]);
        println!("{name}: {steps} steps in {seconds:.2} s, loss from {first:.2e} to {last:.2e}");
        // Near the teacher, where a loaded file or many steps may lead, a gradient is little more than rounding. Adam divides it
        // by its own size, so that even rounding makes whole steps: two trainings that differ by rounding alone part there.
        let is_judged = steps <= JUDGED_STEPS && (optimizer == Optimizer::Sgd || options.load.is_none());
        trained.compare(&exact_trained, is_judged).map_err(|error| format!("{name}: {error}"))?;
        curves.push((name, trained.losses, exact_trained.losses));
    }

    for path in [&options.svg, &options.save] {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
    }
    draw(&options.svg, &curves).map_err(|error| format!("{}: {error}", options.svg.display()))?;
    println!("the loss: {}", options.svg.display());

    save_parameters(&options.save, &named, options.storage)?;
    // What was saved, in new layers whose own parameters are of that type.
    let restored = self::layers(&gpu, options.storage)?;
    let restored: Vec<_> = PREFIXES.into_iter().zip(&restored).collect();
    load_parameters(&options.save, &restored)?;
    for ((name, saved), (_, loaded)) in named_parameters(&named).into_iter().zip(named_parameters(&restored)) {
        if loaded.download()? != saved.download()?.to_storage(options.storage) {
            return Err(format!("{name} is not the same after saving and loading").into());
        }
    }
    println!("the parameters, in {}, loaded again and compared: {}", options.storage, options.save.display());
    Ok(())
}

/// The model's three norms.
fn layers(gpu: &GpuDevice, parameters: StorageType) -> Result<Vec<GpuLayerNorm>, gpu_layer_norm::Error> {
    // `prepare` compiles what is needed; nothing has to be compiled before.
    let config = LayerNormConfig::new(MODEL).eps(EPS).parameter_storage(parameters).expect_nothing();
    PREFIXES.iter().map(|_| GpuLayerNorm::new(gpu, &config)).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Optimizer {
    Sgd,
    Adam,
}

/// The settings of an optimizer, as `Rates` in train.wgsl.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Rates {
    beta: [f32; 2],
    one_minus_beta: [f32; 2],
    learning_rate: f32,
    eps: f32,
    /// A uniform buffer is a multiple of 16 bytes on every backend.
    padding: [f32; 2],
}

const _: () = assert!(size_of::<Rates>() == 32);

impl Optimizer {
    /// Also the name of its kernel.
    fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adam => "adam",
        }
    }

    fn rates(self) -> Rates {
        match self {
            // Plain gradient descent. The loss is a mean over 2048 outputs, which makes its gradients small.
            Self::Sgd => {
                Rates { beta: [0.0; 2], one_minus_beta: [0.0; 2], learning_rate: 1.0, eps: 0.0, padding: [0.0; 2] }
            }
            Self::Adam => Rates {
                beta: [0.9, 0.999],
                one_minus_beta: [0.1, 0.001],
                learning_rate: 0.02,
                eps: 1e-8,
                padding: [0.0; 2],
            },
        }
    }
}

/// Trains on the GPU, beginning with the parameters as they are. Returns the loss before each step.
fn train(
    engine: &Engine,
    network: &Network,
    parameters: &[&GpuTensor],
    optimizer: Optimizer,
    steps: usize,
) -> Result<Vec<f32>, Box<dyn Error>> {
    let losses = engine.buffer(&vec![0.0; steps]);
    let progress = engine.buffer(&[0.0; 4]);
    let rates = engine.uniform(bytemuck::bytes_of(&optimizer.rates()));
    let loss = engine.kernel(
        &engine.pipeline("loss"),
        [1, ROWS * MODEL, 1],
        &[(1, &network.output), (2, &network.target), (4, &losses), (5, &progress), (6, &rates)],
    );
    let pipeline = engine.pipeline(optimizer.name());
    let update = |(parameter, gradient): (&&GpuTensor, &wgpu::Buffer)| {
        let moments = engine.buffer(&[0.0; 2 * MODEL]);
        let mut buffers = vec![(1, gradient), (3, parameter.buffer()), (6, &rates)];
        if optimizer == Optimizer::Adam {
            buffers.extend([(5, &progress), (7, &moments)]);
        }
        engine.kernel(&pipeline, [1, 0, MODEL], &buffers)
    };
    let updates: Vec<_> = parameters.iter().zip(&network.parameter_gradients).map(update).collect();

    let bar = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len}, loss {msg}")?)
        .with_prefix(optimizer.name());
    for step in 1..=steps {
        let mut encoder = engine.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            network.encode_forward(&mut pass);
            loss.encode(&mut pass);
            network.encode_backward(&mut pass);
            for update in &updates {
                update.encode(&mut pass);
            }
        }
        engine.queue.submit([encoder.finish()]);
        if step.is_multiple_of(20) {
            bar.set_message(format!("{:.2e}", engine.read(&losses)?[step - 1]));
            bar.set_position(step as u64);
        }
    }
    bar.finish_and_clear();
    engine.read(&losses)
}

/// The model on the GPU: what a step records, forward and backward, bound once.
struct Network {
    forward_norms: Vec<PreparedPlan>,
    mix: Kernel,
    project: Kernel,
    up: Kernel,
    down: Kernel,
    loss_gradient: Kernel,
    backward_norms: Vec<PreparedPlan>,
    down_transposed: Kernel,
    up_transposed: Kernel,
    project_transposed: Kernel,
    mix_transposed: Kernel,
    output: wgpu::Buffer,
    target: wgpu::Buffer,
    /// In the order of the parameters.
    parameter_gradients: Vec<wgpu::Buffer>,
}

impl Network {
    fn new(
        engine: &Engine,
        gpu: &GpuDevice,
        layers: &[GpuLayerNorm],
        model: &Model,
    ) -> Result<Self, gpu_layer_norm::Error> {
        let [x, project, up, down] =
            [&model.x, &model.project, &model.up, &model.down].map(|values| engine.buffer(values));
        let rows_of = |width: usize| engine.buffer(&vec![0.0; ROWS * width]);
        let [normalized, mixed, branch, stream, output, target] = [(); 6].map(|()| rows_of(MODEL));
        let hidden = rows_of(HIDDEN);
        let [means, rstds] = [(); 2].map(|()| [(); 3].map(|()| rows_of(1)));
        // The gradients of the stream, of what the first two norms give, and of what Mix gives. The gradient of `hidden` is
        // written over `hidden`.
        let [gradient, normalized_gradient, mixed_gradient] = [(); 3].map(|()| rows_of(MODEL));
        let parameter_gradients: Vec<_> = (0..2 * layers.len()).map(|_| engine.buffer(&[0.0; MODEL])).collect();

        let [matmul, matmul_tanh, matmul_transposed, matmul_transposed_tanh] =
            ["matmul", "matmul_tanh", "matmul_transposed", "matmul_transposed_tanh"].map(|name| engine.pipeline(name));
        let kernel = |pipeline: &wgpu::ComputePipeline, inner, columns, left, right, result| {
            engine.kernel(pipeline, [ROWS, inner, columns], &[(1, left), (2, right), (3, result)])
        };
        let mixing = |name, left, result| {
            engine.kernel(&engine.pipeline(name), [ROWS, LENGTH, MODEL], &[(1, left), (3, result)])
        };

        // The norms. Forward keeps the statistics of every row, and backward reads them instead of measuring the rows again.
        let region = |buffer: &wgpu::Buffer| Region::new(buffer, StorageType::F32);
        let rows = ROWS as u64;
        let forward = [
            // normalized = LayerNorm₁(x)
            Bindings::new(rows, region(&x), region(&normalized)),
            // stream = x + branch; normalized = LayerNorm₂(stream)
            Bindings::new(rows, region(&branch), region(&normalized)).residual(region(&x)).sum(region(&stream)),
            // output = LayerNorm₃(stream + branch). Nobody needs that sum but the norm itself, so it is not written.
            Bindings::new(rows, region(&branch), region(&output)).residual(region(&stream)),
        ];
        // `gradient` is the gradient of the stream at the place that the backward pass has come to. The third norm turns the
        // gradient of its output into it, in place. The other two norms lie in branches that begin at the stream: there the
        // gradient that comes through the branch is added to the one that goes past it, in place again.
        let through_branch = |input: &wgpu::Buffer| {
            Bindings::backward(rows, region(input), region(&normalized_gradient), region(&gradient))
                .sum_gradient(region(&gradient))
        };
        let backward = [
            through_branch(&x),
            through_branch(&stream),
            Bindings::backward(rows, region(&branch), region(&gradient), region(&gradient)).residual(region(&stream)),
        ];
        let mut forward_norms = Vec::new();
        let mut backward_norms = Vec::new();
        for (i, (layer, (forward, backward))) in layers.iter().zip(forward.into_iter().zip(backward)).enumerate() {
            let (mean, rstd) = (region(&means[i]), region(&rstds[i]));
            let forward = forward.mean(mean.clone()).rstd(rstd.clone());
            let backward = backward
                .mean(mean)
                .rstd(rstd)
                .weight_gradient(region(&parameter_gradients[2 * i]))
                .bias_gradient(region(&parameter_gradients[2 * i + 1]));
            forward_norms.push(layer.prepare(gpu, &forward)?);
            backward_norms.push(layer.prepare(gpu, &backward)?);
        }

        Ok(Self {
            forward_norms,
            mix: mixing("mix", &normalized, &mixed),
            project: kernel(&matmul, MODEL, MODEL, &mixed, &project, &branch),
            up: kernel(&matmul_tanh, MODEL, HIDDEN, &normalized, &up, &hidden),
            down: kernel(&matmul, HIDDEN, MODEL, &hidden, &down, &branch),
            loss_gradient: kernel(&engine.pipeline("loss_gradient"), 0, MODEL, &output, &target, &gradient),
            backward_norms,
            down_transposed: kernel(&matmul_transposed_tanh, MODEL, HIDDEN, &gradient, &down, &hidden),
            up_transposed: kernel(&matmul_transposed, HIDDEN, MODEL, &hidden, &up, &normalized_gradient),
            project_transposed: kernel(&matmul_transposed, MODEL, MODEL, &gradient, &project, &mixed_gradient),
            mix_transposed: mixing("mix_transposed", &mixed_gradient, &normalized_gradient),
            output,
            target,
            parameter_gradients,
        })
    }

    fn encode_forward(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.forward_norms[0].encode_pass(pass);
        self.mix.encode(pass);
        self.project.encode(pass);
        self.forward_norms[1].encode_pass(pass);
        self.up.encode(pass);
        self.down.encode(pass);
        self.forward_norms[2].encode_pass(pass);
    }

    /// The forward pass from its end to its beginning. In the end the stream's gradient is that of x, from which layers before
    /// this one would learn.
    fn encode_backward(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.loss_gradient.encode(pass);
        self.backward_norms[2].encode_pass(pass);
        self.down_transposed.encode(pass);
        self.up_transposed.encode(pass);
        self.backward_norms[1].encode_pass(pass);
        self.project_transposed.encode(pass);
        self.mix_transposed.encode(pass);
        self.backward_norms[0].encode_pass(pass);
    }

    /// Makes the output at the present parameters the one to learn.
    fn teach(&self, engine: &Engine) {
        let mut encoder = engine.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.encode_forward(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        encoder.copy_buffer_to_buffer(&self.output, 0, &self.target, 0, self.output.size());
        engine.queue.submit([encoder.finish()]);
    }
}

/// The engine's way to run its kernels.
struct Engine {
    device: wgpu::Device,
    queue: wgpu::Queue,
    module: wgpu::ShaderModule,
}

struct Kernel {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Engine {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("train"),
            source: wgpu::ShaderSource::Wgsl(include_str!("train.wgsl").into()),
        });
        Self { device: device.clone(), queue: queue.clone(), module }
    }

    fn buffer(&self, values: &[f32]) -> wgpu::Buffer {
        self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("engine"),
            contents: bytemuck::cast_slice(values),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        })
    }

    fn uniform(&self, contents: &[u8]) -> wgpu::Buffer {
        self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("engine"),
            contents,
            usage: wgpu::BufferUsages::UNIFORM,
        })
    }

    fn pipeline(&self, entry_point: &str) -> wgpu::ComputePipeline {
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry_point),
            layout: None,
            module: &self.module,
            entry_point: Some(entry_point),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        })
    }

    /// One invocation for each element of a matrix of `rows` and `columns`. The buffers go with their bindings in train.wgsl.
    fn kernel(
        &self,
        pipeline: &wgpu::ComputePipeline,
        [rows, inner, columns]: [usize; 3],
        buffers: &[(u32, &wgpu::Buffer)],
    ) -> Kernel {
        let shape = self.uniform(bytemuck::cast_slice(&[rows, inner, columns, 0].map(|size| size as u32)));
        let entries: Vec<_> = [(0, &shape)]
            .iter()
            .chain(buffers)
            .map(|&(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("engine"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let workgroups = [columns.div_ceil(8) as u32, rows.div_ceil(8) as u32];
        Kernel { pipeline: pipeline.clone(), bind_group, workgroups }
    }

    /// Waits for everything submitted, and reads a buffer back.
    fn read(&self, buffer: &wgpu::Buffer) -> Result<Vec<f32>, Box<dyn Error>> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("engine"),
            size: buffer.size(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        let view = staging.get_mapped_range(..)?;
        let values: &[f32] = bytemuck::cast_slice(&view);
        Ok(values.to_vec())
    }
}

impl Kernel {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}

/// What does not learn, and the teacher's parameters; with the training in f64.
struct Model {
    x: Vec<f32>,
    /// A, B and C.
    project: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
    /// The weight of the first norm, its bias, and so on.
    teacher: Vec<Vec<f32>>,
}

/// What the forward pass leaves for the backward pass.
struct Activations {
    /// h₁.
    stream: Vec<f64>,
    /// tanh(…).
    hidden: Vec<f64>,
    /// h₂.
    sum: Vec<f64>,
    output: Vec<f64>,
}

impl Model {
    fn random() -> Self {
        let mut rng = StdRng::seed_from_u64(1607);
        let mut random = |count: usize, std: f32| -> Vec<f32> {
            (0..count).map(|_| std * rng.sample::<f32, _>(StandardNormal)).collect()
        };
        let root = |size: usize| (size as f32).sqrt();
        Self {
            x: random(ROWS * MODEL, 1.0),
            // Twice as large as the others: a mean over several positions is smaller than each of them.
            project: random(MODEL * MODEL, 2.0 / root(MODEL)),
            up: random(MODEL * HIDDEN, 1.0 / root(MODEL)),
            down: random(HIDDEN * MODEL, 1.0 / root(HIDDEN)),
            teacher: [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
                .into_iter()
                .map(|mean: f32| random(MODEL, 0.3).into_iter().map(|value| mean + value).collect())
                .collect(),
        }
    }

    fn forward(&self, parameters: &[Vec<f64>]) -> Activations {
        let norm = |which: usize, input: &[f64]| {
            let (weight, bias) = (parameters[2 * which].as_slice(), parameters[2 * which + 1].as_slice());
            reference::layer_norm(input, MODEL, Some(weight), Some(bias), EPS.into(), false)
        };
        let x = exact(&self.x);
        let mixed = mix(&norm(0, &x));
        let stream = sum(&x, &matmul(&mixed, &self.project, MODEL, MODEL));
        let mut hidden = matmul(&norm(1, &stream), &self.up, MODEL, HIDDEN);
        hidden.iter_mut().for_each(|value| *value = value.tanh());
        let sum = sum(&stream, &matmul(&hidden, &self.down, HIDDEN, MODEL));
        let output = norm(2, &sum);
        Activations { stream, hidden, sum, output }
    }

    /// The loss, and its gradients in the order of the parameters.
    fn gradients(&self, parameters: &[Vec<f64>], target: &[f64]) -> (f64, Vec<Vec<f64>>) {
        let norm = |which: usize, input: &[f64], output_gradient: &[f64]| {
            let weight = parameters[2 * which].as_slice();
            reference::layer_norm_backward(input, output_gradient, MODEL, Some(weight), EPS.into(), false)
        };
        let Activations { stream, hidden, sum: last, output } = self.forward(parameters);
        let count = output.len() as f64;
        let differences: Vec<f64> = output.iter().zip(target).map(|(y, target)| y - target).collect();
        let loss = differences.iter().map(|difference| difference * difference).sum::<f64>() / count;
        let output_gradient: Vec<f64> = differences.iter().map(|difference| 2.0 * difference / count).collect();

        let third = norm(2, &last, &output_gradient);
        let mut hidden_gradient = matmul_transposed(&third.input, &self.down, MODEL, HIDDEN);
        hidden_gradient.iter_mut().zip(&hidden).for_each(|(gradient, u)| *gradient *= 1.0 - u * u);
        let second = norm(1, &stream, &matmul_transposed(&hidden_gradient, &self.up, HIDDEN, MODEL));
        let stream_gradient = sum(&third.input, &second.input);
        let mixed_gradient = matmul_transposed(&stream_gradient, &self.project, MODEL, MODEL);
        let first = norm(0, &exact(&self.x), &mix_transposed(&mixed_gradient));
        let gradients = [first, second, third].into_iter().flat_map(|Gradients { weight, bias, .. }| [weight, bias]);
        (loss, gradients.collect())
    }

    /// The training that [`train`] does on the GPU.
    fn train(&self, optimizer: Optimizer, steps: usize, start: &[Vec<f64>], target: &[f64]) -> Training {
        let Rates { beta, one_minus_beta, learning_rate, eps, .. } = optimizer.rates();
        let (beta, one_minus_beta) = (beta.map(f64::from), one_minus_beta.map(f64::from));
        let (learning_rate, eps) = (f64::from(learning_rate), f64::from(eps));
        let mut parameters = start.to_vec();
        let mut losses = Vec::new();
        let mut moments = vec![[[0.0; 2]; MODEL]; parameters.len()];
        let mut corrections = [0.0; 2];
        for _ in 0..steps {
            let (loss, gradients) = self.gradients(&parameters, target);
            losses.push(loss);
            for (which, mean) in corrections.iter_mut().enumerate() {
                *mean = beta[which] * *mean + one_minus_beta[which];
            }
            for ((parameter, gradient), moments) in parameters.iter_mut().zip(&gradients).zip(&mut moments) {
                for ((value, &gradient), moments) in parameter.iter_mut().zip(gradient).zip(moments) {
                    let direction = match optimizer {
                        Optimizer::Sgd => gradient,
                        Optimizer::Adam => {
                            for (which, sample) in [gradient, gradient * gradient].into_iter().enumerate() {
                                moments[which] = beta[which] * moments[which] + one_minus_beta[which] * sample;
                            }
                            moments[0] / corrections[0] / ((moments[1] / corrections[1]).sqrt() + eps)
                        }
                    };
                    *value -= learning_rate * direction;
                }
            }
        }
        Training { losses, parameters }
    }
}

/// The loss before each step, and the parameters after the last one.
struct Training {
    losses: Vec<f64>,
    parameters: Vec<Vec<f64>>,
}

impl Training {
    /// Shows how far this training is from the exact one. An error if it is judged and is over a bound, or if anything is NaN or
    /// infinite.
    fn compare(&self, exact: &Self, is_judged: bool) -> Result<(), Box<dyn Error>> {
        let losses: Vec<(f64, f64)> = self.losses.iter().copied().zip(exact.losses.iter().copied()).collect();
        let (found, right) = (self.parameters.iter().flatten(), exact.parameters.iter().flatten());
        let parameters: Vec<f64> = found.zip(right).map(|(found, right)| (found - right).abs()).collect();
        let worst_loss = losses.iter().map(|(loss, exact)| (loss - exact).abs() / exact).fold(0.0, f64::max);
        let worst_parameter = parameters.iter().copied().fold(0.0, f64::max);
        println!(
            "  from the f64 training: losses differ by at most {worst_loss:.1e} of themselves, parameters at the end by \
             {worst_parameter:.1e}{}",
            if is_judged { "" } else { " (not judged)" }
        );
        // A NaN is within no bound.
        let is_within = |difference: f64, bound: f64| difference <= if is_judged { bound } else { f64::MAX };
        for (step, &(loss, exact)) in losses.iter().enumerate() {
            if !is_within((loss - exact).abs(), LOSS_RELATIVE * exact + LOSS_ABSOLUTE) {
                return Err(
                    format!("the loss before step {step} is {loss:e}, in f64 it is {exact:e}: too far off").into()
                );
            }
        }
        if !parameters.iter().all(|&difference| is_within(difference, PARAMETER_ABSOLUTE)) {
            return Err(format!("a parameter is more than {PARAMETER_ABSOLUTE:e} off at the end").into());
        }
        Ok(())
    }
}

fn exact(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

fn sum(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left + right).collect()
}

/// left · right, whose rows have `columns` elements.
fn matmul(left: &[f64], right: &[f32], inner: usize, columns: usize) -> Vec<f64> {
    let element = |row: &[f64], column: usize| {
        row.iter().enumerate().map(|(i, x)| x * f64::from(right[i * columns + column])).sum::<f64>()
    };
    left.chunks(inner).flat_map(|row| (0..columns).map(move |column| element(row, column))).collect()
}

/// left · rightᵀ, where `right` has `columns` rows.
fn matmul_transposed(left: &[f64], right: &[f32], inner: usize, columns: usize) -> Vec<f64> {
    let element = |row: &[f64], column: usize| {
        row.iter().zip(&right[column * inner..]).map(|(x, &y)| x * f64::from(y)).sum::<f64>()
    };
    left.chunks(inner).flat_map(|row| (0..columns).map(move |column| element(row, column))).collect()
}

/// Every position becomes the mean of the positions up to itself.
fn mix(input: &[f64]) -> Vec<f64> {
    let mut output = Vec::with_capacity(input.len());
    for sequence in input.chunks(LENGTH * MODEL) {
        for position in 0..LENGTH {
            let so_far = &sequence[..(position + 1) * MODEL];
            let mean = |column| so_far.iter().skip(column).step_by(MODEL).sum::<f64>() / (position + 1) as f64;
            output.extend((0..MODEL).map(mean));
        }
    }
    output
}

/// The gradient of what [`mix`] was given, from the gradient of what it gave.
fn mix_transposed(output_gradient: &[f64]) -> Vec<f64> {
    let mut input_gradient = vec![0.0; output_gradient.len()];
    for (sequence, result) in output_gradient.chunks(LENGTH * MODEL).zip(input_gradient.chunks_mut(LENGTH * MODEL)) {
        for (position, gradient) in sequence.chunks(MODEL).enumerate() {
            for earlier in result.chunks_mut(MODEL).take(position + 1) {
                earlier.iter_mut().zip(gradient).for_each(|(sum, share)| *sum += share / (position + 1) as f64);
            }
        }
    }
    input_gradient
}

/// Draws the loss of each optimizer over the steps, that of the f64 training as a thin line on it.
fn draw(path: &Path, curves: &[(&str, Vec<f64>, Vec<f64>)]) -> Result<(), Box<dyn Error>> {
    // A loss of 0 has no logarithm.
    let points = |losses: &[f64]| {
        losses.iter().enumerate().map(|(step, loss)| (step as f64, loss.max(1e-16))).collect::<Vec<_>>()
    };
    let losses = curves.iter().flat_map(|(_, trained, exact)| [trained, exact]).flat_map(|losses| points(losses));
    let (lowest, highest) =
        losses.fold((f64::MAX, 0.0_f64), |(lowest, highest), (_, loss)| (loss.min(lowest), loss.max(highest)));
    let steps = curves.iter().map(|(_, trained, _)| trained.len()).max().unwrap_or(1);
    let root = SVGBackend::new(path, (900, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("loss before each step", ("sans-serif", 18))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..steps as f64, (lowest / 2.0..highest * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.0e}"))
        .label_style(("sans-serif", 13))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (i, (name, trained, exact)) in curves.iter().enumerate() {
        let colour = Palette99::pick(i).mix(0.6);
        chart
            .draw_series(LineSeries::new(points(trained), colour.stroke_width(5)))?
            .label(*name)
            .legend(move |at| legend(at, colour.stroke_width(5)));
        let reference = chart.draw_series(LineSeries::new(points(exact), BLACK.stroke_width(1)))?;
        if i + 1 == curves.len() {
            reference.label("the same in f64").legend(|at| legend(at, BLACK.stroke_width(1)));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

fn legend((x, y): (i32, i32), style: ShapeStyle) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 16, y)], style)
}
