use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use gpu_layer_norm::{Bindings, GpuDevice, GpuLayerNorm, GpuStatistics, GpuTensor, LayerNormGradients, StorageType};
use mpi::traits::Communicator;

use crate::agreement::{Call, Operation};
use crate::options::MOST_IN_A_CHUNK;
use crate::pipeline::{AHEAD, Chunk, Pass, run};
use crate::ranks::{Ranks, Reduction};
use crate::readback::{Readback, Staging, scoped};
use crate::{Error, Options};

/// Data parallel training: each rank has whole rows, others than the other ranks, and the same weight and bias. The gradients of these are
/// added up over the ranks, and are then those of one device with all rows.
///
/// It goes with any layer and any model on the device that it was made with. It must be dropped before MPI is finalized.
///
/// ```no_run
/// use gpu_layer_norm::{GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Tensor};
/// use gpu_layer_norm_mpi::DataParallel;
///
/// fn main() -> Result<(), gpu_layer_norm_mpi::Error> {
///     gpu_layer_norm_mpi::run(|world| {
///         let device = GpuDevice::new()?;
///         let data_parallel = DataParallel::new(world, &device)?;
///         let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new(768))?;
///         let input = GpuTensor::upload(&device, &Tensor::from_f32([128, 768], vec![0.5; 128 * 768])?)?;
///         let (output, statistics) = layer_norm.forward_for_training(&device, &input)?;
///         let gradients = data_parallel.backward(&layer_norm, &input, &output, Some(&statistics))?;
///         assert_eq!(gradients.weight.as_ref().map(GpuTensor::shape), Some(&[768][..]));
///         Ok::<(), gpu_layer_norm_mpi::Error>(())
///     })
/// }
/// ```
#[derive(Debug)]
pub struct DataParallel {
    ranks: Ranks,
    device: GpuDevice,
    options: Options,
    calls: Cell<u64>,
    sum: Reduction,
}

impl DataParallel {
    /// Adds up over the ranks of a communicator, which is duplicated, with the default [`Options`]. To make it is collective.
    ///
    /// # Errors
    /// [`Error::Disagreement`] unless [`Options::elements_per_chunk`] is the same on every rank. The other options are not compared.
    pub fn new(communicator: &impl Communicator, device: &GpuDevice) -> Result<Self, Error> {
        Self::with_options(communicator, device, &Options::default())
    }

    /// As [`new`](Self::new), with options.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Zero`].
    pub fn with_options(
        communicator: &impl Communicator,
        device: &GpuDevice,
        options: &Options,
    ) -> Result<Self, Error> {
        let ranks = Ranks::new(communicator, options.timeout.max(std::time::Duration::from_millis(1)));
        let checked = options.check();
        let elements = if checked.is_ok() { options.elements_per_chunk } else { 0 };
        let all = ranks.all_gather(elements, "all ranks to make a sum of gradients");
        // A rank that has refused its own options has said so by the number of elements; the others disagree with that.
        checked?;
        let remedy = "give the same options on every rank";
        match Error::of_disagreement("elements of a chunk", &all, u64::to_string, remedy) {
            Some(error) => Err(error),
            None => Ok(Self {
                ranks,
                device: device.clone(),
                options: options.clone(),
                calls: Cell::new(0),
                sum: Reduction::sum(),
            }),
        }
    }

    /// Replaces each of these tensors by its sum over all ranks. Every rank passes tensors of the same shapes in the same order, all of
    /// them f32. Collective. Returns as soon as everything is submitted.
    ///
    /// The sum is taken in f32, in the order of MPI's all-reduce, which may depend on the number of ranks and on the length of a chunk.
    /// Each addition rounds by up to half a unit in the last place.
    ///
    /// # Errors
    /// [`Error::Storage`] for tensors that are not f32. [`Error::Device`] for tensors of another device, and for what the device may say.
    /// [`Error::OtherRank`] where another rank has such an error. [`Error::Disagreement`] where the ranks pass different shapes. After an
    /// error some elements may already be sums, and others not.
    pub fn all_reduce(&self, tensors: &[&GpuTensor]) -> Result<(), Error> {
        self.sum(tensors, Ok(()))
    }

    /// As [`GpuLayerNorm::backward`] on this rank's rows; the gradients of weight and bias are those of all ranks' rows. They are f32 whatever
    /// the parameters are stored as, so that nothing is rounded before it is added up. The rows may be others in number on each rank.
    /// Collective.
    ///
    /// **Accuracy**: that of [`GpuLayerNorm::backward`], where each rank counts as one more term.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce), and as [`GpuLayerNorm::backward`].
    pub fn backward(
        &self,
        layer_norm: &GpuLayerNorm,
        input: &GpuTensor,
        output_gradient: &GpuTensor,
        statistics: Option<&GpuStatistics>,
    ) -> Result<LayerNormGradients, Error> {
        let config = layer_norm.config();
        let affine = config.affine_kind();
        let own = (|| {
            let parameter =
                |is_there: bool| is_there.then(|| GpuTensor::zeros(&self.device, config.parameter_shape())).transpose();
            let gradients = LayerNormGradients {
                input: GpuTensor::zeros_as(&self.device, input.shape(), input.storage())?,
                weight: parameter(affine.has_weight())?,
                bias: parameter(affine.has_bias())?,
            };
            let mut bindings = Bindings::backward_of(input, output_gradient, &gradients.input);
            if let Some(weight) = &gradients.weight {
                bindings = bindings.weight_gradient(weight);
            }
            if let Some(bias) = &gradients.bias {
                bindings = bindings.bias_gradient(bias);
            }
            if let Some(statistics) = statistics.filter(|_| !config.is_causal()) {
                bindings = bindings.rstd(&statistics.rstd);
                if let Some(mean) = &statistics.mean {
                    bindings = bindings.mean(mean);
                }
            }
            layer_norm.execute(&self.device, &bindings)?;
            Ok(gradients)
        })();
        match own {
            Ok(gradients) => {
                let parameters: Vec<&GpuTensor> = gradients.weight.iter().chain(&gradients.bias).collect();
                self.sum(&parameters, Ok(()))?;
                Ok(gradients)
            }
            Err(error) => Err(match self.sum(&[], Err(error)) {
                Err(error) => error,
                Ok(()) => unreachable!("a rank that has failed does not agree"),
            }),
        }
    }

