//! What a user of causal normalization meets: shapes, errors, states, and the gradients of a training step.

mod common;

use common::tensors::{device, some, tensor, upload, values, zeros};
use common::{fixture, numbers};
use gpu_layer_norm::kernel::{Entry, Layout, Problem, Role};
use gpu_layer_norm::{
    Affine, Bindings, Capabilities, Error, GpuLayerNorm, GpuTensor, LayerNormConfig, Normalization, Plan, Region,
    StorageType, Strategy, Variance, reference,
};

fn layer(config: LayerNormConfig) -> GpuLayerNorm {
    GpuLayerNorm::new(&device(), &config.causal(true).expect_nothing()).expect("a layer")
}

fn assert_near(found: &[f32], exact: &[f64], what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (i, (found, exact)) in found.iter().zip(exact).enumerate() {
        let error = (f64::from(*found) - exact).abs();
        assert!(error <= 1e-5 * exact.abs().max(1.0), "{what}, element {i}: {found} in place of {exact}");
    }
}

#[test]
fn the_last_dimension_before_the_normalized_ones_is_that_of_positions() {
    let layer = layer(LayerNormConfig::new(8));
    for (shape, length) in [
        (vec![3, 5, 8], 5),
        (vec![5, 8], 5),
        // Heads, each of its own sequences.
        (vec![2, 3, 5, 8], 5),
        (vec![3, 1, 8], 1),
        // One position.
        (vec![8], 1),
        (vec![2, 100, 8], 100),
    ] {
        let input = some(shape.iter().product());
        let output = layer.run(&device(), &tensor(shape.clone(), input.clone())).expect("an output");
        assert_eq!(output.shape(), shape);
        let exact = reference::causal_layer_norm(&input, length, 8, None, None, 1e-5, false);
        assert_near(&output.into_values(), &exact, &format!("{shape:?}"));
    }
    let wrong = layer.run(&device(), &tensor([5, 7], some(35)));
    assert!(matches!(wrong, Err(Error::ShapeMismatch { .. })), "{wrong:?}");
}

#[test]
fn several_normalized_dimensions_are_one_position() {
    let layer = layer(LayerNormConfig::new([2, 3]).affine(Affine::None));
    let input = some(2 * 4 * 6);
    let output = layer.run(&device(), &tensor([2, 4, 2, 3], input.clone())).expect("an output");
    let exact = reference::causal_layer_norm(&input, 4, 6, None, None, 1e-5, false);
    assert_near(&output.into_values(), &exact, "[2, 4, 2, 3]");
}

#[test]
fn no_sequences_and_no_positions_have_no_output() {
    let layer = layer(LayerNormConfig::new(8));
    for shape in [vec![0, 5, 8], vec![3, 0, 8], vec![0, 8]] {
        let output = layer.run(&device(), &tensor(shape.clone(), Vec::new())).expect("an output");
        assert_eq!((output.shape(), output.values().len()), (&shape[..], 0));
        let (input, output_gradient) = (zeros(shape.clone()), zeros(shape));
        let gradients = layer.backward(&device(), &input, &output_gradient, None).expect("gradients");
        assert!(values(&gradients.weight.expect("a weight")).iter().all(|gradient| *gradient == 0.0));
    }
}

