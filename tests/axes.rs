//! What a user of normalization over any axes, and of group and instance normalization, meets: shapes, errors, the ONNX backend suite, and
//! the gradients of a training step.

mod common;

use common::tensors::{device, some, tensor, upload, values, zeros};
use common::{fixture, numbers};
use gpu_layer_norm::kernel::{Dimension, Grid, Layout, Problem, Role};
use gpu_layer_norm::{
    Affine, Bindings, Capabilities, Dependence, Error, GpuLayerNorm, LayerNormConfig, Plan, Region, StorageType,
    Tensor, Variance, reference,
};

fn layer(config: &LayerNormConfig) -> GpuLayerNorm {
    GpuLayerNorm::new(&device(), &config.clone().expect_nothing()).expect("a layer")
}

fn run(config: &LayerNormConfig, shape: &[usize], input: Vec<f32>) -> Tensor {
    layer(config).run(&device(), &tensor(shape, input)).expect("an output")
}

fn over(sizes: &[usize], axes: &[isize]) -> LayerNormConfig {
    LayerNormConfig::new(sizes).axes(axes.iter().copied())
}

fn assert_near(found: &[f32], exact: &[f64], what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (i, (found, exact)) in found.iter().zip(exact).enumerate() {
        let error = (f64::from(*found) - exact).abs();
        assert!(error <= 1e-5 * exact.abs().max(1.0), "{what}, element {i}: {found} in place of {exact}");
    }
}

/// A tensor's values with its dimensions in another order.
fn permuted<T: Copy>(shape: &[usize], order: &[usize], values: &[T]) -> Vec<T> {
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let value = |i: usize| {
        let (mut rest, mut place) = (i, 0);
        for &axis in order.iter().rev() {
            place += rest % shape[axis] * stride(axis);
            rest /= shape[axis];
        }
        values[place]
    };
    (0..values.len()).map(value).collect()
}

/// Normalization over the dimensions `axes` by transposition: the kept ones first, and back again.
fn transposed(
    shape: &[usize],
    axes: &[usize],
    input: &[f32],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
) -> Vec<f64> {
    let kept = (0..shape.len()).filter(|axis| !axes.contains(axis));
    let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let width = axes.iter().map(|&axis| shape[axis]).product();
    let rows = reference::layer_norm(&permuted(shape, &order, input), width, weight, bias, 1e-5, false);
    let moved: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
    let back: Vec<usize> =
        (0..shape.len()).map(|axis| order.iter().position(|it| *it == axis).expect("an axis")).collect();
    permuted(&moved, &back, &rows)
}

#[test]
fn any_axes_are_normalized_without_a_transposed_copy() {
    for (shape, axes, places) in [
        // As WebNN has them: of [batch, channels, height, width] each pixel, each image, and with the axes in any order.
        (&[2, 3, 4, 5][..], &[1][..], &[1][..]),
        (&[2, 3, 4, 5], &[1, 2, 3], &[1, 2, 3]),
        (&[2, 3, 4, 5], &[3, 1], &[3, 1]),
        (&[2, 3, 4, 5], &[0], &[0]),
        (&[2, 3, 4, 5], &[2, 0], &[2, 0]),
        (&[2, 3, 4, 5], &[-3, -1], &[1, 3]),
        (&[2, 3, 4, 5], &[-4], &[0]),
        (&[2, 3, 4, 5], &[0, 1, 2, 3], &[0, 1, 2, 3]),
        (&[2, 3, 4, 5], &[3, 2, 1, 0], &[3, 2, 1, 0]),
        (&[6], &[0], &[0]),
        (&[2, 3, 2, 2, 4], &[1, 3], &[1, 3]),
    ] {
        let sizes: Vec<usize> = places.iter().map(|&axis| shape[axis]).collect();
        let (count, width) = (shape.iter().product(), sizes.iter().product::<usize>());
        let (input, weight, bias) = (some(count), some(width + 3)[3..].to_vec(), some(width + 9)[9..].to_vec());
        let layer = layer(&over(&sizes, axes));
        layer.set_weight(&tensor(sizes.clone(), weight.clone())).expect("a weight of the axes' sizes");
        layer.set_bias(&tensor(sizes.clone(), bias.clone())).expect("a bias of the axes' sizes");
        let output = layer.run(&device(), &tensor(shape, input.clone())).expect("an output");
        assert_eq!(output.shape(), shape);
        let exact = transposed(shape, places, &input, Some(&weight), Some(&bias));
        assert_near(&output.into_values(), &exact, &format!("{shape:?} over {axes:?}"));
    }
}

