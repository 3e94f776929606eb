//! Conditional layer normalization: begun as plain layer normalization, moved by conditions, trained; against f64 on the processor.

mod common;

use common::Data;
use gpu_layer_norm::reference::{Condition, modulated_layer_norm, modulated_layer_norm_backward, project};
use gpu_layer_norm::{
    Activation, Affine, Bindings, ConditionalLayerNormConfig, Error, GpuCondition, GpuConditionalLayerNorm, GpuDevice,
    GpuLayerNorm, GpuTensor, HostCondition, LayerNormConfig, Modulation, Region, StorageType, Tensor, wgpu,
};

const ACTIVATIONS: [Activation; 4] = [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Tanh];
const EPS: f32 = 1e-5;

fn device() -> GpuDevice {
    GpuDevice::new().expect("an adapter; scripts/test installs one")
}

fn tensor(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Tensor {
    Tensor::from_f32(shape, values).expect("a whole tensor")
}

fn random(shape: [usize; 2], seed: u64) -> Tensor {
    tensor(shape, Data::STANDARD.values(shape[0], shape[1], seed))
}

fn upload(device: &GpuDevice, tensor: &Tensor) -> GpuTensor {
    GpuTensor::upload(device, tensor).expect("an upload")
}

fn downloaded(tensor: &GpuTensor) -> Tensor {
    tensor.download().expect("a download")
}

fn exact(tensor: &Tensor) -> Vec<f64> {
    tensor.values().iter().map(|&x| x.into()).collect()
}

fn words(device: &GpuDevice, values: &[u32]) -> wgpu::Buffer {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    common::sample::upload(device, wgpu::BufferUsages::STORAGE, &bytes)
}

/// Rows and columns exchanged.
fn transposed(matrix: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns).copied()).collect()
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

fn slope(activation: Activation, x: f64) -> f64 {
    let share = 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu => f64::from(u8::from(x > 0.0)),
        Activation::Silu => share * (1.0 + x * (1.0 - share)),
        Activation::Tanh => 1.0 - x.tanh().powi(2),
    }
}

/// Everything within 2e-5 of the largest. f32 explains some 1e-6 of it: sums of up to 16 terms at a time, x̂, and sums over the rows of
/// what does not cancel out by more than a digit. A term too few or too many is some per cent.
fn assert_close(what: &str, found: &Tensor, exact: &[f64]) {
    assert_eq!(found.values().len(), exact.len(), "{what}");
    let largest = exact.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    for (i, (&found, exact)) in found.values().iter().zip(exact).enumerate() {
        let error = (f64::from(found) - exact).abs();
        assert!(error <= 2e-5 * largest, "{what} at {i}: {found:e} in place of {exact:e}; the largest is {largest:e}");
    }
}

/// A layer with random parameters, a batch for it, and the same in f64.
struct Case {
    batch: usize,
    positions: usize,
    width: usize,
    condition_size: usize,
    hidden: Option<(usize, Activation)>,
    affine: Affine,
    /// How many there are, and the one of each sample.
    categories: Option<(usize, Vec<u32>)>,
}

/// What the f64 computation of a case gives.
struct Exact {
    output: Vec<f64>,
    input: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    weight_projection: Vec<f64>,
    bias_projection: Vec<f64>,
    hidden_projection: Vec<f64>,
    condition: Vec<f64>,
    table: Vec<f64>,
}

impl Case {
    fn new(batch: usize, positions: usize, width: usize, condition_size: usize) -> Self {
        let affine = Affine::WeightAndBias;
        Self { batch, positions, width, condition_size, hidden: None, affine, categories: None }
    }

