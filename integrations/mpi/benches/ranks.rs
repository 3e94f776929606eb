//! Time of sharded passes by ranks, beside the model of it, and what the model says of other machines.
//!
//! `cargo bench` starts `mpirun` with this very binary for each number of ranks, on software adapters of one thread each unless
//! `LP_NUM_THREADS` says otherwise. What the model needs is measured in the same run: the kernels alone on all ranks at once, without a word
//! between them, a read-back, and all-reduces of two sizes.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use gpu_layer_norm::{
    Bindings, GpuDevice, GpuLayerNorm, GpuMoments, GpuTensor, LayerNormConfig, Region, Tensor, reference, wgpu,
};
use gpu_layer_norm_mpi::model::{self, Direction, Machine, Work};
use gpu_layer_norm_mpi::mpi::collective::SystemOperation;
use gpu_layer_norm_mpi::mpi::request::scope;
use gpu_layer_norm_mpi::mpi::topology::SimpleCommunicator;
use gpu_layer_norm_mpi::mpi::traits::{Communicator, CommunicatorCollectives};
use gpu_layer_norm_mpi::{Options, ShardedLayerNorm};
use lexopt::ValueExt;
use serde::{Deserialize, Serialize};

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

/// The shapes of a process that is a rank: rows and width of each.
const SHAPES: &str = "GPU_LAYER_NORM_MPI_SHAPES";
const RUNS: usize = 12;
/// Into how many chunks the rows are cut, besides none.
const CHUNKS: u64 = 8;

/// What one number of ranks has measured. Seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    ranks: u32,
    rows: u64,
    width: u64,
    backward: bool,
    /// The crate's pass over whole rows, on one rank alone.
    one_device: f64,
    /// Rows of each of the chunks.
    rows_per_chunk: u64,
    in_chunks: f64,
    in_one_chunk: f64,
    // What the model is told.
    memory_in_chunks: f64,
    memory_in_one_chunk: f64,
    launch: f64,
    readback: f64,
    latency: f64,
    link: f64,
}

impl Measured {
    fn machine(&self, memory: f64) -> Machine {
        Machine {
            memory,
            launch: self.launch,
            readback: self.readback,
            latency: self.latency,
            link: self.link,
            on_chip: 0.0,
        }
    }

    fn work(&self) -> Work {
        let direction = if self.backward { Direction::Backward } else { Direction::Forward };
        Work { direction, rows: self.rows as f64, width: self.width as f64, element: 4.0 }
    }
}

