//! Normalization over any axes, and of groups of channels. The rows are gathered, normalized in f64 and put back.

use gpu_layer_norm::{
    Affine, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Normalization, Tensor, reference,
};

use super::Outcome;
use super::common::gradients::Bounds;
use super::common::{Data, error_bound, scale};

const EPS: f32 = 1e-5;

fn told(error: Error) -> String {
    error.to_string()
}

/// Where the elements of the rows are in a tensor, row by row.
fn places(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let order: Vec<_> = (0..shape.len()).filter(|axis| !axes.contains(axis)).chain(axes.iter().copied()).collect();
    let place = |element: usize| {
        let (mut rest, mut place) = (element, 0);
        for &axis in order.iter().rev() {
            place += rest % shape[axis] * shape[axis + 1..].iter().product::<usize>();
            rest /= shape[axis];
        }
        place
    };
    (0..shape.iter().product()).map(place).collect()
}

/// Weights about 1, and biases.
fn parameters(count: usize) -> [Vec<f32>; 2] {
    let weight = Data::STANDARD.values(1, count, 11).iter().map(|x| 1.0 + x / 4.0).collect();
    [weight, Data::STANDARD.values(1, count, 12)]
}

/// A layer with these parameters.
fn layer(device: &GpuDevice, config: LayerNormConfig, [weight, bias]: &[Vec<f32>; 2]) -> Result<GpuLayerNorm, String> {
    let layer =
        GpuLayerNorm::new(device, &config.affine(Affine::WeightAndBias).eps(EPS).expect_nothing()).map_err(told)?;
    let tensor = |values: &Vec<f32>| Tensor::from_f32(layer.config().parameter_shape(), values.clone());
    layer.set_weight(&tensor(weight).map_err(told)?).map_err(told)?;
    layer.set_bias(&tensor(bias).map_err(told)?).map_err(told)?;
    Ok(layer)
}

/// That y is x̂ · weight + bias, as near as x̂ and the rounding of product and sum allow.
fn compare(what: &str, width: usize, elements: impl Iterator<Item = (f32, f64, f32, f32)>) -> Outcome {
    for (i, (y, normalized, weight, bias)) in elements.enumerate() {
        let product = normalized * f64::from(weight);
        let exact = product + f64::from(bias);
        let allowed = error_bound(width) * scale(normalized) * f64::from(weight).abs()
            + f64::from(f32::EPSILON) * (product.abs() + exact.abs());
        let error = (f64::from(y) - exact).abs();
        if error.is_nan() || error > allowed {
            return Err(format!("{what}, element {i}: {y:e} in place of {exact:e} ± {allowed:e}"));
        }
    }
    Ok(())
}

/// Every set of the axes of a tensor, and images with channels first of which vectors divide the pixels.
pub async fn every_set(device: &GpuDevice) -> Outcome {
    let shape = vec![3, 4, 5, 6];
    let subsets = (1..16_u32).map(|set| (0..4).filter(|axis| set >> axis & 1 == 1).collect::<Vec<usize>>());
    let mut cases: Vec<_> = subsets.map(|axes| (shape.clone(), axes)).collect();
    cases.extend([(vec![2, 40, 8, 8], vec![1]), (vec![2, 33, 3, 5], vec![1]), (vec![8, 6, 16], vec![1, 0])]);
    for (i, (shape, axes)) in cases.into_iter().enumerate() {
        let rms = i % 3 == 2;
        let sizes: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
        let (width, places) = (sizes.iter().product(), places(&shape, &axes));
        let config = if rms { LayerNormConfig::rms(sizes) } else { LayerNormConfig::new(sizes) };
        let config = config.axes(axes.iter().map(|&axis| axis as isize));
        let [weight, bias] = parameters(width);
        let layer = layer(device, config, &[weight.clone(), bias.clone()])?;
        let values = Data::Normal { mean: 0.5, std: 1.0 }.values(1, places.len(), 7);
        let input = Tensor::from_f32(shape.clone(), values.clone()).map_err(told)?;
        let output = layer.run_async(device, &input).await.map_err(told)?;
        let rows: Vec<f32> = places.iter().map(|&place| values[place]).collect();
        let exact = match rms {
            true => reference::rms_norm(&rows, width, None, None, EPS.into()),
            false => reference::layer_norm(&rows, width, None, None, EPS.into(), false),
        };
        let output = output.values();
        let of = |(k, &place): (usize, &usize)| (output[place], exact[k], weight[k % width], bias[k % width]);
        compare(&format!("axes {axes:?} of {shape:?}"), width, places.iter().enumerate().map(of))?;
    }
    Ok(())
}

