//! What a user meets: the calls, and every error, each followed by work on the same device.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::kernel::{Access, Geometry, MAX_WIDTH, Reduction};
use gpu_layer_norm::{
    Affine, Bindings, Capabilities, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, MAX_RANK, Plan, Region,
    StorageType, Strategy, Tensor, Variance, reference, wgpu,
};

fn device() -> GpuDevice {
    GpuDevice::new().expect("an adapter; scripts/test installs one")
}

/// A device of the caller's own on the best adapter, with these limits.
fn own_device(
    limits: impl FnOnce(&wgpu::Limits) -> wgpu::Limits,
    features: wgpu::Features,
) -> (wgpu::Adapter, wgpu::Device, wgpu::Queue) {
    let adapters = pollster::block_on(GpuDevice::builder().adapters());
    let adapter = adapters.into_iter().next().expect("an adapter");
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("the caller's own"),
        required_features: features,
        required_limits: limits(&adapter.limits()),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    (adapter, device, queue)
}

/// The first source's example over its last dimension, on this device.
fn assert_works(device: &GpuDevice) {
    let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(4)).expect("a layer");
    let values = vec![1.0, 2.0, 4.0, 1.0, 6.0, 3.0, 2.0, 4.0, 2.0, 4.0, 6.0, 1.0];
    let output = layer.run(device, &tensor([3, 4], values.clone())).expect("an output");
    let expected = reference::layer_norm(&values, 4, None, None, 1e-5, false);
    for (y, expected) in output.values().iter().zip(expected) {
        approx::assert_abs_diff_eq!(f64::from(*y), expected, epsilon = 1e-6);
    }
}

fn tensor(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Tensor {
    Tensor::from_f32(shape, values).expect("a whole tensor")
}

fn ramp(shape: impl Into<Vec<usize>>) -> Tensor {
    let shape = shape.into();
    let count = shape.iter().product::<usize>();
    tensor(shape, (0..count).map(|i| (i * i % 17) as f32).collect())
}

#[test]
fn run_normalizes_over_the_trailing_dimensions() {
    let device = device();
    let input = tensor([2, 2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new([2, 3])).expect("a layer");
    let output = layer.run(&device, &input).expect("an output");
    assert_eq!(output.shape(), [2, 2, 3]);
    let expected = [-1.463_847_6, -0.878_308_6, -0.292_769_5, 0.292_769_5, 0.878_308_6, 1.463_847_6];
    for (y, expected) in output.values().iter().zip(expected.iter().cycle()) {
        approx::assert_abs_diff_eq!(*y, *expected, epsilon = 1e-6);
    }
}

#[test]
fn run_async_and_forward_give_the_bits_of_run() {
    let device = device();
    let input = ramp([9, 33]);
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(33)).expect("a layer");
    let output = layer.run(&device, &input).expect("an output");
    assert_eq!(pollster::block_on(layer.run_async(&device, &input)).as_ref(), Ok(&output));
    let on_device = GpuTensor::upload(&device, &input).expect("an upload");
    let forward = layer.forward(&device, &on_device).expect("an output");
    assert_eq!(forward.shape(), [9, 33]);
    assert_eq!(forward.download().as_ref(), Ok(&output));
    assert_eq!(pollster::block_on(forward.download_async()), Ok(output));
}

#[test]
fn ranks_from_1_to_8_are_normalized_and_a_scalar_matches_nothing() {
    let device = device();
    for rank in 1..=MAX_RANK {
        let mut shape = vec![2; rank];
        shape[rank - 1] = 5;
        let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(5)).expect("a layer");
        assert_eq!(layer.run(&device, &ramp(shape.clone())).expect("an output").shape(), shape);
        let whole = GpuLayerNorm::new(&device, &LayerNormConfig::new(shape.clone())).expect("a layer");
        assert_eq!(whole.run(&device, &ramp(shape.clone())).expect("an output").shape(), shape);
    }
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(5)).expect("a layer");
    let scalar = tensor([], vec![1.0]);
    assert_eq!(layer.run(&device, &scalar), Err(Error::ShapeMismatch { normalized_shape: vec![5], shape: vec![] }));
    assert_eq!(GpuTensor::upload(&device, &scalar).and_then(|scalar| scalar.download()), Ok(scalar));
}

#[test]
fn a_zero_size_leading_dimension_gives_an_empty_result() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(3)).expect("a layer");
    for shape in [vec![0, 3], vec![4, 0, 3], vec![1 << 40, 1 << 40, 0, 3]] {
        let output = layer.run(&device, &tensor(shape.clone(), vec![])).expect("an output");
        assert_eq!((output.shape(), output.values()), (&shape[..], std::borrow::Cow::Borrowed(&[][..])));
    }
    let overflowing = vec![1 << 40, 1 << 40, 3];
    assert_eq!(layer.config().rows(&overflowing), Err(Error::Size { shape: overflowing }));
}

#[test]
fn parameters_begin_as_ones_and_zeros_and_are_read_back_as_set() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new([2, 3])).expect("a layer");
    let (weight, bias) = (layer.weight().expect("a weight"), layer.bias().expect("a bias"));
    assert_eq!(weight.download(), Ok(tensor([2, 3], vec![1.0; 6])));
    assert_eq!(bias.download(), Ok(tensor([2, 3], vec![0.0; 6])));
    layer.set_weight(&ramp([2, 3])).expect("set");
    layer.set_bias(&tensor([2, 3], vec![5.0; 6])).expect("set");
    assert_eq!(weight.download(), Ok(ramp([2, 3])));
    assert_eq!(bias.download(), Ok(tensor([2, 3], vec![5.0; 6])));
    let none = GpuLayerNorm::new(&device, &LayerNormConfig::new(3).affine(Affine::None)).expect("a layer");
    assert!(none.weight().is_none() && none.bias().is_none());
}