#[test]
fn the_last_axes_are_what_they_are_without_their_names() {
    let input = some(2 * 3 * 8);
    let named = run(&over(&[3, 8], &[-2, -1]), &[2, 3, 8], input.clone());
    let plain = run(&LayerNormConfig::new([3, 8]), &[2, 3, 8], input);
    assert_eq!(named, plain);
}

#[test]
fn images_with_channels_last_are_normalized_over_height_and_width() {
    // Instance normalization of [batch, height, width, channels], whose weight and bias would belong to channels, not to pixels.
    let (shape, input) = ([2, 4, 5, 3], some(120));
    let output = run(&over(&[4, 5], &[1, 2]).affine(Affine::None), &shape, input.clone());
    assert_near(&output.into_values(), &transposed(&shape, &[1, 2], &input, None, None), "channels last");

    // The same images with channels first.
    let first = permuted(&shape, &[0, 3, 1, 2], &input);
    let output = run(&LayerNormConfig::instance_norm([3, 4, 5]), &[2, 3, 4, 5], first.clone());
    assert_near(&output.into_values(), &reference::group_norm(&first, 3, 20, 3, None, None, 1e-5), "channels first");
}

#[test]
fn over_no_axes_every_element_is_a_row_whose_value_is_the_bias() {
    let config = over(&[], &[]);
    assert_eq!(config.parameter_shape(), [0_usize; 0]);
    assert_eq!(config.rows(&[2, 3]), Ok(6));
    assert_eq!(config.rows(&[]), Ok(1));
    let layer = layer(&config);
    layer.set_weight(&tensor([], vec![3.0])).expect("a weight");
    layer.set_bias(&tensor([], vec![0.25])).expect("a bias");
    for shape in [vec![2, 3], vec![7], vec![], vec![2, 1, 4]] {
        let input = upload(shape.clone(), some(shape.iter().product()));
        let (output, statistics) = layer.forward_for_training(&device(), &input).expect("an output");
        assert_eq!(statistics.rstd.shape(), shape);
        assert_eq!(values(&statistics.mean.expect("a mean")), values(&input));
        assert!(values(&output).iter().all(|y| *y == 0.25), "{shape:?}");
        let gradients = layer.backward(&device(), &input, &input, None).expect("gradients");
        assert!(values(&gradients.input).iter().all(|gradient| *gradient == 0.0));
        assert_eq!(values(&gradients.weight.expect("a weight")), [0.0]);
        assert_near(
            &values(&gradients.bias.expect("a bias")),
            &[values(&input).iter().map(|&x| f64::from(x)).sum()],
            "the bias's gradient",
        );
    }
    let without = run(&over(&[], &[]).affine(Affine::None), &[2, 3], some(6));
    assert_eq!(without.into_values(), [0.0; 6]);
    // Without axes a normalized shape must have a dimension.
    let none = LayerNormConfig::new(Vec::new());
    assert_eq!(none.problem(1).err(), Some(Error::NormalizedShape { normalized_shape: Vec::new() }));
    let unbiased = over(&[], &[]).variance(Variance::Unbiased);
    assert_eq!(unbiased.problem(1).err(), Some(Error::UnbiasedWidth { width: 1 }));
}