    /// `before` is what this rank has to say of what came before.
    fn sum(&self, tensors: &[&GpuTensor], before: Result<(), Error>) -> Result<(), Error> {
        let lengths: Vec<u64> = tensors.iter().map(|tensor| tensor.shape().iter().product::<usize>() as u64).collect();
        self.calls.set(self.calls.get() + 1);
        let mut hasher = DefaultHasher::new();
        tensors.iter().for_each(|tensor| tensor.shape().hash(&mut hasher));
        let call = Call {
            operation: Operation::Sum,
            number: self.calls.get(),
            count: lengths.iter().sum(),
            shapes: hasher.finish(),
            failed: false,
        };
        let shapes: Vec<String> = tensors.iter().map(|tensor| format!("{:?}", tensor.shape())).collect();
        let chunk = self.options.elements_per_chunk.min(MOST_IN_A_CHUNK);
        let pass = before.and_then(|()| Sum::new(&self.device, tensors, lengths, chunk));
        run(&self.ranks, &self.device, &self.sum, call, chunk, &shapes.join(" "), pass)?;
        Ok(())
    }
}

struct Sum<'a> {
    device: &'a GpuDevice,
    tensors: &'a [&'a GpuTensor],
    lengths: Vec<u64>,
    slots: Vec<Staging>,
}

impl<'a> Sum<'a> {
    fn new(device: &'a GpuDevice, tensors: &'a [&'a GpuTensor], lengths: Vec<u64>, chunk: u64) -> Result<Self, Error> {
        for (index, tensor) in tensors.iter().enumerate() {
            if tensor.storage() != StorageType::F32 {
                return Err(Error::Storage { index, storage: tensor.storage() });
            }
            if tensor.device().device() != device.device() {
                return Err(gpu_layer_norm::Error::ForeignDevice { what: "tensor that is added up" }.into());
            }
        }
        let bytes = lengths.iter().sum::<u64>().min(chunk) * 4;
        let slots = (0..AHEAD).map(|_| Ok(Staging::new(device, bytes)?)).collect::<Result<_, Error>>()?;
        Ok(Self { device, tensors, lengths, slots })
    }

    /// The tensors of which a chunk of all elements has some, and the bytes of these.
    fn segments(&self, chunk: Chunk) -> impl Iterator<Item = (&GpuTensor, Range<u64>)> {
        let mut first = 0;
        self.tensors.iter().zip(&self.lengths).filter_map(move |(tensor, length)| {
            let start = chunk.first.max(first) - first;
            let end = (chunk.first + chunk.count).saturating_sub(first).min(*length);
            first += length;
            (start < end).then_some((*tensor, start * 4..end * 4))
        })
    }
}

impl Pass for Sum<'_> {
    type Word = f32;
    const WORDS: usize = 1;

    fn measure(&mut self, chunk: Chunk) -> Result<Option<Readback>, Error> {
        let readback = self.slots[chunk.index % AHEAD].start(self.device, chunk.count * 4, |encoder, target| {
            let mut offset = 0;
            for (tensor, bytes) in self.segments(chunk) {
                let length = bytes.end - bytes.start;
                encoder.copy_buffer_to_buffer(tensor.buffer(), bytes.start, target, offset, length);
                offset += length;
            }
        })?;
        Ok(Some(readback))
    }

    fn fill(&self, _: Chunk, bytes: &[u8], words: &mut [f32]) {
        bytemuck::cast_slice_mut(words).copy_from_slice(bytes);
    }

    fn finish(&mut self, chunk: Chunk, words: &[f32]) -> Result<(), Error> {
        let all: &[u8] = bytemuck::cast_slice(words);
        scoped(self.device, "the writing of sums", all.len() as u64, |_| {
            let mut rest = all;
            for (tensor, bytes) in self.segments(chunk) {
                let (segment, others) = rest.split_at((bytes.end - bytes.start) as usize);
                self.device.queue().write_buffer(tensor.buffer(), bytes.start, segment);
                rest = others;
            }
            // Written when something is submitted, which may be nothing of the caller's.
            self.device.queue().submit([]);
        })?;
        Ok(())
    }

    fn failure() -> Vec<f32> {
        vec![1.0]
    }
}