pub async fn groups(device: &GpuDevice) -> Outcome {
    for (groups, shape) in [(2, vec![3, 6, 4, 4]), (6, vec![3, 6, 5, 3]), (1, vec![2, 4, 70]), (3, vec![2, 12, 1])] {
        let (channels, positions) = (shape[1], shape[2..].iter().product::<usize>());
        let width = channels / groups * positions;
        let [weight, bias] = parameters(channels);
        let layer = layer(device, LayerNormConfig::group_norm(groups, &shape[1..]), &[weight.clone(), bias.clone()])?;
        let values = Data::Normal { mean: 0.5, std: 1.0 }.values(1, shape.iter().product(), 7);
        let input = Tensor::from_f32(shape.clone(), values.clone()).map_err(told)?;
        let output = layer.run_async(device, &input).await.map_err(told)?;
        let exact = reference::layer_norm(&values, width, None, None, EPS.into(), false);
        let channel = |i: usize| i / positions % channels;
        let of = |(i, &y): (usize, &f32)| (y, exact[i], weight[channel(i)], bias[channel(i)]);
        compare(&format!("{groups} groups of {shape:?}"), width, output.values().iter().enumerate().map(of))?;
    }
    Ok(())
}

pub async fn gradients(device: &GpuDevice) -> Outcome {
    for (shape, axes) in [(vec![2, 40, 8, 8], vec![1]), (vec![2, 33, 3, 5], vec![1]), (vec![3, 4, 5, 6], vec![0, 2])] {
        let sizes: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
        let (width, places) = (sizes.iter().product::<usize>(), places(&shape, &axes));
        let [weight, bias] = parameters(width);
        let config = LayerNormConfig::new(sizes).axes(axes.iter().map(|&axis| axis as isize));
        let layer = layer(device, config, &[weight.clone(), bias])?;
        let values = Data::Normal { mean: 0.5, std: 1.0 }.values(1, places.len(), 7);
        let output_gradient = Data::STANDARD.values(1, places.len(), 8);
        let upload = |values: &Vec<f32>| {
            let tensor = Tensor::from_f32(shape.clone(), values.clone())?;
            GpuTensor::upload(device, &tensor)
        };
        let (input, dy) = (upload(&values).map_err(told)?, upload(&output_gradient).map_err(told)?);
        let (_, statistics) = layer.forward_for_training(device, &input).map_err(told)?;
        let found = layer.backward(device, &input, &dy, Some(&statistics)).map_err(told)?;
        let gathered = |values: &[f32]| places.iter().map(|&place| values[place]).collect::<Vec<f32>>();
        let how = (Normalization::LayerNorm, f64::from(EPS), false);
        let bounds = Bounds::new(how, width, &gathered(&values), &gathered(&output_gradient), Some(&weight));
        let dx = gathered(&found.input.download_async().await.map_err(told)?.values());
        let mut all = vec![("dx", dx, &bounds.exact.input, &bounds.input)];
        for (what, tensor, exact, allowed) in [
            ("dweight", found.weight, &bounds.exact.weight, &bounds.weight),
            ("dbias", found.bias, &bounds.exact.bias, &bounds.bias),
        ] {
            let tensor = tensor.ok_or("a gradient is missing")?.download_async().await.map_err(told)?;
            all.push((what, tensor.into_values(), exact, allowed));
        }
        for (what, found, exact, allowed) in all {
            if found.len() != exact.len() {
                return Err(format!("{what} has {} elements in place of {}", found.len(), exact.len()));
            }
            for (i, (found, (exact, allowed))) in found.iter().zip(exact.iter().zip(allowed)).enumerate() {
                let error = (f64::from(*found) - exact).abs() - f64::from(f32::EPSILON) / 2.0 * exact.abs();
                if error.is_nan() || error > *allowed {
                    let at = format!("{what} over {axes:?} of {shape:?}, element {i}");
                    return Err(format!("{at}: {found:e} in place of {exact:e}, {allowed:e} off is allowed"));
                }
            }
        }
    }
    Ok(())
}