#[test]
fn axes_that_an_input_has_not_are_refused() {
    let device = device();
    let shape = [2, 3, 4];
    for (sizes, axes) in [
        // Twice, by the same name and by two.
        (&[3, 3][..], &[1, 1][..]),
        (&[3, 3], &[1, -2]),
        // There are no such axes.
        (&[3], &[3]),
        (&[3], &[-4]),
        (&[3], &[isize::MIN]),
        (&[3], &[isize::MAX]),
        // Of other sizes, and in another order.
        (&[4], &[1]),
        (&[3, 4], &[2, 1]),
        // More sizes than axes, and fewer.
        (&[3, 4], &[1]),
        (&[3], &[1, 2]),
        (&[3], &[]),
    ] {
        let config = over(sizes, axes);
        let expected = Error::Axes { axes: axes.to_vec(), normalized_shape: sizes.to_vec(), shape: shape.to_vec() };
        assert_eq!(config.rows(&shape), Err(expected.clone()));
        // What no input can have is told when the layer is made.
        if sizes.len() != axes.len() || axes == [1, 1] {
            let expected = Error::Axes { axes: axes.to_vec(), normalized_shape: sizes.to_vec(), shape: Vec::new() };
            assert_eq!(GpuLayerNorm::new(&device, &config).err(), Some(expected));
            continue;
        }
        let layer = layer(&config);
        assert_eq!(layer.run(&device, &tensor(shape, some(24))).err(), Some(expected.clone()));
        let input = zeros(shape);
        assert_eq!(layer.forward_for_training(&device, &input).err(), Some(expected.clone()));
        assert_eq!(layer.backward(&device, &input, &input, None).err(), Some(expected.clone()));
        let raw = Bindings::new(8, &input, &zeros(shape)).input_shape(shape);
        assert_eq!(layer.prepare(&device, &raw).err(), Some(expected));
    }
    // The device goes on.
    assert_eq!(run(&over(&[3], &[1]), &shape, some(24)).shape(), shape);
}

#[test]
fn groups_must_divide_the_channels_of_a_sample() {
    for (groups, sample) in [(0, vec![4, 5]), (3, vec![4, 5]), (8, vec![4, 5]), (1, vec![])] {
        let config = LayerNormConfig::group_norm(groups, sample.clone());
        let expected = Error::Groups { groups, sample_shape: sample };
        assert_eq!(config.problem(1).err(), Some(expected.clone()));
        assert_eq!(GpuLayerNorm::new(&device(), &config).err(), Some(expected));
    }
    let none = LayerNormConfig::group_norm(2, [4, 0]);
    assert!(matches!(none.problem(1), Err(Error::NormalizedShape { .. })));
    // An input must end with the shape of a sample.
    let config = LayerNormConfig::group_norm(2, [4, 5]);
    let mismatch = |shape: &[usize]| Error::ShapeMismatch { normalized_shape: vec![4, 5], shape: shape.to_vec() };
    for shape in [&[3, 4, 6][..], &[3, 2, 5], &[5], &[]] {
        assert_eq!(config.rows(shape), Err(mismatch(shape)));
        let refused = layer(&config).run(&device(), &tensor(shape, some(shape.iter().product()))).err();
        assert_eq!(refused, Some(mismatch(shape)));
    }
    assert_eq!(config.rows(&[4, 5]), Ok(2));
    assert_eq!(config.rows(&[3, 7, 4, 5]), Ok(42));
}

