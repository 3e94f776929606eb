//! Group normalization: Wu and He, "Group Normalization", 2018.

use super::{Gradients, at, check_output_gradient, check_parameter, exact};
use super::{layer_norm, layer_norm_backward};

/// Group normalization of `input`, samples of `channels` × `positions` elements one after another. The channels of a sample fall into
/// `groups` of the same size, one after another, and with mean and variance (biased) of the whole group, weight and bias of the element's
/// channel,
///
/// y = (x − mean) · rstd · weight + bias,  rstd = 1 / sqrt(variance + eps)
///
/// An absent weight is 1, an absent bias 0. With as many groups as channels this is instance normalization, with one group layer
/// normalization but for weight and bias, which here belong to channels.
///
/// One sample of two channels of two positions:
/// ```
/// use gpu_layer_norm::reference::group_norm;
///
/// // A group for each channel, then one for both: mean 4, variance 10, and the channel's own weight.
/// assert_eq!(group_norm(&[1.0, 3.0, 4.0, 8.0], 2, 2, 2, None, None, 0.0), [-1.0, 1.0, -1.0, 1.0]);
/// let y = group_norm(&[1.0, 1.0, 7.0, 7.0], 2, 2, 1, Some(&[2.0, 5.0]), Some(&[0.5, 0.0]), 0.0);
/// assert_eq!(y, [-1.5, -1.5, 5.0, 5.0]);
/// ```
///
/// # Panics
/// If `channels` · `positions` is 0 or does not divide the length, `groups` is 0 or does not divide `channels`, or weight or bias have
/// another length than `channels`.
pub fn group_norm<T: Copy + Into<f64>>(
    input: &[T],
    channels: usize,
    positions: usize,
    groups: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: f64,
) -> Vec<f64> {
    let width = group_width(input, channels, positions, groups);
    check_parameter("weight", weight, channels);
    check_parameter("bias", bias, channels);
    let affine = |(i, x): (usize, f64)| {
        let channel = i / positions % channels;
        x * at(weight, channel, 1.0) + at(bias, channel, 0.0)
    };
    layer_norm(input, width, None, None, eps, false).into_iter().enumerate().map(affine).collect()
}

/// The backward pass of [`group_norm`], from the gradient of a loss by its output, dy. The input's gradient is that of
/// [`layer_norm_backward`] in each group, with g = dy · weight; those by weight and bias, `channels` values each, are Σ dy · x̂ and Σ dy
/// over all elements of the channel.
///
/// ```
/// use gpu_layer_norm::reference::group_norm_backward;
///
/// // Two samples of one channel with x̂ = −1, 1 each.
/// let gradients = group_norm_backward(&[1.0, 3.0, 4.0, 8.0], &[1.0, 0.0, 0.5, 2.0], 1, 2, 1, None, 0.0);
/// assert_eq!(gradients.weight, [-1.0 - 0.5 + 2.0]);
/// assert_eq!(gradients.bias, [3.5]);
/// ```
///
/// # Panics
/// As [`group_norm`], and if `output_gradient` has another length than `input`.
pub fn group_norm_backward<T: Copy + Into<f64>>(
    input: &[T],
    output_gradient: &[T],
    channels: usize,
    positions: usize,
    groups: usize,
    weight: Option<&[T]>,
    eps: f64,
) -> Gradients {
    let width = group_width(input, channels, positions, groups);
    check_parameter("weight", weight, channels);
    check_output_gradient(input, output_gradient);
    let normalized = layer_norm(input, width, None, None, eps, false);
    let mut g = Vec::with_capacity(input.len());
    let (mut by_weight, mut by_bias) = (vec![0.0; channels], vec![0.0; channels]);
    for (i, (x, &dy)) in normalized.iter().zip(output_gradient).enumerate() {
        let channel = i / positions % channels;
        g.push(dy.into() * at(weight, channel, 1.0));
        by_weight[channel] += dy.into() * x;
        by_bias[channel] += dy.into();
    }
    let by_input = layer_norm_backward(&exact(input), &g, width, None, eps, false).input;
    Gradients { input: by_input, weight: by_weight, bias: by_bias }
}

/// Elements of a group.
fn group_width<T>(input: &[T], channels: usize, positions: usize, groups: usize) -> usize {
    let (values, sample) = (input.len(), channels * positions);
    assert!(
        sample > 0 && values.is_multiple_of(sample),
        "{values} values are no samples of {channels} channels of {positions}"
    );
    assert!(groups > 0 && channels.is_multiple_of(groups), "{channels} channels are no {groups} groups");
    channels / groups * positions
}
