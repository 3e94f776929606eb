//! What a user meets when training: the calls, their errors, and checkpoints as PyTorch writes them.

// The example's own functions, which a reader may lift into code of theirs.
#[path = "../examples/train/checkpoint.rs"]
mod checkpoint;
mod common;

use std::path::Path;

use approx::assert_abs_diff_eq;
use checkpoint::{load_parameters, save_parameters};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Operation, Region, StorageType,
    Strategy, Tensor, reference, wgpu,
};

fn device() -> GpuDevice {
    GpuDevice::new().expect("an adapter; scripts/test installs one")
}

fn tensor(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Tensor {
    Tensor::from_f32(shape, values).expect("a whole tensor")
}

fn values(tensor: &GpuTensor) -> Vec<f32> {
    tensor.download().expect("a download").into_values()
}

/// The first source's example, [[1, 2, 3], [4, 5, 6]] twice over, and a gradient of the loss by the output.
const INPUT: [f32; 12] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const OUTPUT_GRADIENT: [f32; 12] = [1.0, 0.0, 0.0, 0.5, 0.0, -1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0];

#[test]
fn the_gradients_of_a_layer_have_the_shapes_and_types_of_what_they_are_gradients_of() {
    let device = device();
    let config = LayerNormConfig::new([2, 3]).parameter_storage(StorageType::Bf16);
    let layer = GpuLayerNorm::new(&device, &config).expect("a layer");
    let upload = |values: &[f32]| GpuTensor::upload(&device, &tensor([2, 2, 3], values.to_vec())).expect("an upload");
    let (input, output_gradient) = (upload(&INPUT), upload(&OUTPUT_GRADIENT));
    let (output, statistics) = layer.forward_for_training(&device, &input).expect("a forward pass");
    assert_eq!(output.download(), layer.forward(&device, &input).expect("a forward pass").download());
    assert_eq!(values(statistics.mean.as_ref().expect("a mean")), [3.5, 3.5]);
    assert_eq!(statistics.rstd.shape(), [2]);

    let exact = reference::layer_norm_backward(&INPUT, &OUTPUT_GRADIENT, 6, None, 1e-5, false);
    for statistics in [Some(&statistics), None] {
        let gradients = layer.backward(&device, &input, &output_gradient, statistics).expect("a backward pass");
        assert_eq!((gradients.input.shape(), gradients.input.storage()), (&[2, 2, 3][..], StorageType::F32));
        for (dx, exact) in values(&gradients.input).iter().zip(&exact.input) {
            assert_abs_diff_eq!(f64::from(*dx), exact, epsilon = 1e-6);
        }
        for (gradient, exact) in [(gradients.weight, &exact.weight), (gradients.bias, &exact.bias)] {
            let gradient = gradient.expect("the layer has such a parameter");
            assert_eq!((gradient.shape(), gradient.storage()), (&[2, 3][..], StorageType::Bf16));
            for (found, exact) in values(&gradient).iter().zip(exact) {
                assert_abs_diff_eq!(f64::from(*found), exact, epsilon = 0.01);
            }
        }
    }

    // RMS normalization has no mean, and no bias unless one is asked for.
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::rms([2, 3])).expect("a layer");
    let (_, statistics) = layer.forward_for_training(&device, &input).expect("a forward pass");
    assert!(statistics.mean.is_none());
    let gradients = layer.backward(&device, &input, &output_gradient, Some(&statistics)).expect("a backward pass");
    assert!(gradients.weight.is_some() && gradients.bias.is_none());
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(3).affine(Affine::None)).expect("a layer");
    let gradients = layer.backward(&device, &input, &output_gradient, None).expect("a backward pass");
    assert!(gradients.weight.is_none() && gradients.bias.is_none());

    // A strategy that is forced on the layer holds for both passes, but for the one that the backward pass has not.
    let [input, output_gradient] = [(); 2].map(|()| GpuTensor::zeros(&device, [2, 4096]).expect("a tensor"));
    for strategy in [Strategy::Streaming, Strategy::Split, Strategy::PartlyResident] {
        let config = LayerNormConfig::new(4096).strategy(strategy);
        let layer = GpuLayerNorm::new(&device, &config).expect("a layer");
        let prepared = layer.prepare(&device, &Bindings::backward_of(&input, &output_gradient, &output_gradient));
        let found = prepared.expect("an operation").plan().strategy();
        assert!(found == strategy || strategy == Strategy::PartlyResident, "{found} in place of {strategy}");
    }
}

