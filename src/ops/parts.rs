use super::{Bindings, GpuLayerNorm, LayerNormGradients};
use crate::kernel::{Operation, Role};
use crate::{Error, GpuDevice, GpuTensor, RowMoments, Tensor};

/// Moments of rows in the memory of a device: [`RowMoments`], one a row.
///
/// As a [`Region`](crate::Region), made from [`tensor`](Self::tensor), they are 4 words of 32 bits a row, whose storage type counts as
/// [`StorageType::F32`](crate::StorageType::F32), although the last word is an integer.
#[derive(Clone, Debug)]
pub struct GpuMoments {
    tensor: GpuTensor,
}

impl GpuMoments {
    /// Those of rows of no elements: [`RowMoments::NONE`]. `rows` is the shape over which rows are counted, that of the input's dimensions
    /// that are not normalized.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Size`], [`Error::BufferSize`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn zeros(device: &GpuDevice, rows: impl Into<Vec<usize>>) -> Result<Self, Error> {
        let mut shape = rows.into();
        shape.push(WORDS);
        Ok(Self { tensor: GpuTensor::zeros(device, shape)? })
    }

    /// Overwrites them, in every operation that reads them and is submitted after.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are as many as rows, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn write(&self, moments: &[RowMoments]) -> Result<(), Error> {
        let shape = self.tensor.shape();
        let rows = &shape[..shape.len() - 1];
        if rows.iter().product::<usize>() != moments.len() {
            return Err(Error::Shape { what: "moments", expected: rows.to_vec(), actual: vec![moments.len()] });
        }
        self.tensor.write(&Tensor::from_f32(shape, bytemuck::cast_slice::<_, f32>(moments))?)
    }

    /// Copies them back, waiting for everything submitted before.
    ///
    /// # Errors
    /// As [`GpuTensor::download`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn download(&self) -> Result<Vec<RowMoments>, Error> {
        self.tensor.download().map(|tensor| row_moments(&tensor))
    }

    /// Copies them back without blocking the caller's thread.
    ///
    /// # Errors
    /// As [`GpuTensor::download_async`].
    pub async fn download_async(&self) -> Result<Vec<RowMoments>, Error> {
        self.tensor.download_async().await.map(|tensor| row_moments(&tensor))
    }

    /// The words, in the shape of the rows and one dimension of 4.
    pub fn tensor(&self) -> &GpuTensor {
        &self.tensor
    }
}

/// Words of [`RowMoments`].
const WORDS: usize = size_of::<RowMoments>() / 4;

fn row_moments(words: &Tensor) -> Vec<RowMoments> {
    bytemuck::pod_collect_to_vec(words.bytes())
}

/// Operations on parts of rows, for rows that are spread over several devices or longer than a kernel may take. Each part has a layer of
/// its own: its width, weight and bias are those of the part; eps, the kind of variance and all else are those of the whole row.
/// `examples/parts.rs` takes rows apart, and `integrations/mpi` does so over many processes.
///
/// ```
/// use gpu_layer_norm::{GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Tensor};
///
/// let device = GpuDevice::new()?;
/// // Two parts of a row of 5 elements, which might be on two devices.
/// let parts = [vec![1.0, 3.0, 5.0], vec![2.0, 4.0]];
/// let mut layers = Vec::new();
/// for part in parts {
///     let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new(part.len()))?;
///     let input = GpuTensor::upload(&device, &Tensor::from_f32([1, part.len()], part)?)?;
///     let moments = layer_norm.moments(&device, &input)?;
///     layers.push((layer_norm, input, moments));
/// }
/// // 16 bytes a row go from device to device.
/// let whole = layers[0].2.download()?[0].merge(layers[1].2.download()?[0])?;
/// let mut output = Vec::new();
/// for (layer_norm, input, moments) in &layers {
///     moments.write(&[whole])?;
///     output.extend(layer_norm.normalize(&device, input, moments)?.download()?.into_values());
/// }
/// let rstd = 1.0 / (2.0_f32 + 1e-5).sqrt();
/// let expected = [-2.0, 0.0, 2.0, -1.0, 1.0].map(|deviation| deviation * rstd);
/// assert!(output.iter().zip(expected).all(|(y, expected)| (y - expected).abs() < 1e-6));
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
impl GpuLayerNorm {
    /// Measures the rows of this input, each of which is a part of a longer one, into new moments. Submits, and reads nothing back.
    ///
    /// Merge those of all parts ([`RowMoments::merge`], or [`WideMoments::merge`](crate::WideMoments::merge) where there are many), and
    /// give what comes out to [`normalize`](Self::normalize). Weight, bias, eps and the kind of variance are of no meaning here. Constant
    /// rows take about three times as long as others: without an eps, a deviation of nothing may also be one that is too small to square.
    ///
    /// # Errors
    /// [`Error::Parts`] for a [causal](crate::LayerNormConfig::causal) layer, and as [`run`](Self::run).
    pub fn moments(&self, device: &GpuDevice, input: &GpuTensor) -> Result<GpuMoments, Error> {
        let moments = GpuMoments::zeros(device, self.leading(input)?)?;
        let tensors = [(Role::Input, input), (Role::Moments, moments.tensor())];
        self.execute(device, &Bindings::whole(Operation::Moments, &tensors))?;
        Ok(moments)
    }

