//! Rows of which each device has a part, against the f64 reference.

use gpu_layer_norm::kernel::{Capabilities, Kernel, Plan, Problem, Role};
use gpu_layer_norm::reference::{self, Condition};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, GpuMoments, GpuTensor, LayerNormConfig, Modulation,
    Normalization, Operation, Region, RowMoments, StorageType, Tensor, Variance, wgpu,
};
use libtest_mimic::Failed;

use crate::Outcome;
use crate::common::gradients::{Bounds, Found, GradientCase, strategies};
use crate::common::sample::download;
use crate::common::{ACCURACY_DATA, AFFINES, Case, Data, bare, geometries, scale, step, submit};

/// What is allowed where whole rows are allowed 1: what parts round once more.
const PARTS: f64 = 2.0;

/// The forward pass, and the backward pass, of rows whose columns are cut into parts, all of which lie in one buffer.
struct Parts<'a> {
    device: &'a GpuDevice,
    rows: usize,
    width: usize,
    /// Where parts begin, and where the last one ends.
    cuts: Vec<usize>,
    layers: Vec<GpuLayerNorm>,
    input: GpuTensor,
    moments: Vec<GpuMoments>,
    /// What is put in the place of what in the WGSL of every kernel.
    wrong: Option<[&'static str; 2]>,
}

/// Two numbers a row.
type Sums = Vec<[f32; 2]>;

impl<'a> Parts<'a> {
    fn new(device: &'a GpuDevice, case: &Case, affine: Affine, cuts: &[usize]) -> Result<Self, Error> {
        let (rows, width) = (case.rows, case.width);
        let cuts = [&[0], cuts, &[width]].concat();
        let mut layers = Vec::new();
        for part in cuts.windows(2) {
            let of_part = |values: &[f32]| Tensor::from_f32([part[1] - part[0]], values[part[0]..part[1]].to_vec());
            let config = match case.normalization {
                Normalization::LayerNorm => LayerNormConfig::new(part[1] - part[0]),
                Normalization::RmsNorm => LayerNormConfig::rms(part[1] - part[0]),
            };
            let config = config.affine(affine).eps(case.eps).variance(case.variance).expect_nothing();
            let layer = GpuLayerNorm::new(device, &config)?;
            if affine.has_weight() {
                layer.set_weight(&of_part(&case.weight)?)?;
            }
            if affine.has_bias() {
                layer.set_bias(&of_part(&case.bias)?)?;
            }
            layers.push(layer);
        }
        let input = GpuTensor::upload(device, &case.tensor())?;
        let moments = layers.iter().map(|_| GpuMoments::zeros(device, [rows])).collect::<Result<_, _>>()?;
        Ok(Self { device, rows, width, cuts, layers, input, moments, wrong: None })
    }

    /// The columns of a part.
    fn region(&self, tensor: &GpuTensor, part: usize) -> Region {
        Region::from(tensor).offset(self.cuts[part] as u64).row_stride(self.width as u64)
    }

    fn run(&self, part: usize, bindings: &Bindings, pick: &dyn Fn(&Problem) -> Option<Plan>) -> Result<bool, Error> {
        let problem = self.layers[part].problem(self.device, bindings)?;
        let Some(plan) = pick(&problem) else { return Ok(false) };
        if let Some([from, to]) = self.wrong {
            let mut tensors: Vec<_> = problem
                .tensors()
                .filter_map(|(role, _)| {
                    Some((role, bindings.get(role).map(Region::buffer).or(self.parameter(part, role))?))
                })
                .map(|(role, buffer)| (role, download(self.device, buffer)))
                .collect();
            let shader = |kernel: &Kernel| wgpu::ShaderSource::Wgsl(kernel.wgsl().replace(from, to).into());
            bare::run(self.device, &plan, shader, &mut tensors);
            for (role, bytes) in tensors.iter().filter(|(role, _)| problem.writes(*role)) {
                let buffer = bindings.get(*role).map(Region::buffer).expect("what is written is given");
                self.device.queue().write_buffer(buffer, 0, bytes);
            }
            return Ok(true);
        }
        submit(self.device, &self.layers[part].prepare_plan(self.device, plan, bindings)?);
        Ok(true)
    }

    fn rows(&self) -> u64 {
        self.rows as u64
    }

    /// The layer's own weight or bias.
    fn parameter(&self, part: usize, role: Role) -> Option<&wgpu::Buffer> {
        let layer = &self.layers[part];
        let parameter = if role == Role::Weight { layer.weight() } else { layer.bias() };
        parameter.filter(|_| role.is_parameter()).map(GpuTensor::buffer)
    }

    /// Measures every part, and leaves the moments of whole rows in the place of theirs.
    fn measure(&self, pick: &dyn Fn(&Problem) -> Option<Plan>) -> Result<bool, Error> {
        let mut whole = vec![RowMoments::NONE; self.rows];
        for part in 0..self.layers.len() {
            let moments = self.moments[part].tensor();
            if !self.run(part, &Bindings::moments(self.rows(), self.region(&self.input, part), moments), pick)? {
                return Ok(false);
            }
            for (whole, of_part) in whole.iter_mut().zip(self.moments[part].download()?) {
                *whole = whole.merge(of_part)?;
            }
        }
        self.moments.iter().try_for_each(|moments| moments.write(&whole))?;
        Ok(true)
    }