#[test]
fn regions_are_one_sequence_unless_a_length_is_told() {
    let layer = layer(LayerNormConfig::new(4));
    let input = upload([6, 4], some(24));
    for (length, of_each) in [(None, 6), (Some(6), 6), (Some(3), 3), (Some(1), 1), (Some(100), 6)] {
        let output = zeros([6, 4]);
        let bindings = Bindings::new(6, &input, &output);
        let bindings = length.map_or(bindings.clone(), |length| bindings.sequence_length(length));
        layer.execute(&device(), &bindings).expect("an output");
        let exact = reference::causal_layer_norm(&some(24), of_each, 4, None, None, 1e-5, false);
        assert_near(&values(&output), &exact, &format!("{length:?}"));
    }
    // The last sequence may have fewer.
    let output = zeros([6, 4]);
    layer.execute(&device(), &Bindings::new(6, &input, &output).sequence_length(4)).expect("an output");
    let mut exact = reference::causal_layer_norm(&some(24)[..16], 4, 4, None, None, 1e-5, false);
    exact.extend(reference::causal_layer_norm(&some(24)[16..], 2, 4, None, None, 1e-5, false));
    assert_near(&values(&output), &exact, "sequences of 4 and 2");
    // A length that differs from the shape's counts for whole tensors too.
    let input = upload([2, 3, 4], some(24));
    layer.execute(&device(), &Bindings::of(&input, &zeros([2, 3, 4])).sequence_length(6)).expect("an output");
}

#[test]
fn a_layer_that_is_not_causal_takes_no_length() {
    let plain = GpuLayerNorm::new(&device(), &LayerNormConfig::new(4).expect_nothing()).expect("a layer");
    let input = upload([6, 4], some(24));
    let output = zeros([6, 4]);
    let error = plain.execute(&device(), &Bindings::new(6, &input, &output).sequence_length(3)).err();
    assert_eq!(error, Some(Error::Needs { what: "sequence length", needs: "causal normalization" }));
    plain.execute(&device(), &Bindings::new(6, &input, &output)).expect("an output");
    assert_near(&values(&output), &reference::layer_norm(&some(24), 4, None, None, 1e-5, false), "not causal");
}

#[test]
fn what_does_not_go_together_is_an_error_and_work_goes_on() {
    let device = device();
    let causal = layer(LayerNormConfig::new(4));
    let (input, output) = (upload([2, 3, 4], some(24)), zeros([2, 3, 4]));
    let forward = || Bindings::of(&input, &output);

    assert_eq!(
        causal.execute(&device, &forward().sequence_length(0)),
        Err(Error::SequenceLength { rows: 6, length: 0 })
    );
    assert_eq!(
        Problem::new(6, 4).and_then(|problem| problem.causal(0)),
        Err(Error::SequenceLength { rows: 6, length: 0 })
    );

    // The backward pass measures the positions itself.
    let gradient = zeros([2, 3, 4]);
    let statistic = zeros([2, 3]);
    let backward = || Bindings::backward_of(&input, &output, &gradient);
    assert_eq!(causal.execute(&device, &backward().mean(&statistic)), Err(Error::Causal { what: "mean" }));
    assert_eq!(causal.execute(&device, &backward().rstd(&statistic)), Err(Error::Causal { what: "rstd" }));
    let state = zeros([2, 8]);
    assert!(matches!(causal.execute(&device, &backward().state(&state)), Err(Error::Role { what: "state", .. })));

    // States: of causal layers alone, f32, of eight words a sequence.
    let plain = GpuLayerNorm::new(&device, &LayerNormConfig::new(4).expect_nothing()).expect("a layer");
    assert!(matches!(plain.execute(&device, &forward().state(&state)), Err(Error::Needs { what: "state", .. })));
    let half = GpuTensor::zeros_as(&device, [2, 8], StorageType::F16).expect("a tensor");
    let refused = causal.execute(&device, &forward().state(&half));
    assert!(matches!(refused, Err(Error::StorageType { what: "state", .. })), "{refused:?}");
    let short = causal.execute(&device, &forward().state(&zeros([15])));
    assert_eq!(short, Err(Error::Region { what: "state", needed: 64, actual: 60 }));
    let close = causal.execute(&device, &forward().state(Region::from(&state).row_stride(7)));
    assert!(matches!(close, Err(Error::RowStride { what: "state", row_stride: 7, width: 8 })), "{close:?}");
    let shared = causal.execute(&device, &forward().state(Region::from(&output)));
    assert!(matches!(shared, Err(Error::Overlap { .. })), "{shared:?}");

    // As without causality.
    let single = GpuLayerNorm::new(&device, &LayerNormConfig::new(1).causal(true).variance(Variance::Unbiased));
    assert!(matches!(single, Err(Error::UnbiasedWidth { width: 1 })));
    let rms = LayerNormConfig::rms(4).causal(true).expect_nothing();
    let rms = GpuLayerNorm::new(&device, &rms).expect("a layer");
    let mean = rms.execute(&device, &forward().mean(&statistic));
    assert!(matches!(mean, Err(Error::RmsNorm { .. })), "{mean:?}");

    causal.execute(&device, &forward().state(&state)).expect("work goes on");
    let exact = reference::causal_layer_norm(&some(24), 3, 4, None, None, 1e-5, false);
    assert_near(&values(&output), &exact, "after errors");
}