    fn layer(&self, device: &GpuDevice) -> GpuConditionalLayerNorm {
        let layer = LayerNormConfig::new(self.width).eps(EPS).affine(self.affine).expect_nothing();
        let mut config = ConditionalLayerNormConfig::new(layer, self.condition_size);
        if let Some((size, activation)) = self.hidden {
            config = config.hidden(size, activation);
        }
        if let Some((count, _)) = &self.categories {
            config = config.categories(*count);
        }
        let layer = GpuConditionalLayerNorm::new(device, &config).expect("a layer");
        for (seed, parameter) in [layer.layer().weight(), layer.layer().bias()].into_iter().enumerate() {
            if let Some(parameter) = parameter {
                let values = Data::STANDARD.values(1, self.width, 10 + seed as u64);
                parameter.write(&tensor([self.width], values)).expect("written");
            }
        }
        let projections = [Some(layer.weight_projection()), Some(layer.bias_projection())];
        let others = [layer.hidden_projection(), layer.table()];
        for (seed, parameter) in projections.into_iter().chain(others).enumerate() {
            if let Some(parameter) = parameter {
                let shape = [parameter.shape()[0], parameter.shape()[1]];
                // So that what they give is of the size of 1.
                let scale = 1.0 / (shape[1] as f32).sqrt();
                let values = random(shape, 20 + seed as u64).values().iter().map(|x| x * scale).collect();
                parameter.write(&tensor(shape, values)).expect("written");
            }
        }
        layer
    }

    fn input(&self, seed: u64) -> Tensor {
        let rows = self.batch * self.positions;
        let data = Data::Normal { mean: 1.0, std: 2.0 };
        tensor([self.batch, self.positions, self.width], data.values(rows, self.width, seed))
    }

    /// The computation with the parameters that the layer has now.
    fn exact(
        &self,
        layer: &GpuConditionalLayerNorm,
        input: &Tensor,
        condition: &Tensor,
        output_gradient: &Tensor,
    ) -> Exact {
        let of = |tensor: &GpuTensor| exact(&downloaded(tensor));
        let (x, dy, c) = (exact(input), exact(output_gradient), exact(condition));
        let [weight, bias] = [layer.layer().weight(), layer.layer().bias()].map(|parameter| parameter.map(of));
        let (weight, bias) = (weight.as_deref(), bias.as_deref());
        let [w, b] = [layer.weight_projection(), layer.bias_projection()].map(of);
        let (size, activation) = self.hidden.unwrap_or((self.condition_size, Activation::Identity));
        let w_h = layer.hidden_projection().map(of);
        let z = w_h.as_ref().map_or_else(|| c.clone(), |w_h| project(&c, self.condition_size, w_h));
        let h: Vec<f64> = z.iter().map(|&z| activated(activation, z)).collect();
        let (scale, shift) = (project(&h, size, &w), project(&h, size, &b));
        let rows = Condition {
            modulation: Modulation::Conditional,
            rows_per_condition: self.positions,
            scale: Some(&scale[..]),
            shift: Some(&shift[..]),
        };
        let eps = f64::from(EPS);
        let gradients = modulated_layer_norm_backward(&x, &dy, self.width, weight, bias, &rows, eps, false);

        // Each is a product of matrices, left · rightᵀ.
        let (width, batch) = (self.width, self.batch);
        let outer = |gradient: &[f64], columns, by: &[f64], size| {
            project(&transposed(gradient, columns), batch, &transposed(by, size))
        };
        let by_scale = project(&gradients.scale, width, &transposed(&w, size));
        let by_shift = project(&gradients.shift, width, &transposed(&b, size));
        let dz = by_scale.iter().zip(by_shift).zip(&z).map(|((a, b), &z)| (a + b) * slope(activation, z));
        let dz: Vec<f64> = dz.collect();
        let condition = match &w_h {
            Some(w_h) => project(&dz, size, &transposed(w_h, self.condition_size)),
            None => dz.clone(),
        };
        let mut table = Vec::new();
        if let Some((count, categories)) = &self.categories {
            table = vec![0.0; count * self.condition_size];
            for (category, dc) in categories.iter().zip(condition.chunks(self.condition_size)) {
                let row = table.chunks_mut(self.condition_size).nth(*category as usize).expect("a row");
                row.iter_mut().zip(dc).for_each(|(sum, dc)| *sum += dc);
            }
        }
        Exact {
            output: modulated_layer_norm(&x, width, weight, bias, &rows, eps, false),
            input: gradients.input,
            weight: gradients.weight,
            bias: gradients.bias,
            weight_projection: outer(&gradients.scale, width, &h, size),
            bias_projection: outer(&gradients.shift, width, &h, size),
            hidden_projection: outer(&dz, size, &c, self.condition_size),
            condition,
            table,
        }
    }