    /// Normalizes the rows of this input, each of which is a part of a longer one, with the moments of whole rows, into a new tensor.
    /// Submits, and reads nothing back.
    ///
    /// **Accuracy**, besides the rounding of the output itself, at any mean: x̂ is within 2e-6 · max(1, |x̂| / 4), for parts of more than
    /// 65,536 elements within twice that. Where more than four [`RowMoments::merge`] lie between a part and the whole row, each further one
    /// adds 6e-8 · |x̂|. A constant row gives exactly the bias.
    ///
    /// # Errors
    /// [`Error::Parts`] for a [causal](crate::LayerNormConfig::causal) layer, [`Error::Shape`] unless there are moments for each row, and
    /// as [`run`](Self::run).
    pub fn normalize(&self, device: &GpuDevice, input: &GpuTensor, moments: &GpuMoments) -> Result<GpuTensor, Error> {
        let output = self.output_for(device, input)?;
        let tensors = [(Role::Input, input), (Role::Moments, moments.tensor()), (Role::Output, &output)];
        self.execute(device, &Bindings::whole(Operation::Normalize, &tensors))?;
        Ok(output)
    }

    /// The sums that the gradients by the rows of this input rest on, as far as its part of the rows goes, into a new tensor: the shape of
    /// the rows and one dimension of 2, Σg and Σ(g · x̂), with g = dy · weight. For RMS normalization, which has no Σg, that is 0. Submits,
    /// and reads nothing back.
    ///
    /// Add up those of all parts, and give what comes out to [`gradients`](Self::gradients). `moments` are those of whole rows.
    ///
    /// # Errors
    /// As [`normalize`](Self::normalize); [`Error::Shape`] unless the output gradient has the input's shape.
    pub fn gradient_sums(
        &self,
        device: &GpuDevice,
        input: &GpuTensor,
        moments: &GpuMoments,
        output_gradient: &GpuTensor,
    ) -> Result<GpuTensor, Error> {
        let sums = GpuTensor::zeros(device, [&self.leading(input)?[..], &[2]].concat())?;
        let tensors = [
            (Role::Input, input),
            (Role::Moments, moments.tensor()),
            (Role::OutputGradient, output_gradient),
            (Role::GradientSums, &sums),
        ];
        self.execute(device, &Bindings::whole(Operation::GradientSums, &tensors))?;
        Ok(sums)
    }

    /// The gradients of a loss by the input, weight and bias of this part of the rows, from the moments of whole rows and the
    /// [`gradient_sums`](Self::gradient_sums) of all parts, added up. They are those that [`backward`](Self::backward) finds where it has
    /// whole rows; dx is within 4e-6 of the largest |dx| in its row (or of rstd · max|g|), for parts of more than 65,536 elements within
    /// twice that, and dweight and dbias within twice what that says. Add up the sums of many parts in f64, or as a tree. Submits, and
    /// reads nothing back.
    ///
    /// # Errors
    /// As [`gradient_sums`](Self::gradient_sums).
    pub fn gradients(
        &self,
        device: &GpuDevice,
        input: &GpuTensor,
        moments: &GpuMoments,
        output_gradient: &GpuTensor,
        sums: &GpuTensor,
    ) -> Result<LayerNormGradients, Error> {
        let gradients = self.gradients_for(device, input)?;
        let tensors = [
            (Role::Input, input),
            (Role::Moments, moments.tensor()),
            (Role::OutputGradient, output_gradient),
            (Role::GradientSums, sums),
            (Role::InputGradient, &gradients.input),
        ];
        self.execute(device, &gradients.bound_to(Bindings::whole(Operation::Gradients, &tensors)))?;
        Ok(gradients)
    }

    /// The shape over which the rows of this input are counted.
    fn leading(&self, input: &GpuTensor) -> Result<Vec<usize>, Error> {
        Ok(self.config().view(input.shape())?.leading)
    }
}