fn main() -> ExitCode {
    let result = match std::env::var(SHAPES) {
        Ok(shapes) => gpu_layer_norm_mpi::run(|world| rank(world, &shapes)).map_err(Into::into),
        Err(_) => report(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

const HELP: &str = "\
cargo bench --bench ranks -- [options]

  --ranks 1,2,4                      numbers of ranks
  --shapes 4096x4096,16x1048576      rows and width of each shape
  --link MBIT                        the ranks talk over TCP on a link of so many Mbit/s (Linux: unshare, ip and tc are needed)
  --json FILE                        writes what was measured
  --model                            only what the model says of other machines";

fn report() -> AnyResult<()> {
    let mut ranks: Vec<u32> = vec![1, 2, 4];
    let mut shapes = "4096x4096,256x65536,16x1048576,4x4194304".to_owned();
    let (mut link, mut json, mut only_model) = (None, None, false);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("ranks") => {
                let list = arguments.value()?.string()?;
                ranks = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            lexopt::Arg::Long("shapes") => shapes = arguments.value()?.string()?,
            lexopt::Arg::Long("link") => link = Some(arguments.value()?.parse()?),
            lexopt::Arg::Long("json") => json = Some(arguments.value()?),
            lexopt::Arg::Long("model") => only_model = true,
            // What cargo adds.
            lexopt::Arg::Long("bench") => {}
            lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    parse_shapes(&shapes)?;
    if !only_model {
        let mut measured = Vec::new();
        for ranks in ranks {
            eprintln!("measuring with {ranks} ranks");
            measured.extend(measure(ranks, &shapes, link)?);
        }
        print_measured(&measured);
        if let Some(path) = json {
            let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
            let text = serde_json::to_string_pretty(&serde_json::json!({ "date": date, "measured": measured }))?;
            std::fs::write(path, text + "\n")?;
        }
    }
    print_elsewhere();
    Ok(())
}

fn parse_shapes(shapes: &str) -> AnyResult<Vec<(usize, usize)>> {
    let shape = |shape: &str| {
        let (rows, width) = shape.split_once('x').ok_or_else(|| format!("{shape} is no ROWSxWIDTH"))?;
        Ok((rows.parse()?, width.parse()?))
    };
    shapes.split(',').map(shape).collect()
}

/// `mpirun`, over a link of so many Mbit/s if one is given: in a network of its own, whose only device lets no more through.
fn mpirun(link: Option<u32>) -> Command {
    let Some(link) = link else { return Command::new("mpirun") };
    let mut command = Command::new("unshare");
    let limit = format!("ip link set lo up && tc qdisc add dev lo root tbf rate {link}mbit burst 256k latency 1s");
    command.args(["--net", "--map-root-user", "sh", "-c", &format!("{limit} && exec mpirun \"$@\""), "mpirun"]);
    // Not through shared memory, nor through what knows of better networks.
    command.args(["--mca", "pml", "ob1", "--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo"]);
    command
}

/// Starts the ranks, and takes what rank 0 prints.
fn measure(ranks: u32, shapes: &str, link: Option<u32>) -> AnyResult<Vec<Measured>> {
    let mut command = mpirun(link);
    // In a container one is root, and there are more ranks than cores.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["--oversubscribe", "-n", &ranks.to_string()]).arg(std::env::current_exe()?);
    if std::env::var_os("LP_NUM_THREADS").is_none() {
        command.env("LP_NUM_THREADS", "1");
    }
    let output = command.env(SHAPES, shapes).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("mpirun: {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn print_measured(measured: &[Measured]) {
    println!(
        "| rows × width | pass | ranks | one device, ms | in {CHUNKS} chunks, ms | model, ms | measured / model | in one chunk, ms | \
         model, ms | measured / model | gain |"
    );
    println!("|---|---|{}", "--:|".repeat(9));
    for it in measured {
        let one = measured.iter().filter(|one| (one.rows, one.width, one.backward) == (it.rows, it.width, it.backward));
        let one_device = one.map(|one| one.one_device).find(|time| *time > 0.0);
        let model = |memory, rows: u64| model::sharded(&it.machine(memory), &it.work(), it.ranks.into(), rows as f64);
        let in_chunks = model(it.memory_in_chunks, it.rows_per_chunk);
        let in_one_chunk = model(it.memory_in_one_chunk, it.rows);
        println!(
            "| {} × {} | {} | {} | {} | {:.1} | {:.1} | {:.2} | {:.1} | {:.1} | {:.2} | {} |",
            it.rows,
            it.width,
            name(it.work().direction),
            it.ranks,
            one_device.map_or("–".into(), |time| format!("{:.1}", time * 1e3)),
            it.in_chunks * 1e3,
            in_chunks * 1e3,
            it.in_chunks / in_chunks,
            it.in_one_chunk * 1e3,
            in_one_chunk * 1e3,
            it.in_one_chunk / in_one_chunk,
            one_device.map_or("–".into(), |time| format!("{:.2}", time / it.in_chunks.min(it.in_one_chunk))),
        );
    }
    println!();
    println!("| ranks | kernels, GB/s each | submission, µs | read-back, µs | α, µs | link, GB/s |");
    println!("|--:|--:|--:|--:|--:|--:|");
    let mut ranks: Vec<u32> = measured.iter().map(|it| it.ranks).collect();
    ranks.dedup();
    for ranks in ranks {
        let of = |value: fn(&Measured) -> f64| {
            let mut values: Vec<f64> = measured.iter().filter(|it| it.ranks == ranks).map(value).collect();
            median(&mut values)
        };
        println!(
            "| {ranks} | {:.2} | {:.0} | {:.0} | {} | {} |",
            of(|it| it.memory_in_chunks) / 1e9,
            of(|it| it.launch) * 1e6,
            of(|it| it.readback) * 1e6,
            if ranks > 1 { format!("{:.1}", of(|it| it.latency) * 1e6) } else { "–".into() },
            if ranks > 1 { format!("{:.2}", of(|it| it.link) / 1e9) } else { "–".into() },
        );
    }
    println!();
}

/// What the model says of GPUs.
fn print_elsewhere() {
    let machine = Machine::GPU;
    println!(
        "GPUs of {:.0} TB/s, links of {:.0} GB/s and {:.0} µs, f32: the width from which on sharding is faster than one device, by ranks",
        machine.memory / 1e12,
        machine.link / 1e9,
        machine.latency * 1e6
    );
    let ranks = [2.0, 4.0, 8.0, 64.0, 512.0, 4096.0];
    println!("\n| pass | rows | {} |", ranks.map(|ranks| format!("{ranks}")).join(" | "));
    println!("|---|--:|{}", "--:|".repeat(ranks.len()));
    for direction in [Direction::Forward, Direction::Backward] {
        for rows in [1.0, 32.0, 1024.0, 32_768.0] {
            let cells = ranks.map(|ranks| {
                let work = Work { direction, rows, width: 1.0, element: 4.0 };
                model::pays_from(&machine, &work, ranks).map_or("never".into(), |width| format!("2^{}", width.ilog2()))
            });
            println!("| {} | {rows} | {} |", name(direction), cells.join(" | "));
        }
    }
    println!("\nForward, µs; in brackets what gathering the shards instead takes\n");
    println!("| rows × width | one device | {} |", ranks.map(|ranks| format!("{ranks}")).join(" | "));
    println!("|---|--:|{}", "--:|".repeat(ranks.len()));
    for (rows, log2) in [(4096.0, 12), (4096.0, 16), (32.0, 20), (4096.0, 20), (1.0, 24), (1.0, 28), (256.0, 28)] {
        let work = Work { direction: Direction::Forward, rows, width: f64::from(1 << log2), element: 4.0 };
        let cells = ranks.map(|ranks| {
            let sharded = model::best_chunk(&machine, &work, ranks).1;
            format!("{:.0} ({:.0})", sharded * 1e6, model::gathered(&machine, &work, ranks) * 1e6)
        });
        let one = model::one_device(&machine, &work);
        println!("| {rows} × 2^{log2} | {:.0} | {} |", one * 1e6, cells.join(" | "));
    }
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "forward",
        Direction::Backward => "backward",
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A thing that is timed.
type Run<'a> = Box<dyn FnMut() -> AnyResult<()> + 'a>;

/// The fastest of some runs of each, in turn. All ranks begin a run together, and it takes as long as on the slowest of them. Others may use
/// the machine too, and make single runs slower, none faster.
fn time<const N: usize>(world: &SimpleCommunicator, mut runs: [Run<'_>; N]) -> AnyResult<[f64; N]> {
    let mut fastest = [f64::INFINITY; N];
    // The first ones compile what is new.
    for turn in 0..=RUNS {
        for (run, fastest) in runs.iter_mut().zip(&mut fastest) {
            world.barrier();
            let began = Instant::now();
            run()?;
            let own = [began.elapsed().as_secs_f64()];
            let mut all = [0.0];
            world.all_reduce_into(&own[..], &mut all[..], SystemOperation::max());
            if turn > 0 {
                *fastest = fastest.min(all[0]);
            }
        }
    }
    Ok(fastest)
}

/// An all-reduce as the crate waits for it.
fn all_reduce(world: &SimpleCommunicator, own: &[f64], all: &mut [f64]) {
    scope(|scope| {
        let mut request = world.immediate_all_reduce_into(scope, own, all, SystemOperation::sum());
        loop {
            match request.test() {
                Ok(_) => break,
                Err(pending) => request = pending,
            }
            std::thread::yield_now();
        }
    });
}

fn rank(world: &SimpleCommunicator, shapes: &str) -> AnyResult<()> {
    let device = GpuDevice::new()?;
    let (latency, link) = links(world)?;
    for (rows, width) in parse_shapes(shapes)? {
        for backward in [false, true] {
            let mut measured = one_shape(world, &device, rows, width, backward)?;
            (measured.latency, measured.link) = (latency, link);
            if world.rank() == 0 {
                println!("{}", serde_json::to_string(&measured)?);
            }
        }
    }
    Ok(())
}

/// α and 1 / β, from a small and a large all-reduce.
fn links(world: &SimpleCommunicator) -> AnyResult<(f64, f64)> {
    let ranks = f64::from(world.size());
    if ranks < 2.0 {
        return Ok((1e-6, 1e12));
    }
    const TIMES: u32 = 50;
    let many = |words: usize| -> Run<'_> {
        let (own, mut all) = (vec![1.0; words], vec![0.0; words]);
        Box::new(move || {
            (0..TIMES).for_each(|_| all_reduce(world, &own, &mut all));
            if all.iter().any(|sum| *sum != ranks) { Err("a wrong sum".into()) } else { Ok(()) }
        })
    };
    let [small, large] = time(world, [many(8), many(1 << 16)])?.map(|time| time / f64::from(TIMES));
    let latency = small / ranks.log2().ceil();
    let at = |link: f64| model::all_reduce(&Machine { latency, link, ..Machine::GPU }, ranks, f64::from(8 * (1 << 16)));
    // More bytes a second take less time.
    let (mut low, mut high) = (1e3_f64, 1e15_f64);
    for _ in 0..200 {
        let middle = (low * high).sqrt();
        if at(middle) > large { low = middle } else { high = middle }
    }
    Ok((latency, high))
}

fn one_shape(
    world: &SimpleCommunicator,
    device: &GpuDevice,
    rows: usize,
    width: usize,
    backward: bool,
) -> AnyResult<Measured> {
    let (rank, ranks) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
    let own = width * rank / ranks..width * (rank + 1) / ranks;
    let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5;
    let row = |r: usize| (0..width).map(move |column| value(r * width + column));
    let values: Vec<f32> = (0..rows).flat_map(|r| row(r).skip(own.start).take(own.len())).collect();
    let input = GpuTensor::upload(device, &Tensor::from_f32([rows, own.len()], values)?)?;

    let config = LayerNormConfig::new(own.len());
    let rows_per_chunk = (rows as u64).div_ceil(CHUNKS);
    let [in_chunks, in_one_chunk] = [rows_per_chunk, rows as u64]
        .map(|rows| ShardedLayerNorm::with_options(world, device, &config, &Options::default().rows_per_chunk(rows)));
    let (in_chunks, in_one_chunk) = (in_chunks?, in_one_chunk?);
    let (output, moments) = in_chunks.forward(&input)?;
    check(&output, &row(0).collect::<Vec<f32>>(), own.start, width)?;

    let pass = |layer: &ShardedLayerNorm| -> AnyResult<()> {
        if backward {
            layer.backward(&input, &output, &moments)?;
        } else {
            layer.forward(&input)?;
        }
        Ok(device.wait()?)
    };
    let alone = GpuLayerNorm::new(device, &config)?;
    let sums = GpuTensor::zeros(device, [rows, 2])?;
    let kernels = Kernels { device, layer: &alone, input: &input, output: &output, moments: &moments, sums: &sums };
    let statistics = alone.forward_for_training(device, &input)?.1;
    let whole = || -> AnyResult<()> {
        if backward {
            alone.backward(device, &input, &output, Some(&statistics))?;
        } else {
            alone.forward_for_training(device, &input)?;
        }
        Ok(device.wait()?)
    };
    let small = GpuTensor::zeros(device, [rows_per_chunk as usize, 4])?;
    let tiny = GpuTensor::zeros(device, [1, 4])?;
    let tiny_layer = GpuLayerNorm::new(device, &LayerNormConfig::new(4))?;
    let tiny_output = GpuTensor::zeros(device, [1, 4])?;
    const SUBMISSIONS: u32 = 20;
    let [in_chunks, in_one_chunk, kernels_in_chunks, kernels_in_one_chunk, one_device, readback, submissions] = time(
        world,
        [
            Box::new(|| pass(&in_chunks)),
            Box::new(|| pass(&in_one_chunk)),
            Box::new(|| kernels.run(rows_per_chunk, backward)),
            Box::new(|| kernels.run(rows as u64, backward)),
            Box::new(|| if ranks == 1 { whole() } else { Ok(()) }),
            Box::new(|| Ok(small.download().map(|_| ())?)),
            Box::new(|| {
                for _ in 0..SUBMISSIONS {
                    tiny_layer.execute(device, &Bindings::of(&tiny, &tiny_output))?;
                }
                Ok(device.wait()?)
            }),
        ],
    )?;
    let launch = submissions / f64::from(SUBMISSIONS);
    let bytes = rows as f64 * own.len() as f64 * 4.0 * if backward { 5.0 } else { 3.0 };
    let memory = |time: f64, chunks: u64| bytes / (time - 2.0 * chunks as f64 * launch).max(time / 10.0);
    Ok(Measured {
        ranks: u32::try_from(ranks)?,
        rows: rows as u64,
        width: width as u64,
        backward,
        one_device: if ranks == 1 { one_device } else { 0.0 },
        rows_per_chunk,
        in_chunks,
        in_one_chunk,
        memory_in_chunks: memory(kernels_in_chunks, (rows as u64).div_ceil(rows_per_chunk)),
        memory_in_one_chunk: memory(kernels_in_one_chunk, 1),
        launch,
        readback,
        latency: 0.0,
        link: 0.0,
    })
}

/// That the first row is right, before anything is timed.
fn check(output: &GpuTensor, row: &[f32], start: usize, width: usize) -> AnyResult<()> {
    let expected = reference::layer_norm(row, width, None, None, 1e-5, false);
    let columns = *output.shape().last().ok_or("it has dimensions")?;
    let found = output.download()?;
    let found = &found.values()[..columns];
    match found.iter().zip(&expected[start..]).find(|(y, expected)| !is_close(**y, **expected)) {
        Some((y, expected)) => Err(format!("{y} in place of {expected}").into()),
        None => Ok(()),
    }
}

/// Not so where one of them is NaN.
fn is_close(y: f32, expected: f64) -> bool {
    (f64::from(y) - expected).abs() < 4e-6
}

/// The kernels of a pass without a word between the ranks, in the order in which the pass submits them.
struct Kernels<'a> {
    device: &'a GpuDevice,
    layer: &'a GpuLayerNorm,
    input: &'a GpuTensor,
    output: &'a GpuTensor,
    moments: &'a GpuMoments,
    sums: &'a GpuTensor,
}

impl Kernels<'_> {
    fn run(&self, rows_per_chunk: u64, backward: bool) -> AnyResult<()> {
        let Self { device, layer, input, output, moments, sums } = self;
        let (rows, width) = (input.shape()[0] as u64, input.shape()[1] as u64);
        // New ones each time, as in a pass.
        let written = GpuTensor::zeros(device, input.shape())?;
        let of_rows = GpuTensor::zeros(device, [rows as usize, 4])?;
        let parameter = || GpuTensor::zeros(device, [width as usize]);
        let (by_weight, by_bias) = (parameter()?, parameter()?);
        let submit = |bindings: &Bindings| -> AnyResult<()> {
            let prepared = layer.prepare(device, bindings)?;
            let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            prepared.encode(&mut encoder);
            device.queue().submit([encoder.finish()]);
            Ok(())
        };
        let chunk = |first: u64| {
            let region = |tensor: &GpuTensor| Region::from(tensor).offset(first * width).row_stride(width);
            let words = |tensor: &GpuTensor, words: u64| Region::from(tensor).offset(first * words).row_stride(words);
            let (rows, moments) = (rows_per_chunk.min(rows - first), words(moments.tensor(), 4));
            if backward {
                let gradients = Bindings::gradients(
                    rows,
                    region(input),
                    moments.clone(),
                    region(output),
                    words(sums, 2),
                    region(&written),
                );
                let gradients = gradients.weight_gradient(&by_weight).bias_gradient(&by_bias).accumulate(first > 0);
                let scratch = Region::from(&of_rows).offset(first * 2).row_stride(2);
                (Bindings::gradient_sums(rows, region(input), moments, region(output), scratch), gradients)
            } else {
                let measured = Bindings::moments(rows, region(input), words(&of_rows, 4));
                (measured, Bindings::normalize(rows, region(input), moments, region(&written)))
            }
        };
        let mut before: Vec<(Bindings, Bindings)> = (0..rows).step_by(rows_per_chunk as usize).map(chunk).collect();
        let mut after = Vec::new();
        // As far ahead as the pass is.
        before.reverse();
        while !before.is_empty() || !after.is_empty() {
            while after.len() < 3 {
                let Some((measure, finish)) = before.pop() else { break };
                submit(&measure)?;
                after.push(finish);
            }
            submit(&after.remove(0))?;
        }
        Ok(device.wait()?)
    }
}
