//! The operations as Burn dispatches them: to the kernels of this crate on its CubeCL backend, with fusion and without, and with
//! gradients as `autodiff.rs` has them.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, backend_extension};
#[cfg(feature = "fusion")]
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use gpu_layer_norm::Affine;
#[cfg(feature = "fusion")]
use gpu_layer_norm::Normalization;

use crate::layer::Layer;

/// One to three tensors, in the order in which the operation that takes or gives them names them.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub(crate) enum Tensors<B: Backend> {
    One(FloatTensor<B>),
    Two(FloatTensor<B>, FloatTensor<B>),
    Three(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
}

impl<B: Backend> Tensors<B> {
    pub(crate) fn new(first: FloatTensor<B>, others: impl IntoIterator<Item = FloatTensor<B>>) -> Self {
        let mut others = others.into_iter();
        match (others.next(), others.next()) {
            (None, _) => Self::One(first),
            (Some(second), None) => Self::Two(first, second),
            (Some(second), Some(third)) => Self::Three(first, second, third),
        }
    }

    pub(crate) fn into_vec(self) -> Vec<FloatTensor<B>> {
        match self {
            Self::One(first) => vec![first],
            Self::Two(first, second) => vec![first, second],
            Self::Three(first, second, third) => vec![first, second, third],
        }
    }
}

/// Normalization over the last dimension of tensors of f32, f16 and bf16, on devices that the layer [runs on](Layer::runs_on).
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"), Autodiff: cfg(feature = "autodiff"))]
pub(crate) trait Normalize: Backend {
    /// `parameters` are weight and bias, as far as the layer has them.
    #[fusion(dtype = input, shape = input)]
    fn normalize(
        input: FloatTensor<Self>,
        #[extension_type] parameters: Tensors<Self>,
        layer: Layer,
    ) -> FloatTensor<Self>;
}

/// What [`Normalize`] with gradients is made of.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub(crate) trait Train: Backend {
    /// The output, then the mean, unless it is RMS normalization, and the rstd of each row.
    #[fusion(meta = with_statistics)]
    fn normalize_for_training(
        input: FloatTensor<Self>,
        #[extension_type] parameters: Tensors<Self>,
        layer: Layer,
    ) -> Tensors<Self>;

    /// The gradient by the input, then those by the parameters that are `wanted`.
    #[fusion(meta = gradients)]
    fn normalize_backward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        output_gradient: FloatTensor<Self>,
        #[extension_type] statistics: Tensors<Self>,
        layer: Layer,
        wanted: Affine,
    ) -> Tensors<Self>;
}

#[cfg(feature = "fusion")]
fn with_statistics(input: &TensorSpec, _parameters: &TensorsMetadata, layer: &Layer) -> TensorsMetadata {
    let mut shape = input.shape.clone();
    let last = shape.num_dims() - 1;
    shape[last] = 1;
    let statistic = TensorSpec::new(shape, DType::F32);
    match layer.normalization {
        Normalization::LayerNorm => TensorsMetadata::Three(input.clone(), statistic.clone(), statistic),
        Normalization::RmsNorm => TensorsMetadata::Two(input.clone(), statistic),
    }
}

#[cfg(feature = "fusion")]
fn gradients(
    input: &TensorSpec,
    weight: &TensorSpec,
    _output_gradient: &TensorSpec,
    _statistics: &TensorsMetadata,
    _layer: &Layer,
    wanted: &Affine,
) -> TensorsMetadata {
    let (input, weight) = (input.clone(), weight.clone());
    match wanted {
        Affine::None => TensorsMetadata::One(input),
        Affine::Weight => TensorsMetadata::Two(input, weight),
        Affine::WeightAndBias => TensorsMetadata::Three(input, weight.clone(), weight),
    }
}

impl Normalize for CubeBackend {
    fn normalize(input: FloatTensor<Self>, parameters: Tensors<Self>, layer: Layer) -> FloatTensor<Self> {
        layer.forward(input, parameters.into_vec(), false).swap_remove(0)
    }
}

impl Train for CubeBackend {
    fn normalize_for_training(input: FloatTensor<Self>, parameters: Tensors<Self>, layer: Layer) -> Tensors<Self> {
        let mut written = layer.forward(input, parameters.into_vec(), true).into_iter();
        Tensors::new(written.next().expect("there is an output"), written)
    }

    fn normalize_backward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        output_gradient: FloatTensor<Self>,
        statistics: Tensors<Self>,
        layer: Layer,
        wanted: Affine,
    ) -> Tensors<Self> {
        let mut written = layer.backward(input, weight, output_gradient, statistics.into_vec(), wanted).into_iter();
        Tensors::new(written.next().expect("there is a gradient by the input"), written)
    }
}