#[test]
fn strategies_that_hold_rows_in_part_or_through_a_backward_pass_are_refused() {
    let capabilities = Capabilities { max_buffer_bytes: 1 << 40, ..Capabilities::webgpu_baseline() };
    let planned = |width: u64, backward: bool, strategy| {
        let problem = Problem::new(200, width).and_then(|problem| problem.causal(100)).expect("a problem");
        let problem = if backward { problem.backward() } else { problem };
        Plan::with_strategy(&problem, &capabilities, strategy).map(|plan| plan.strategy())
    };
    let (resident, split) = (Strategy::Resident, Strategy::Split);
    for (width, backward, strategy) in [
        (1024, false, resident),
        (1024, false, Strategy::Streaming),
        (65_536, false, split),
        (1024, true, Strategy::Streaming),
        (65_536, true, split),
    ] {
        assert_eq!(planned(width, backward, strategy), Ok(strategy));
    }
    for (backward, strategy) in [(false, Strategy::PartlyResident), (true, Strategy::PartlyResident), (true, resident)]
    {
        let refused = planned(1024, backward, strategy);
        assert!(matches!(refused, Err(Error::Strategy { strategy: of, .. }) if of == strategy), "{refused:?}");
    }
}

#[test]
fn a_backward_pass_takes_sequences_as_a_whole() {
    let wide = |rows: u64, length: u64| {
        let problem = Problem::new(rows, 1 << 20).and_then(|problem| problem.causal(length)).expect("a problem");
        let capabilities = Capabilities { max_buffer_bytes: 1 << 40, ..Capabilities::webgpu_baseline() };
        (Plan::new(&problem, &capabilities), Plan::new(&problem.backward(), &capabilities))
    };
    // A binding holds 31 rows of 4 MiB.
    let (forward, backward) = wide(80, 40);
    let forward = forward.expect("a plan");
    assert!(forward.chunks().len() > 2);
    // What one chunk leaves for the next, though a sequence is no longer than a tile of the scans.
    assert!(forward.kernels().iter().any(|kernel| kernel.entry == Entry::CausalCarries), "{forward}");
    match backward {
        Err(Error::Geometry { reason }) => assert!(reason.contains("sequences of 40 rows"), "{reason}"),
        other => panic!("{:?}", other.map(|plan| plan.chunks().len())),
    }
    let (forward, backward) = wide(80, 20);
    for plan in [forward.expect("a plan"), backward.expect("a plan")] {
        assert!(plan.chunks().iter().all(|chunk| chunk.rows.start.is_multiple_of(20)), "{plan}");
    }
}

#[test]
fn a_state_has_eight_words_for_each_sequence() {
    let layout = |row_stride| Layout { offset: 3, row_stride, ..Layout::default() };
    let problem = Problem::new(10, 4).and_then(|problem| problem.causal(4)).expect("a problem");
    for row_stride in [None, Some(8), Some(20)] {
        assert!(problem.tensor(Role::State, layout(row_stride)).is_ok());
    }
    let close = problem.tensor(Role::State, layout(Some(7)));
    assert_eq!(close, Err(Error::RowStride { what: "state", row_stride: 7, width: 8 }));
}

