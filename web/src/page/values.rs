//! Random values, the same for the same seed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Exp1, StandardNormal};

/// How values are spread about their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distribution {
    /// A bell.
    Normal,
    /// All values between two ends alike.
    Uniform,
    /// Most values a little below the mean, few far above it.
    Exponential,
}

impl Distribution {
    /// The distributions by the names that the form has for them.
    pub(super) const CHOICES: [(&str, Self); 3] =
        [("normal", Self::Normal), ("uniform", Self::Uniform), ("exponential", Self::Exponential)];
}

/// What random values are for. Those for one thing do not change when something else needs some too.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Input,
    Weight,
    Bias,
    Scale,
    Shift,
}

/// So many values of a distribution with this mean and standard deviation.
pub(super) fn drawn(
    distribution: Distribution,
    mean: f64,
    deviation: f64,
    count: usize,
    seed: u64,
    stream: Stream,
) -> Vec<f32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_mul(8).wrapping_add(stream as u64));
    let mut standard = || match distribution {
        Distribution::Normal => rng.sample::<f64, _>(StandardNormal),
        Distribution::Uniform => rng.random_range(-3.0_f64.sqrt()..3.0_f64.sqrt()),
        Distribution::Exponential => rng.sample::<f64, _>(Exp1) - 1.0,
    };
    (0..count).map(|_| (mean + deviation * standard()) as f32).collect()
}

/// So many values from `middle - 1/2` to `middle + 1/2`, as weights, biases, scales and shifts have them.
pub(super) fn about(middle: f64, count: usize, seed: u64, stream: Stream) -> Vec<f32> {
    drawn(Distribution::Uniform, middle, 1.0 / 12.0_f64.sqrt(), count, seed, stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distribution_has_the_mean_and_the_deviation_that_are_asked_for() {
        for (name, distribution) in Distribution::CHOICES {
            let values = drawn(distribution, 5.0, 2.0, 100_000, 7, Stream::Input);
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / values.len() as f64;
            // The standard errors of both are some 0.006 and, for the exponential distribution, 0.018.
            assert!((mean - 5.0).abs() < 0.04 && (variance.sqrt() - 2.0).abs() < 0.1, "{name}: {mean} {variance}");
        }
    }

    #[test]
    fn values_hang_on_the_seed_and_on_what_they_are_for() {
        let values = |seed, stream| drawn(Distribution::Normal, 0.0, 1.0, 4, seed, stream);
        assert_eq!(values(1, Stream::Input), values(1, Stream::Input));
        assert_ne!(values(1, Stream::Input), values(2, Stream::Input));
        assert_ne!(values(1, Stream::Input), values(1, Stream::Weight));
    }
}