    /// Forward and backward pass against f64.
    fn check(&self, device: &GpuDevice) {
        let layer = self.layer(device);
        let (input, output_gradient) = (self.input(1), self.input(2));
        let condition = match &self.categories {
            None => random([self.batch, self.condition_size], 3),
            Some((_, categories)) => {
                let table = downloaded(layer.table().expect("a table"));
                let row = |category: u32| {
                    let first = category as usize * self.condition_size;
                    table.values()[first..first + self.condition_size].to_vec()
                };
                tensor([self.batch, self.condition_size], categories.iter().flat_map(|&it| row(it)).collect())
            }
        };
        let exact = self.exact(&layer, &input, &condition, &output_gradient);
        let on_host = match &self.categories {
            None => HostCondition::Values(&condition),
            Some((_, categories)) => HostCondition::Categories(categories),
        };
        let found = layer.run(device, &input, Some(on_host)).expect("a run");
        assert_eq!(found.shape(), input.shape());
        assert_close("output", &found, &exact.output);

        let [input, output_gradient, values] = [&input, &output_gradient, &condition].map(|it| upload(device, it));
        // Not at the beginning of their buffer.
        let first = 70;
        let ids = self.categories.as_ref().map(|(_, ids)| words(device, &[vec![9; first], ids.clone()].concat()));
        let condition = match &ids {
            None => GpuCondition::Values(&values),
            Some(buffer) => GpuCondition::Categories { buffer, first: first as u64, batch: self.batch },
        };
        let output = layer.forward(device, &input, Some(condition)).expect("a forward pass");
        assert_eq!(downloaded(&output), found, "the same whatever the depth");
        let pass = layer.forward_for_training(device, &input, Some(condition)).expect("a forward pass");
        let (output, statistics) = pass;
        assert_close("output with statistics", &downloaded(&output), &exact.output);
        for statistics in [Some(&statistics), None] {
            let gradients = layer.backward(device, &input, &output_gradient, Some(condition), statistics);
            let gradients = gradients.expect("a backward pass");
            assert_close("input gradient", &downloaded(&gradients.input), &exact.input);
            let (own, table) = (layer.layer(), layer.table().filter(|_| self.categories.is_some()));
            for (what, gradient, of, exact) in [
                ("weight", gradients.weight, own.weight(), &exact.weight),
                ("bias", gradients.bias, own.bias(), &exact.bias),
                ("W_w", gradients.weight_projection, Some(layer.weight_projection()), &exact.weight_projection),
                ("W_b", gradients.bias_projection, Some(layer.bias_projection()), &exact.bias_projection),
                ("W_h", gradients.hidden_projection, layer.hidden_projection(), &exact.hidden_projection),
                ("condition", gradients.condition, Some(&values), &exact.condition),
                ("table", gradients.table, table, &exact.table),
            ] {
                assert_eq!(gradient.as_ref().map(GpuTensor::shape), of.map(GpuTensor::shape), "gradient by {what}");
                if let Some(gradient) = gradient {
                    assert_close(&format!("gradient by {what}"), &downloaded(&gradient), exact);
                }
            }
        }
    }
}

#[test]
fn a_layer_begins_as_plain_layer_normalization_whatever_the_condition_is() {
    let device = device();
    let config = LayerNormConfig::new(24).eps(EPS);
    let plain = GpuLayerNorm::new(&device, &config).expect("a layer");
    let config = ConditionalLayerNormConfig::new(config, 5).hidden(7, Activation::Silu).categories(3);
    let layer = GpuConditionalLayerNorm::new(&device, &config).expect("a layer");
    let case = Case::new(4, 3, 24, 5);
    let input = case.input(1);
    let expected = exact(&plain.run(&device, &input).expect("a run"));
    let condition = random([4, 5], 2);
    for condition in [
        None,
        Some(HostCondition::Values(&condition)),
        Some(HostCondition::Values(&condition.to_storage(StorageType::F16))),
        Some(HostCondition::Categories(&[2, 0, 1, 2])),
    ] {
        let output = layer.run(&device, &input, condition).expect("a run");
        for (found, plain) in output.values().iter().zip(&expected) {
            approx::assert_abs_diff_eq!(f64::from(*found), plain, epsilon = 1e-6);
        }
    }
    // Where the hidden projection and the table begin as zeros, nothing could be learned.
    for parameter in [layer.hidden_projection(), layer.table()] {
        let values = downloaded(parameter.expect("the layer has one")).into_values();
        assert!(values.iter().any(|x| *x != 0.0) && values.iter().all(|x| x.abs() < 2.0), "{values:?}");
    }
    for projection in [layer.weight_projection(), layer.bias_projection()] {
        assert_eq!(projection.shape(), [24, 7]);
        assert!(downloaded(projection).values().iter().all(|x| *x == 0.0));
    }
}