#[test]
fn a_prepared_operation_sees_parameters_set_later() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
    let input = GpuTensor::upload(&device, &ramp([2, 4])).expect("an upload");
    let output = GpuTensor::zeros(&device, [2, 4]).expect("a tensor");
    let prepared = layer.prepare(&device, &Bindings::of(&input, &output)).expect("an operation");
    layer.set_weight(&tensor([4], vec![0.0; 4])).expect("set");
    layer.set_bias(&tensor([4], vec![7.0; 4])).expect("set");
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    prepared.encode(&mut encoder);
    device.queue().submit([encoder.finish()]);
    assert_eq!(output.download(), Ok(tensor([2, 4], vec![7.0; 8])));
}

#[test]
fn a_second_layer_of_the_same_variant_compiles_nothing() {
    let device = device();
    let config = LayerNormConfig::new(24);
    GpuLayerNorm::new(&device, &config).expect("a layer");
    let compiled = device.pipeline_count();
    let second = GpuLayerNorm::new(&device, &config.clone().eps(0.5)).expect("a layer");
    assert_eq!(device.pipeline_count(), compiled);
    // As many rows as fill a device of up to 1024 cores.
    second.run(&device, &ramp([1 << 17, 24])).expect("an output");
    assert_eq!(device.pipeline_count(), compiled);
    GpuLayerNorm::new(&device, &config.affine(Affine::Weight)).expect("a layer");
    assert!(device.pipeline_count() > compiled);
}

#[test]
fn pipelines_are_made_with_the_layer_for_the_input_it_is_to_expect() {
    let device = device();
    for (rows, storage) in [(1, StorageType::F32), (7, StorageType::Bf16), (300, StorageType::F16)] {
        let config = LayerNormConfig::new(20).expect_input(rows, storage);
        assert_eq!(config.expected_input(), Some((rows, storage)));
        let before = device.pipeline_count();
        let layer = GpuLayerNorm::new(&device, &config).expect("a layer");
        let compiled = device.pipeline_count();
        assert!(compiled > before, "{rows} rows of {storage}");
        let input = ramp([rows as usize, 20]).to_storage(storage);
        layer.run(&device, &input).expect("an output");
        assert_eq!(device.pipeline_count(), compiled, "{rows} rows of {storage}");
    }
    let compiled = device.pipeline_count();
    let none = LayerNormConfig::new(21).expect_nothing();
    let layer = GpuLayerNorm::new(&device, &none).expect("a layer");
    assert_eq!(device.pipeline_count(), compiled);
    layer.run(&device, &ramp([2, 21])).expect("an output");
    assert!(device.pipeline_count() > compiled);
    let too_many = LayerNormConfig::new(1 << 20).expect_input(1 << 40, StorageType::F32);
    assert!(matches!(GpuLayerNorm::new(&device, &too_many).map(|_| ()), Err(Error::BufferSize { .. })));
}

#[test]
fn tuning_finds_a_plan_that_later_layers_take_and_a_file_keeps() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(96)).expect("a layer");
    let input = GpuTensor::upload(&device, &ramp([300, 96])).expect("an upload");
    let output = GpuTensor::zeros(&device, [300, 96]).expect("a tensor");
    let bindings = Bindings::of(&input, &output);
    let pick = layer.prepare(&device, &bindings).expect("an operation").plan().clone();

    let tuning = layer.tune(&device, &bindings).expect("a tuning");
    assert!(tuning.measured().len() > 3, "{tuning:?}");
    assert!(tuning.measured().iter().any(|(plan, _)| *plan == pick), "the planner's pick is measured too");
    assert!(tuning.measured().iter().all(|(_, time)| !time.is_zero()));
    assert_eq!(tuning.best(), &tuning.measured()[0].0);
    assert_eq!(output.download().expect("an output"), tensor([300, 96], vec![0.0; 300 * 96]), "on buffers of its own");

    // Whatever was the fastest: here it is made one that no planner would pick.
    let other: Geometry = "Reread Lane 1 1 3 0".parse().expect("a geometry");
    let text = device.tunings_text();
    let found = tuning.best().geometry().to_string();
    assert!(text.contains(&found), "{text}");
    let changed = text.replace(&found, &other.to_string());
    assert_eq!(device.load_tunings_text(&changed), 1);
    let tuned = layer.prepare(&device, &bindings).expect("an operation");
    assert_eq!(*tuned.plan().geometry(), other);
    // The same for as many rows to the next power of two, and for no other width, type or number.
    let geometry = |config: &LayerNormConfig, rows: usize, storage| {
        let layer = GpuLayerNorm::new(&device, &config.clone().expect_input(0, storage)).expect("a layer");
        let width = config.normalized_shape()[0];
        let input = GpuTensor::zeros_as(&device, [rows, width], storage).expect("a tensor");
        let output = GpuTensor::zeros_as(&device, [rows, width], storage).expect("a tensor");
        *layer.prepare(&device, &Bindings::of(&input, &output)).expect("an operation").plan().geometry()
    };
    let config = LayerNormConfig::new(96).eps(0.25);
    assert_eq!(geometry(&config, 511, StorageType::F32), other);
    assert_ne!(geometry(&config, 513, StorageType::F32), other);
    assert_ne!(geometry(&config, 300, StorageType::F16), other);
    assert_ne!(geometry(&LayerNormConfig::new(100), 300, StorageType::F32), other);
    assert_ne!(geometry(&LayerNormConfig::rms(96), 300, StorageType::F32), other);

    let path = std::env::temp_dir().join(format!("gpu-layer-norm-tunings-{}", std::process::id()));
    device.save_tunings(&path).expect("written");
    let fresh = GpuDevice::new().expect("a device");
    assert_eq!(fresh.load_tunings(&path), Ok(1));
    assert_eq!(fresh.tunings_text(), changed);
    // Of another driver, and what is none at all.
    let foreign = changed.replacen('\n', " 2\n", 1);
    assert_eq!(fresh.load_tunings_text(&foreign), 0);
    assert_eq!(fresh.load_tunings_text(&format!("{changed}no tuning\nrows: Held Lane 1 1\n")), 1);
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(fresh.load_tunings(&path), Ok(0));
    let folder = std::env::temp_dir();
    assert!(matches!(fresh.load_tunings(&folder), Err(Error::TuningFile { .. })));
    assert!(matches!(fresh.save_tunings(&folder), Err(Error::TuningFile { .. })));

    // In place, and several tensors in one buffer.
    let rows = Region::from(&input);
    layer.tune(&device, &Bindings::new(300, rows.clone(), rows)).expect("a tuning");
    // A forced strategy stays, and nothing is remembered of it.
    let before = device.tunings_text();
    let split = LayerNormConfig::new(96).strategy(Strategy::Split);
    let split = GpuLayerNorm::new(&device, &split).expect("a layer");
    let tuning = split.tune(&device, &bindings).expect("a tuning");
    assert!(tuning.measured().iter().all(|(plan, _)| plan.strategy() == Strategy::Split), "{tuning:?}");
    assert_eq!(device.tunings_text(), before);
}