#[test]
fn an_empty_batch_has_gradients_of_zero() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(3)).expect("a layer");
    let empty = GpuTensor::zeros(&device, [0, 3]).expect("a tensor");
    let (_, statistics) = layer.forward_for_training(&device, &empty).expect("a forward pass");
    let gradients = layer.backward(&device, &empty, &empty, Some(&statistics)).expect("a backward pass");
    assert_eq!(gradients.input.shape(), [0, 3]);
    assert_eq!(values(&gradients.weight.expect("a gradient")), [0.0; 3]);
    assert_eq!(values(&gradients.bias.expect("a gradient")), [0.0; 3]);
}

#[test]
fn gradients_of_parameters_are_added_up_when_asked_for() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(3)).expect("a layer");
    let upload = |values: &[f32]| GpuTensor::upload(&device, &tensor([4, 3], values.to_vec())).expect("an upload");
    let (input, output_gradient) = (upload(&INPUT), upload(&OUTPUT_GRADIENT));
    let gradient = GpuTensor::zeros(&device, [4, 3]).expect("a tensor");
    let sums = [1.0, 10.0].map(|old| GpuTensor::upload(&device, &tensor([3], vec![old; 3])).expect("an upload"));
    let bindings = Bindings::backward_of(&input, &output_gradient, &gradient);
    let bindings = bindings.weight_gradient(&sums[0]).bias_gradient(&sums[1]).accumulate(true);
    let prepared = layer.prepare(&device, &bindings).expect("an operation");
    common::submit(&device, &prepared);
    common::submit(&device, &prepared);
    let exact = reference::layer_norm_backward(&INPUT, &OUTPUT_GRADIENT, 3, None, 1e-5, false);
    for (sums, exact, old) in [(&sums[0], exact.weight, 1.0), (&sums[1], exact.bias, 10.0)] {
        for (sum, exact) in values(sums).iter().zip(exact) {
            assert_abs_diff_eq!(f64::from(*sum), old + 2.0 * exact, epsilon = 1e-5);
        }
    }
    for (dx, exact) in values(&gradient).iter().zip(exact.input) {
        assert_abs_diff_eq!(f64::from(*dx), exact, epsilon = 1e-6);
    }
}

