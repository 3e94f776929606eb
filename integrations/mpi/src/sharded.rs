use std::cell::Cell;
use std::ops::Range;

use gpu_layer_norm::kernel::AdapterClass;
use gpu_layer_norm::{
    Bindings, GpuDevice, GpuLayerNorm, GpuMoments, GpuTensor, LayerNormConfig, LayerNormGradients, Normalization,
    PreparedPlan, Region, RowMoments, Tensor, Variance, WideMoments,
};
use mpi::datatype::UserDatatype;
use mpi::traits::{Communicator, Equivalence};

use crate::agreement::{Call, Operation, tell_failure};
use crate::options::MOST_IN_A_CHUNK;
use crate::pipeline::{AHEAD, Chunk, Pass, run};
use crate::ranks::{Ranks, Reduction};
use crate::readback::{Readback, Staging, scoped};
use crate::{Error, Options, model, moments, parts};

/// Layer normalization, or RMS normalization, of rows whose features are spread over several ranks: each has a shard, some of the elements
/// of every row, on its own device, with the weight and the bias that belong to them. The result is that of one device with whole rows.
///
/// Making a layer, [`forward`](Self::forward) and [`backward`](Self::backward) are collective: every rank calls them, in the same order and
/// with the same number of rows. The other methods are not. An error that one rank has in a collective call is told to all, but for a
/// device that fails after the last exchange of that call: its own rank alone knows. A layer must be dropped before MPI is finalized.
///
/// ```no_run
/// use gpu_layer_norm::{GpuDevice, GpuTensor, LayerNormConfig, Tensor};
/// use gpu_layer_norm_mpi::ShardedLayerNorm;
/// use gpu_layer_norm_mpi::mpi::traits::Communicator;
///
/// fn main() -> Result<(), gpu_layer_norm_mpi::Error> {
///     gpu_layer_norm_mpi::run(|world| {
///         // Rows of 4096 elements on 4 ranks.
///         let shard = 4096 / world.size() as usize;
///         let device = GpuDevice::new()?;
///         let layer_norm = ShardedLayerNorm::new(world, &device, &LayerNormConfig::new(shard))?;
///         let input = GpuTensor::upload(&device, &Tensor::from_f32([8, 128, shard], vec![0.5; 8 * 128 * shard])?)?;
///         let (output, moments) = layer_norm.forward(&input)?;
///         let gradients = layer_norm.backward(&input, &output, &moments)?; // of half the sum of squares
///         assert_eq!(gradients.input.shape(), input.shape());
///         Ok::<(), gpu_layer_norm_mpi::Error>(())
///     })
/// }
/// ```
#[derive(Debug)]
pub struct ShardedLayerNorm {
    ranks: Ranks,
    device: GpuDevice,
    config: LayerNormConfig,
    options: Options,
    parts: Vec<Part>,
    // Elements of a row on this rank, and on all.
    width: u64,
    row_width: u64,
    // Whether the device of any rank is a processor.
    has_processors: bool,
    calls: Cell<u64>,
    moments: Reduction,
    sums: Reduction,
}

/// Some elements of the shard that one kernel takes.
#[derive(Debug)]
struct Part {
    index: u64,
    range: Range<u64>,
    layer_norm: GpuLayerNorm,
}

impl ShardedLayerNorm {
    /// A layer over the ranks of a communicator, with the default [`Options`]. `config` is that of this rank's shard. Its normalized shape
    /// may differ from rank to rank, and is `[0]` where a rank has no elements of a row. Its eps, normalization, variance and affine map,
    /// and whether its weight is zero-centred, are those of whole rows, and must be the same on every rank. The weight is 1 (0 if it is
    /// zero-centred), the bias 0.
    ///
    /// Collective over the communicator, which is duplicated.
    ///
    /// # Errors
    /// [`Error::Device`] for what is wrong with the config, or what the device does not take. [`Error::Config`] for a causal layer, for
    /// groups, and for axes that are not the last ones. [`Error::OtherRank`] where another rank has such an error. [`Error::Disagreement`]
    /// where ranks differ in what must be the same, or in [`Options::rows_per_chunk`]. [`Error::Width`] for rows of no elements (of fewer
    /// than 2 for the unbiased variance), or of more than 2^32 − 1.
    pub fn new(communicator: &impl Communicator, device: &GpuDevice, config: &LayerNormConfig) -> Result<Self, Error> {
        Self::with_options(communicator, device, config, &Options::default())
    }

