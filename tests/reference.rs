//! The f64 reference against values that were computed elsewhere, its gradients against slopes, and its operations against each other.

mod common;

use std::panic::catch_unwind;

use common::{fixture, numbers};
use gpu_layer_norm::reference::{
    Condition, Gradients, causal_layer_norm, causal_layer_norm_backward, causal_rms_norm, causal_rms_norm_backward,
    causal_statistics, gated_residual, gated_residual_backward, gradient_difference, group_norm, group_norm_backward,
    layer_norm, layer_norm_backward, modulated_layer_norm, modulated_layer_norm_backward, modulated_rms_norm,
    modulated_rms_norm_backward, project, rms_norm, rms_norm_backward, root_mean_square_rstd, row_statistics,
};
use gpu_layer_norm::{Modulation, Normalization};
use serde_json::Value;

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

/// Normally distributed, exact in f32.
fn normal(salt: u64, count: usize) -> Vec<f64> {
    common::Data::STANDARD.values(1, count, salt).into_iter().map(f64::from).collect()
}

/// A tensor of a fixture's case, where it has it.
fn optional(case: &Value, name: &str) -> Option<Vec<f64>> {
    case[name].is_array().then(|| numbers(&case[name]))
}

fn count(case: &Value, name: &str) -> usize {
    case[name].as_u64().expect("a count") as usize
}

fn flag(case: &Value, name: &str) -> bool {
    case[name].as_bool().expect("a flag")
}

/// The largest difference, relative to the largest element of `expected` if that is above 1.
fn difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    // f64::max would pass over a NaN.
    let differ = |(found, expected): (&f64, &f64)| if found == expected { 0.0 } else { (found - expected).abs() };
    let differences = found.iter().zip(expected).map(differ);
    differences.fold(0.0, |most, x| if x.is_nan() || x > most { x } else { most }) / largest
}

/// What JAX computed in float64 agrees to 1e-12, and where the reference's mean is rounded to 1e-10, as a mean of 1e6 is, to as much
/// of a standard deviation.
fn bound(mean: f64) -> f64 {
    1e-12 + 4.0 * f64::EPSILON * mean.abs()
}

/// Both outputs and all gradients of a modulated layer, with a gated sum before it where the case has one.
fn modulated_case(case: &Value, modulation: Modulation) -> Vec<(&'static str, Vec<f64>)> {
    let (width, rows_per_condition) = (count(case, "width"), count(case, "rows_per_condition"));
    let (eps, unbiased) = (case["eps"].as_f64().expect("an eps"), flag(case, "unbiased"));
    let one = if flag(case, "zero_centred_weight") { 1.0 } else { 0.0 };
    let [input, output_gradient] = ["input", "output_gradient"].map(|name| numbers(&case[name]));
    let weight =
        optional(case, "weight").map(|weight| weight.into_iter().map(|weight| weight + one).collect::<Vec<_>>());
    let [residual, gate, bias, scale, shift, sum_gradient] =
        ["residual", "gate", "bias", "scale", "shift", "sum_gradient"].map(|name| optional(case, name));
    let (weight, bias) = (weight.as_deref(), bias.as_deref());
    let condition = Condition { modulation, rows_per_condition, scale: scale.as_deref(), shift: shift.as_deref() };

    // A sum without a gate is one whose gate is 1.
    let ones = vec![1.0; count(case, "rows").div_ceil(rows_per_condition) * width];
    let gates = gate.as_deref().unwrap_or(&ones);
    let sum = residual.as_ref().map(|residual| gated_residual(&input, residual, gates, width, rows_per_condition));
    let s = sum.as_deref().unwrap_or(&input);
    let (x, dy) = (s, &output_gradient);
    let (output, gradients) = if case["normalization"] == "layer_norm" {
        (
            modulated_layer_norm(x, width, weight, bias, &condition, eps, unbiased),
            modulated_layer_norm_backward(x, dy, width, weight, bias, &condition, eps, unbiased),
        )
    } else {
        (
            modulated_rms_norm(x, width, weight, bias, &condition, eps),
            modulated_rms_norm_backward(x, dy, width, weight, bias, &condition, eps),
        )
    };
    let beside = sum_gradient.unwrap_or_else(|| vec![0.0; s.len()]);
    let ds: Vec<f64> = gradients.input.iter().zip(beside).map(|(ds, beside)| ds + beside).collect();
    let (by_input, by_gate) = gated_residual_backward(&input, &ds, gates, width, rows_per_condition);
    vec![
        ("output", output),
        ("sum", s.to_vec()),
        ("input_gradient", by_input),
        ("residual_gradient", ds),
        ("gate_gradient", by_gate),
        ("weight_gradient", gradients.weight),
        ("bias_gradient", gradients.bias),
        ("scale_gradient", gradients.scale),
        ("shift_gradient", gradients.shift),
    ]
}