/// The statistics are those of all positions up to each.
#[test]
fn a_training_step_has_the_gradients_of_the_reference() {
    let device = device();
    let (shape, length, width) = ([2, 70, 12], 70, 12);
    let layer = layer(LayerNormConfig::new(width));
    let weight: Vec<f32> = some(width).iter().map(|x| 1.0 + x / 8.0).collect();
    layer.set_weight(&tensor([width], weight.clone())).expect("a weight");
    let input: Vec<f32> = some(2 * length * width).iter().enumerate().map(|(i, x)| x + i as f32 / 200.0).collect();
    let output_gradient: Vec<f32> = some(input.len()).iter().rev().copied().collect();
    let of_input = upload(shape, input.clone());
    let (output, statistics) = layer.forward_for_training(&device, &of_input).expect("a forward pass");
    let exact = reference::causal_layer_norm(&input, length, width, Some(&weight), None, 1e-5, false);
    assert_near(&values(&output), &exact, "output");
    let of_sequence = |sequence: &[f32]| reference::causal_statistics(sequence, width, 1e-5, false);
    let exact: Vec<_> = input.chunks(length * width).flat_map(of_sequence).collect();
    let (mean, rstd) = (statistics.mean.as_ref().expect("a mean"), &statistics.rstd);
    assert_eq!((mean.shape(), rstd.shape()), (&shape[..2], &shape[..2]));
    assert_near(&values(mean), &exact.iter().map(|of| of.mean).collect::<Vec<_>>(), "mean");
    assert_near(&values(rstd), &exact.iter().map(|of| of.rstd).collect::<Vec<_>>(), "rstd");

    let exact =
        reference::causal_layer_norm_backward(&input, &output_gradient, length, width, Some(&weight), 1e-5, false);
    let of_output = upload(shape, output_gradient);
    // Given or not: the positions are measured again.
    for statistics in [Some(&statistics), None] {
        let gradients = layer.backward(&device, &of_input, &of_output, statistics).expect("a backward pass");
        assert_near(&values(&gradients.input), &exact.input, "dx");
        // Sums over 140 positions.
        for (found, exact) in [(gradients.weight, &exact.weight), (gradients.bias, &exact.bias)] {
            for (found, exact) in values(&found.expect("a gradient")).iter().zip(exact) {
                assert!((f64::from(*found) - exact).abs() <= 1e-3, "{found} in place of {exact}");
            }
        }
    }
}

