//! Weights and biases of layers in safetensors files, under the names that PyTorch gives them. Needs nothing else of this example.

use std::error::Error;
use std::path::Path;

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::{GpuLayerNorm, GpuTensor, StorageType, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Writes the weights and biases of layers to a safetensors file, rounded to `storage`. A layer with the prefix `norm.` has
/// `norm.weight` and `norm.bias`, so far as it has a weight and a bias.
pub fn save_parameters(
    path: &Path,
    layers: &[(&str, &GpuLayerNorm)],
    storage: StorageType,
) -> Result<(), Box<dyn Error>> {
    let mut tensors = Vec::new();
    for (name, parameter) in named_parameters(layers) {
        let tensor = parameter.download()?;
        let values = tensor.values();
        let (dtype, bytes): (_, Vec<u8>) = match storage {
            StorageType::F32 => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            StorageType::F16 => {
                (Dtype::F16, values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect())
            }
            StorageType::Bf16 => {
                (Dtype::BF16, values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect())
            }
        };
        tensors.push((name, dtype, tensor.shape().to_vec(), bytes));
    }
    let mut views = Vec::new();
    for (name, dtype, shape, bytes) in &tensors {
        views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?));
    }
    let file = safetensors::serialize(views, None)?;
    std::fs::write(path, file).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Sets the weights and biases of layers to what a safetensors file has under the names that [`save_parameters`] writes, in
/// F32, F16 or BF16, whatever the layers' own storage type is. The file may hold other tensors too. If anything is missing or
/// does not fit, no layer is changed.
pub fn load_parameters(path: &Path, layers: &[(&str, &GpuLayerNorm)]) -> Result<(), Box<dyn Error>> {
    fn elements<const N: usize, T>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.chunks_exact(N).map(|bytes| element(bytes.try_into().expect("a chunk has N bytes"))).collect()
    }
    let file = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("{file}: {error}"))?;
    let checkpoint = SafeTensors::deserialize(&bytes).map_err(|error| format!("{file}: {error}"))?;
    let mut loaded = Vec::new();
    for (name, parameter) in named_parameters(layers) {
        let Ok(view) = checkpoint.tensor(&name) else {
            let mut names = checkpoint.names();
            names.sort_unstable();
            return Err(format!("{file}: a tensor {name} was expected; there are {}", names.join(", ")).into());
        };
        let (shape, expected) = (view.shape(), parameter.shape());
        if shape != expected {
            return Err(format!("{file}: {name} has shape {shape:?}, the layer expects {expected:?}").into());
        }
        let tensor = match view.dtype() {
            Dtype::F32 => Tensor::from_f32(shape, elements(view.data(), f32::from_le_bytes))?,
            Dtype::F16 => Tensor::from_f16(shape, elements(view.data(), f16::from_le_bytes))?,
            Dtype::BF16 => Tensor::from_bf16(shape, elements(view.data(), bf16::from_le_bytes))?,
            other => return Err(format!("{file}: {name} is {other:?}, F32, F16 or BF16 was expected").into()),
        };
        loaded.push((parameter, tensor));
    }
    for (parameter, tensor) in loaded {
        // This rounds to the layer's storage type.
        parameter.write(&tensor)?;
    }
    Ok(())
}

/// The weights and biases of layers, in this order: the weight of the first one, its bias, and so on.
pub fn named_parameters<'a>(layers: &[(&str, &'a GpuLayerNorm)]) -> Vec<(String, &'a GpuTensor)> {
    let mut named = Vec::new();
    for &(prefix, layer) in layers {
        named.extend(layer.weight().map(|weight| (format!("{prefix}weight"), weight)));
        named.extend(layer.bias().map(|bias| (format!("{prefix}bias"), bias)));
    }
    named
}
