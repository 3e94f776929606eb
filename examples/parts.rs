//! Rows of more elements than a kernel takes (2^24): each is measured in parts, the moments of the parts are merged, and every part is
//! normalized by the moments of the whole. The same goes for rows that are spread over several devices; then 16 bytes for each row of each
//! part are all that goes from device to device, and 8 in the backward pass. Both passes, beside the same in f64.
//!
//!     cargo run --release --example parts [-- --width 20000003] [-- --parts 3]
//!
//! wgpu's environment variables WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.

use std::error::Error;
use std::ops::Range;

use gpu_layer_norm::reference::{layer_norm_backward, row_statistics};
use gpu_layer_norm::{
    Affine, Bindings, GpuDevice, GpuLayerNorm, GpuMoments, GpuTensor, LayerNormConfig, Region, Tensor, WideMoments,
};
use lexopt::prelude::{Long, ValueExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

const ROWS: usize = 1;
const EPS: f32 = 1e-5;

/// A part of the rows: which elements, their layer, and what is known of the rows.
struct Part {
    columns: Range<usize>,
    layer_norm: GpuLayerNorm,
    moments: GpuMoments,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut width, mut parts) = (20_000_003, 3);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("width") => width = arguments.value()?.parse()?,
            Long("parts") => parts = arguments.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    if parts == 0 || width < parts {
        return Err(
            format!("{parts} parts of {width} elements; at least one part, and one element in each, would do").into()
        );
    }
    let device = GpuDevice::new()?;
    println!("adapter: {} ({:?})", device.adapter_info().name, device.adapter_info().backend);

    // A mean of a million standard deviations.
    let mut rng = StdRng::seed_from_u64(5);
    let mut random =
        |mean: f32| -> Vec<f32> { (0..ROWS * width).map(|_| mean + rng.sample::<f32, _>(StandardNormal)).collect() };
    let (values, output_gradient_values) = (random(1e6), random(0.0));
    let input = GpuTensor::upload(&device, &Tensor::from_f32([ROWS, width], values.clone())?)?;
    let output_gradient =
        GpuTensor::upload(&device, &Tensor::from_f32([ROWS, width], output_gradient_values.clone())?)?;
    let output = GpuTensor::zeros(&device, [ROWS, width])?;
    let input_gradient = GpuTensor::zeros(&device, [ROWS, width])?;

    // Each part is a layer of its own, here on one device.
    let parts = (0..parts)
        .map(|part| {
            let columns = width * part / parts..width * (part + 1) / parts;
            let config = LayerNormConfig::new(columns.len()).eps(EPS).affine(Affine::None).expect_nothing();
            let layer_norm = GpuLayerNorm::new(&device, &config)?;
            Ok(Part { columns, layer_norm, moments: GpuMoments::zeros(&device, [ROWS])? })
        })
        .collect::<Result<Vec<_>, gpu_layer_norm::Error>>()?;
    let rows = ROWS as u64;
    let of = |part: &Part, tensor: &GpuTensor| {
        Region::from(tensor).offset(part.columns.start as u64).row_stride(width as u64)
    };

    // Forward: measure, merge, normalize.
    let mut whole = [WideMoments::NONE; ROWS];
    for part in &parts {
        part.layer_norm.execute(&device, &Bindings::moments(rows, of(part, &input), part.moments.tensor()))?;
        for (whole, of_part) in whole.iter_mut().zip(part.moments.download()?) {
            *whole = whole.merge(of_part.into());
        }
    }
    let whole = whole.iter().map(|row| row.round()).collect::<Result<Vec<_>, _>>()?;
    for part in &parts {
        part.moments.write(&whole)?;
        let bindings = Bindings::normalize(rows, of(part, &input), part.moments.tensor(), of(part, &output));
        part.layer_norm.execute(&device, &bindings)?;
    }

    // Backward: two sums a row, added up, and the gradients.
    let mut sums = [0.0_f32; 2 * ROWS];
    for part in &parts {
        let of_part = GpuTensor::zeros(&device, [ROWS, 2])?;
        let dy = of(part, &output_gradient);
        let bindings = Bindings::gradient_sums(rows, of(part, &input), part.moments.tensor(), dy, &of_part);
        part.layer_norm.execute(&device, &bindings)?;
        sums.iter_mut().zip(&*of_part.download()?.values()).for_each(|(sum, of_part)| *sum += of_part);
    }
    let sums = GpuTensor::upload(&device, &Tensor::from_f32([ROWS, 2], sums)?)?;
    for part in &parts {
        let (dy, dx) = (of(part, &output_gradient), of(part, &input_gradient));
        let bindings = Bindings::gradients(rows, of(part, &input), part.moments.tensor(), dy, &sums, dx);
        part.layer_norm.execute(&device, &bindings)?;
    }

    let (output, input_gradient) = (output.download()?, input_gradient.download()?);
    let (mut worst, mut worst_gradient) = (0.0_f64, 0.0_f64);
    for (row, values) in values.chunks(width).enumerate() {
        let statistics = row_statistics(values, f64::from(EPS), false);
        let elements = row * width..(row + 1) * width;
        for (&x, &y) in values.iter().zip(&output.values()[elements.clone()]) {
            let normalized = (f64::from(x) - statistics.mean) * statistics.rstd;
            worst = worst.max((f64::from(y) - normalized).abs() / (normalized.abs() / 4.0).max(1.0));
        }
        let dy = &output_gradient_values[elements.clone()];
        let exact = layer_norm_backward(values, dy, width, None, f64::from(EPS), false).input;
        let largest = exact.iter().fold(0.0_f64, |largest, dx| largest.max(dx.abs()));
        for (&found, exact) in input_gradient.values()[elements].iter().zip(&exact) {
            worst_gradient = worst_gradient.max((f64::from(found) - exact).abs() / largest);
        }
    }
    println!("{ROWS} row of {width} elements in {} parts, mean 1e6, standard deviation 1", parts.len());
    // Twice what whole rows of more than 65,536 elements are allowed.
    println!("largest error of x̂ {worst:.1e} (4e-6 is allowed), of dx {worst_gradient:.1e} of the largest (8e-6)");
    if worst > 4e-6 || worst_gradient > 8e-6 {
        return Err("over the bound".into());
    }
    Ok(())
}