    /// As [`new`](Self::new), with options.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Zero`].
    pub fn with_options(
        communicator: &impl Communicator,
        device: &GpuDevice,
        config: &LayerNormConfig,
        options: &Options,
    ) -> Result<Self, Error> {
        let ranks = Ranks::new(communicator, options.timeout.max(std::time::Duration::from_millis(1)));
        let made = options.check().and_then(|()| {
            let width = width_of(config)?;
            Ok((width, parts_of(device, config, width, options)?))
        });
        let what = "all ranks to make a layer";
        let shards = ranks.all_gather(Shard::of(device.capabilities().class, config, options, &made), what);
        if shards.iter().any(|shard| shard.failed != 0) {
            return Err(tell_failure(&ranks, made.err(), what));
        }
        let (width, parts) = made?;
        check_shards(&shards)?;
        let row_width = row_width(&shards, config.variance_kind())?;
        Ok(Self {
            ranks,
            device: device.clone(),
            config: config.clone(),
            options: options.clone(),
            parts,
            width,
            row_width,
            has_processors: shards.iter().any(|shard| shard.is_processor != 0),
            calls: Cell::new(0),
            moments: moments::reduction(),
            sums: Reduction::sum(),
        })
    }

    /// The config of this rank's shard.
    pub fn config(&self) -> &LayerNormConfig {
        &self.config
    }

    /// The elements of a row on all ranks.
    pub fn row_width(&self) -> u64 {
        self.row_width
    }

    /// How many rows a chunk of a pass over `rows` rows has at most: [`Options::rows_per_chunk`], or its default.
    pub fn rows_per_chunk(&self, rows: u64) -> u64 {
        let ranks = self.ranks.size() as u64;
        let default = || match self.has_processors {
            true => model::rows_in_cache(self.row_width, ranks),
            false => model::default_rows_per_chunk(rows, self.row_width, ranks),
        };
        self.options.rows_per_chunk.unwrap_or_else(default).clamp(1, MOST_IN_A_CHUNK / 4)
    }

    /// Sets this rank's part of the weight. Not collective.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the tensor has the normalized shape of this rank's shard. [`Error::Device`] with `NoParameter` if the layer
    /// has no weight, and with what else the device may say.
    pub fn set_weight(&self, weight: &Tensor) -> Result<(), Error> {
        self.set_parameter("weight", weight, GpuLayerNorm::set_weight)
    }

    /// Sets this rank's part of the bias, as [`set_weight`](Self::set_weight) does.
    ///
    /// # Errors
    /// As [`set_weight`](Self::set_weight).
    pub fn set_bias(&self, bias: &Tensor) -> Result<(), Error> {
        self.set_parameter("bias", bias, GpuLayerNorm::set_bias)
    }

    /// Normalizes whole rows, of which `input`, `[.., normalized shape of the shard]`, has this rank's part, into a new tensor. Returns it with
    /// the moments of whole rows, which [`backward`](Self::backward) takes, and which are the same on every rank to the last bit.
    ///
    /// Returns as soon as everything is submitted. **Accuracy**, as that of one device: x̂ is within 2e-6 · max(1, |x̂| / 4), at any mean and
    /// on any number of ranks.
    ///
    /// # Errors
    /// [`Error::Device`] for an input of another shape or device, and what the device may say. [`Error::OtherRank`] where another rank
    /// has such an error, [`Error::Disagreement`] where ranks have other numbers of rows than others, or make another call.
    pub fn forward(&self, input: &GpuTensor) -> Result<(GpuTensor, GpuMoments), Error> {
        let rows = self.config.rows(input.shape());
        let call = self.call(Operation::Forward, *rows.as_ref().unwrap_or(&0));
        let pass = rows.map_err(Error::from).and_then(|rows| Forward::new(self, input, rows));
        let done = run(&self.ranks, &self.device, &self.moments, call, self.rows_per_chunk(call.count), "", pass)?;
        Ok((done.output, done.moments))
    }

