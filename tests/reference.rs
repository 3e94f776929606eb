//! The f64 reference against values that were computed elsewhere.

mod common;

use common::fixture;
use gpu_layer_norm::Normalization;
use gpu_layer_norm::reference::{
    gradient_difference, layer_norm, layer_norm_backward, rms_norm, rms_norm_backward, row_statistics,
};

/// `flax.linen.LayerNorm` in float64. Both round differently in the last digits; at mean 1e6 and std 1 a relative
/// 2^-53 of the mean is 1e-10 of x̂.
#[test]
fn it_agrees_with_flax_in_float64() {
    let fixture = fixture("flax_float64.json");
    for case in fixture["cases"].as_array().expect("cases") {
        let floats = |name: &str| -> Vec<f32> { common::numbers(&case[name]).iter().map(|&x| x as f32).collect() };
        let width = case["width"].as_u64().expect("a width") as usize;
        let eps = case["eps"].as_f64().expect("an eps");
        let output = layer_norm(&floats("input"), width, Some(&floats("weight")), Some(&floats("bias")), eps, false);
        let expected = common::numbers(&case["output"]);
        assert_eq!(output.len(), expected.len());
        for (y, expected) in output.iter().zip(expected) {
            approx::assert_abs_diff_eq!(*y, expected, epsilon = 1e-9);
        }
    }
}

/// The ONNX suite's outputs are f32, computed in f32: a few units in the last place of values below 4.
#[test]
fn it_agrees_with_the_onnx_suite_mean_and_inverse_deviation_included() {
    for case in common::onnx_cases(Normalization::LayerNorm) {
        let width: usize = case.normalized_shape().iter().product();
        let (weight, bias) = (Some(&case.weight.values[..]), Some(&case.bias[..]));
        let output = layer_norm(&case.input.values, width, weight, bias, case.epsilon, false);
        for (y, expected) in output.iter().zip(&case.output.values) {
            approx::assert_abs_diff_eq!(*y, f64::from(*expected), epsilon = 4e-6);
        }
        for (i, row) in case.input.values.chunks(width).enumerate() {
            let statistics = row_statistics(row, case.epsilon, false);
            approx::assert_abs_diff_eq!(statistics.mean, f64::from(case.mean[i]), epsilon = 1e-6);
            approx::assert_relative_eq!(statistics.rstd, f64::from(case.rstd[i]), max_relative = 1e-6);
        }
    }
    for case in common::onnx_cases(Normalization::RmsNorm) {
        let width: usize = case.normalized_shape().iter().product();
        let output = rms_norm(&case.input.values, width, Some(&case.weight.values), None, case.epsilon);
        for (y, expected) in output.iter().zip(&case.output.values) {
            approx::assert_abs_diff_eq!(*y, f64::from(*expected), epsilon = 4e-6);
        }
    }
}

/// By hand: row 1 2 4 1 has mean 2 and variance 1.5; row 6 3 2 4 mean 15/4, variance 35/16; row 2 4 6 1 mean 13/4,
/// variance 59/16.
#[test]
fn the_first_source_is_worked_by_hand() {
    let rows = [[1.0, 2.0, 4.0, 1.0], [6.0, 3.0, 2.0, 4.0], [2.0, 4.0, 6.0, 1.0]];
    let by_hand = [(2.0, 1.5_f64), (3.75, 2.1875), (3.25, 3.6875)];
    for (row, (mean, variance)) in rows.iter().zip(by_hand) {
        let statistics = row_statistics(row, 1e-5, false);
        assert_eq!(statistics.mean, mean);
        assert_eq!(statistics.rstd, 1.0 / (variance + 1e-5).sqrt());
        let unbiased = row_statistics(row, 1e-5, true);
        approx::assert_relative_eq!(unbiased.rstd, 1.0 / (variance * 4.0 / 3.0 + 1e-5).sqrt(), max_relative = 1e-15);
    }
}

#[test]
fn a_constant_row_gives_the_bias_even_without_eps() {
    assert_eq!(layer_norm(&[7.0; 4], 4, Some(&[2.0; 4]), Some(&[0.5; 4]), 0.0, false), [0.5; 4]);
}