#[test]
fn parameters_and_statistics_have_shapes_of_their_own() {
    let shape = [2, 6, 4, 5];
    for (config, parameters, statistics) in [
        (over(&[6], &[1]), vec![6], vec![2, 4, 5]),
        (over(&[5, 6], &[3, 1]), vec![5, 6], vec![2, 4]),
        (over(&[2, 5], &[0, -1]), vec![2, 5], vec![6, 4]),
        (over(&[2, 6, 4, 5], &[0, 1, 2, 3]), vec![2, 6, 4, 5], vec![]),
        (LayerNormConfig::group_norm(3, [6, 4, 5]), vec![6], vec![2, 3]),
        (LayerNormConfig::group_norm(1, [6, 4, 5]), vec![6], vec![2, 1]),
        (LayerNormConfig::instance_norm([6, 4, 5]).affine(Affine::WeightAndBias), vec![6], vec![2, 6]),
    ] {
        assert_eq!(config.parameter_shape(), parameters);
        assert_eq!(config.rows(&shape), Ok(statistics.iter().product::<usize>() as u64));
        let layer = layer(&config);
        assert_eq!(layer.weight().expect("a weight").shape(), parameters);
        assert_eq!(layer.bias().expect("a bias").shape(), parameters);
        let wrong = layer.set_weight(&tensor([7], some(7)));
        assert_eq!(wrong, Err(Error::Shape { what: "weight", expected: parameters.clone(), actual: vec![7] }));
        let input = upload(shape, some(240));
        let (output, saved) = layer.forward_for_training(&device(), &input).expect("an output");
        assert_eq!(output.shape(), shape);
        assert_eq!(saved.rstd.shape(), statistics);
        assert_eq!(saved.mean.as_ref().expect("a mean").shape(), statistics);
        let gradients = layer.backward(&device(), &input, &output, Some(&saved)).expect("gradients");
        assert_eq!(gradients.input.shape(), shape);
        assert_eq!(gradients.weight.expect("a weight's gradient").shape(), parameters);
        assert_eq!(gradients.bias.expect("a bias's gradient").shape(), parameters);

        let mean = zeros([241]);
        let refused = layer.prepare(&device(), &Bindings::of(&input, &output).mean(&mean)).err();
        assert_eq!(refused, Some(Error::Shape { what: "mean", expected: statistics, actual: vec![241] }));
        let refused = layer.prepare(&device(), &Bindings::of(&input, &zeros([2, 6, 20]))).err();
        assert!(matches!(refused, Some(Error::Shape { what: "output", .. })), "{refused:?}");
    }
    // Instance normalization has neither weight nor bias, as in PyTorch, unless they are asked for.
    let layer = layer(&LayerNormConfig::instance_norm([6, 4, 5]));
    assert!(layer.weight().is_none() && layer.bias().is_none());
}

#[test]
fn an_input_without_elements_has_no_output() {
    for (config, shape) in [
        (over(&[3], &[1]), vec![0, 3, 4]),
        (over(&[3], &[1]), vec![2, 3, 0]),
        (over(&[4, 3], &[2, 1]), vec![0, 3, 4]),
        (LayerNormConfig::group_norm(3, [6, 4]), vec![0, 6, 4]),
        (LayerNormConfig::group_norm(1, [6, 4]), vec![2, 0, 6, 4]),
    ] {
        let layer = layer(&config);
        let output = layer.run(&device(), &tensor(shape.clone(), Vec::new())).expect("an output");
        assert_eq!((output.shape(), output.values().len()), (&shape[..], 0));
        let input = zeros(shape.clone());
        let gradients = layer.backward(&device(), &input, &input, None).expect("gradients");
        for gradient in [gradients.weight, gradients.bias] {
            let gradient = values(&gradient.expect("the layer has one"));
            assert!(gradient.iter().all(|gradient| *gradient == 0.0), "{shape:?}: {gradient:?}");
        }
    }
}