    /// Computes the gradients of a loss by input, weight and bias from its gradient by the output, all for this rank's part of the rows.
    /// `moments` are those that [`forward`](Self::forward) has returned for this input. The gradients by weight and bias are f32 whatever
    /// the parameters are stored as, because they are added up chunk after chunk.
    ///
    /// Returns as soon as everything is submitted. **Accuracy**: dx is within 4e-6 of the largest |dx| in its row (or of rstd · max|g|
    /// where that is more, with g = dy · weight); dweight and dbias are within what [`GpuLayerNorm::backward`] says for rows of more than
    /// 65,536 elements.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`] unless the output gradient has the input's shape and there are moments for each
    /// row.
    pub fn backward(
        &self,
        input: &GpuTensor,
        output_gradient: &GpuTensor,
        moments: &GpuMoments,
    ) -> Result<LayerNormGradients, Error> {
        let rows = self.config.rows(input.shape());
        let call = self.call(Operation::Backward, *rows.as_ref().unwrap_or(&0));
        let pass =
            rows.map_err(Error::from).and_then(|rows| Backward::new(self, input, output_gradient, moments, rows));
        let done = run(&self.ranks, &self.device, &self.sums, call, self.rows_per_chunk(call.count), "", pass)?;
        Ok(done.gradients)
    }

    fn call(&self, operation: Operation, count: u64) -> Call {
        self.calls.set(self.calls.get() + 1);
        Call { operation, number: self.calls.get(), count, shapes: 0, failed: false }
    }

    fn set_parameter(
        &self,
        what: &'static str,
        value: &Tensor,
        set: impl Fn(&GpuLayerNorm, &Tensor) -> Result<(), gpu_layer_norm::Error>,
    ) -> Result<(), Error> {
        let expected = self.config.normalized_shape();
        if value.shape() != expected {
            return Err(Error::Shape { what, expected: expected.to_vec(), actual: value.shape().to_vec() });
        }
        let values = value.values();
        for part in &self.parts {
            let range = part.range.start as usize..part.range.end as usize;
            set(&part.layer_norm, &Tensor::from_f32([range.len()], &values[range])?)?;
        }
        Ok(())
    }

    /// The elements of a part in some rows of a tensor of shards.
    fn region(&self, tensor: &GpuTensor, part: &Part, chunk: Chunk) -> Region {
        Region::from(tensor).offset(chunk.first * self.width + part.range.start).row_stride(self.width)
    }

    /// Words of some rows of a tensor that has so many for each row.
    fn words(tensor: &GpuTensor, words: u64, first: u64) -> Region {
        Region::from(tensor).offset(first * words).row_stride(words)
    }

    /// What each part does with a chunk.
    fn prepare(&self, chunk: Chunk, bindings: impl Fn(&Part, Chunk) -> Bindings) -> Result<Vec<PreparedPlan>, Error> {
        let prepare = |part: &Part| Ok(part.layer_norm.prepare(&self.device, &bindings(part, chunk))?);
        self.parts.iter().map(prepare).collect()
    }

    /// Finds on the first row what is wrong with the tensors of a pass, so that it is known before the ranks agree.
    fn check(&self, rows: u64, bindings: impl Fn(&Part, Chunk) -> Bindings) -> Result<(), Error> {
        if rows > 0 {
            self.prepare(Chunk { index: 0, first: 0, count: 1 }, bindings)?;
        }
        Ok(())
    }
}

/// Memory of the chunks under way: a few words for each row and part, and where they are read back to.
struct Slots {
    words: u64,
    rows: u64,
    slots: Vec<(GpuTensor, Staging)>,
}

impl Slots {
    fn new(layer: &ShardedLayerNorm, rows: u64, words: u64) -> Result<Self, Error> {
        let rows = layer.rows_per_chunk(rows).min(rows);
        let parts = layer.parts.len() as u64;
        let slot = |_| {
            let tensor = GpuTensor::zeros(&layer.device, [parts as usize, rows as usize, words as usize])?;
            let staging = Staging::new(&layer.device, parts * rows * words * 4)?;
            Ok((tensor, staging))
        };
        // A rank without elements has nothing to measure.
        let count = if parts == 0 { 0 } else { AHEAD };
        Ok(Self { words, rows, slots: (0..count).map(slot).collect::<Result<_, Error>>()? })
    }