#[test]
fn compiled_pipelines_can_be_kept() {
    let device = device();
    let run = |device: &GpuDevice| {
        let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(52)).expect("a layer");
        layer.run(device, &ramp([3, 52])).expect("an output")
    };
    let expected = run(&device);
    let Some(data) = device.pipeline_cache_data() else {
        assert!(!device.device().features().contains(wgpu::Features::PIPELINE_CACHE));
        return;
    };
    assert!(!data.is_empty());
    let builder = GpuDevice::builder();
    // Safety: it is what the device gave.
    let again = unsafe { builder.pipeline_cache_data(data) }.build().expect("a device");
    assert_eq!(run(&again), expected);
}

/// Each refused config, with the error that says why; after each the device still works.
#[test]
fn a_config_outside_the_domain_is_refused() {
    let device = device();
    let base = LayerNormConfig::new(4);
    for (config, expected) in [
        (LayerNormConfig::new([]), Error::NormalizedShape { normalized_shape: vec![] }),
        (LayerNormConfig::new([3, 0]), Error::NormalizedShape { normalized_shape: vec![3, 0] }),
        (LayerNormConfig::new([1; 9]), Error::Rank { shape: vec![1; 9], max: MAX_RANK }),
        (LayerNormConfig::new([1 << 13, 1 << 12]), Error::Width { width: 1 << 25, max: MAX_WIDTH }),
        (LayerNormConfig::new([usize::MAX, 2]), Error::Width { width: u64::MAX, max: MAX_WIDTH }),
        (base.clone().eps(-1.0), Error::Eps { eps: -1.0 }),
        (base.clone().eps(f32::INFINITY), Error::Eps { eps: f32::INFINITY }),
        (LayerNormConfig::new(1).variance(Variance::Unbiased), Error::UnbiasedWidth { width: 1 }),
        (LayerNormConfig::rms(4).variance(Variance::Unbiased), Error::RmsNorm { what: "an unbiased variance" }),
    ] {
        let refused = GpuLayerNorm::new(&device, &config).map(|_| ());
        assert_eq!(refused, Err(expected.clone()));
        assert!(expected.to_string().len() > 20);
        assert_works(&device);
    }
    assert!(matches!(GpuLayerNorm::new(&device, &base.eps(f32::NAN)).map(|_| ()), Err(Error::Eps { .. })));
}

#[test]
fn a_tensor_that_is_not_whole_is_refused() {
    assert_eq!(
        Tensor::from_f32([2, 3], vec![0.0; 5]),
        Err(Error::ValueCount { shape: vec![2, 3], expected: 6, actual: 5 })
    );
    assert_eq!(Tensor::from_f32([1; 9], vec![0.0]), Err(Error::Rank { shape: vec![1; 9], max: MAX_RANK }));
    assert_eq!(Tensor::from_f32([usize::MAX, 2], vec![]), Err(Error::Size { shape: vec![usize::MAX, 2] }));
}

#[test]
fn shapes_that_do_not_match_are_refused() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new([2, 3])).expect("a layer");
    for shape in [vec![3, 2], vec![3], vec![2, 3, 1], vec![]] {
        let values = vec![0.0; shape.iter().product()];
        assert_eq!(
            layer.run(&device, &tensor(shape.clone(), values)),
            Err(Error::ShapeMismatch { normalized_shape: vec![2, 3], shape })
        );
    }
    assert_eq!(
        layer.set_weight(&ramp([6])),
        Err(Error::Shape { what: "weight", expected: vec![2, 3], actual: vec![6] })
    );
    let input = GpuTensor::upload(&device, &ramp([4, 2, 3])).expect("an upload");
    let output = GpuTensor::zeros(&device, [8, 3]).expect("a tensor");
    assert_eq!(
        layer.prepare(&device, &Bindings::of(&input, &output)).map(|_| ()),
        Err(Error::Shape { what: "output", expected: vec![4, 2, 3], actual: vec![8, 3] })
    );
    let row = GpuTensor::zeros(&device, [2, 3]).expect("a tensor");
    for (name, parameter) in [("weight", layer.weight()), ("bias", layer.bias())] {
        let refused = layer.prepare(&device, &Bindings::of(&row, parameter.expect("a parameter"))).map(|_| ());
        assert_eq!(refused, Err(Error::Overlap { written: "output", other: name }));
    }
    assert_eq!(
        input.write(&ramp([2, 3])),
        Err(Error::Shape { what: "new value", expected: vec![4, 2, 3], actual: vec![2, 3] })
    );
    assert_works(&device);
}

