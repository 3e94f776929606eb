//! Rows in parts: measured, merged and normalized part by part, forward and backward, where single rows are compared as a whole.

use gpu_layer_norm::{
    Affine, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Normalization, RowMoments, Tensor,
};

use super::Outcome;
use super::common::gradients::GradientCase;
use super::common::{ACCURACY_DATA, scale};

fn told(error: Error) -> String {
    error.to_string()
}

/// Both passes of rows that are cut in two, at every mean and with outliers, within twice the bounds of whole rows.
pub async fn both_passes(device: &GpuDevice) -> Outcome {
    for (i, (width, cut)) in [(5, 2), (64, 32), (129, 100), (1000, 500), (4097, 17)].into_iter().enumerate() {
        for (j, data) in ACCURACY_DATA.into_iter().enumerate() {
            let normalization = if (i + j) % 3 == 0 { Normalization::RmsNorm } else { Normalization::LayerNorm };
            let case = GradientCase { normalization, affine: Affine::Weight, ..GradientCase::new(5, width, data, 3) };
            check(device, &case, cut).await.map_err(|error| format!("{width} cut at {cut}, {data}: {error}"))?;
        }
    }
    Ok(())
}

async fn check(device: &GpuDevice, case: &GradientCase, cut: usize) -> Outcome {
    let &GradientCase { rows, width, normalization, affine, .. } = case;
    let columns = [0..cut, cut..width];
    let mut parts = Vec::new();
    let mut whole = vec![RowMoments::NONE; rows];
    for columns in &columns {
        let of_part = |values: &[f32]| {
            let rows: Vec<f32> = values.chunks(width).flat_map(|row| row[columns.clone()].to_vec()).collect();
            Tensor::from_f32([values.len() / width, columns.len()], rows)
        };
        let upload = |values: &[f32]| GpuTensor::upload(device, &of_part(values)?);
        let config = match normalization {
            Normalization::LayerNorm => LayerNormConfig::new(columns.len()),
            Normalization::RmsNorm => LayerNormConfig::rms(columns.len()),
        };
        let config = config.affine(affine).eps(case.eps).expect_nothing();
        let layer = GpuLayerNorm::new(device, &config).map_err(told)?;
        let weight = Tensor::from_f32([columns.len()], case.weight[columns.clone()].to_vec()).map_err(told)?;
        layer.set_weight(&weight).map_err(told)?;
        let input = upload(&case.input).map_err(told)?;
        let output_gradient = upload(&case.output_gradient).map_err(told)?;
        let moments = layer.moments(device, &input).map_err(told)?;
        for (whole, of_part) in whole.iter_mut().zip(moments.download_async().await.map_err(told)?) {
            *whole = whole.merge(of_part).map_err(told)?;
        }
        parts.push((layer, input, output_gradient, moments));
    }

    let bounds = case.bounds();
    let mut sums = vec![0.0_f32; 2 * rows];
    for ((layer, input, output_gradient, moments), columns) in parts.iter().zip(&columns) {
        moments.write(&whole).map_err(told)?;
        let output = layer.normalize(device, input, moments).map_err(told)?.download_async().await.map_err(told)?;
        let normalized = super::common::normalize(normalization, &case.input, width, case.eps, false);
        let expected = |i: usize| normalized[i / columns.len() * width + columns.start + i % columns.len()];
        for (i, &y) in output.values().iter().enumerate() {
            let weight = f64::from(case.weight[columns.start + i % columns.len()]);
            let exact = expected(i) * weight;
            let allowed = 2e-6 * scale(expected(i)) * weight.abs() + f64::from(f32::EPSILON) * exact.abs();
            let error = (f64::from(y) - exact).abs();
            if error.is_nan() || error > allowed {
                return Err(format!("element {i}: {y:e} in place of {exact:e} ± {allowed:e}"));
            }
        }
        let of_part = layer.gradient_sums(device, input, moments, output_gradient).map_err(told)?;
        let of_part = of_part.download_async().await.map_err(told)?;
        sums.iter_mut().zip(&*of_part.values()).for_each(|(sum, of_part)| *sum += of_part);
    }
    let sums = Tensor::from_f32([rows, 2], sums).map_err(told)?;
    let sums = GpuTensor::upload(device, &sums).map_err(told)?;
    let (mut dx, mut dweight) = (vec![0.0; rows * width], Vec::new());
    for ((layer, input, output_gradient, moments), columns) in parts.iter().zip(&columns) {
        let found = layer.gradients(device, input, moments, output_gradient, &sums).map_err(told)?;
        let of_part = found.input.download_async().await.map_err(told)?;
        for (row, of_part) in dx.chunks_mut(width).zip(of_part.values().chunks(columns.len())) {
            row[columns.clone()].copy_from_slice(of_part);
        }
        let weight = found.weight.ok_or("the gradient of the weight is missing")?;
        dweight.extend(weight.download_async().await.map_err(told)?.into_values());
    }
    for (what, found, exact, allowed) in
        [("dx", dx, &bounds.exact.input, &bounds.input), ("dweight", dweight, &bounds.exact.weight, &bounds.weight)]
    {
        for (i, (found, (exact, allowed))) in found.iter().zip(exact.iter().zip(allowed)).enumerate() {
            let error = (f64::from(*found) - exact).abs();
            if error.is_nan() || error > 2.0 * allowed + f64::from(f32::EPSILON) * exact.abs() {
                return Err(format!("{what}, element {i}: {found:e} in place of {exact:e} ± {:e}", 2.0 * allowed));
            }
        }
    }
    Ok(())
}