/// Cases that JAX has computed in float64, of numbers that f32 holds.
#[test]
fn the_fixture_holds() {
    let device = device();
    let cases = fixture("causal_float64.json");
    let cases = cases["cases"].as_array().expect("cases");
    assert!(cases.len() >= 11);
    for (i, case) in cases.iter().enumerate() {
        let number = |name: &str| case[name].as_f64().expect("a number");
        let [count, length, width] = ["sequences", "length", "width"].map(|name| number(name) as usize);
        let list = |name: &str| case[name].as_array().map(|_| numbers(&case[name]));
        let stored = |name: &str| list(name).map(|all| all.into_iter().map(|x| x as f32).collect::<Vec<f32>>());
        let (weight, bias) = (stored("weight"), stored("bias"));
        let normalization = match case["normalization"].as_str() {
            Some("layer_norm") => Normalization::LayerNorm,
            Some("rms_norm") => Normalization::RmsNorm,
            other => panic!("{other:?}"),
        };
        let config = match normalization {
            Normalization::LayerNorm => LayerNormConfig::new(width),
            Normalization::RmsNorm => LayerNormConfig::rms(width),
        };
        let unbiased = case["unbiased"].as_bool().expect("a bool");
        let config = config.eps(number("eps") as f32).affine(match (&weight, &bias) {
            (None, _) => Affine::None,
            (_, None) => Affine::Weight,
            _ => Affine::WeightAndBias,
        });
        let layer = layer(config.variance(if unbiased { Variance::Unbiased } else { Variance::Biased }));
        if let Some(weight) = &weight {
            layer.set_weight(&tensor([width], weight.clone())).expect("a weight");
        }
        if let Some(bias) = &bias {
            layer.set_bias(&tensor([width], bias.clone())).expect("a bias");
        }
        let shape = [count, length, width];
        let input = upload(shape, stored("input").expect("an input"));
        let output = layer.forward(&device, &input).expect("an output");
        let output_gradient = upload(shape, stored("output_gradient").expect("a gradient"));
        let gradients = layer.backward(&device, &input, &output_gradient, None).expect("gradients");
        for (what, found, exact) in [
            ("output", Some(&output), list("output")),
            ("input_gradient", Some(&gradients.input), list("input_gradient")),
            ("weight_gradient", gradients.weight.as_ref(), list("weight_gradient")),
            ("bias_gradient", gradients.bias.as_ref(), list("bias_gradient")),
        ] {
            assert_eq!(found.is_some(), exact.is_some(), "case {i}, {what}");
            let (Some(found), Some(exact)) = (found, exact) else { continue };
            // Some roundings of f32, relative to the largest.
            let allowed = 1e-5 * exact.iter().fold(1.0_f64, |largest, x| largest.max(x.abs()));
            for (j, (found, exact)) in values(found).into_iter().zip(&exact).enumerate() {
                let error = (f64::from(found) - exact).abs();
                assert!(error <= allowed, "case {i}, {what} {j}: {found:e} in place of {exact:e} ± {allowed:e}");
            }
        }
    }
}

#[test]
fn a_sequence_may_come_in_blocks() {
    let device = device();
    let (length, width) = (30, 6);
    let layer = layer(LayerNormConfig::new(width));
    let input = some(length * width);
    let exact = reference::causal_layer_norm(&input, length, width, None, None, 1e-5, false);
    let state = zeros([1, 8]);
    let mut found = Vec::new();
    let mut begin = 0;
    for block in [1, 1, 5, 20, 3] {
        let of_input = upload([1, block, width], input[begin * width..(begin + block) * width].to_vec());
        let output = zeros([1, block, width]);
        layer.execute(&device, &Bindings::of(&of_input, &output).state(&state)).expect("an output");
        found.extend(values(&output));
        begin += block;
    }
    assert_near(&found, &exact, "blocks");
    // A state of zeros knows of nothing.
    state.write(&tensor([1, 8], vec![0.0; 8])).expect("an upload");
    let of_input = upload([1, 5, width], input[..5 * width].to_vec());
    let output = zeros([1, 5, width]);
    layer.execute(&device, &Bindings::of(&of_input, &output).state(&state)).expect("an output");
    assert_near(&values(&output), &exact[..5 * width], "from the beginning");
    // No positions leave a state as it is.
    let before = values(&state);
    let none = zeros([1, 0, width]);
    layer.execute(&device, &Bindings::of(&none, &zeros([1, 0, width])).state(&state)).expect("no output");
    assert_eq!(values(&state), before);
}

/// A prepared operation goes on with its sequences each time it runs.
#[test]
fn a_prepared_operation_goes_on_each_time() {
    let device = device();
    let width = 6;
    let layer = layer(LayerNormConfig::rms(width));
    let input = some(3 * 2 * width);
    let exact = reference::causal_rms_norm(&input, 6, width, None, None, 1e-5);
    let (block, output, state) = (zeros([1, 2, width]), zeros([1, 2, width]), zeros([1, 8]));
    let prepared = layer.prepare(&device, &Bindings::of(&block, &output).state(&state)).expect("an operation");
    let mut found = Vec::new();
    for values_of_block in input.chunks(2 * width) {
        block.write(&tensor([1, 2, width], values_of_block.to_vec())).expect("an upload");
        common::submit(&device, &prepared);
        found.extend(values(&output));
    }
    assert_near(&found, &exact, "three blocks");
}