#[test]
fn storage_types_are_chosen_each_on_its_own() {
    let device = device();
    // An odd number of elements, so that the last word is half full.
    let input = ramp([3, 5]).to_storage(StorageType::Bf16);
    let config = LayerNormConfig::new(5).parameter_storage(StorageType::F16);
    let layer = GpuLayerNorm::new(&device, &config).expect("a layer");
    let third = tensor([5], vec![1.0 / 3.0; 5]);
    layer.set_bias(&third).expect("set");
    let bias = layer.bias().expect("a bias").download().expect("a download");
    assert_eq!(bias.as_f16(), Some(&[f16::from_f32(1.0 / 3.0); 5][..]), "parameters are rounded to their storage type");
    assert_eq!(layer.weight().map(GpuTensor::storage), Some(StorageType::F16));

    let output = layer.run(&device, &input).expect("an output");
    assert_eq!((output.storage(), output.shape()), (StorageType::Bf16, &[3, 5][..]));
    let wide = GpuLayerNorm::new(&device, &config.output_storage(StorageType::F32)).expect("a layer");
    wide.set_bias(&third).expect("set");
    let exact = wide.run(&device, &input).expect("an output");
    assert_eq!(exact.storage(), StorageType::F32);
    assert_eq!(output, exact.to_storage(StorageType::Bf16), "the one is the other, rounded");

    let on_device = GpuTensor::upload(&device, &input).expect("an upload");
    assert_eq!(on_device.download().as_ref(), Ok(&input));
    on_device.write(&tensor([3, 5], vec![2.0; 15])).expect("written");
    assert_eq!(
        on_device.download().ok().and_then(|t| t.as_bf16().map(<[bf16]>::to_vec)),
        Some(vec![bf16::from_f32(2.0); 15])
    );
}

#[test]
fn rms_normalization_and_a_zero_centred_weight_begin_as_the_identity_map_after_the_norm() {
    let device = device();
    let values = vec![3.0, -4.0, 0.0, 0.0];
    for config in [LayerNormConfig::rms(4), LayerNormConfig::rms(4).zero_centred_weight(true)] {
        let layer = GpuLayerNorm::new(&device, &config.eps(0.0)).expect("a layer");
        assert!(layer.bias().is_none());
        let output = layer.run(&device, &tensor([1, 4], values.clone())).expect("an output");
        for (y, exact) in output.values().iter().zip(reference::rms_norm(&values, 4, None, None, 0.0)) {
            approx::assert_abs_diff_eq!(f64::from(*y), exact, epsilon = 1e-6);
        }
    }
    let zero_centred = GpuLayerNorm::new(&device, &LayerNormConfig::new(4).zero_centred_weight(true)).expect("a layer");
    assert_eq!(zero_centred.weight().expect("a weight").download(), Ok(tensor([4], vec![0.0; 4])));
}

#[test]
fn statistics_and_the_sum_with_a_residual_are_written_when_asked_for() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
    let input = GpuTensor::upload(&device, &tensor([2, 4], vec![1.0, 2.0, 4.0, 1.0, 0.0, 0.0, 0.0, 0.0])).expect("up");
    let residual =
        GpuTensor::upload(&device, &tensor([2, 4], vec![0.0, 0.0, 0.0, 0.0, 6.0, 3.0, 2.0, 4.0])).expect("up");
    let zeros = |shape: &[usize]| GpuTensor::zeros(&device, shape).expect("a tensor");
    let (output, sum, mean, rstd) = (zeros(&[2, 4]), zeros(&[2, 4]), zeros(&[2]), zeros(&[2]));
    let bindings = Bindings::of(&input, &output).residual(&residual).sum(&sum).mean(&mean).rstd(&rstd);
    layer.execute(&device, &bindings).expect("submitted");
    let rows = [1.0, 2.0, 4.0, 1.0, 6.0, 3.0, 2.0, 4.0];
    assert_eq!(*sum.download().expect("a download").values(), rows);
    assert_eq!(*mean.download().expect("a download").values(), [2.0, 3.75]);
    for (y, variance) in rstd.download().expect("a download").values().iter().zip([1.5_f64, 2.1875]) {
        approx::assert_relative_eq!(f64::from(*y), 1.0 / (variance + 1e-5).sqrt(), max_relative = 1e-6);
    }
    let exact = reference::layer_norm(&rows, 4, None, None, 1e-5, false);
    for (y, exact) in output.download().expect("a download").values().iter().zip(exact) {
        approx::assert_abs_diff_eq!(f64::from(*y), exact, epsilon = 1e-6);
    }
    // Tensors of the wrong shape.
    for (what, bindings, expected) in [
        ("residual", Bindings::of(&input, &output).residual(&mean), vec![2, 4]),
        ("sum", Bindings::of(&input, &output).sum(&mean), vec![2, 4]),
        ("mean", Bindings::of(&input, &output).mean(&sum), vec![2]),
        ("weight", Bindings::of(&input, &output).weight(&mean), vec![4]),
    ] {
        let actual = if what == "mean" { vec![2, 4] } else { vec![2] };
        assert_eq!(layer.prepare(&device, &bindings).map(|_| ()), Err(Error::Shape { what, expected, actual }));
    }
    // A part of a tensor is as good as a tensor.
    let pool = zeros(&[100]);
    assert!(layer.prepare(&device, &Bindings::of(&input, &output).residual(Region::from(&pool).offset(50))).is_ok());
}