#[test]
fn calls_leave_the_stored_parameters_as_they_are() {
    let device = device();
    let case = Case::new(3, 2, 20, 6);
    let layer = case.layer(&device);
    let parameters = || {
        let own = [layer.layer().weight(), layer.layer().bias()].map(|it| downloaded(it.expect("the layer has one")));
        (own, downloaded(layer.weight_projection()), downloaded(layer.bias_projection()))
    };
    let before = parameters();
    let (input, condition) = (case.input(1), random([3, 6], 2));
    let run = || layer.run(&device, &input, Some(HostCondition::Values(&condition))).expect("a run");
    let first = run();
    assert_eq!(run(), first);
    let [input, condition] = [&input, &condition].map(|it| upload(&device, it));
    let gradients =
        || layer.backward(&device, &input, &input, Some(GpuCondition::Values(&condition)), None).expect("gradients");
    let (a, b) = (gradients(), gradients());
    for (a, b) in [(a.weight_projection, b.weight_projection), (a.condition, b.condition)] {
        assert_eq!(a.map(|it| downloaded(&it)), b.map(|it| downloaded(&it)), "the same bits");
    }
    assert_eq!(run(), first);
    assert_eq!(parameters(), before);
}

#[test]
fn outputs_and_gradients_agree_with_f64() {
    let device = device();
    for affine in common::AFFINES {
        Case { affine, ..Case::new(4, 3, 24, 5) }.check(&device);
    }
    for activation in ACTIVATIONS {
        Case { hidden: Some((7, activation)), ..Case::new(4, 3, 24, 5) }.check(&device);
    }
    // One condition of one element; many conditions; a width that is the length of a sum.
    Case::new(1, 5, 24, 1).check(&device);
    Case { hidden: Some((1, Activation::Tanh)), ..Case::new(70, 1, 40, 130) }.check(&device);
    Case { hidden: Some((35, Activation::Silu)), ..Case::new(3, 2, 4099, 67) }.check(&device);
}

#[test]
fn categories_pick_conditions_from_a_table() {
    let device = device();
    // A category of several samples, one of none.
    let categories = Some((4, vec![3, 0, 3, 1, 3]));
    Case { categories: categories.clone(), ..Case::new(5, 2, 24, 6) }.check(&device);
    Case { categories, hidden: Some((9, Activation::Relu)), ..Case::new(5, 2, 24, 6) }.check(&device);
    let many = (0..40).map(|i| i * 7 % 300).collect();
    Case { categories: Some((300, many)), ..Case::new(40, 1, 36, 65) }.check(&device);

    // On the device, one that is too large is the last one.
    let case = Case { categories: Some((4, vec![3, 0])), ..Case::new(2, 2, 24, 6) };
    let layer = case.layer(&device);
    let input = upload(&device, &case.input(1));
    let output = |ids: &[u32]| {
        let buffer = words(&device, ids);
        let condition = GpuCondition::Categories { buffer: &buffer, first: 0, batch: 2 };
        downloaded(&layer.forward(&device, &input, Some(condition)).expect("a forward pass"))
    };
    assert_eq!(output(&[u32::MAX, 0]), output(&[3, 0]));
    assert_ne!(output(&[2, 0]), output(&[3, 0]));
    // Vectors of the caller's own do as well.
    let condition = random([2, 6], 3);
    assert!(layer.run(&device, &case.input(1), Some(HostCondition::Values(&condition))).is_ok());
}