    /// Prepares what each part does, given where its words go, submits it all, and reads the words back.
    fn measure(
        &self,
        layer: &ShardedLayerNorm,
        chunk: Chunk,
        bindings: impl Fn(&Part, Region) -> Bindings,
    ) -> Result<Option<Readback>, Error> {
        if layer.parts.is_empty() {
            return Ok(None);
        }
        let (tensor, staging) = &self.slots[chunk.index % AHEAD];
        let plans = layer.prepare(chunk, |part, chunk| {
            bindings(part, ShardedLayerNorm::words(tensor, self.words, part.index * chunk.count))
        })?;
        debug_assert!(chunk.count <= self.rows);
        let bytes = layer.parts.len() as u64 * chunk.count * self.words * 4;
        let readback = staging.start(&layer.device, bytes, |encoder, target| {
            plans.iter().for_each(|plan| plan.encode(encoder));
            encoder.copy_buffer_to_buffer(tensor.buffer(), 0, target, 0, bytes);
        })?;
        Ok(Some(readback))
    }
}

/// Writes a few words at a row of a tensor, then submits what each part does.
fn write_and_submit(
    layer: &ShardedLayerNorm,
    target: &GpuTensor,
    offset: u64,
    bytes: &[u8],
    plans: &[PreparedPlan],
) -> Result<(), Error> {
    scoped(&layer.device, "the submission of a chunk", bytes.len() as u64, |device| {
        let queue = layer.device.queue();
        queue.write_buffer(target.buffer(), offset, bytes);
        let mut encoder = device.create_command_encoder(&Default::default());
        plans.iter().for_each(|plan| plan.encode(&mut encoder));
        queue.submit([encoder.finish()]);
    })?;
    Ok(())
}

/// The shape of the dimensions that are not normalized.
fn leading<'a>(layer: &ShardedLayerNorm, shape: &'a [usize]) -> &'a [usize] {
    &shape[..shape.len() - layer.config.normalized_shape().len()]
}

struct Forward<'a> {
    layer: &'a ShardedLayerNorm,
    input: &'a GpuTensor,
    output: GpuTensor,
    moments: GpuMoments,
    slots: Slots,
}

/// Words of the moments of a row.
const MOMENTS: u64 = size_of::<RowMoments>() as u64 / 4;

impl<'a> Forward<'a> {
    fn new(layer: &'a ShardedLayerNorm, input: &'a GpuTensor, rows: u64) -> Result<Self, Error> {
        let storage = layer.config.output_storage_type(input.storage());
        let output = GpuTensor::zeros_as(&layer.device, input.shape(), storage)?;
        let moments = GpuMoments::zeros(&layer.device, leading(layer, input.shape()))?;
        let slots = Slots::new(layer, rows, MOMENTS)?;
        let pass = Self { layer, input, output, moments, slots };
        layer.check(rows, |part, first| pass.normalization(part, first))?;
        Ok(pass)
    }

    fn normalization(&self, part: &Part, chunk: Chunk) -> Bindings {
        Bindings::normalize(
            chunk.count,
            self.layer.region(self.input, part, chunk),
            ShardedLayerNorm::words(self.moments.tensor(), MOMENTS, chunk.first),
            self.layer.region(&self.output, part, chunk),
        )
    }
}

impl Pass for Forward<'_> {
    type Word = f64;
    const WORDS: usize = moments::WORDS;

    fn measure(&mut self, chunk: Chunk) -> Result<Option<Readback>, Error> {
        self.slots.measure(self.layer, chunk, |part, moments| {
            Bindings::moments(chunk.count, self.layer.region(self.input, part, chunk), moments)
        })
    }

    fn fill(&self, chunk: Chunk, bytes: &[u8], words: &mut [f64]) {
        let target: &mut [WideMoments] = bytemuck::cast_slice_mut(words);
        for part in bytes.chunks_exact(chunk.count as usize * size_of::<RowMoments>()) {
            let rows: Vec<RowMoments> = bytemuck::pod_collect_to_vec(part);
            for (whole, row) in target.iter_mut().zip(rows) {
                *whole = whole.merge(row.into());
            }
        }
    }

    fn finish(&mut self, chunk: Chunk, words: &[f64]) -> Result<(), Error> {
        let wide: &[WideMoments] = bytemuck::cast_slice(words);
        let moments = wide.iter().map(|row| row.round()).collect::<Result<Vec<RowMoments>, _>>()?;
        let plans = self.layer.prepare(chunk, |part, chunk| self.normalization(part, chunk))?;
        let offset = chunk.first * MOMENTS * 4;
        write_and_submit(self.layer, self.moments.tensor(), offset, bytemuck::cast_slice(&moments), &plans)
    }

    fn failure() -> Vec<f64> {
        vec![1.0, 0.0, 0.0]
    }
}