/// Each refused binding, with the error that says why; after each the device still works.
#[test]
fn regions_outside_the_domain_are_refused() {
    let device = device();
    let buffer = |size: u64, usage: wgpu::BufferUsages| {
        device.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let storage = wgpu::BufferUsages::STORAGE;
    let (a, b) = (buffer(1024, storage), buffer(1024, storage));
    let copied = buffer(1024, wgpu::BufferUsages::COPY_DST);
    let f32s = |buffer: &wgpu::Buffer| Region::new(buffer, StorageType::F32);
    let f16s = |buffer: &wgpu::Buffer| Region::new(buffer, StorageType::F16);
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4).affine(Affine::None)).expect("a layer");
    let rms = GpuLayerNorm::new(&device, &LayerNormConfig::rms(4)).expect("a layer");
    let plain = || Bindings::new(8, f32s(&a), f32s(&b));
    let overlap = |written, other| Error::Overlap { written, other };
    for (layer, bindings, expected) in [
        (&layer, Bindings::new(65, f32s(&a), f32s(&b)), Error::Region { what: "input", needed: 1040, actual: 1024 }),
        (
            &layer,
            Bindings::new(64, f32s(&a), f32s(&b).offset(1)),
            Error::Region { what: "output", needed: 1028, actual: 1024 },
        ),
        // The last element of 16 bits needs the whole of its word.
        (
            &layer,
            Bindings::new(127, f32s(&a), f16s(&b).offset(5)),
            Error::Region { what: "input", needed: 2032, actual: 1024 },
        ),
        (
            &layer,
            Bindings::new(1, f32s(&a), f16s(&b).offset(509)),
            Error::Region { what: "output", needed: 1028, actual: 1024 },
        ),
        (
            &layer,
            plain().residual(f32s(&a).row_stride(3)),
            Error::RowStride { what: "residual", row_stride: 3, width: 4 },
        ),
        (&layer, plain().rstd(f32s(&a).row_stride(0)), Error::RowStride { what: "rstd", row_stride: 0, width: 1 }),
        (
            &layer,
            plain().mean(f16s(&a)),
            Error::StorageType { what: "mean", expected: StorageType::F32, actual: StorageType::F16 },
        ),
        (&rms, plain().mean(f32s(&a).offset(200)), Error::RmsNorm { what: "a mean" }),
        (&layer, plain().weight(f32s(&a)), Error::NoParameter { name: "weight", affine: Affine::None }),
        (
            &layer,
            plain().residual(f32s(&copied)),
            Error::BufferUsage { what: "residual", needed: storage, actual: wgpu::BufferUsages::COPY_DST },
        ),
        (&layer, plain().sum(f32s(&b)), overlap("output", "sum")),
        (&layer, Bindings::new(8, f32s(&a), f32s(&a).offset(4)), overlap("output", "input")),
        (&layer, Bindings::new(8, f32s(&a), f16s(&a)), overlap("output", "input")),
        (&layer, Bindings::new(8, f32s(&a), f32s(&a).row_stride(5)), overlap("output", "input")),
        (&layer, plain().rstd(f32s(&a).offset(31)), overlap("rstd", "input")),
        (&layer, plain().row_count(&a, 256), Error::Region { what: "row count", needed: 1028, actual: 1024 }),
        (
            &layer,
            plain().row_count(&a, u64::MAX - 3),
            Error::Region { what: "row count", needed: (1 << 63) + 4, actual: 1024 },
        ),
        (&layer, plain().row_count(&b, 2), overlap("output", "row count")),
        (&layer, plain().rstd(f32s(&b).offset(100)).row_count(&b, 101), overlap("rstd", "row count")),
        // What is twice the input has one place only.
        (&layer, Bindings::new(8, f32s(&a), f32s(&a)).residual(f32s(&a)), overlap("output", "residual")),
        (&layer, Bindings::new(u64::MAX, f32s(&a), f32s(&b)), Error::Size { shape: vec![usize::MAX, 4] }),
        (&layer, plain().sum(f32s(&b).offset(u64::MAX)), Error::Offset { what: "sum", offset: u64::MAX }),
        (&layer, plain().sum(f32s(&b).row_stride(u64::MAX)), Error::Size { shape: vec![8, usize::MAX] }),
    ] {
        assert_eq!(layer.prepare(&device, &bindings).map(|_| ()), Err(expected.clone()));
        assert!(expected.to_string().len() > 20);
        assert_works(&device);
    }
    // The last element of the buffer, and a single row whose stride leads nowhere, are fine.
    assert!(layer.prepare(&device, &Bindings::new(1, f32s(&a), f16s(&b).offset(508))).is_ok());
    assert!(layer.prepare(&device, &Bindings::new(1, f32s(&a).row_stride(u64::MAX), f32s(&b))).is_ok());
    // Nothing to do is done.
    let none = layer.prepare(&device, &Bindings::new(0, f32s(&a), f32s(&b)).row_count(&copied_count(&device), 0));
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    none.expect("an operation").encode(&mut encoder);
    device.queue().submit([encoder.finish()]);
    assert_works(&device);
}

fn copied_count(device: &GpuDevice) -> wgpu::Buffer {
    device.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

#[test]
fn a_buffer_of_another_device_is_an_error() {
    // Of one instance: wgpu has no way to tell the buffers of two apart.
    let adapters = pollster::block_on(GpuDevice::builder().adapters());
    let adapter = adapters.first().expect("an adapter");
    let [device, other] = [(); 2].map(|()| pollster::block_on(GpuDevice::from_adapter(adapter)).expect("a device"));
    let foreign = copied_count(&other);
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(1)).expect("a layer");
    let region = Region::new(&foreign, StorageType::F32);
    let own = Region::new(&copied_count(&device), StorageType::F32);
    for bindings in [
        Bindings::new(1, region, own.clone()),
        Bindings::new(1, own.clone(), Region::new(&copied_count(&device), StorageType::F32)).row_count(&foreign, 0),
    ] {
        let refused = layer.prepare(&device, &bindings).map(|_| ());
        assert!(matches!(refused, Err(Error::Wgpu { .. })), "{refused:?}");
        assert_works(&device);
    }
}