/// JAX in float64 by automatic differentiation, which agrees with PyTorch's to 1e-10. At mean 1e6 and std 1 a relative 2^-53 of the
/// mean is 1e-10 of x̂.
#[test]
fn its_gradients_agree_with_jax_in_float64() {
    let fixture = fixture("jax_gradients_float64.json");
    let cases = fixture["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let floats = |name: &str| -> Vec<f32> { common::numbers(&case[name]).iter().map(|&x| x as f32).collect() };
        let width = case["width"].as_u64().expect("a width") as usize;
        let eps = case["eps"].as_f64().expect("an eps");
        let flag = |name: &str| case[name].as_bool().expect("a flag");
        let one = if flag("zero_centred_weight") { 1.0 } else { 0.0 };
        let weight: Option<Vec<f64>> =
            case["weight"].is_array().then(|| floats("weight").iter().map(|&weight| f64::from(weight) + one).collect());
        let exact = |name| -> Vec<f64> { floats(name).into_iter().map(f64::from).collect() };
        let (input, output_gradient) = (exact("input"), exact("output_gradient"));
        let gradients = match case["normalization"].as_str().expect("a normalization") {
            "layer_norm" => {
                layer_norm_backward(&input, &output_gradient, width, weight.as_deref(), eps, flag("unbiased"))
            }
            _ => rms_norm_backward(&input, &output_gradient, width, weight.as_deref(), eps),
        };
        for (name, found) in [
            ("input_gradient", gradients.input),
            ("weight_gradient", gradients.weight),
            ("bias_gradient", gradients.bias),
        ] {
            if !case[name].is_array() {
                continue;
            }
            let expected = common::numbers(&case[name]);
            assert_eq!(found.len(), expected.len(), "{name}");
            let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
            for (found, expected) in found.iter().zip(expected) {
                approx::assert_abs_diff_eq!(*found, expected, epsilon = 1e-9 * largest);
            }
        }
    }
}

/// The gradients of a loss by input, weight and bias, by central differences of the reference's forward pass.
#[test]
fn its_gradients_are_the_slopes_of_its_forward_pass() {
    let (rows, width) = (3, 7);
    let values = |salt: u64, count: usize| -> Vec<f64> {
        common::Data::STANDARD.values(1, count, salt).into_iter().map(f64::from).collect()
    };
    let (input, share) = (values(1, rows * width), values(2, rows * width));
    let (weight, bias) = (values(3, width), values(4, width));
    let loss = |output: Vec<f64>| output.iter().zip(&share).map(|(y, share)| y * share).sum::<f64>();
    for (unbiased, eps) in [(false, 1e-5), (true, 0.1), (true, 0.0)] {
        let of = |x: &[f64], w: &[f64], b: &[f64]| loss(layer_norm(x, width, Some(w), Some(b), eps, unbiased));
        let gradients = layer_norm_backward(&input, &share, width, Some(&weight), eps, unbiased);
        assert!(gradient_difference(|x| of(x, &weight, &bias), &input, &gradients.input, 1e-5) < 1e-8);
        assert!(gradient_difference(|w| of(&input, w, &bias), &weight, &gradients.weight, 1e-5) < 1e-8);
        assert!(gradient_difference(|b| of(&input, &weight, b), &bias, &gradients.bias, 1e-5) < 1e-8);
    }
    let of = |x: &[f64], w: &[f64]| loss(rms_norm(x, width, Some(w), None, 1e-5));
    let gradients = rms_norm_backward(&input, &share, width, Some(&weight), 1e-5);
    assert!(gradient_difference(|x| of(x, &weight), &input, &gradients.input, 1e-5) < 1e-8);
    assert!(gradient_difference(|w| of(&input, w), &weight, &gradients.weight, 1e-5) < 1e-8);

    // A wrong gradient is found.
    let mut wrong = gradients.input;
    wrong[4] += 1e-6;
    assert!(gradient_difference(|x| of(x, &weight), &input, &wrong, 1e-5) > 1e-7);
}