/// Of a case's tensors, those that the fixture has.
fn largest_difference(case: &Value, found: &[(&str, Vec<f64>)]) -> f64 {
    let differences = found.iter().filter_map(|(name, found)| Some(difference(found, &optional(case, name)?)));
    differences.fold(0.0, |most, x| if x.is_nan() || x > most { x } else { most })
}

fn mean_of(case: &Value) -> f64 {
    let input = numbers(&case["input"]);
    input.iter().sum::<f64>() / input.len() as f64
}

#[test]
fn modulated_layers_and_gated_sums_agree_with_jax_in_float64() {
    let fixture = fixture("modulation_float64.json");
    let cases = fixture["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 18);
    for (i, case) in cases.iter().enumerate() {
        let (form, other) = match case["modulation"].as_str().expect("a form") {
            "adaptive" => (Modulation::Adaptive, Modulation::Conditional),
            _ => (Modulation::Conditional, Modulation::Adaptive),
        };
        let (found, bound) = (largest_difference(case, &modulated_case(case, form)), bound(mean_of(case)));
        assert!(found < bound, "case {i}: {found:e} where {bound:e} is allowed");
        // The two forms differ where weight or bias meet a scale, and the fixture tells them apart.
        if case["scale"].is_array() && (case["weight"].is_array() || case["bias"].is_array()) {
            let found = largest_difference(case, &modulated_case(case, other));
            assert!(found > 1e-2, "case {i}: {found:e}");
        }
    }
}

#[test]
fn causal_layers_agree_with_jax_in_float64() {
    let fixture = fixture("causal_float64.json");
    let cases = fixture["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 11);
    for (i, case) in cases.iter().enumerate() {
        let (length, width) = (count(case, "length"), count(case, "width"));
        let (eps, unbiased) = (case["eps"].as_f64().expect("an eps"), flag(case, "unbiased"));
        let [x, dy] = ["input", "output_gradient"].map(|name| numbers(&case[name]));
        let [weight, bias] = ["weight", "bias"].map(|name| optional(case, name));
        let (weight, bias) = (weight.as_deref(), bias.as_deref());
        let (output, gradients) = if case["normalization"] == "layer_norm" {
            (
                causal_layer_norm(&x, length, width, weight, bias, eps, unbiased),
                causal_layer_norm_backward(&x, &dy, length, width, weight, eps, unbiased),
            )
        } else {
            (
                causal_rms_norm(&x, length, width, weight, bias, eps),
                causal_rms_norm_backward(&x, &dy, length, width, weight, eps),
            )
        };
        let found = [
            ("output", output),
            ("input_gradient", gradients.input),
            ("weight_gradient", gradients.weight),
            ("bias_gradient", gradients.bias),
        ];
        // At any mean, for here the mean is never rounded.
        let found = largest_difference(case, &found);
        assert!(found < 1e-12, "case {i}: {found:e}");
    }
}

/// The ONNX suite's outputs are f32, computed in f32: a few units in the last place of values below 4.
#[test]
fn group_and_instance_normalization_agree_with_the_onnx_suite() {
    for name in ["group", "instance"] {
        let fixture = fixture(&format!("onnx/{name}_normalization.json"));
        let cases = fixture["cases"].as_array().expect("cases");
        assert_eq!(cases.len(), 2);
        for case in cases {
            let shape: Vec<usize> = numbers(&case["X"]["shape"]).iter().map(|&x| x as usize).collect();
            let (channels, positions) = (shape[1], shape[2..].iter().product());
            let groups = if name == "group" { count(case, "num_groups") } else { channels };
            let [x, weight, bias, expected] = ["X", "scale", "bias", "Y"].map(|name| numbers(&case[name]["values"]));
            let eps = case["epsilon"].as_f64().expect("an epsilon");
            let of = |groups, eps| group_norm(&x, channels, positions, groups, Some(&weight), Some(&bias), eps);
            let found = difference(&of(groups, eps), &expected);
            assert!(found < 4e-6, "{}: {found:e}", case["name"]);
            let other = if groups == channels { 1 } else { channels };
            assert!(difference(&of(other, eps), &expected) > 1e-2, "{}", case["name"]);
            assert!(difference(&of(groups, eps + 0.01), &expected) > 1e-4, "{}", case["name"]);
        }
    }
}

#[test]
fn the_gradients_of_modulated_layers_are_the_slopes_of_their_forward_pass() {
    let (rows, width, rows_per_condition) = (5, 6, 2);
    let (x, share) = (normal(11, rows * width), normal(12, rows * width));
    let (weight, bias) = (normal(13, width), normal(14, width));
    let (scale, shift) = (normal(15, 3 * width), normal(16, 3 * width));
    let loss = |output: Vec<f64>| output.iter().zip(&share).map(|(y, share)| y * share).sum::<f64>();
    for modulation in [Modulation::Adaptive, Modulation::Conditional] {
        for (rms, eps, unbiased) in [(false, 1e-5, false), (false, 0.1, true), (true, 1e-5, false)] {
            let of = |x: &[f64], w: &[f64], b: &[f64], scale: &[f64], shift: &[f64]| {
                let condition = Condition { modulation, rows_per_condition, scale: Some(scale), shift: Some(shift) };
                loss(if rms {
                    modulated_rms_norm(x, width, Some(w), Some(b), &condition, eps)
                } else {
                    modulated_layer_norm(x, width, Some(w), Some(b), &condition, eps, unbiased)
                })
            };
            let condition =
                Condition { modulation, rows_per_condition, scale: Some(&scale[..]), shift: Some(&shift[..]) };
            let (w, b) = (Some(&weight[..]), Some(&bias[..]));
            let gradients = if rms {
                modulated_rms_norm_backward(&x, &share, width, w, b, &condition, eps)
            } else {
                modulated_layer_norm_backward(&x, &share, width, w, b, &condition, eps, unbiased)
            };
            let differences = [
                gradient_difference(|x| of(x, &weight, &bias, &scale, &shift), &x, &gradients.input, 1e-5),
                gradient_difference(|w| of(&x, w, &bias, &scale, &shift), &weight, &gradients.weight, 1e-5),
                gradient_difference(|b| of(&x, &weight, b, &scale, &shift), &bias, &gradients.bias, 1e-5),
                gradient_difference(|scale| of(&x, &weight, &bias, scale, &shift), &scale, &gradients.scale, 1e-5),
                gradient_difference(|shift| of(&x, &weight, &bias, &scale, shift), &shift, &gradients.shift, 1e-5),
            ];
            assert!(differences.iter().all(|&difference| difference < 1e-8), "{modulation:?}: {differences:?}");
        }
    }
    let (residual, gate) = (normal(17, rows * width), normal(18, 3 * width));
    let of = |x: &[f64], gate: &[f64]| loss(gated_residual(x, &residual, gate, width, rows_per_condition));
    let (by_input, by_gate) = gated_residual_backward(&x, &share, &gate, width, rows_per_condition);
    assert!(gradient_difference(|x| of(x, &gate), &x, &by_input, 1e-5) < 1e-8);
    assert!(gradient_difference(|gate| of(&x, gate), &gate, &by_gate, 1e-5) < 1e-8);
}

/// A layer's output of input, weight and bias.
type OfParameters<'a> = &'a dyn Fn(&[f64], &[f64], &[f64]) -> Vec<f64>;

#[test]
fn the_gradients_of_causal_and_group_normalization_are_the_slopes_of_their_forward_pass() {
    let (length, width) = (6, 4);
    let (x, share) = (normal(21, 2 * length * width), normal(22, 2 * length * width));
    let (weight, bias) = (normal(23, width), normal(24, width));
    let loss = |output: Vec<f64>| output.iter().zip(&share).map(|(y, share)| y * share).sum::<f64>();
    let check = |name: &str, of: OfParameters, gradients: Gradients| {
        let differences = [
            gradient_difference(|x| loss(of(x, &weight, &bias)), &x, &gradients.input, 1e-5),
            gradient_difference(|w| loss(of(&x, w, &bias)), &weight, &gradients.weight, 1e-5),
            gradient_difference(|b| loss(of(&x, &weight, b)), &bias, &gradients.bias, 1e-5),
        ];
        assert!(differences.iter().all(|&difference| difference < 1e-8), "{name}: {differences:?}");
    };
    let w = Some(&weight[..]);
    for (eps, unbiased) in [(1e-5, false), (0.1, true)] {
        check(
            "causal layer norm",
            &|x, w, b| causal_layer_norm(x, length, width, Some(w), Some(b), eps, unbiased),
            causal_layer_norm_backward(&x, &share, length, width, w, eps, unbiased),
        );
    }
    check(
        "causal RMS norm",
        &|x, w, b| causal_rms_norm(x, length, width, Some(w), Some(b), 1e-5),
        causal_rms_norm_backward(&x, &share, length, width, w, 1e-5),
    );
    // The same elements as two samples of four channels of six positions.
    for groups in [1, 2, 4] {
        check(
            "group norm",
            &|x, w, b| group_norm(x, 4, 6, groups, Some(w), Some(b), 1e-5),
            group_norm_backward(&x, &share, 4, 6, groups, w, 1e-5),
        );
    }
}

#[test]
fn without_scale_and_shift_a_modulated_layer_is_the_plain_one() {
    let (rows, width) = (5, 7);
    let (x, dy) = (normal(31, rows * width), normal(32, rows * width));
    let (weight, bias) = (normal(33, width), normal(34, width));
    let (w, b) = (Some(&weight[..]), Some(&bias[..]));
    let zeros = vec![0.0; 3 * width];
    for modulation in [Modulation::Adaptive, Modulation::Conditional] {
        for zero in [None, Some(&zeros[..])] {
            let condition = Condition { modulation, rows_per_condition: 2, scale: zero, shift: zero };
            let y = modulated_layer_norm(&x, width, w, b, &condition, 1e-5, false);
            assert_eq!(y, layer_norm(&x, width, w, b, 1e-5, false));
            assert_eq!(modulated_rms_norm(&x, width, w, b, &condition, 1e-5), rms_norm(&x, width, w, b, 1e-5));
            let found = modulated_layer_norm_backward(&x, &dy, width, w, b, &condition, 1e-5, false);
            let plain = layer_norm_backward(&x, &dy, width, w, 1e-5, false);
            assert_eq!((found.input, found.weight, found.bias), (plain.input, plain.weight, plain.bias));
            let found = modulated_rms_norm_backward(&x, &dy, width, w, b, &condition, 1e-5);
            let plain = rms_norm_backward(&x, &dy, width, w, 1e-5);
            assert_eq!((found.input, found.weight, found.bias), (plain.input, plain.weight, plain.bias));
        }
    }
}

/// One condition for all rows is a weight 1 + scale and a bias shift; scale and shift are as well made by a linear map.
#[test]
fn one_condition_for_all_rows_is_a_weight_and_a_bias() {
    let (rows, width) = (4, 6);
    let x = normal(41, rows * width);
    let (vector, matrix) = (normal(42, 3), normal(43, 2 * width * 3));
    let made = project(&vector, 3, &matrix);
    for (i, &made) in made.iter().enumerate() {
        let [a, b, c] = [0, 1, 2].map(|k| matrix[3 * i + k] * vector[k]);
        approx::assert_relative_eq!(made, a + b + c, max_relative = 1e-14, epsilon = 1e-14);
    }
    let (scale, shift) = made.split_at(width);
    let weight: Vec<f64> = scale.iter().map(|scale| 1.0 + scale).collect();
    let expected = layer_norm(&x, width, Some(&weight), Some(shift), 1e-5, false);
    for modulation in [Modulation::Adaptive, Modulation::Conditional] {
        let condition = Condition { modulation, rows_per_condition: rows, scale: Some(scale), shift: Some(shift) };
        assert!(difference(&modulated_layer_norm(&x, width, None, None, &condition, 1e-5, false), &expected) < 1e-15);
    }
}

#[test]
fn a_sequence_of_length_one_is_a_row_and_one_group_is_a_row_too() {
    let (rows, width) = (5, 8);
    let (x, dy) = (normal(51, rows * width), normal(52, rows * width));
    let (weight, bias) = (normal(53, width), normal(54, width));
    let (w, b) = (Some(&weight[..]), Some(&bias[..]));
    for unbiased in [false, true] {
        let y = causal_layer_norm(&x, 1, width, w, b, 1e-5, unbiased);
        assert!(difference(&y, &layer_norm(&x, width, w, b, 1e-5, unbiased)) < 1e-14);
        let found = causal_layer_norm_backward(&x, &dy, 1, width, w, 1e-5, unbiased);
        let plain = layer_norm_backward(&x, &dy, width, w, 1e-5, unbiased);
        assert!(difference(&found.input, &plain.input) < 1e-14);
        assert!(difference(&found.weight, &plain.weight) < 1e-14);
        assert!(difference(&found.bias, &plain.bias) < 1e-14);
    }
    assert!(difference(&causal_rms_norm(&x, 1, width, w, b, 1e-5), &rms_norm(&x, width, w, b, 1e-5)) < 1e-14);
    let found = causal_rms_norm_backward(&x, &dy, 1, width, w, 1e-5);
    let plain = rms_norm_backward(&x, &dy, width, w, 1e-5);
    assert!(difference(&found.input, &plain.input) < 1e-14);

    // A channel for each element, so that their weights are the row's.
    assert_eq!(group_norm(&x, width, 1, 1, w, b, 1e-5), layer_norm(&x, width, w, b, 1e-5, false));
    let plain = layer_norm_backward(&x, &dy, width, w, 1e-5, false);
    assert_eq!(group_norm_backward(&x, &dy, width, 1, 1, w, 1e-5), plain);
    // Instance normalization: each channel of each sample is a row.
    assert_eq!(group_norm(&x, 5, width, 5, None, None, 1e-5), layer_norm(&x, width, None, None, 1e-5, false));
    let plain = layer_norm_backward(&x, &dy, width, None, 1e-5, false);
    assert_eq!(group_norm_backward(&x, &dy, 5, width, 5, None, 1e-5).input, plain.input);
}

/// Sequences of `length` positions with a mean of `mean` that grows by `drift` at each.
fn sequence(length: usize, width: usize, mean: f64, drift: f64) -> Vec<f64> {
    let noise = normal(61, length * width);
    // Rounded to 2^-20, so that f64 holds the elements exactly at any of the means.
    let element =
        |(i, x): (usize, f64)| mean + drift * (i / width) as f64 + (x * 2.0_f64.powi(20)).round() / 2.0_f64.powi(20);
    noise.into_iter().enumerate().map(element).collect()
}

/// The statistics of each position, from its whole past again. The mean comes rounded to f64, besides an error that is small against
/// the standard deviation; rstd, of deviations about it, has an error of the square of that.
#[test]
fn causal_statistics_are_those_of_the_whole_past() {
    for (length, width, mean, drift) in
        [(300, 3, 0.0, 0.0), (300, 3, 1e6, 0.0), (200, 5, 1e6, -1e4), (300, 1, -1e6, 7.0)]
    {
        let x = sequence(length, width, mean, drift);
        for (eps, unbiased) in [(0.1, false), (1e-5, width > 1)] {
            let found = causal_statistics(&x, width, eps, unbiased);
            assert_eq!(found.len(), length);
            for (t, found) in found.iter().enumerate() {
                let expected = row_statistics(&x[..(t + 1) * width], eps, unbiased);
                let rounding = 4.0 * f64::EPSILON * mean.abs() + 1e-13 / expected.rstd;
                approx::assert_abs_diff_eq!(found.mean, expected.mean, epsilon = rounding);
                approx::assert_relative_eq!(found.rstd, expected.rstd, max_relative = 1e-13);
            }
        }
        let y = causal_rms_norm(&x, length, width, None, None, 1e-5);
        for t in 0..length {
            let rstd = root_mean_square_rstd(&x[..(t + 1) * width], 1e-5);
            approx::assert_relative_eq!(y[t * width], x[t * width] * rstd, max_relative = 1e-13);
        }
    }
    // Linear in the length: a past of 100,000 positions at every position would be 10^10 elements.
    let x = sequence(100_000, 2, 1e6, 0.0);
    let (found, expected) = (causal_statistics(&x, 2, 1e-5, false), row_statistics(&x, 1e-5, false));
    approx::assert_relative_eq!(found[99_999].rstd, expected.rstd, max_relative = 1e-12);
}

/// What is added to a sequence changes neither its output nor any gradient, in f64 as little as on paper.
#[test]
fn a_mean_of_a_million_costs_causal_normalization_no_digits() {
    for (length, width, drift) in [(2000, 3, 0.0), (500, 4, 16.0)] {
        let dy = normal(62, length * width);
        let of = |mean| {
            let x = sequence(length, width, mean, drift);
            let y = causal_layer_norm(&x, length, width, None, None, 1e-5, false);
            (y, causal_layer_norm_backward(&x, &dy, length, width, None, 1e-5, false))
        };
        let ((y, gradients), (expected, by_hand)) = (of(f64::from(1 << 20)), of(0.0));
        assert!(difference(&y, &expected) < 1e-12);
        assert!(difference(&gradients.input, &by_hand.input) < 1e-12);
        assert!(difference(&gradients.weight, &by_hand.weight) < 1e-12);
    }
}

#[test]
fn a_position_depends_on_its_past_and_not_on_its_future() {
    let (length, width, s) = (6, 3, 3);
    let x = normal(71, 2 * length * width);
    let changed: Vec<f64> = x.iter().enumerate().map(|(i, x)| if i / width == s { x + 1.0 } else { *x }).collect();
    for rms in [false, true] {
        let normalize = |x: &[f64]| {
            if rms {
                causal_rms_norm(x, length, width, None, None, 1e-5)
            } else {
                causal_layer_norm(x, length, width, None, None, 1e-5, false)
            }
        };
        let (y, changed) = (normalize(&x), normalize(&changed));
        assert_eq!(y[..s * width], changed[..s * width]);
        for t in s..length {
            assert_ne!(y[t * width..][..width], changed[t * width..][..width], "position {t}");
        }
        // Nor on another sequence.
        assert_eq!(y[length * width..], changed[length * width..]);
    }
}

#[test]
fn a_constant_sequence_or_group_gives_the_bias_even_without_eps() {
    let (x, weight, bias) = ([0.1; 12], Some(&[2.0; 3][..]), Some(&[0.5; 3][..]));
    assert_eq!(causal_layer_norm(&x, 4, 3, weight, bias, 0.0, false), [0.5; 12]);
    assert_eq!(causal_layer_norm_backward(&x, &[1.0; 12], 4, 3, weight, 0.0, false).input, [0.0; 12]);
    assert_eq!(group_norm(&x, 3, 4, 1, weight, bias, 0.0), [0.5; 12]);
}

#[test]
fn f32_and_f64_values_give_the_same() {
    let (x, scale) = ([1.0_f32, 2.5, -3.0, 4.0, 0.5, 6.0], [0.5_f32, -1.0]);
    let (wide, wide_scale) = (x.map(f64::from), scale.map(f64::from));
    let condition =
        Condition { modulation: Modulation::Adaptive, rows_per_condition: 3, scale: Some(&scale[..]), shift: None };
    let exact = Condition {
        modulation: Modulation::Adaptive,
        rows_per_condition: 3,
        scale: Some(&wide_scale[..]),
        shift: None,
    };
    assert_eq!(
        modulated_layer_norm(&x, 2, None, None, &condition, 1e-5, false),
        modulated_layer_norm(&wide, 2, None, None, &exact, 1e-5, false)
    );
    assert_eq!(causal_statistics(&x, 2, 1e-5, false), causal_statistics(&wide, 2, 1e-5, false));
    // Gradients of the sum are f64 where the values are f32.
    let (by_input, _) = gated_residual_backward(&x, &wide, &scale, 2, 3);
    assert_eq!(by_input[..2], [0.5, -2.5]);
}

#[test]
fn lengths_that_do_not_fit_panic_as_documented() {
    let x = [1.0; 12];
    let condition = |rows_per_condition, scale: &'static [f64]| {
        let condition =
            Condition { modulation: Modulation::Adaptive, rows_per_condition, scale: Some(scale), shift: None };
        modulated_layer_norm(&x, 3, None, None, &condition, 1e-5, false)
    };
    // Four rows, of which three and one are under a condition.
    condition(3, &[0.0; 6]);
    let panics: [(&str, &(dyn Fn() + std::panic::RefUnwindSafe)); 10] = [
        ("no rows to a condition", &|| drop(condition(0, &[0.0; 6]))),
        ("a condition too few", &|| drop(condition(3, &[0.0; 3]))),
        ("a condition too many", &|| drop(condition(3, &[0.0; 9]))),
        ("no residual", &|| drop(gated_residual(&x, &[], &[0.0; 3], 3, 4))),
        ("a short gate", &|| drop(gated_residual(&x, &x, &[0.0; 2], 3, 4))),
        ("a short gradient of the sum", &|| drop(gated_residual_backward(&x, &[0.0], &[0.0; 3], 3, 4))),
        ("half a vector", &|| drop(project(&x, 3, &[0.0; 4]))),
        ("half a sequence", &|| drop(causal_layer_norm(&x, 3, 3, None, None, 1e-5, false))),
        ("no length", &|| drop(causal_rms_norm(&x, 0, 3, None, None, 1e-5))),
        ("half a group", &|| drop(group_norm(&x, 3, 4, 2, None, None, 1e-5))),
    ];
    for (name, panics) in panics {
        assert!(catch_unwind(panics).is_err(), "{name}");
    }
}