#[test]
fn a_parameter_that_the_layer_does_not_have_is_refused() {
    let device = device();
    let none = GpuLayerNorm::new(&device, &LayerNormConfig::new(4).affine(Affine::None)).expect("a layer");
    assert_eq!(none.set_weight(&ramp([4])), Err(Error::NoParameter { name: "weight", affine: Affine::None }));
    let weight = GpuLayerNorm::new(&device, &LayerNormConfig::new(4).affine(Affine::Weight)).expect("a layer");
    assert_eq!(weight.set_bias(&ramp([4])), Err(Error::NoParameter { name: "bias", affine: Affine::Weight }));
    assert_works(&device);
}

#[test]
fn what_belongs_to_another_device_is_refused() {
    let (first, second) = (device(), device());
    let layer = GpuLayerNorm::new(&first, &LayerNormConfig::new(4)).expect("a layer");
    let foreign = GpuTensor::upload(&second, &ramp([2, 4])).expect("an upload");
    assert_eq!(layer.run(&second, &ramp([2, 4])), Err(Error::ForeignDevice { what: "layer" }));
    assert_eq!(layer.forward(&first, &foreign).map(|_| ()), Err(Error::ForeignDevice { what: "input" }));
    let own = GpuTensor::upload(&first, &ramp([2, 4])).expect("an upload");
    assert_eq!(
        layer.prepare(&first, &Bindings::of(&own, &foreign)).map(|_| ()),
        Err(Error::ForeignDevice { what: "output" })
    );
    assert_works(&first);
    assert_works(&second);
}

#[test]
fn strategies_and_geometries_that_cannot_run_are_refused() {
    let device = device();
    let split = LayerNormConfig::new(3).strategy(Strategy::Split);
    let refused = GpuLayerNorm::new(&device, &split).map(|_| ());
    assert!(matches!(refused, Err(Error::Strategy { strategy: Strategy::Split, width: 3, .. })), "{refused:?}");

    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
    let input = GpuTensor::upload(&device, &ramp([2, 4])).expect("an upload");
    let output = GpuTensor::zeros(&device, [2, 4]).expect("a tensor");
    // Made for a device with more invocations a workgroup than any has.
    let large = Capabilities {
        max_invocations_per_workgroup: 1 << 16,
        max_workgroup_storage: 1 << 24,
        ..*device.capabilities()
    };
    let geometry = Geometry {
        access: Access::Reread,
        reduction: Reduction::Workgroup,
        lanes: 1 << 15,
        spans_per_lane: 1,
        spans_per_workgroup: 1,
        segment_width: None,
    };
    let problem = layer.config().problem(2).expect("a problem");
    let plan = Plan::with_geometry(&problem, &large, geometry).expect("a plan");
    let refused = layer.prepare_plan(&device, plan, &Bindings::of(&input, &output)).map(|_| ());
    assert!(matches!(refused, Err(Error::Geometry { .. })), "{refused:?}");

    let other = Plan::new(&layer.config().problem(3).expect("a problem"), device.capabilities()).expect("a plan");
    let refused = layer.prepare_plan(&device, other, &Bindings::of(&input, &output)).map(|_| ());
    assert!(matches!(refused, Err(Error::PlanMismatch { .. })), "{refused:?}");
    assert_works(&device);
}

#[test]
fn an_adapter_that_is_not_there_is_named_with_those_that_are() {
    let missing = GpuDevice::builder().adapter_name("no such adapter").build().map(|_| ());
    let Err(Error::NoAdapter { requested, found }) = missing else { panic!("{missing:?}") };
    assert!(requested.contains("no such adapter"));
    assert!(!found.is_empty());
    assert_works(&device());
}

#[test]
fn a_buffer_over_the_limit_is_refused_before_anything_is_allocated() {
    let device = device();
    let max = device.capabilities().max_buffer_bytes;
    let rows = usize::try_from(max / 4 + 1).expect("a count");
    assert_eq!(GpuTensor::zeros(&device, [rows]).map(|_| ()), Err(Error::BufferSize { bytes: rows as u64 * 4, max }));
    assert_works(&device);
}

#[test]
fn a_row_over_the_binding_limit_is_refused() {
    let (adapter, wgpu_device, queue) = own_device(
        |limits| wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..limits.clone() },
        wgpu::Features::empty(),
    );
    let device = GpuDevice::from_wgpu(adapter, wgpu_device, queue).expect("a device");
    let refused = GpuLayerNorm::new(&device, &LayerNormConfig::new(1 << 14)).map(|_| ());
    assert!(matches!(refused, Err(Error::RowSize { max: 65_536, .. })), "{refused:?}");
    // Many rows that do not fit one binding together run in chunks.
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(1000).affine(Affine::None)).expect("a layer");
    let input = ramp([100, 1000]);
    let output = layer.run(&device, &input).expect("an output");
    let expected = reference::layer_norm(&input.values(), 1000, None, None, 1e-5, false);
    for (y, expected) in output.values().iter().zip(expected) {
        approx::assert_abs_diff_eq!(f64::from(*y), expected, epsilon = 1e-6);
    }
    assert_works(&device);
}

#[test]
fn a_callers_device_with_few_limits_and_no_features_works() {
    for limits in [wgpu::Limits::defaults(), wgpu::Limits::downlevel_defaults()] {
        let (adapter, wgpu_device, queue) = own_device(|_| limits, wgpu::Features::empty());
        let device = GpuDevice::from_wgpu(adapter, wgpu_device, queue).expect("a device");
        assert_eq!(device.capabilities().subgroups, None);
        assert_works(&device);
        let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(300_001)).expect("a layer");
        let input = ramp([2, 300_001]);
        let output = layer.run(&device, &input).expect("an output");
        let expected = reference::layer_norm(&input.values(), 300_001, None, None, 1e-5, false);
        for (y, expected) in output.values().iter().zip(expected) {
            approx::assert_abs_diff_eq!(f64::from(*y), expected, epsilon = 2e-6);
        }
    }
}