#[test]
fn regions_need_the_shape_of_the_input() {
    let (device, shape) = (device(), [2, 3, 4]);
    let (input, output) = (upload(shape, some(24)), zeros(shape));
    for (config, rows, exact) in [
        (over(&[3], &[1]), 8, transposed(&shape, &[1], &some(24), None, None)),
        // Also where they are the last axes: which these are, the shape says.
        (over(&[4], &[2]), 6, transposed(&shape, &[2], &some(24), None, None)),
        (LayerNormConfig::group_norm(3, [3, 4]), 6, reference::group_norm(&some(24), 3, 4, 3, None, None, 1e-5)),
    ] {
        let layer = layer(&config);
        let raw = Bindings::new(rows, Region::new(input.buffer(), StorageType::F32), &output);
        let refused = layer.prepare(&device, &raw).err();
        let expected = Error::Needs { what: "choice of axes or groups", needs: "shape of the input" };
        assert_eq!(refused, Some(expected));
        layer.execute(&device, &raw.clone().input_shape(shape)).expect("an output");
        assert_near(&values(&output), &exact, &format!("{config:?}"));
        // The rows that are told must be those of the shape.
        for told in [rows - 1, rows + 1, 0] {
            let wrong = Bindings::new(told, &input, &output).input_shape(shape);
            assert_eq!(layer.prepare(&device, &wrong).err(), Some(Error::RowCount { rows: told, max: rows }));
        }
        let too_long = raw.input_shape([200, 3, 4]);
        assert!(matches!(layer.prepare(&device, &too_long).err(), Some(Error::RowCount { .. })));
    }
    // A region that begins somewhere, in a buffer of other things.
    let buffer = upload([40], some(40));
    let region = Region::new(buffer.buffer(), StorageType::F32).offset(9);
    let raw = Bindings::new(8, region.clone(), &output).input_shape(shape);
    layer(&over(&[3], &[1])).execute(&device, &raw).expect("an output");
    assert_near(&values(&output), &transposed(&shape, &[1], &some(40)[9..33], None, None), "from element 9 on");
    let past = Bindings::new(8, region.offset(17), &output).input_shape(shape);
    let refused = layer(&over(&[3], &[1])).prepare(&device, &past).err();
    assert_eq!(refused, Some(Error::Region { what: "input", needed: 164, actual: 160 }));
    // Rows one after another need no shape, and may have one.
    let plain = layer(&LayerNormConfig::new(4));
    let shaped = Bindings::new(6, &input, &output).input_shape(shape);
    plain.execute(&device, &shaped).expect("an output");
    assert_eq!(
        plain.prepare(&device, &Bindings::new(5, &input, &output).input_shape(shape)).err(),
        Some(Error::RowCount { rows: 5, max: 6 })
    );
}

#[test]
fn what_needs_rows_one_after_another_is_refused() {
    let (device, shape) = (device(), [2, 3, 4]);
    let (input, output) = (upload(shape, some(24)), zeros(shape));
    let refused = |config: &LayerNormConfig, bindings: &Bindings| match layer(config).prepare(&device, bindings).err() {
        Some(Error::Grid { what }) => what,
        other => panic!("{other:?}"),
    };
    let config = over(&[3], &[1]);
    let strided = Region::new(input.buffer(), StorageType::F32).row_stride(3);
    assert_eq!(refused(&config, &Bindings::new(8, strided, &output).input_shape(shape)), "a row stride");
    let causal = GpuLayerNorm::new(&device, &config.clone().causal(true)).err();
    assert_eq!(causal, Some(Error::Grid { what: "causal normalization" }));
    // A statistic may have a stride.
    let mean = Region::new(zeros([16]).buffer(), StorageType::F32).row_stride(2);
    let bindings = Bindings::new(8, &input, &output).input_shape(shape).mean(mean);
    assert!(layer(&config).prepare(&device, &bindings).is_ok());

    // The gate of a channel has no gradient, and what else it may have has one.
    let groups = LayerNormConfig::group_norm(1, [3, 4]);
    let (gate, gradient) = (zeros([2, 3]), zeros([2, 3]));
    let backward = Bindings::backward_of(&input, &input, &output).residual(&input).gate(&gate).scale(&gate);
    let with_gate = backward.clone().gate_gradient(&gradient);
    assert_eq!(refused(&groups, &with_gate), "the gradient of a gate that positions share");
    assert!(layer(&groups).prepare(&device, &backward.scale_gradient(&gradient)).is_ok());
    assert!(layer(&groups).backward(&device, &input, &input, None).is_ok());
}

