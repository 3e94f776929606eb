//! A result beside the f64 reference.

use gpu_layer_norm::{Modulation, Normalization, StorageType, Tensor, Variance, reference};

use super::task::Task;

/// How far a result is from the reference.
pub(super) struct Comparison {
    /// What the reference says.
    pub exact: Vec<f64>,
    /// The largest |result − reference|; infinite if one of the two is no finite number where the other is.
    pub largest_error: f64,
    /// The largest error as a part of what the crate's documentation allows that element; over 1 is wrong.
    pub share_of_bound: f64,
}

impl Comparison {
    /// Compares what a task has given with what it should give.
    pub(super) fn new(task: &Task, output: &Tensor) -> Self {
        let elements = expected(task);
        let storage = output.storage();
        let mut comparison =
            Self { exact: Vec::with_capacity(elements.len()), largest_error: 0.0, share_of_bound: 0.0 };
        for (&found, element) in output.values().iter().zip(&elements) {
            let error = error(found, element.y, storage);
            comparison.largest_error = comparison.largest_error.max(error);
            // No bound allows an infinite error, and there is none where y is no number.
            let share = if error.is_finite() { error / element.bound(task.width(), storage) } else { error };
            comparison.share_of_bound = comparison.share_of_bound.max(share);
            comparison.exact.push(element.y);
        }
        comparison
    }
}

/// What an element of the output should be, and what its error may hang on; the names are those of the documentation of
/// [`gpu_layer_norm::Bindings`].
struct Element {
    /// The normalized value, x̂.
    normalized: f64,
    /// y, in f64.
    y: f64,
    /// What x̂ is multiplied by, W.
    factor: f64,
    /// The magnitudes in it, W_m.
    factor_magnitude: f64,
    /// Those of what is added, B_m.
    summand_magnitude: f64,
}

impl Element {
    fn bound(&self, width: usize, storage: StorageType) -> f64 {
        let Self { normalized, y, factor, factor_magnitude, summand_magnitude } = self;
        let of_normalized = if width > 65_536 { 2e-6 } else { 1e-6 };
        let of_normalized = of_normalized * (normalized.abs() / 4.0).max(1.0) * factor.abs();
        let of_roundings = 3.0 * normalized.abs() * factor_magnitude + 2.0 * summand_magnitude + y.abs();
        // Half a unit in the last place of a number of this size, and of a subnormal one.
        let of_storage = match storage {
            StorageType::F32 => f64::from(f32::MIN_POSITIVE),
            StorageType::F16 => y.abs() * 2_f64.powi(-11) + 2_f64.powi(-25),
            StorageType::Bf16 => y.abs() * 2_f64.powi(-8) + f64::from(f32::MIN_POSITIVE),
        };
        of_normalized + 2_f64.powi(-23) * of_roundings + of_storage
    }
}

/// How far a value is from another. What is no number is as far from one as can be, and so is an infinity, unless the other is
/// infinite too once it is stored in the same way.
fn error(found: f32, exact: f64, storage: StorageType) -> f64 {
    let stored =
        Tensor::from_f32([], [exact as f32]).map_or(exact as f32, |exact| exact.to_storage(storage).values()[0]);
    match (found.is_finite(), stored.is_finite()) {
        (true, true) => (f64::from(found) - exact).abs(),
        _ if found == stored || found.is_nan() && stored.is_nan() => 0.0,
        // Rounding may go either way where numbers end.
        _ if near_the_end(found, exact, storage) => 0.0,
        _ => f64::INFINITY,
    }
}

/// Whether both are at most a part in a thousand below the largest number of the storage type, or beyond it, on the same side.
fn near_the_end(found: f32, exact: f64, storage: StorageType) -> bool {
    let largest = match storage {
        StorageType::F32 => f64::from(f32::MAX),
        StorageType::F16 => gpu_layer_norm::half::f16::MAX.to_f64(),
        StorageType::Bf16 => gpu_layer_norm::half::bf16::MAX.to_f64(),
    };
    !found.is_nan()
        && exact.abs() >= largest * 0.999
        && f64::from(found.abs()) >= largest * 0.999
        && found.is_sign_positive() == exact.is_sign_positive()
}