    /// The output of all parts.
    fn normalize(&self, pick: &dyn Fn(&Problem) -> Option<Plan>) -> Result<Option<Vec<f32>>, Error> {
        let output = GpuTensor::zeros(self.device, self.input.shape())?;
        for part in 0..self.layers.len() {
            let (input, output) = (self.region(&self.input, part), self.region(&output, part));
            let bindings = Bindings::normalize(self.rows(), input, self.moments[part].tensor(), output);
            if !self.run(part, &bindings, pick)? {
                return Ok(None);
            }
        }
        Ok(Some(output.download()?.into_values()))
    }

    /// The sums of whole rows.
    fn sums(
        &self,
        output_gradient: &GpuTensor,
        pick: &dyn Fn(&Problem) -> Option<Plan>,
    ) -> Result<Option<Sums>, Error> {
        let mut whole = vec![[0.0; 2]; self.rows];
        for part in 0..self.layers.len() {
            let sums = GpuTensor::zeros(self.device, [self.rows, 2])?;
            let (input, dy) = (self.region(&self.input, part), self.region(output_gradient, part));
            let moments = self.moments[part].tensor();
            if !self.run(part, &Bindings::gradient_sums(self.rows(), input, moments, dy, &sums), pick)? {
                return Ok(None);
            }
            for (whole, of_part) in whole.iter_mut().zip(sums.download()?.values().chunks(2)) {
                *whole = [whole[0] + of_part[0], whole[1] + of_part[1]];
            }
        }
        Ok(Some(whole))
    }

    fn gradients(
        &self,
        output_gradient: &GpuTensor,
        sums: &Sums,
        pick: &dyn Fn(&Problem) -> Option<Plan>,
    ) -> Result<Option<Found>, Error> {
        let sums = GpuTensor::upload(self.device, &Tensor::from_f32([self.rows, 2], sums.concat())?)?;
        let dx = GpuTensor::zeros(self.device, self.input.shape())?;
        let mut of_parameters = [Vec::new(), Vec::new()];
        for (part, layer) in self.layers.iter().enumerate() {
            let like = |parameter: Option<&GpuTensor>| {
                parameter.map(|parameter| GpuTensor::zeros(self.device, parameter.shape())).transpose()
            };
            let gradients = [like(layer.weight())?, like(layer.bias())?];
            let (input, dy) = (self.region(&self.input, part), self.region(output_gradient, part));
            let moments = self.moments[part].tensor();
            let mut bindings = Bindings::gradients(self.rows(), input, moments, dy, &sums, self.region(&dx, part));
            if let Some(weight) = &gradients[0] {
                bindings = bindings.weight_gradient(weight);
            }
            if let Some(bias) = &gradients[1] {
                bindings = bindings.bias_gradient(bias);
            }
            if !self.run(part, &bindings, pick)? {
                return Ok(None);
            }
            for (all, of_part) in of_parameters.iter_mut().zip(&gradients) {
                if let Some(of_part) = of_part {
                    all.extend(of_part.download()?.into_values());
                }
            }
        }
        let [weight, bias] = of_parameters;
        Ok(Some([dx.download()?.into_values(), weight, bias]))
    }
}

fn check_output(case: &Case, affine: Affine, output: &[f32]) -> Result<(), String> {
    case.compare_within(affine, output, PARTS).map(drop)
}

/// Widths and where they are cut: into many, few, single elements, where words are shared, and where vectors end.
const CUTS: [(usize, &[usize]); 6] = [
    (5, &[1]),
    (64, &[16, 32, 48]),
    (70, &[3, 4, 41]),
    (768, &[256]),
    (1000, &[1, 500, 999]),
    (4097, &[17, 2048, 4000]),
];

fn strategies_of<'a>(device: &'a GpuDevice, i: usize) -> impl Fn(&Problem) -> Option<Plan> + 'a {
    move |problem: &Problem| strategies(problem, device).into_iter().cycle().nth(i)
}