#[test]
fn a_grid_is_checked_where_a_problem_takes_it() {
    let dimension = |size, stride, parameter_stride| Dimension { size, stride, parameter_stride };
    let (rows, elements) = ([dimension(2, 12, 0), dimension(4, 1, 0)], [dimension(3, 4, 1)]);
    let grid = Grid::new(&rows, &elements).expect("a grid");
    let problem = |rows, width| Problem::new(rows, width).expect("a problem");
    let wrong = Some(Error::Grid { what: "a grid of other rows or elements" });
    assert_eq!(problem(7, 3).grid(grid).err(), wrong);
    assert_eq!(problem(8, 4).grid(grid).err(), wrong);
    let right = problem(8, 3).grid(grid).expect("eight rows of three");
    assert_eq!(right.grid_of_rows(), Some(&grid));
    let strided = Layout { row_stride: Some(3), ..Layout::default() };
    assert_eq!(right.tensor(Role::Input, strided).err(), Some(Error::Grid { what: "a row stride" }));
    assert_eq!(right.causal(4).err(), Some(Error::Grid { what: "causal normalization" }));
    let large = dimension(u32::MAX, 1, 0);
    assert_eq!(problem(8, 3).grid(Grid::new(&[large; 3], &elements).expect("a grid")).err(), wrong);
    assert!(matches!(Grid::new(&[dimension(1, 1, 0); 40], &elements), Err(Error::Rank { .. })));
    // Dimensions that one would do for are one.
    let cut = [dimension(2, 60, 0), dimension(3, 20, 0), dimension(1, 7, 0), dimension(4, 5, 0)];
    assert_eq!(Grid::new(&cut, &elements).expect("a grid").rows(), [dimension(24, 5, 0)]);
    // A plan says how rows lie, and there is one for every device.
    let plan = Plan::new(&right, &Capabilities::webgpu_baseline()).expect("a plan");
    assert!(plan.to_string().contains("rows over"), "{plan}");
}

/// A case of GroupNormalization or InstanceNormalization of the ONNX backend suite.
#[derive(Clone)]
struct OnnxCase {
    name: String,
    groups: Option<usize>,
    epsilon: f64,
    shape: Vec<usize>,
    input: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    output: Vec<f64>,
}

fn onnx_cases(file: &str) -> Vec<OnnxCase> {
    let fixture = fixture(&format!("onnx/{file}.json"));
    let case = |case: &serde_json::Value| {
        let exact = |name: &str| numbers(&case[name]["values"]);
        let floats = |name: &str| exact(name).iter().map(|&x| x as f32).collect::<Vec<_>>();
        OnnxCase {
            name: case["name"].as_str().expect("a name").into(),
            groups: case["num_groups"].as_u64().map(|groups| groups as usize),
            epsilon: case["epsilon"].as_f64().expect("an epsilon"),
            shape: numbers(&case["X"]["shape"]).iter().map(|&x| x as usize).collect(),
            input: floats("X"),
            scale: floats("scale"),
            bias: floats("bias"),
            output: exact("Y"),
        }
    };
    let cases: Vec<_> = fixture["cases"].as_array().expect("cases").iter().map(case).collect();
    assert!(!cases.is_empty(), "{file} has no cases");
    cases
}

#[test]
fn the_onnx_backend_suite_of_group_and_instance_normalization() {
    for case in [onnx_cases("group_normalization"), onnx_cases("instance_normalization")].concat() {
        let channels = case.shape[1];
        let config = match case.groups {
            Some(groups) => LayerNormConfig::group_norm(groups, &case.shape[1..]),
            None => LayerNormConfig::instance_norm(&case.shape[1..]).affine(Affine::WeightAndBias),
        };
        let layer = layer(&config.eps(case.epsilon as f32));
        layer.set_weight(&tensor([channels], case.scale.clone())).expect("a weight for each channel");
        layer.set_bias(&tensor([channels], case.bias.clone())).expect("a bias for each channel");
        let output = layer.run(&device(), &tensor(case.shape.clone(), case.input.clone())).expect("an output");
        assert_near(&output.into_values(), &case.output, &case.name);
        // What the reference makes of it.
        let (groups, positions) = (case.groups.unwrap_or(channels), case.shape[2..].iter().product());
        let (weight, bias) = (Some(&case.scale[..]), Some(&case.bias[..]));
        let exact = reference::group_norm(&case.input, channels, positions, groups, weight, bias, case.epsilon);
        for (exact, expected) in exact.iter().zip(&case.output) {
            assert!((exact - expected).abs() < 1e-5, "{}: {exact}, {expected}", case.name);
        }
    }
}