#[test]
fn a_device_without_storage_buffers_is_refused() {
    let (adapter, wgpu_device, queue) = own_device(
        |limits| wgpu::Limits { max_storage_buffers_per_shader_stage: 1, ..limits.clone() },
        wgpu::Features::empty(),
    );
    let refused = GpuDevice::from_wgpu(adapter, wgpu_device, queue).map(|_| ());
    assert_eq!(refused, Err(Error::DeviceTooSmall { what: "storage buffers a shader", needed: 2, actual: 1 }));
    // Two are enough without an affine map, and a layer that needs more says so.
    let (adapter, wgpu_device, queue) = own_device(
        |limits| wgpu::Limits { max_storage_buffers_per_shader_stage: 3, ..limits.clone() },
        wgpu::Features::empty(),
    );
    let device = GpuDevice::from_wgpu(adapter, wgpu_device, queue).expect("a device");
    assert_eq!(
        GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).map(|_| ()),
        Err(Error::DeviceTooSmall { what: "storage buffers a shader", needed: 4, actual: 3 })
    );
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4).affine(Affine::Weight)).expect("a layer");
    assert!(layer.run(&device, &ramp([2, 4])).is_ok());
}

#[test]
fn a_destroyed_device_says_so_whatever_is_called_first() {
    for callers_own in [false, true] {
        for call in 0..7 {
            let device = if callers_own {
                let made = device();
                let adapter = pollster::block_on(GpuDevice::builder().adapters()).swap_remove(0);
                let (wgpu_device, queue) =
                    pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).expect("a device");
                wgpu_device.on_uncaptured_error(std::sync::Arc::new(|error| panic!("{error}")));
                drop(made);
                GpuDevice::from_wgpu(adapter, wgpu_device, queue).expect("a device")
            } else {
                device()
            };
            let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
            let tensor = GpuTensor::upload(&device, &ramp([2, 4])).expect("an upload");
            let output = GpuTensor::zeros(&device, [2, 4]).expect("a tensor");
            let mut prepared = layer.prepare(&device, &Bindings::of(&tensor, &output)).expect("an operation");
            // Work in flight.
            let descriptor = wgpu::CommandEncoderDescriptor::default();
            let mut encoder = device.device().create_command_encoder(&descriptor);
            for _ in 0..1000 {
                prepared.encode(&mut encoder);
            }
            device.queue().submit([encoder.finish()]);
            device.device().destroy();
            let refused = match call {
                0 => GpuTensor::zeros(&device, [4]).map(drop),
                1 => tensor.write(&ramp([2, 4])),
                2 => layer.set_weight(&ramp([4])),
                3 => prepared.set_rows(1),
                4 => layer.run(&device, &ramp([2, 4])).map(drop),
                5 => layer.forward(&device, &tensor).map(drop),
                _ => tensor.download().map(drop),
            };
            assert!(matches!(refused, Err(Error::DeviceLost { .. })), "{callers_own} {call}: {refused:?}");
        }
    }
}

#[test]
fn a_region_can_be_read_back() {
    let device = device();
    let tensor = GpuTensor::zeros_as(&device, [8, 8], StorageType::Bf16).expect("a tensor");
    let region = Region::from(&tensor).offset(3).row_stride(9);
    let bindings = Bindings::new(2, region, &tensor);
    let read = bindings.get(gpu_layer_norm::kernel::Role::Input).expect("an input");
    assert_eq!(read.buffer(), tensor.buffer());
    let places = (read.storage(), read.element_offset(), read.elements_between_rows());
    assert_eq!(places, (StorageType::Bf16, 3, Some(9)));
    assert!(bindings.get(gpu_layer_norm::kernel::Role::Sum).is_none());
}

#[test]
fn a_row_count_on_a_device_with_small_workgroups_works() {
    let adapter = pollster::block_on(GpuDevice::builder().adapters()).swap_remove(0);
    let required_limits = wgpu::Limits {
        max_compute_invocations_per_workgroup: 32,
        max_compute_workgroup_size_x: 32,
        max_compute_workgroup_size_y: 32,
        max_compute_workgroup_size_z: 32,
        ..wgpu::Limits::defaults()
    };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (wgpu_device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let device = GpuDevice::from_wgpu(adapter, wgpu_device, queue).expect("a device");
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
    let input = GpuTensor::upload(&device, &ramp([3, 4])).expect("an upload");
    let output = GpuTensor::zeros(&device, [3, 4]).expect("a tensor");
    let count = GpuTensor::upload(&device, &Tensor::from_f32([1], vec![f32::from_bits(2)]).expect("a tensor"));
    let count = count.expect("an upload");
    let bindings = Bindings::of(&input, &output).row_count(count.buffer(), 0);
    layer.execute(&device, &bindings).expect("a forward pass");
    let values = output.download().expect("an output").into_values();
    assert!(values[..8].iter().all(|y| *y != 0.0) && values[8..] == [0.0; 4], "{values:?}");
}

#[test]
fn a_lost_device_says_so_and_a_new_one_works() {
    let lost = device();
    let layer = GpuLayerNorm::new(&lost, &LayerNormConfig::new(4)).expect("a layer");
    let tensor = GpuTensor::upload(&lost, &ramp([2, 4])).expect("an upload");
    lost.device().destroy();
    for refused in [
        layer.run(&lost, &ramp([2, 4])).map(|_| ()),
        pollster::block_on(layer.run_async(&lost, &ramp([2, 4]))).map(|_| ()),
        layer.forward(&lost, &tensor).map(|_| ()),
        tensor.download().map(|_| ()),
        layer.set_weight(&ramp([4])),
        GpuLayerNorm::new(&lost, &LayerNormConfig::new(8)).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(Error::DeviceLost { .. })), "{refused:?}");
    }
    assert_works(&device());
}