/// The f64 reference of a task: x̂ by the crate's reference, and from there to y in the way that the config says.
fn expected(task: &Task) -> Vec<Element> {
    let Task { config, input, weight, bias, condition } = task;
    let (values, width) = (input.values(), task.width());
    if values.is_empty() {
        return Vec::new();
    }
    let eps = f64::from(config.eps_value());
    let is_unbiased = config.variance_kind() == Variance::Unbiased;
    let length = task.positions();
    let normalized = match (config.normalization_kind(), config.is_causal()) {
        (Normalization::LayerNorm, false) => reference::layer_norm(&values, width, None, None, eps, is_unbiased),
        (Normalization::RmsNorm, false) => reference::rms_norm(&values, width, None, None, eps),
        (Normalization::LayerNorm, true) => {
            reference::causal_layer_norm(&values, length, width, None, None, eps, is_unbiased)
        }
        (Normalization::RmsNorm, true) => reference::causal_rms_norm(&values, length, width, None, None, eps),
    };
    let list = |tensor: Option<&Tensor>| tensor.map(|tensor| tensor.values().into_owned());
    let (weight, bias) = (list(weight.as_ref()), list(bias.as_ref()));
    let scale = list(condition.as_ref().map(|condition| &condition.scale));
    let shift = list(condition.as_ref().map(|condition| &condition.shift));
    let rows_per_condition = condition.as_ref().map_or(1, |condition| condition.rows_per_condition as usize);
    let at =
        |values: &Option<Vec<f32>>, i: usize, absent| values.as_ref().map_or(absent, |values| f64::from(values[i]));
    let element = |(i, &normalized): (usize, &f64)| {
        let (row, column) = (i / width, i % width);
        let c = row / rows_per_condition * width + column;
        let (weight, bias) = (at(&weight, column, 1.0), at(&bias, column, 0.0));
        let (scale, shift) = (at(&scale, c, 0.0), at(&shift, c, 0.0));
        let (factor, summand, factor_magnitude, summand_magnitude) = match config.modulation_kind() {
            Modulation::Adaptive => {
                let magnitude = 1.0 + scale.abs();
                let (factor, summand) = (weight * (1.0 + scale), bias * (1.0 + scale) + shift);
                (factor, summand, weight.abs() * magnitude, bias.abs() * magnitude + shift.abs())
            }
            Modulation::Conditional => {
                (weight + scale, bias + shift, weight.abs() + scale.abs(), bias.abs() + shift.abs())
            }
        };
        Element { normalized, y: normalized * factor + summand, factor, factor_magnitude, summand_magnitude }
    };
    normalized.iter().enumerate().map(element).collect()
}

#[cfg(test)]
mod tests {
    use gpu_layer_norm::LayerNormConfig;

    use super::*;

    fn task(values: [f32; 4]) -> Task {
        Task::plain(LayerNormConfig::new(4), Tensor::from_f32([1, 4], values).unwrap())
    }

    #[test]
    fn a_wrong_result_is_over_the_bound_and_a_rounded_one_is_not() {
        let task = task([1.0, 2.0, 4.0, 1.0]);
        let exact = Comparison::new(&task, &task.input).exact;
        let rounded: Vec<f32> = exact.iter().map(|&y| y as f32).collect();
        let compare = |values: Vec<f32>, storage| {
            let output = Tensor::from_f32([1, 4], values).unwrap().to_storage(storage);
            Comparison::new(&task, &output).share_of_bound
        };
        for storage in StorageType::ALL {
            assert!(compare(rounded.clone(), storage) <= 1.0, "{storage}");
        }
        let mut wrong = rounded;
        wrong[2] += 1e-5;
        assert!(compare(wrong.clone(), StorageType::F32) > 1.0);
        wrong[2] = f32::NAN;
        assert_eq!(compare(wrong, StorageType::F32), f64::INFINITY);
    }

    #[test]
    fn a_row_of_no_numbers_should_come_out_as_none() {
        let task = task([1.0, f32::NAN, 4.0, 1.0]);
        let compare =
            |values: [f32; 4]| Comparison::new(&task, &Tensor::from_f32([1, 4], values).unwrap()).share_of_bound;
        assert_eq!(compare([f32::NAN; 4]), 0.0);
        assert_eq!(compare([0.0, f32::NAN, f32::NAN, f32::NAN]), f64::INFINITY);
    }

    #[test]
    fn what_is_too_large_for_the_storage_type_should_be_infinite() {
        assert_eq!(error(f32::INFINITY, 1e6, StorageType::F16), 0.0);
        assert_eq!(error(f32::NEG_INFINITY, 1e6, StorageType::F16), f64::INFINITY);
        assert_eq!(error(f32::INFINITY, 1e3, StorageType::F16), f64::INFINITY);
        assert_eq!(error(65_504.0, 65_530.0, StorageType::F16), 0.0);
    }
}