#[test]
fn without_a_condition_it_is_the_layer_that_is_modulated() {
    let device = device();
    let case = Case { hidden: Some((7, Activation::Tanh)), ..Case::new(4, 3, 24, 5) };
    let layer = case.layer(&device);
    let input = upload(&device, &case.input(1));
    let plain = layer.layer().forward(&device, &input).expect("a forward pass");
    assert_eq!(downloaded(&layer.forward(&device, &input, None).expect("a forward pass")), downloaded(&plain));
    let (output, statistics) = layer.forward_for_training(&device, &input, None).expect("a forward pass");
    assert_eq!(downloaded(&output).shape(), [4, 3, 24]);
    let found = layer.backward(&device, &input, &input, None, Some(&statistics)).expect("a backward pass");
    let plain = layer.layer().backward(&device, &input, &input, Some(&statistics)).expect("a backward pass");
    assert_eq!(downloaded(&found.input), downloaded(&plain.input));
    assert_eq!(found.weight.map(|it| downloaded(&it)), plain.weight.map(|it| downloaded(&it)));
    let of_condition = [found.weight_projection, found.bias_projection, found.hidden_projection, found.condition];
    assert!(of_condition.iter().all(Option::is_none) && found.table.is_none());
}

#[test]
fn a_condition_that_is_no_number_spoils_its_own_sample_only() {
    let device = device();
    let case = Case { hidden: Some((7, Activation::Silu)), ..Case::new(3, 2, 24, 5) };
    let layer = case.layer(&device);
    let mut condition = random([3, 5], 2).into_values();
    let run = |condition: &[f32]| {
        let condition = tensor([3, 5], condition.to_vec());
        layer.run(&device, &case.input(1), Some(HostCondition::Values(&condition))).expect("a run").into_values()
    };
    let whole = run(&condition);
    condition[5] = f32::NAN;
    let spoilt = run(&condition);
    for (i, (spoilt, whole)) in spoilt.iter().zip(&whole).enumerate() {
        if (48..96).contains(&i) {
            assert!(spoilt.is_nan(), "{i}");
        } else {
            assert_eq!(spoilt.to_bits(), whole.to_bits(), "{i}");
        }
    }
}

#[test]
fn a_prepared_pass_is_recorded_any_number_of_times_and_reads_what_lies_there_then() {
    let device = device();
    let case = Case { hidden: Some((7, Activation::Relu)), ..Case::new(4, 3, 24, 5) };
    let layer = case.layer(&device);
    let [first, second] = [2, 3].map(|seed| random([4, 5], seed));
    let (input, condition) = (upload(&device, &case.input(1)), upload(&device, &first));
    let [output, other] = [(); 2].map(|()| GpuTensor::zeros(&device, [4, 3, 24]).expect("a tensor"));
    let expected =
        |condition: &Tensor| layer.run(&device, &case.input(1), Some(HostCondition::Values(condition))).expect("a run");
    let whole = Bindings::of(&input, &output);
    let mut prepared = layer.prepare(&device, &whole, Some((&condition).into())).expect("an operation");
    // Regions, with the conditions of a batch that only the number of rows tells of.
    let regions = Bindings::new(12, Region::from(&input), Region::from(&other));
    let again = layer.prepare(&device, &regions, Some((&condition).into())).expect("an operation");
    let submit = |record: &dyn Fn(&mut wgpu::CommandEncoder)| {
        let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        record(&mut encoder);
        device.queue().submit([encoder.finish()]);
    };
    submit(&|encoder| {
        prepared.encode(encoder);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        prepared.encode_pass(&mut pass);
        again.encode_pass(&mut pass);
    });
    assert_eq!(downloaded(&output), expected(&first));
    assert_eq!(downloaded(&other), expected(&first));
    condition.write(&second).expect("written");
    submit(&|encoder| {
        prepared.encode(encoder);
        again.encode(encoder);
    });
    assert_eq!(downloaded(&output), expected(&second));
    assert_eq!(downloaded(&other), expected(&second));

    // Half of the rows, the conditions of which are the same as before.
    condition.write(&first).expect("written");
    prepared.set_rows(6).expect("fewer rows");
    submit(&|encoder| prepared.encode(encoder));
    let found = downloaded(&output).into_values();
    assert_eq!(found[..144], expected(&first).values()[..144]);
    assert_eq!(found[144..], expected(&second).values()[144..]);
}