#[test]
fn a_lost_device_of_the_callers_own_gives_an_error_too() {
    let (adapter, wgpu_device, queue) = own_device(Clone::clone, wgpu::Features::empty());
    let device = GpuDevice::from_wgpu(adapter, wgpu_device, queue).expect("a device");
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
    device.device().destroy();
    let refused = layer.run(&device, &ramp([2, 4])).map(|_| ());
    assert!(matches!(refused, Err(Error::DeviceLost { .. } | Error::Wgpu { .. })), "{refused:?}");
}

#[test]
fn a_buffer_that_the_caller_destroyed_is_an_error() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
    let input = GpuTensor::upload(&device, &ramp([2, 4])).expect("an upload");
    input.buffer().destroy();
    for refused in [layer.forward(&device, &input).map(|_| ()), input.download().map(|_| ())] {
        assert!(matches!(refused, Err(Error::Wgpu { .. })), "{refused:?}");
    }
    assert_works(&device);
}

/// In a process of its own that may have 8 GiB of address space, buffers are made until one is refused.
#[test]
#[cfg(target_os = "linux")] // macOS sets no limit on address space.
fn out_of_memory_is_an_error_and_the_device_goes_on() {
    const CHILD: &str = "GPU_LAYER_NORM_TEST_OUT_OF_MEMORY";
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new("sh")
            .args(["-c", "ulimit -v 8388608 && exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().expect("this program has a path"))
            .args(["--exact", "out_of_memory_is_an_error_and_the_device_goes_on", "--nocapture"])
            .env(CHILD, "1")
            .status()
            .expect("sh runs");
        assert!(status.success(), "{status}");
        return;
    }
    // Only a software adapter has its buffers in this process's memory.
    let adapters = pollster::block_on(GpuDevice::builder().adapters());
    let software = adapters.iter().find(|adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu);
    let Some(software) = software else {
        println!("there is no software adapter to exhaust");
        return;
    };
    let device = pollster::block_on(GpuDevice::from_adapter(software)).expect("a device");
    let elements = usize::try_from(device.capabilities().max_buffer_bytes / 4).expect("a count");
    let mut tensors = Vec::new();
    let refused = loop {
        match GpuTensor::zeros(&device, [elements]) {
            Ok(tensor) => tensors.push(tensor),
            Err(error) => break error,
        }
        assert!(tensors.len() < 64, "more than the address space holds");
    };
    assert_eq!(refused, Error::OutOfMemory { operation: "tensor", bytes: elements as u64 * 4 });
    drop(tensors);
    device.wait().expect("the device is there");
    assert_works(&device);
}

/// wgpu's backend without a driver checks every call that is made, and computes nothing.
#[test]
fn every_call_passes_validation_without_a_driver() {
    let device = GpuDevice::builder().backends(wgpu::Backends::NOOP).build().expect("a device");
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(30)).expect("a layer");
    let pool = device.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1 << 16,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let region = |offset| Region::new(&pool, StorageType::Bf16).offset(offset);
    let everything = Bindings::new(20, region(1), region(1))
        .residual(region(1001))
        .sum(region(2001))
        .mean(Region::new(&pool, StorageType::F32).offset(2000))
        .rstd(Region::new(&pool, StorageType::F32).offset(3000))
        .row_count(&pool, 1 << 13);
    let mut prepared = layer.prepare(&device, &everything).expect("an operation");
    prepared.set_rows(7).expect("fewer rows");
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    prepared.encode(&mut encoder);
    device.queue().submit([encoder.finish()]);
    for strategy in [None, Some(Strategy::Resident), Some(Strategy::Streaming), Some(Strategy::Split)] {
        for affine in [Affine::None, Affine::Weight, Affine::WeightAndBias] {
            let config = LayerNormConfig::new(30).affine(affine);
            let config = strategy.map_or(config.clone(), |strategy| config.strategy(strategy));
            let layer = GpuLayerNorm::new(&device, &config).expect("a layer");
            let input = GpuTensor::upload(&device, &ramp([2, 30])).expect("an upload");
            assert_eq!(layer.forward(&device, &input).map(|output| output.shape().to_vec()), Ok(vec![2, 30]));
            assert_eq!(input.download(), Ok(ramp([2, 30])));
        }
    }
}

#[test]
fn errors_of_this_crate_stay_out_of_the_callers_handler_and_the_callers_own_reach_it() {
    let (adapter, wgpu_device, queue) = own_device(Clone::clone, wgpu::Features::empty());
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    wgpu_device.on_uncaptured_error(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    let device = GpuDevice::from_wgpu(adapter, wgpu_device.clone(), queue).expect("a device");
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(4)).expect("a layer");
    let input = GpuTensor::upload(&device, &ramp([2, 4])).expect("an upload");
    input.buffer().destroy();
    assert!(layer.forward(&device, &input).is_err());
    assert!(input.download().is_err());
    assert_works(&device);
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    let _ = wgpu_device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn threads_share_a_device_and_a_layer() {
    let device = device();
    let layer = GpuLayerNorm::new(&device, &LayerNormConfig::new(65)).expect("a layer");
    let expected = layer.run(&device, &ramp([30, 65])).expect("an output");
    std::thread::scope(|scope| {
        let run = || layer.run(&device, &ramp([30, 65]));
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), Ok(expected.clone()));
        }
    });
}