struct Backward<'a> {
    layer: &'a ShardedLayerNorm,
    input: &'a GpuTensor,
    output_gradient: &'a GpuTensor,
    moments: &'a GpuMoments,
    // Of whole rows.
    sums: GpuTensor,
    gradients: LayerNormGradients,
    slots: Slots,
}

/// Words of the sums of a row.
const SUMS: u64 = 2;

impl<'a> Backward<'a> {
    fn new(
        layer: &'a ShardedLayerNorm,
        input: &'a GpuTensor,
        output_gradient: &'a GpuTensor,
        moments: &'a GpuMoments,
        rows: u64,
    ) -> Result<Self, Error> {
        let expect = |what, expected: &[usize], actual: &[usize]| {
            let wrong = || Error::Shape { what, expected: expected.to_vec(), actual: actual.to_vec() };
            if expected == actual { Ok(()) } else { Err(wrong()) }
        };
        expect("output gradient", input.shape(), output_gradient.shape())?;
        let of_rows = [leading(layer, input.shape()), &[MOMENTS as usize]].concat();
        expect("tensor of the moments", &of_rows, moments.tensor().shape())?;
        let parameter = |is_there: bool| {
            is_there.then(|| GpuTensor::zeros(&layer.device, layer.config.normalized_shape())).transpose()
        };
        let affine = layer.config.affine_kind();
        let gradients = LayerNormGradients {
            input: GpuTensor::zeros_as(&layer.device, input.shape(), input.storage())?,
            weight: parameter(affine.has_weight())?,
            bias: parameter(affine.has_bias())?,
        };
        let sums = GpuTensor::zeros(&layer.device, [leading(layer, input.shape()), &[SUMS as usize]].concat())?;
        let slots = Slots::new(layer, rows, SUMS)?;
        let pass = Self { layer, input, output_gradient, moments, sums, gradients, slots };
        layer.check(rows, |part, first| pass.all_gradients(part, first))?;
        Ok(pass)
    }

    fn all_gradients(&self, part: &Part, chunk: Chunk) -> Bindings {
        let Self { layer, input, output_gradient, moments, sums, gradients, .. } = self;
        let mut bindings = Bindings::gradients(
            chunk.count,
            layer.region(input, part, chunk),
            ShardedLayerNorm::words(moments.tensor(), MOMENTS, chunk.first),
            layer.region(output_gradient, part, chunk),
            ShardedLayerNorm::words(sums, SUMS, chunk.first),
            layer.region(&gradients.input, part, chunk),
        );
        let parameter = |tensor: &GpuTensor| Region::from(tensor).offset(part.range.start);
        if let Some(weight) = &gradients.weight {
            bindings = bindings.weight_gradient(parameter(weight));
        }
        if let Some(bias) = &gradients.bias {
            bindings = bindings.bias_gradient(parameter(bias));
        }
        bindings.accumulate(chunk.index > 0)
    }
}