#[test]
fn group_normalization_has_the_gradients_of_the_reference() {
    for (shape, groups) in [([3, 6, 5], 3), ([2, 6, 8], 1), ([2, 6, 4], 6), ([4, 6, 1], 2)] {
        let [_, channels, positions] = shape;
        let count = shape.iter().product::<usize>();
        let (input, dy) = (some(count), some(count + 11)[11..].to_vec());
        let weight = some(channels + 5)[5..].to_vec();
        let layer = layer(&LayerNormConfig::group_norm(groups, &shape[1..]));
        layer.set_weight(&tensor([channels], weight.clone())).expect("a weight");
        let (of_input, of_dy) = (upload(shape, input.clone()), upload(shape, dy.clone()));
        let (_, saved) = layer.forward_for_training(&device(), &of_input).expect("an output");
        let exact = reference::group_norm_backward(&input, &dy, channels, positions, groups, Some(&weight), 1e-5);
        for statistics in [Some(&saved), None] {
            let found = layer.backward(&device(), &of_input, &of_dy, statistics).expect("gradients");
            let what = format!("{shape:?} in {groups} groups");
            assert_near(&values(&found.input), &exact.input, &what);
            assert_near(&values(&found.weight.expect("a weight's gradient")), &exact.weight, &what);
            assert_near(&values(&found.bias.expect("a bias's gradient")), &exact.bias, &what);
        }
    }
}

#[test]
fn a_step_along_the_gradient_lowers_the_loss_of_pixels_that_are_normalized() {
    // The loss is half the square of the distance from a goal.
    let shape = [2, 12, 5, 3];
    let (input, goal) = (upload(shape, some(360)), some(400)[40..].to_vec());
    let layer = layer(&over(&[12], &[1]));
    let (mut weight, mut bias) = (vec![1.0_f32; 12], vec![0.0_f32; 12]);
    let mut losses = Vec::new();
    for _ in 0..5 {
        layer.set_weight(&tensor([12], weight.clone())).expect("a weight");
        layer.set_bias(&tensor([12], bias.clone())).expect("a bias");
        let (output, saved) = layer.forward_for_training(&device(), &input).expect("an output");
        let distance: Vec<f32> = values(&output).iter().zip(&goal).map(|(y, goal)| y - goal).collect();
        losses.push(distance.iter().map(|d| d * d).sum::<f32>() / 2.0);
        let gradients = layer.backward(&device(), &input, &upload(shape, distance), Some(&saved)).expect("gradients");
        for (parameter, gradient) in [(&mut weight, gradients.weight), (&mut bias, gradients.bias)] {
            let gradient = values(&gradient.expect("the layer has one"));
            parameter.iter_mut().zip(gradient).for_each(|(parameter, gradient)| *parameter -= 0.01 * gradient);
        }
    }
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
}

#[test]
fn conditions_of_images_follow_from_the_shapes() {
    let (shape, input) = ([2, 3, 4, 5], some(120));
    let (scale, shift) = (some(6), some(13)[7..].to_vec());
    let (of_input, output) = (upload(shape, input.clone()), zeros(shape));
    // A row of three channels for each image.
    let (of_scale, of_shift) = (upload([2, 3], scale.clone()), upload([2, 3], shift.clone()));
    for (config, plain) in [
        (over(&[3], &[1]), transposed(&shape, &[1], &input, None, None)),
        (LayerNormConfig::group_norm(1, [3, 4, 5]), reference::group_norm(&input, 3, 20, 1, None, None, 1e-5)),
        (LayerNormConfig::instance_norm([3, 4, 5]), reference::group_norm(&input, 3, 20, 3, None, None, 1e-5)),
    ] {
        let bindings = Bindings::of(&of_input, &output).scale(&of_scale).shift(&of_shift);
        layer(&config).execute(&device(), &bindings).expect("an output");
        let modulated = |(i, x): (usize, &f64)| {
            // The image and the channel.
            let of = i / 60 * 3 + i / 20 % 3;
            x * (1.0 + f64::from(scale[of])) + f64::from(shift[of])
        };
        let exact: Vec<f64> = plain.iter().enumerate().map(modulated).collect();
        assert_near(&values(&output), &exact, &format!("{config:?}"));
        let wrong = Bindings::of(&of_input, &output).scale(&zeros([2, 4]));
        assert!(matches!(layer(&config).prepare(&device(), &wrong).err(), Some(Error::Shape { what: "scale", .. })));
    }
}