/// Each refused binding, with the error that says why; after each the device still works.
#[test]
fn what_does_not_go_together_is_refused() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
    let plain = GpuLayerNorm::new(&device, &LayerNormConfig::new(4).affine(Affine::None)).expect("a layer");
    let rms = GpuLayerNorm::new(&device, &LayerNormConfig::rms(4)).expect("a layer");
    let zeros = |shape: &[usize]| GpuTensor::zeros(&device, shape).expect("a tensor");
    let (input, output_gradient, gradient) = (zeros(&[2, 4]), zeros(&[2, 4]), zeros(&[2, 4]));
    let (row, parameter) = (zeros(&[2]), zeros(&[4]));
    let bindings = || Bindings::backward_of(&input, &output_gradient, &gradient);
    let refused = |layer: &GpuLayerNorm, bindings: Bindings| {
        let error = layer.prepare(&device, &bindings).map(|_| ()).expect_err("an error");
        assert!(layer.backward(&device, &input, &output_gradient, None).is_ok(), "after {error}");
        error
    };
    let no_part = |what| Error::Role { what, operation: Operation::Backward };
    assert_eq!(refused(&layer, bindings().sum(&gradient)), no_part("sum"));
    assert_eq!(refused(&layer, bindings().shift(&parameter)), no_part("shift"));
    let forward = Bindings::of(&input, &gradient).weight_gradient(&parameter);
    let error = Error::Role { what: "weight_gradient", operation: Operation::Forward };
    assert_eq!(refused(&layer, forward), error);
    assert_eq!(error.to_string(), "the weight_gradient takes no part in the forward pass");
    assert_eq!(refused(&layer, bindings().mean(&row)), Error::Statistics { given: "mean", missing: "rstd" });
    assert_eq!(refused(&layer, bindings().rstd(&row)), Error::Statistics { given: "rstd", missing: "mean" });
    assert_eq!(refused(&rms, bindings().mean(&row).rstd(&row)), Error::RmsNorm { what: "a mean" });
    let none = Error::NoParameter { name: "weight_gradient", affine: Affine::None };
    assert_eq!(refused(&plain, bindings().weight_gradient(&parameter)), none);
    let none = Error::NoParameter { name: "bias_gradient", affine: Affine::Weight };
    assert_eq!(refused(&rms, bindings().bias_gradient(&parameter)), none);
    let shape = |what, expected: &[usize], actual: &[usize]| Error::Shape {
        what,
        expected: expected.to_vec(),
        actual: actual.to_vec(),
    };
    assert_eq!(refused(&layer, bindings().weight_gradient(&row)), shape("weight_gradient", &[4], &[2]));
    let short = Bindings::backward_of(&input, &parameter, &gradient);
    assert_eq!(refused(&layer, short), shape("output_gradient", &[2, 4], &[4]));
    assert_eq!(
        layer.backward(&device, &input, &parameter, None).map(|_| ()),
        Err(shape("output_gradient", &[2, 4], &[4]))
    );
    let half = GpuTensor::zeros_as(&device, [2], StorageType::F16).expect("a tensor");
    let storage = Error::StorageType { what: "rstd", expected: StorageType::F32, actual: StorageType::F16 };
    assert_eq!(refused(&layer, bindings().mean(&row).rstd(&half)), storage);

    // One buffer, of which parts overlap.
    let pool = zeros(&[64]);
    let region = |offset| Region::from(&pool).offset(offset);
    let pooled = |input_gradient| Bindings::backward(2, region(0), region(8), region(input_gradient));
    let overlap = |written, other| Error::Overlap { written, other };
    assert_eq!(refused(&layer, pooled(4)), overlap("input_gradient", "input"));
    assert_eq!(refused(&layer, pooled(12)), overlap("input_gradient", "output_gradient"));
    assert!(layer.prepare(&device, &pooled(8)).is_ok(), "in place of the output gradient");
    assert!(layer.prepare(&device, &pooled(0)).is_ok(), "in place of the input");
    let error = refused(&layer, pooled(16).weight_gradient(region(2)));
    assert_eq!(error, overlap("weight_gradient", "input"));
    let error = refused(&layer, pooled(16).weight_gradient(region(24)).bias_gradient(region(26)));
    assert_eq!(error, overlap("weight_gradient", "bias_gradient"));
    let short = Bindings::backward(2, region(0), region(60), region(16));
    assert_eq!(refused(&layer, short), Error::Region { what: "output_gradient", needed: 68 * 4, actual: 64 * 4 });
    let usage = device.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 64,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let error = refused(&layer, bindings().sum_gradient(Region::new(&usage, StorageType::F32)));
    assert!(matches!(error, Error::BufferUsage { what: "sum_gradient", .. }), "{error}");

    let other = self::device();
    assert_eq!(
        layer.backward(&other, &input, &output_gradient, None).map(|_| ()),
        Err(Error::ForeignDevice { what: "layer" })
    );
    let foreign = GpuTensor::zeros(&other, [2, 4]).expect("a tensor");
    assert_eq!(
        layer.backward(&device, &input, &foreign, None).map(|_| ()),
        Err(Error::ForeignDevice { what: "output_gradient" })
    );
}

