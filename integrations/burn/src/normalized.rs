use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::Tensor;
use gpu_layer_norm::{Affine, Normalization};

use crate::layer::Layer;
use crate::ops::{Normalize as _, Tensors};

/// The input normalized over its last dimension by the kernels, with weight and bias; `None` where they cannot run it.
pub(crate) fn normalized<const D: usize>(
    input: &Tensor<D>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    normalization: Normalization,
    epsilon: f64,
) -> Option<Tensor<D>> {
    let DispatchDevice::Cube(device) = input.device().as_dispatch().clone().inner() else { return None };
    let (rows, parameters) = (input.dtype(), weight.dtype());
    if bias.as_ref().is_some_and(|bias| bias.dtype() != parameters) {
        return None;
    }
    let affine = if bias.is_some() { Affine::WeightAndBias } else { Affine::Weight };
    let layer = Layer { normalization, affine, epsilon };
    let (width, leading) =
        input.dims().split_last().map(|(width, leading)| (*width as u64, leading.iter().product::<usize>()))?;
    if !layer.runs_on(&device, leading as u64, width, rows, parameters) {
        return None;
    }
    let parameters = Tensors::new(weight.into_dispatch(), bias.map(Tensor::into_dispatch));
    Some(Tensor::from_dispatch(Dispatch::normalize(input.clone().into_dispatch(), parameters, layer)))
}