#[test]
fn an_empty_batch_has_gradients_of_zero() {
    let device = device();
    let case = Case { hidden: Some((7, Activation::Silu)), ..Case::new(1, 3, 24, 5) };
    let layer = case.layer(&device);
    let [input, condition] =
        [vec![0, 3, 24], vec![0, 5]].map(|shape| GpuTensor::zeros(&device, shape).expect("a tensor"));
    let condition = Some(GpuCondition::Values(&condition));
    assert_eq!(layer.forward(&device, &input, condition).expect("a forward pass").shape(), [0, 3, 24]);
    let gradients = layer.backward(&device, &input, &input, condition, None).expect("a backward pass");
    assert_eq!(gradients.condition.expect("a gradient").shape(), [0, 5]);
    for gradient in [gradients.weight, gradients.weight_projection, gradients.hidden_projection] {
        assert!(downloaded(&gradient.expect("a gradient")).values().iter().all(|x| *x == 0.0));
    }
}

/// Each refused call, with the error that says why; after each the device still works.
#[test]
fn what_does_not_go_together_is_refused() {
    let device = device();
    let case = Case { categories: Some((4, vec![0, 1])), ..Case::new(2, 3, 8, 5) };
    let (layer, plain) = (case.layer(&device), Case::new(2, 3, 8, 5).layer(&device));
    let input = case.input(1);
    let condition = random([2, 5], 2);
    let refused = |layer: &GpuConditionalLayerNorm, condition: HostCondition| {
        let error = layer.run(&device, &input, Some(condition)).expect_err("an error");
        assert!(layer.run(&device, &input, None).is_ok(), "after {error}");
        error
    };
    let shape = |what, expected: &[usize], actual: &[usize]| Error::Shape {
        what,
        expected: expected.to_vec(),
        actual: actual.to_vec(),
    };
    let error = refused(&layer, HostCondition::Categories(&[1, 4]));
    assert_eq!(error, Error::Category { index: 1, category: 4, categories: 4 });
    assert_eq!(error.to_string(), "the category at index 1 is 4, it must be below the number of categories, 4");
    let error = refused(&plain, HostCondition::Categories(&[0, 1]));
    assert_eq!(error, Error::NoConditionParameter { name: "table" });
    let error = refused(&layer, HostCondition::Values(&random([2, 4], 2)));
    assert_eq!(error, shape("condition", &[2, 5], &[2, 4]));
    let error = refused(&layer, HostCondition::Values(&tensor([5], vec![0.0; 5])));
    assert_eq!(error, shape("condition", &[5, 5], &[5]));
    for conditions in [4, 0] {
        let error = refused(&layer, HostCondition::Values(&random([conditions, 5], 2)));
        assert_eq!(error, Error::ConditionCount { rows: 6, conditions: conditions as u64 });
        let error = refused(&layer, HostCondition::Categories(&vec![0; conditions]));
        assert_eq!(error, Error::ConditionCount { rows: 6, conditions: conditions as u64 });
    }
    let mismatch = layer.run(&device, &tensor([2, 3], vec![0.0; 6]), Some(HostCondition::Values(&condition)));
    assert!(matches!(mismatch, Err(Error::ShapeMismatch { .. })), "{mismatch:?}");

    // On the device.
    let uploaded = upload(&device, &input);
    let forward = |condition| {
        let forward = layer.forward(&device, &uploaded, Some(condition)).map(|_| ());
        let gradients = layer.backward(&device, &uploaded, &uploaded, Some(condition), None).map(|_| ());
        assert_eq!(gradients, forward);
        forward
    };
    let half = upload(&device, &condition.to_storage(StorageType::F16));
    let error = Error::StorageType { what: "condition", expected: StorageType::F32, actual: StorageType::F16 };
    assert_eq!(forward(GpuCondition::Values(&half)), Err(error));
    let buffer = words(&device, &[0, 1]);
    let (first, batch) = (0, 3);
    let error = Error::Region { what: "categories", needed: 12, actual: 8 };
    assert_eq!(forward(GpuCondition::Categories { buffer: &buffer, first, batch }), Err(error));
    let far = forward(GpuCondition::Categories { buffer: &buffer, first: u64::MAX, batch });
    assert!(matches!(far, Err(Error::Region { .. })), "{far:?}");
    let usage = wgpu::BufferUsages::COPY_DST;
    let unusable = common::sample::upload(&device, usage, &[0; 8]);
    let unusable = forward(GpuCondition::Categories { buffer: &unusable, first, batch: 2 });
    assert!(matches!(unusable, Err(Error::BufferUsage { what: "categories", .. })), "{unusable:?}");
    assert_eq!(forward(GpuCondition::Categories { buffer: &buffer, first, batch: 2 }), Ok(()));

    // Parameters.
    let error = plain.set_table(&random([4, 5], 1));
    assert_eq!(error, Err(Error::NoConditionParameter { name: "table" }));
    let error = plain.set_hidden_projection(&random([4, 5], 1));
    assert_eq!(error, Err(Error::NoConditionParameter { name: "hidden projection" }));
    let error = layer.set_weight_projection(&random([5, 8], 1));
    assert_eq!(error, Err(shape("weight projection", &[8, 5], &[5, 8])));
    assert_eq!(layer.set_table(&random([4, 5], 1)), Ok(()));
    assert_eq!(layer.set_bias_projection(&random([8, 5], 1)), Ok(()));

    // Configs.
    let new = |config: ConditionalLayerNormConfig| GpuConditionalLayerNorm::new(&device, &config).map(|_| ());
    let config = |size| ConditionalLayerNormConfig::new(LayerNormConfig::new(8), size);
    assert_eq!(new(config(0)), Err(Error::Zero { what: "condition_size" }));
    let error = new(config(5).hidden(0, Activation::Relu));
    assert_eq!(error, Err(Error::Zero { what: "size of the hidden layer" }));
    assert_eq!(new(config(5).categories(0)), Err(Error::Zero { what: "number of categories" }));
    let error = new(config(1 << 50));
    assert!(matches!(error, Err(Error::BindingSize { what: "weight projection", .. })), "{error:?}");
    assert!(matches!(new(config(usize::MAX)), Err(Error::Size { .. })));

    let other = self::device();
    let foreign = upload(&other, &condition);
    assert_eq!(forward(GpuCondition::Values(&foreign)), Err(Error::ForeignDevice { what: "condition" }));
    let error = layer.run(&other, &input, None).map(|_| ());
    assert_eq!(error, Err(Error::ForeignDevice { what: "layer" }));
}