/// By each strategy, at every mean and with outliers, every affine map, both variances, and RMS normalization.
pub fn forward(name: &str, device: &GpuDevice) -> Outcome {
    let cases = if name == "swiftshader" { &CUTS[..5] } else { &CUTS[..] };
    for (i, (width, cuts)) in cases.iter().enumerate() {
        for (j, data) in ACCURACY_DATA.into_iter().enumerate() {
            // Each is some kernels to compile.
            for strategy in (0..4).filter(|strategy| j == 3 || *strategy == (i + j) % 4) {
                let affine = AFFINES[(i + j + strategy) % 3];
                let case = Case::new(9, *width, data, 3).eps([1e-5, 0.0, 10.0][j % 3]);
                let case = match (i + j) % 3 {
                    // RMS normalization of a large mean has no digits to lose.
                    0 => case.rms(),
                    // A part of one element has no unbiased variance of its own, and its layer is refused one.
                    1 if cuts.windows(2).all(|cut| cut[1] - cut[0] > 1)
                        && cuts[0] > 1
                        && width - cuts[cuts.len() - 1] > 1 =>
                    {
                        case.variance(Variance::Unbiased)
                    }
                    _ => case,
                };
                let parts = Parts::new(device, &case, affine, cuts)?;
                let pick = strategies_of(device, strategy);
                assert!(parts.measure(&pick)?);
                let output = parts.normalize(&pick)?.ok_or("no plan")?;
                check_output(&case, affine, &output)
                    .map_err(|error| format!("{width} cut at {cuts:?}, {data}, strategy {strategy}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// The gradients, by each strategy.
pub fn backward(name: &str, device: &GpuDevice) -> Outcome {
    let cases = if name == "swiftshader" { &CUTS[..5] } else { &CUTS[..] };
    for (i, (width, cuts)) in cases.iter().enumerate() {
        for (j, data) in ACCURACY_DATA.into_iter().enumerate() {
            for strategy in (0..3).filter(|strategy| j == 3 || *strategy == (i + j) % 3) {
                let normalization = match (i + j) % 3 {
                    0 => Normalization::RmsNorm,
                    _ => Normalization::LayerNorm,
                };
                let gradients = GradientCase {
                    affine: AFFINES[(i + strategy) % 3],
                    normalization,
                    ..GradientCase::new(13, *width, data, 5)
                };
                check_gradients(device, &gradients, cuts, strategy)
                    .map_err(|error| format!("{width} cut at {cuts:?}, {data}, strategy {strategy}: {error}"))?;
            }
        }
    }
    Ok(())
}

fn twice(mut bounds: Bounds) -> Bounds {
    for bounds in [&mut bounds.input, &mut bounds.weight, &mut bounds.bias] {
        bounds.iter_mut().for_each(|bound| *bound *= PARTS);
    }
    bounds
}

fn check_gradients(
    device: &GpuDevice,
    gradients: &GradientCase,
    cuts: &[usize],
    strategy: usize,
) -> Result<(), String> {
    let case = Case::with_values(gradients.rows, gradients.width, gradients.input.clone(), 5).eps(gradients.eps);
    let case = case.variance(gradients.variance);
    let case = if gradients.normalization == Normalization::RmsNorm { case.rms() } else { case };
    let case = Case { weight: gradients.weight.clone(), ..case };
    let pick = strategies_of(device, strategy);
    let found = || {
        let parts = Parts::new(device, &case, gradients.affine, cuts)?;
        let shape = [gradients.rows, gradients.width];
        let dy = GpuTensor::upload(device, &Tensor::from_f32(shape, gradients.output_gradient.clone())?)?;
        assert!(parts.measure(&pick)?);
        let sums = parts.sums(&dy, &pick)?.expect("a plan");
        Ok::<_, Error>(parts.gradients(&dy, &sums, &pick)?.expect("a plan"))
    };
    let found = found().map_err(|error| error.to_string())?;
    gradients.compare(&twice(gradients.bounds()), &found, false)
}

/// Every operation on parts by each access, reduction and segmentation, a third of them at each width. Those that a plan cannot take are
/// passed over.
pub fn every_geometry(name: &str, device: &GpuDevice) -> Outcome {
    let mut counts = [0; 4];
    for (third, (width, cut, normalization)) in
        [(131, 129, Normalization::LayerNorm), (1200, 1000, Normalization::LayerNorm), (70, 2, Normalization::RmsNorm)]
            .into_iter()
            .enumerate()
    {
        let gradients = GradientCase { normalization, ..GradientCase::new(13, width, ACCURACY_DATA[3], 7) };
        let case = Case::with_values(13, width, gradients.input.clone(), 7);
        let case = if normalization == Normalization::RmsNorm { case.rms() } else { case };
        let case = Case { weight: gradients.weight.clone(), ..case };
        let parts = Parts::new(device, &case, gradients.affine, &[cut])?;
        let dy = Tensor::from_f32([13, width], gradients.output_gradient.clone())?;
        let dy = GpuTensor::upload(device, &dy)?;
        // Only the first part by each of its geometries.
        let nth = |i: usize| {
            move |problem: &Problem| match problem.width() as usize == cut {
                true => {
                    geometries(problem, device.capabilities()).into_iter().skip(third).step_by(step(name, 3) * 3).nth(i)
                }
                false => Plan::new(problem, device.capabilities()).ok(),
            }
        };
        let first = |problem: &Problem| Plan::new(problem, device.capabilities()).ok();
        let bounds = twice(gradients.bounds());
        let mut i = 0;
        while parts.measure(&nth(i))? {
            let output = parts.normalize(&first)?.ok_or("no plan")?;
            check_output(&case, gradients.affine, &output).map_err(|error| format!("moments {i}: {error}"))?;
            (i, counts[0]) = (i + 1, counts[0] + 1);
        }
        assert!(parts.measure(&first)?);
        for i in 0.. {
            let Some(output) = parts.normalize(&nth(i))? else { break };
            check_output(&case, gradients.affine, &output).map_err(|error| format!("normalize {i}: {error}"))?;
            counts[1] += 1;
        }
        for i in 0.. {
            let Some(sums) = parts.sums(&dy, &nth(i))? else { break };
            let found = parts.gradients(&dy, &sums, &first)?.ok_or("no plan")?;
            gradients.compare(&bounds, &found, false).map_err(|error| format!("sums {i}: {error}"))?;
            counts[2] += 1;
        }
        let sums = parts.sums(&dy, &first)?.ok_or("no plan")?;
        for i in 0.. {
            let Some(found) = parts.gradients(&dy, &sums, &nth(i))? else { break };
            gradients.compare(&bounds, &found, false).map_err(|error| format!("gradients {i}: {error}"))?;
            counts[3] += 1;
        }
    }
    // Without subgroups there are half as many.
    let least = if device.capabilities().subgroups.is_some() { 12 } else { 6 };
    if counts.iter().any(|count| count * step(name, 3) < least) {
        return Err(format!("{counts:?} geometries are too few").into());
    }
    Ok(())
}

/// Magnitudes of 1e-30 to the largest, halves of a row far apart, constant rows, which give exactly the bias, and rows with what is no
/// number, which do no harm to others.
pub fn rows_of_every_kind(_: &str, device: &GpuDevice) -> Outcome {
    for (width, cuts) in [(8, &[3][..]), (768, &[256, 512]), (4100, &[2052])] {
        let standard = Data::STANDARD.values(1, width, 9);
        let mut rows: Vec<Vec<f32>> = Vec::new();
        for magnitude in [1e-30_f32, 1e-24, 1e-18, 1e-12, 1.0, 1e12, 1e18, 1e24, 1e30, 1e37] {
            rows.push(standard.iter().map(|x| x * magnitude).collect());
        }
        rows.push((0..width).map(|i| if i < width / 2 { 1e30 } else { -1e30 }).collect());
        rows.push([&[f32::MAX, -f32::MAX], &standard[2..]].concat());
        let constants = [0.0, -0.1, 1e6, 1.000_476_6e-13, 1e-30, 1e37, f32::MAX];
        let ordinary = rows.len();
        rows.extend(constants.map(|constant| vec![constant; width]));
        let broken = rows.len();
        for value in [f32::NAN, f32::INFINITY] {
            let mut row = standard.clone();
            row[width - 1] = value;
            rows.push(row);
        }
        rows.push(standard.clone());
        for eps in [1e-5, 0.0, f32::MAX] {
            for strategy in (0..4).filter(|strategy| eps == 0.0 || *strategy == 0) {
                let affine = Affine::WeightAndBias;
                let case = Case::with_values(rows.len(), width, rows.concat(), 4).eps(eps);
                let parts = Parts::new(device, &case, affine, cuts)?;
                let pick = strategies_of(device, strategy);
                assert!(parts.measure(&pick)?);
                let output = parts.normalize(&pick)?.ok_or("no plan")?;
                let fail = |what: String| format!("width {width} eps {eps:e} strategy {strategy}: {what}");
                for (row, output) in output.chunks(width).enumerate() {
                    if (ordinary..broken).contains(&row) {
                        let same = output.iter().zip(&case.bias).all(|(y, bias)| y.to_bits() == bias.to_bits());
                        if !same {
                            return Err(fail(format!("row of {:e}: {:e}", rows[row][0], output[0])).into());
                        }
                    } else if (broken..broken + 2).contains(&row) {
                        if !output.iter().all(|y| y.is_nan()) {
                            return Err(fail(format!("numbers in row {row}")).into());
                        }
                    } else {
                        let alone = Case::with_values(1, width, rows[row].clone(), 4).eps(eps);
                        let alone = Case { weight: case.weight.clone(), bias: case.bias.clone(), ..alone };
                        check_output(&alone, affine, output).map_err(|error| fail(format!("row {row}: {error}")))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// What the first pass leaves, beside what f64 finds.
pub fn moments(_: &str, device: &GpuDevice) -> Outcome {
    for storage in StorageType::ALL {
        for (i, width) in [1, 2, 7, 64, 769, 4096, 70_000].into_iter().enumerate() {
            // f16 ends at 65,504.
            let most = if storage == StorageType::F16 { 3 } else { 5 };
            for data in [ACCURACY_DATA[i % most], Data::Normal { mean: 3.0, std: 1e-3 }] {
                let input = Tensor::from_f32([3, width], data.values(3, width, 17))?.to_storage(storage);
                for normalization in [Normalization::LayerNorm, Normalization::RmsNorm] {
                    let config = match normalization {
                        Normalization::LayerNorm => LayerNormConfig::new(width),
                        Normalization::RmsNorm => LayerNormConfig::rms(width),
                    };
                    let layer = GpuLayerNorm::new(device, &config.expect_nothing())?;
                    let found = layer.moments(device, &GpuTensor::upload(device, &input)?)?.download()?;
                    for (found, row) in found.iter().zip(input.values().chunks(width)) {
                        let expected = match normalization {
                            Normalization::LayerNorm => RowMoments::of(row),
                            Normalization::RmsNorm => RowMoments::of_squares(row),
                        };
                        let deviation = expected.variance().sqrt();
                        let of_mean = (found.mean() - expected.mean()).abs();
                        let of_deviation = (f64::from(found.deviation) - deviation).abs();
                        let is_right = found.count as usize == width
                            && of_mean <= 2.5e-7 * deviation + 2.0_f64.powi(-45) * expected.mean().abs()
                            && of_deviation <= PARTS * 2.5e-7 * deviation;
                        if !is_right {
                            return Err(format!(
                                "{storage} {width} {data} {normalization:?}: {found:?}, not {expected:?}"
                            )
                            .into());
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Deviations that are known exactly, and rounded once: those of rows of one magnitude, from 1 to 2 and in other units.
pub fn exact_deviations(_: &str, device: &GpuDevice) -> Outcome {
    const ROWS: usize = 4096;
    for unit in [1.0_f32, 1e-20, 1e20] {
        let magnitude = |row: usize| unit * (1.0 + row as f32 / ROWS as f32);
        let values = (0..4 * ROWS).map(|i| if i % 2 == 0 { magnitude(i / 4) } else { -magnitude(i / 4) });
        let input = GpuTensor::upload(device, &Tensor::from_f32([ROWS, 4], values.collect::<Vec<_>>())?)?;
        for config in [LayerNormConfig::new(4), LayerNormConfig::rms(4)] {
            let layer = GpuLayerNorm::new(device, &config.expect_nothing())?;
            for (row, found) in layer.moments(device, &input)?.download()?.iter().enumerate() {
                let exact = f64::from(magnitude(row));
                let error = (f64::from(found.deviation) - exact).abs() / exact;
                // Half a unit in the last place for the square, which is rounded, and as much for the root.
                if found.mean() != 0.0 || error > 1.3e-7 {
                    return Err(format!("a row of ±{exact:e}: {found:?}, {error:e} off").into());
                }
            }
        }
    }
    Ok(())
}

/// Every storage type, with residual and gate, scale and shift, sum, mean and rstd, forward and backward.
pub fn together(_: &str, device: &GpuDevice) -> Outcome {
    let (rows, width, cut, of_each) = (12, 96, 40, 4);
    for storage in StorageType::ALL {
        for modulation in [Modulation::Adaptive, Modulation::Conditional] {
            check_together(device, storage, modulation, [rows, width, cut, of_each])
                .map_err(|error| format!("{storage} {modulation:?}: {error}"))?;
        }
    }
    Ok(())
}

fn check_together(
    device: &GpuDevice,
    storage: StorageType,
    modulation: Modulation,
    [rows, width, cut, of_each]: [usize; 4],
) -> Result<(), String> {
    let conditions = rows / of_each;
    let stored = |rows: usize, seed| {
        let values = Data::STANDARD.values(rows, width, seed);
        Tensor::from_f32([rows, width], values).expect("whole").to_storage(storage)
    };
    let all = |result: Result<(), Error>| result.map_err(|error| error.to_string());
    let [input, residual, dy] = [1, 2, 3].map(|seed| stored(rows, seed));
    let [scales, shifts, gates] = [4, 5, 6].map(|seed| stored(conditions, seed));
    let [weight, bias] = [7, 8].map(|seed| stored(1, seed));
    let config =
        |width: usize| LayerNormConfig::new(width).modulation(modulation).parameter_storage(storage).expect_nothing();
    let up = |tensor: &Tensor| GpuTensor::upload(device, tensor).map_err(|error| error.to_string());
    let [input_on, residual_on, dy_on] = [up(&input)?, up(&residual)?, up(&dy)?];
    let [scales_on, shifts_on, gates_on] = [up(&scales)?, up(&shifts)?, up(&gates)?];
    let zeros = |shape: &[usize], storage| {
        GpuTensor::zeros_as(device, shape, storage).map_err(|error: Error| error.to_string())
    };
    let (output, sum) = (zeros(&[rows, width], storage)?, zeros(&[rows, width], StorageType::F32)?);
    let dx = zeros(&[rows, width], StorageType::F32)?;
    let (mean, rstd) = (zeros(&[rows], StorageType::F32)?, zeros(&[rows], StorageType::F32)?);
    let of_conditions = zeros(&[3, conditions, width], StorageType::F32)?;
    let parts = [0..cut, cut..width];
    let count = rows as u64;
    let region = |tensor: &GpuTensor, part: usize| {
        Region::from(tensor).offset(parts[part].start as u64).row_stride(width as u64)
    };
    let gated = |bindings: Bindings, part: usize| {
        bindings.residual(region(&residual_on, part)).gate(region(&gates_on, part)).rows_per_condition(of_each as u64)
    };
    // All twelve tensors at once, where the device binds as many.
    let has_statistics = device.capabilities().max_storage_buffers >= 12;
    let mut layers = Vec::new();
    let mut whole = vec![RowMoments::NONE; rows];
    for (part, columns) in parts.iter().enumerate() {
        let layer = GpuLayerNorm::new(device, &config(columns.len())).map_err(|error| error.to_string())?;
        let of_part = |values: &Tensor| Tensor::from_f32([columns.len()], values.values()[columns.clone()].to_vec());
        all(of_part(&weight).and_then(|weight| layer.set_weight(&weight)))?;
        all(of_part(&bias).and_then(|bias| layer.set_bias(&bias)))?;
        let moments = GpuMoments::zeros(device, [rows]).map_err(|error| error.to_string())?;
        let bindings = Bindings::moments(count, region(&input_on, part), moments.tensor());
        all(layer.execute(device, &gated(bindings, part)))?;
        for (whole, of_part) in whole.iter_mut().zip(moments.download().map_err(|error| error.to_string())?) {
            *whole = whole.merge(of_part).map_err(|error| error.to_string())?;
        }
        layers.push((layer, moments));
    }
    let mut sums = vec![0.0_f32; 2 * rows];
    for (part, (layer, moments)) in layers.iter().enumerate() {
        all(moments.write(&whole))?;
        let normalize = Bindings::normalize(count, region(&input_on, part), moments.tensor(), region(&output, part));
        let normalize = gated(normalize, part)
            .scale(region(&scales_on, part))
            .shift(region(&shifts_on, part))
            .sum(region(&sum, part));
        let normalize = if has_statistics { normalize.mean(&mean).rstd(&rstd) } else { normalize };
        all(layer.execute(device, &normalize))?;
        let of_part = zeros(&[rows, 2], StorageType::F32)?;
        let backward =
            Bindings::gradient_sums(count, region(&input_on, part), moments.tensor(), region(&dy_on, part), &of_part);
        all(layer.execute(device, &gated(backward, part).scale(region(&scales_on, part))))?;
        let of_part = of_part.download().map_err(|error| error.to_string())?;
        sums.iter_mut().zip(&*of_part.values()).for_each(|(sum, of_part)| *sum += of_part);
    }
    let sums = up(&Tensor::from_f32([rows, 2], sums).map_err(|error| error.to_string())?)?;
    let residual_gradient = zeros(&[rows, width], StorageType::F32)?;
    for (part, (layer, moments)) in layers.iter().enumerate() {
        let backward = Bindings::gradients(
            count,
            region(&input_on, part),
            moments.tensor(),
            region(&dy_on, part),
            &sums,
            region(&dx, part),
        );
        let of_condition = |i: usize| {
            let first = i * conditions * width + parts[part].start;
            Region::from(&of_conditions).offset(first as u64).row_stride(width as u64)
        };
        let backward = gated(backward, part)
            .scale(region(&scales_on, part))
            .residual_gradient(region(&residual_gradient, part))
            .scale_gradient(of_condition(0))
            .shift_gradient(of_condition(1))
            .gate_gradient(of_condition(2));
        all(layer.execute(device, &backward))?;
    }

    // The reference, in f64.
    let values = |tensor: &Tensor| tensor.values().iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let (input, residual, dy) = (values(&input), values(&residual), values(&dy));
    let (scales, shifts, gates, weight, bias) =
        (values(&scales), values(&shifts), values(&gates), values(&weight), values(&bias));
    let gate = |i: usize| gates[i / width / of_each * width + i % width];
    let source: Vec<f64> = (0..rows * width).map(|i| residual[i] + gate(i) * input[i]).collect();
    let condition =
        Condition { modulation, rows_per_condition: of_each, scale: Some(&scales[..]), shift: Some(&shifts[..]) };
    let (weight, bias, eps) = (Some(&weight[..]), Some(&bias[..]), f64::from(1e-5_f32));
    let expected = reference::modulated_layer_norm(&source, width, weight, bias, &condition, eps, false);
    let exact = reference::modulated_layer_norm_backward(&source, &dy, width, weight, bias, &condition, eps, false);
    let statistics: Vec<_> = source.chunks(width).map(|row| reference::row_statistics(row, eps, false)).collect();
    let down =
        |tensor: &GpuTensor| tensor.download().map(Tensor::into_values).map_err(|error: Error| error.to_string());
    let rounding = match storage {
        StorageType::F32 => 2.0_f64.powi(-24),
        StorageType::F16 => 2.0_f64.powi(-11),
        StorageType::Bf16 => 2.0_f64.powi(-8),
    };
    let close = |what: &str, found: &[f32], expected: &dyn Fn(usize) -> f64, rounding: f64, slack: f64| {
        for (i, &found) in found.iter().enumerate() {
            let error = (f64::from(found) - expected(i)).abs();
            if error.is_nan() || error > slack + rounding * expected(i).abs() {
                return Err(format!("{what} {i}: {found:e} in place of {:e}", expected(i)));
            }
        }
        Ok(())
    };
    let half = 2.0_f64.powi(-24);
    close("sum", &down(&sum)?, &|i| source[i], half, 1e-6)?;
    if has_statistics {
        close("mean", &down(&mean)?, &|row| statistics[row].mean, half, 1e-6)?;
        close("rstd", &down(&rstd)?, &|row| statistics[row].rstd, 1e-6, 0.0)?;
    }
    close("output", &down(&output)?, &|i| expected[i], rounding, 2e-5)?;
    close("residual gradient", &down(&residual_gradient)?, &|i| exact.input[i], half, 5e-5)?;
    close("dx", &down(&dx)?, &|i| exact.input[i] * gate(i), half, 1e-4)?;
    let of_conditions = down(&of_conditions)?;
    let [scale_gradient, shift_gradient, gate_gradient] =
        [0, 1, 2].map(|i| &of_conditions[i * conditions * width..(i + 1) * conditions * width]);
    close("scale gradient", scale_gradient, &|at| exact.scale[at], half, 1e-4)?;
    close("shift gradient", shift_gradient, &|at| exact.shift[at], half, 1e-4)?;
    let gate_of = |at: usize| -> f64 {
        let rows = at / width * of_each..(at / width + 1) * of_each;
        rows.map(|row| row * width + at % width).map(|i| exact.input[i] * input[i]).sum()
    };
    close("gate gradient", gate_gradient, &gate_of, half, 2e-4)
}

/// Bindings that hold a few rows only, and row counts below what was prepared for.
pub fn chunks(_: &str, device: &GpuDevice) -> Outcome {
    let (rows, width, cuts) = (40, 96, [32]);
    let small = |capabilities: &Capabilities| Capabilities { max_binding_bytes: 4096, ..*capabilities };
    let pick = |problem: &Problem| Plan::new(problem, &small(device.capabilities())).ok();
    let gradients = GradientCase::new(rows, width, ACCURACY_DATA[1], 25);
    let case = Case::with_values(rows, width, gradients.input.clone(), 25);
    let case = Case { weight: gradients.weight.clone(), ..case };
    let parts = Parts::new(device, &case, gradients.affine, &cuts)?;
    let dy = Tensor::from_f32([rows, width], gradients.output_gradient.clone())?;
    let dy = GpuTensor::upload(device, &dy)?;
    assert!(parts.measure(&pick)?);
    check_output(&case, gradients.affine, &parts.normalize(&pick)?.ok_or("no plan")?)?;
    let sums = parts.sums(&dy, &pick)?.ok_or("no plan")?;
    let found = parts.gradients(&dy, &sums, &pick)?.ok_or("no plan")?;
    gradients.compare(&twice(gradients.bounds()), &found, false)?;

    // Fewer rows, by the host.
    let layer = &parts.layers[0];
    let moments = GpuMoments::zeros(device, [rows])?;
    let bindings = Bindings::moments(rows as u64, parts.region(&parts.input, 0), moments.tensor());
    let plan = pick(&layer.problem(device, &bindings)?).ok_or("no plan")?;
    if plan.chunks().len() < 3 || plan.problem().operation() != Operation::Moments {
        return Err(format!("not in chunks: {plan}").into());
    }
    let mut prepared = layer.prepare_plan(device, plan, &bindings)?;
    for few in [0, 1, 17] {
        moments.write(&vec![RowMoments::NONE; rows])?;
        prepared.set_rows(few as u64)?;
        submit(device, &prepared);
        let counts: Vec<u32> = moments.download()?.iter().map(|moments| moments.count).collect();
        let expected: Vec<u32> = (0..rows).map(|row| if row < few { 32 } else { 0 }).collect();
        if counts != expected {
            return Err(format!("{few} rows: {counts:?}").into());
        }
    }
    Ok(())
}

/// Rows that lie side by side: channels first, of which each part has some.
pub fn side_by_side(_: &str, device: &GpuDevice) -> Outcome {
    let (samples, channels, pixels) = (2, 24, 20);
    let config = LayerNormConfig::new(channels / 2).axes([1]).expect_nothing();
    let layer = GpuLayerNorm::new(device, &config)?;
    let values = Data::Normal { mean: 100.0, std: 0.1 }.values(samples, channels * pixels, 27);
    let shape = [samples, channels / 2, pixels];
    let of_part = |part: usize| {
        let of_sample = |sample: &[f32]| sample[part * shape[1] * pixels..(part + 1) * shape[1] * pixels].to_vec();
        let values: Vec<f32> = values.chunks(channels * pixels).flat_map(of_sample).collect();
        GpuTensor::upload(device, &Tensor::from_f32(shape, values)?)
    };
    let inputs = [of_part(0)?, of_part(1)?];
    let moments = [layer.moments(device, &inputs[0])?, layer.moments(device, &inputs[1])?];
    let mut whole = Vec::new();
    for (a, b) in moments[0].download()?.into_iter().zip(moments[1].download()?) {
        whole.push(a.merge(b)?);
    }
    for (part, input) in inputs.iter().enumerate() {
        moments[part].write(&whole)?;
        let output = layer.normalize(device, input, &moments[part])?.download()?;
        for (i, y) in output.values().iter().enumerate() {
            let (sample, channel, pixel) = (i / (shape[1] * pixels), i / pixels % shape[1], i % pixels);
            let row: Vec<f32> =
                (0..channels).map(|channel| values[(sample * channels + channel) * pixels + pixel]).collect();
            let of_row = reference::row_statistics(&row, f64::from(1e-5_f32), false);
            let expected = (f64::from(row[part * shape[1] + channel]) - of_row.mean) * of_row.rstd;
            if (f64::from(*y) - expected).abs() > 2e-6 * scale(expected) {
                return Err(format!("element {i} of part {part}: {y:e} in place of {expected:e}").into());
            }
        }
    }
    Ok(())
}

/// Moments of one f32 mean, and kernels whose WGSL was changed, give results that the comparison refuses.
pub fn wrong_kernels(_: &str, device: &GpuDevice) -> Outcome {
    // Not centred, so that the mean has a rest beside a deviation that is a thousandth of it, and sums of g that are not nothing.
    let gradients = GradientCase::new(8, 64, Data::Normal { mean: 1000.3, std: 0.1 }, 31);
    let output_gradient = gradients.output_gradient.iter().map(|dy| dy + 0.5).collect();
    let gradients = GradientCase { output_gradient, ..gradients };
    let case = Case::with_values(8, 64, gradients.input.clone(), 31);
    let case = Case { weight: gradients.weight.clone(), ..case };
    let dy = Tensor::from_f32([8, 64], gradients.output_gradient.clone())?;
    let dy = GpuTensor::upload(device, &dy)?;
    let first = |problem: &Problem| Plan::new(problem, device.capabilities()).ok();
    let bounds = twice(gradients.bounds());
    let refused = |wrong: Option<[&'static str; 2]>| -> Result<[bool; 2], Failed> {
        let parts = Parts { wrong, ..Parts::new(device, &case, gradients.affine, &[32])? };
        assert!(parts.measure(&first)?);
        let output = parts.normalize(&first)?.ok_or("no plan")?;
        let sums = parts.sums(&dy, &first)?.ok_or("no plan")?;
        let found = parts.gradients(&dy, &sums, &first)?.ok_or("no plan")?;
        let output = check_output(&case, gradients.affine, &output);
        Ok([output.is_err(), gradients.compare(&bounds, &found, false).is_err()])
    };
    for right in [None, Some(["", ""])] {
        let [output, found] = refused(right)?;
        if output || found {
            return Err(format!("the right kernels are refused: output {output}, gradients {found}").into());
        }
    }
    for (what, from, to, expected) in [
        (
            "a mean without its rest",
            "let both = vec2<f32>(scaled(mean, by), scaled(rest, by));",
            "let both = vec2<f32>(scaled(mean, by), 0.0);",
            [true; 2],
        ),
        (
            "a root of too few digits",
            "return root + kept_scalar(missing",
            "return root + 0.0 * kept_scalar(missing",
            [true; 2],
        ),
        (
            "a count of one element less",
            "bitcast<u32>(scaled(scaling.rstd, by)), WIDTH));",
            "bitcast<u32>(scaled(scaling.rstd, by)), WIDTH - 1u));",
            [false, true],
        ),
        ("no eps", "let eps = scaled(params.eps, 2 * exponent);", "let eps = 0.0;", [true; 2]),
        (
            "a mean that is not taken off g",
            "let summand = -statistics.rstd * (sums.x",
            "let summand = -0.0 * (sums.x",
            [false, true],
        ),
        (
            "an offset that is left out of the products",
            "let products = fma(-known_offset(row, statistics.rstd), sums.x, sums.y);",
            "let products = sums.y;",
            [false, true],
        ),
        (
            "an offset that is left out of x\u{302}",
            "let offset = known_offset(row, statistics.rstd);\n        store",
            "let offset = 0.0;\n        store",
            [false, true],
        ),
        (
            "a slope of half the row",
            "let slope = sums.y / f32(divisor);",
            "let slope = sums.y / f32(divisor / 2u);",
            [false, true],
        ),
        (
            "the moments of row 0",
            "let known = known_rstd(moments);\n    let mean",
            "let known = known_rstd(moments_get(0u));\n    let mean",
            [true, false],
        ),
    ] {
        // Where a kernel is not changed, nothing is refused; so it is known that it was.
        if refused(Some([from, to]))? != expected {
            return Err(format!("{what}: refused {:?}, not {expected:?}", refused(Some([from, to]))?).into());
        }
    }
    Ok(())
}

/// Everything in one buffer, where what is read shares it with what is written, and results in place of what they come from.
pub fn shared_buffer(_: &str, device: &GpuDevice) -> Outcome {
    for (rows, width) in [(7, 36), (3, 1001), (2, 70_000)] {
        let gradients = GradientCase { affine: Affine::None, ..GradientCase::new(rows, width, ACCURACY_DATA[1], 41) };
        let case = Case::with_values(rows, width, gradients.input.clone(), 41);
        let (elements, words) = (rows * width, 4 * rows);
        // Input, output gradient, moments, sums; one element before all of them.
        let first = 1;
        let at = [first, first + elements, first + 2 * elements, first + 2 * elements + words];
        let mut values = vec![0.0; at[3] + 2 * rows];
        values[at[0]..at[1]].copy_from_slice(&gradients.input);
        values[at[1]..at[2]].copy_from_slice(&gradients.output_gradient);
        let layer = case.layer(device, Affine::None)?;
        for strategy in 0..4 {
            let pick = strategies_of(device, strategy);
            let pool = GpuTensor::upload(device, &Tensor::from_f32([values.len()], values.clone())?)?;
            let region = |i: usize| Region::new(pool.buffer(), StorageType::F32).offset(at[i] as u64);
            let run = |bindings: &Bindings| -> Result<Vec<f32>, Error> {
                let plan = pick(&layer.problem(device, bindings)?).expect("a plan");
                submit(device, &layer.prepare_plan(device, plan, bindings)?);
                Ok(pool.download()?.into_values())
            };
            let rows = rows as u64;
            run(&Bindings::moments(rows, region(0), region(2)))?;
            run(&Bindings::gradient_sums(rows, region(0), region(2), region(1), region(3)))?;
            // dx takes the place of dy, then the output that of the input.
            let gradient = Bindings::gradients(rows, region(0), region(2), region(1), region(3), region(1));
            let dx = run(&gradient)?[at[1]..at[2]].to_vec();
            let output = run(&Bindings::normalize(rows, region(0), region(2), region(0)))?[at[0]..at[1]].to_vec();
            let told = |error: String| format!("{rows} rows of {width}, strategy {strategy}: {error}");
            case.compare_within(Affine::None, &output, PARTS).map_err(told)?;
            gradients.compare(&twice(gradients.bounds()), &[dx, Vec::new(), Vec::new()], false).map_err(told)?;
        }
    }
    Ok(())
}