#[test]
fn a_backward_pass_is_tuned_as_a_forward_pass_is() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(96)).expect("a layer");
    let zeros = |shape: &[usize]| GpuTensor::zeros(&device, shape).expect("a tensor");
    let (input, output_gradient, gradient) = (zeros(&[300, 96]), zeros(&[300, 96]), zeros(&[300, 96]));
    let weight = zeros(&[96]);
    let bindings = Bindings::backward_of(&input, &output_gradient, &gradient).weight_gradient(&weight);
    let tuning = layer.tune(&device, &bindings).expect("a tuning");
    assert!(tuning.measured().len() > 1, "{tuning:?}");
    let tuned = layer.prepare(&device, &bindings).expect("an operation");
    assert_eq!(tuned.plan(), tuning.best());
    let text = device.tunings_text();
    assert!(text.contains("output_gradient f32"), "{text}");
    // It is not for the forward pass, nor for one that writes other gradients.
    let forward = layer.prepare(&device, &Bindings::of(&input, &gradient)).expect("an operation");
    assert_eq!(forward.plan().problem().operation(), Operation::Forward);
    assert!(!text.contains("sums for WeightAndBias"), "{text}");
}

#[test]
fn a_backward_pass_passes_validation_without_a_driver() {
    let device = GpuDevice::builder().backends(wgpu::Backends::NOOP).build().expect("a device");
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(30)).expect("a layer");
    let pool = device.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1 << 16,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let region = |offset| Region::new(&pool, StorageType::Bf16).offset(offset);
    let single = |offset| Region::new(&pool, StorageType::F32).offset(offset);
    let everything = Bindings::backward(20, region(1), region(1001), region(1001))
        .residual(region(2001))
        .sum_gradient(region(3001))
        .mean(single(2100))
        .rstd(single(2200))
        .weight_gradient(region(4601))
        .bias_gradient(single(2400))
        .accumulate(true)
        .row_count(&pool, 1 << 13);
    let mut prepared = layer.prepare(&device, &everything).expect("an operation");
    prepared.set_rows(7).expect("fewer rows");
    common::submit(&device, &prepared);
}

/// `tests/data/checkpoint.safetensors` was written by PyTorch, from a `TransformerEncoder` whose norms are of three types.
#[test]
fn a_checkpoint_that_pytorch_wrote_loads() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    let path = Path::new(&folder).join("tests/data/checkpoint.safetensors");
    let device = device();
    let weight: Vec<f32> = (0..6).map(|i| 1.0 + (i as f32 - 2.0) / 8.0).collect();
    let bias: Vec<f32> = (0..6).map(|i| (i as f32 - 3.0) / 4.0).collect();
    for storage in StorageType::ALL {
        let config = LayerNormConfig::new(6).parameter_storage(storage).expect_nothing();
        let layers = [(); 3].map(|()| GpuLayerNorm::new(&device, &config).expect("a layer"));
        // F32, F16 and BF16 in the file.
        let prefixes = ["encoder.layers.0.norm1.", "encoder.layers.0.norm2.", "encoder.layers.1.norm1."];
        let named: Vec<_> = prefixes.into_iter().zip(&layers).collect();
        load_parameters(&path, &named).expect("it loads");
        for layer in &layers {
            assert_eq!(values(layer.weight().expect("a weight")), weight);
            assert_eq!(values(layer.bias().expect("a bias")), bias);
        }
        // And back.
        let copy = std::env::temp_dir().join(format!("gpu-layer-norm-{}-{storage}.safetensors", std::process::id()));
        save_parameters(&copy, &named, storage).expect("written");
        let fresh = GpuLayerNorm::new(&device, &config).expect("a layer");
        load_parameters(&copy, &[(prefixes[2], &fresh)]).expect("it loads");
        assert_eq!(values(fresh.weight().expect("a weight")), weight);
        std::fs::remove_file(&copy).expect("removed");
    }

    // What is not there, or does not fit, is said, and nothing is changed.
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(6)).expect("a layer");
    let error = load_parameters(&path, &[("decoder.norm.", &layer)]).expect_err("an error").to_string();
    assert!(error.contains("decoder.norm.weight was expected; there are encoder.layers.0.linear1.weight"), "{error}");
    let wide = GpuLayerNorm::new(&device, &LayerNormConfig::new([2, 3])).expect("a layer");
    let both = [("encoder.layers.0.norm1.", &layer), ("encoder.layers.0.norm2.", &wide)];
    let error = load_parameters(&path, &both).expect_err("an error").to_string();
    assert!(error.contains("has shape [6], the layer expects [2, 3]"), "{error}");
    assert_eq!(values(layer.weight().expect("a weight")), [1.0; 6]);
}