#[test]
fn input_and_parameters_may_be_of_16_bits() {
    let device = device();
    let config = LayerNormConfig::new([4, 6]).parameter_storage(StorageType::Bf16).eps(EPS);
    let layer = GpuConditionalLayerNorm::new(&device, &ConditionalLayerNormConfig::new(config, 5)).expect("a layer");
    layer.set_weight_projection(&random([24, 5], 1)).expect("set");
    layer.set_bias_projection(&random([24, 5], 2)).expect("set");
    let case = Case::new(4, 3, 24, 5);
    let input = case.input(3).to_storage(StorageType::F16);
    let input = Tensor::from_f16([4, 3, 4, 6], input.as_f16().expect("f16").to_vec()).expect("a whole tensor");
    let condition = random([4, 5], 4);
    let exact = case.exact(&layer, &input, &condition, &input);
    let output = layer.run(&device, &input, Some(HostCondition::Values(&condition))).expect("a run");
    assert_eq!((output.shape(), output.storage()), (&[4, 3, 4, 6][..], StorageType::F16));
    for (found, exact) in output.values().iter().zip(&exact.output) {
        // Half a unit in the last place, and f32's errors.
        assert!((f64::from(*found) - exact).abs() <= exact.abs() / 2048.0 + 1e-4, "{found} in place of {exact}");
    }
}

#[test]
fn passes_pass_validation_without_a_driver() {
    let device = GpuDevice::builder().backends(wgpu::Backends::NOOP).build().expect("a device");
    let config =
        ConditionalLayerNormConfig::new(LayerNormConfig::new(30), 20).hidden(10, Activation::Tanh).categories(9);
    let layer = GpuConditionalLayerNorm::new(&device, &config).expect("a layer");
    let input = GpuTensor::zeros(&device, [4, 3, 30]).expect("a tensor");
    let buffer = words(&device, &[0; 1000]);
    let condition = Some(GpuCondition::Categories { buffer: &buffer, first: 901, batch: 4 });
    let (_, statistics) = layer.forward_for_training(&device, &input, condition).expect("a forward pass");
    layer.backward(&device, &input, &input, condition, Some(&statistics)).expect("a backward pass");
}