impl Pass for Backward<'_> {
    type Word = f64;
    const WORDS: usize = SUMS as usize;

    fn measure(&mut self, chunk: Chunk) -> Result<Option<Readback>, Error> {
        self.slots.measure(self.layer, chunk, |part, sums| {
            Bindings::gradient_sums(
                chunk.count,
                self.layer.region(self.input, part, chunk),
                ShardedLayerNorm::words(self.moments.tensor(), MOMENTS, chunk.first),
                self.layer.region(self.output_gradient, part, chunk),
                sums,
            )
        })
    }

    // In f64, in which adding up thousands of ranks loses nothing that counts.
    fn fill(&self, chunk: Chunk, bytes: &[u8], words: &mut [f64]) {
        for part in bytes.chunks_exact(chunk.count as usize * SUMS as usize * 4) {
            let sums: Vec<f32> = bytemuck::pod_collect_to_vec(part);
            for (whole, sum) in words.iter_mut().zip(sums) {
                *whole += f64::from(sum);
            }
        }
    }

    fn finish(&mut self, chunk: Chunk, words: &[f64]) -> Result<(), Error> {
        let sums: Vec<f32> = words.iter().map(|sum| *sum as f32).collect();
        let plans = self.layer.prepare(chunk, |part, chunk| self.all_gradients(part, chunk))?;
        write_and_submit(self.layer, &self.sums, chunk.first * SUMS * 4, bytemuck::cast_slice(&sums), &plans)
    }

    fn failure() -> Vec<f64> {
        vec![1.0, 0.0]
    }
}

/// The elements of the shard that a config is of, if it is one that can be sharded.
fn width_of(config: &LayerNormConfig) -> Result<u64, Error> {
    if config.is_causal() {
        return Err(Error::Config { what: "causal normalization" });
    }
    let shape = config.normalized_shape();
    if shape.is_empty() {
        return Err(Error::Config { what: "normalization over no dimensions" });
    }
    // A dimension before the normalized ones, of another size than any of them.
    let probe = [&[shape.iter().max().map_or(1, |most| most.saturating_add(1))], shape].concat();
    let is_trailing = config.mixed_axes(&probe).is_ok_and(|axes| axes.iter().copied().eq(1..probe.len()));
    if !is_trailing || config.parameter_shape() != shape {
        return Err(Error::Config { what: "normalization of groups, or over axes that are not the last ones," });
    }
    let too_wide = || Error::Width { width: u64::MAX, min: 1, max: u32::MAX.into() };
    shape.iter().try_fold(1_u64, |width, size| width.checked_mul(*size as u64)).ok_or_else(too_wide)
}

fn parts_of(device: &GpuDevice, config: &LayerNormConfig, width: u64, options: &Options) -> Result<Vec<Part>, Error> {
    let max = u64::from(u32::MAX);
    if width > max {
        return Err(Error::Width { width, min: 1, max });
    }
    let widest = options.widest_part.unwrap_or(u64::MAX).min(parts::widest(device));
    let part = |(index, range): (u64, Range<u64>)| {
        let width = (range.end - range.start) as usize;
        let part = match config.normalization_kind() {
            Normalization::RmsNorm => LayerNormConfig::rms(width),
            _ => LayerNormConfig::new(width),
        };
        let mut part = part
            .eps(config.eps_value())
            .affine(config.affine_kind())
            .variance(config.variance_kind())
            .zero_centred_weight(config.has_zero_centred_weight())
            .parameter_storage(config.parameter_storage_type())
            .expect_nothing();
        if let Some(strategy) = config.forced_strategy() {
            part = part.strategy(strategy);
        }
        Ok(Part { index, range, layer_norm: GpuLayerNorm::new(device, &part)? })
    };
    (0..).zip(parts::cut(width, widest)).map(part).collect()
}

/// What ranks tell each other when a layer is made.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Shard {
    failed: u64,
    width: u64,
    eps: u64,
    affine: u64,
    variance: u64,
    normalization: u64,
    zero_centred_weight: u64,
    rows_per_chunk: u64,
    is_processor: u64,
}

// Safety: it is so many u64.
unsafe impl Equivalence for Shard {
    type Out = UserDatatype;
    fn equivalent_datatype() -> UserDatatype {
        UserDatatype::contiguous(9, &u64::equivalent_datatype())
    }
}

impl Shard {
    fn of(
        class: AdapterClass,
        config: &LayerNormConfig,
        options: &Options,
        made: &Result<(u64, Vec<Part>), Error>,
    ) -> Self {
        let affine = config.affine_kind();
        Self {
            failed: u64::from(made.is_err()),
            width: made.as_ref().map_or(0, |(width, _)| *width),
            eps: config.eps_value().to_bits().into(),
            affine: u64::from(affine.has_weight()) + 2 * u64::from(affine.has_bias()),
            variance: u64::from(config.variance_kind() == Variance::Unbiased),
            normalization: u64::from(config.normalization_kind() == Normalization::RmsNorm),
            zero_centred_weight: u64::from(config.has_zero_centred_weight()),
            rows_per_chunk: options.rows_per_chunk.unwrap_or(0),
            is_processor: u64::from(class == AdapterClass::Cpu),
        }
    }
}