#[test]
fn half_precision_parameters_of_channels() {
    let (shape, input) = ([2, 5, 3], some(30));
    for storage in StorageType::ALL {
        let config = LayerNormConfig::group_norm(5, [5, 3]).parameter_storage(storage);
        let layer = layer(&config);
        let weight = tensor([5], some(5)).to_storage(storage);
        let bias = tensor([5], some(8)[3..].to_vec()).to_storage(storage);
        layer.set_weight(&weight).expect("a weight");
        layer.set_bias(&bias).expect("a bias");
        let output = layer.run(&device(), &tensor(shape, input.clone())).expect("an output");
        let (weight, bias) = (weight.values(), bias.values());
        let exact = reference::group_norm(&input, 5, 3, 5, Some(&weight[..]), Some(&bias[..]), 1e-5);
        assert_near(&output.into_values(), &exact, &format!("{storage}"));
    }
}

#[test]
fn chunks_and_strategies_say_what_they_cannot_do() {
    let config = over(&[1000], &[0]);
    let shape = [1000, 40_000];
    let problem = config.problem(config.rows(&shape).expect("rows")).expect("a problem");
    let dimension = |size, stride, parameter_stride| Dimension { size, stride, parameter_stride };
    let grid = Grid::new(&[dimension(40_000, 1, 0)], &[dimension(1000, 40_000, 1)]).expect("a grid");
    let problem = problem.grid(grid).expect("a problem");
    // 160 MB.
    let small = Capabilities { max_binding_bytes: 128 << 20, ..Capabilities::webgpu_baseline() };
    assert!(matches!(Plan::new(&problem, &small), Err(Error::Geometry { .. })));
    let large = Capabilities { max_binding_bytes: 256 << 20, ..small };
    assert_eq!(Plan::new(&problem, &large).expect("a plan").chunks().len(), 1);
}

#[test]
fn the_axes_that_are_mixed_are_told() {
    let shape = [2, 6, 4, 5];
    for (config, mixed) in [
        (LayerNormConfig::new(5), vec![3]),
        (LayerNormConfig::new([4, 5]), vec![2, 3]),
        (LayerNormConfig::new(5).causal(true), vec![2, 3]),
        (LayerNormConfig::new([5, 6]).axes([-1, 1]), vec![1, 3]),
        (LayerNormConfig::new([]).axes([]), vec![]),
        (LayerNormConfig::group_norm(3, [6, 4, 5]), vec![1, 2, 3]),
        // Each channel is for itself.
        (LayerNormConfig::instance_norm([6, 4, 5]), vec![2, 3]),
    ] {
        assert_eq!(config.mixed_axes(&shape), Ok(mixed.clone()), "{config:?}");
        let layer = GpuLayerNorm::new(&device(), &config.expect_nothing()).expect("a layer");
        // Along an axis that is not mixed, an element depends on its own place alone.
        for axis in 0..4 {
            let found = Dependence::measure(&shape, axis, |input| layer.run(&device(), input)).expect("a measurement");
            let apart = (0..shape[axis]).all(|i| (0..shape[axis]).all(|j| i == j || !found.depends(i, j)));
            assert_eq!(apart, !mixed.contains(&axis), "axis {axis} of {mixed:?}");
        }
    }
    let error = LayerNormConfig::new(5).mixed_axes(&[2, 6]);
    assert_eq!(error, Err(Error::ShapeMismatch { normalized_shape: vec![5], shape: vec![2, 6] }));
}