type Column = (&'static str, fn(&Shard) -> u64, fn(&u64) -> String);

fn check_shards(shards: &[Shard]) -> Result<(), Error> {
    let columns: [Column; 6] = [
        ("kind of normalization", |it| it.normalization, |it| pick(*it, &["layer normalization", "RMS normalization"])),
        ("eps", |it| it.eps, |it| format!("{:e}", f32::from_bits(*it as u32))),
        ("kind of variance", |it| it.variance, |it| pick(*it, &["biased", "unbiased"])),
        ("affine map", |it| it.affine, |it| pick(*it, &["none", "weight", "bias", "weight and bias"])),
        ("kind of weight", |it| it.zero_centred_weight, |it| pick(*it, &["the factor itself", "zero-centred"])),
        ("rows of a chunk", |it| it.rows_per_chunk, |it| if *it == 0 { "the default".into() } else { it.to_string() }),
    ];
    for (what, column, show) in columns {
        let values: Vec<u64> = shards.iter().map(column).collect();
        let remedy = "make the layer with the same on every rank";
        if let Some(error) = Error::of_disagreement(what, &values, show, remedy) {
            return Err(error);
        }
    }
    Ok(())
}

fn pick(value: u64, names: &[&str]) -> String {
    names.get(value as usize).map_or_else(|| value.to_string(), |name| (*name).to_owned())
}

fn row_width(shards: &[Shard], variance: Variance) -> Result<u64, Error> {
    let width = shards.iter().fold(0_u64, |sum, shard| sum.saturating_add(shard.width));
    let (min, max) = (if variance == Variance::Unbiased { 2 } else { 1 }, u32::MAX.into());
    if (min..=max).contains(&width) { Ok(width) } else { Err(Error::Width { width, min, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(width: u64) -> Shard {
        Shard::of(AdapterClass::Discrete, &LayerNormConfig::new(3), &Options::default(), &Ok((width, Vec::new())))
    }

    #[test]
    fn shards_that_differ_are_named_with_their_values() {
        assert!(check_shards(&[shard(1), shard(2)]).is_ok());
        let config = LayerNormConfig::new(3).eps(1e-6);
        let other = Shard::of(AdapterClass::Cpu, &config, &Options::default(), &Ok((3, Vec::new())));
        let error = check_shards(&[shard(1), other, shard(1)]).expect_err("eps differs").to_string();
        assert!(error.contains("eps: 1e-5 on ranks 0, 2; 1e-6 on rank 1"), "{error}");
    }

    #[test]
    fn rows_have_as_many_elements_as_a_u32_counts() {
        let most = u64::from(u32::MAX);
        assert_eq!(row_width(&[shard(3), shard(0), shard(4)], Variance::Biased).expect("7"), 7);
        assert!(matches!(row_width(&[shard(0)], Variance::Biased), Err(Error::Width { width: 0, min: 1, .. })));
        assert!(matches!(row_width(&[shard(1)], Variance::Unbiased), Err(Error::Width { width: 1, min: 2, .. })));
        assert!(
            matches!(row_width(&[shard(most), shard(1)], Variance::Biased), Err(Error::Width { max, .. }) if max == most)
        );
    }

    #[test]
    fn only_trailing_dimensions_can_be_sharded() {
        for config in [LayerNormConfig::new(768), LayerNormConfig::new([4, 8]), LayerNormConfig::rms(5)] {
            assert!(width_of(&config).is_ok(), "{config:?}");
        }
        assert_eq!(width_of(&LayerNormConfig::new(0)).expect("none"), 0);
        for config in [
            LayerNormConfig::new(8).causal(true),
            LayerNormConfig::new(8).axes([0]),
            LayerNormConfig::new([]).axes([]),
            LayerNormConfig::group_norm(2, [8, 4]),
            LayerNormConfig::instance_norm([8, 4]),
        ] {
            assert!(matches!(width_of(&config), Err(Error::Config { .. })), "{config:?}");
        }
    }
}
