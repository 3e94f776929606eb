//! Normalization over any axes, and of groups of channels, against the f64 reference.

use std::collections::BTreeMap;

use gpu_layer_norm::half::{bf16, f16};
use gpu_layer_norm::kernel::{
    Access, AdapterClass, Capabilities, Geometry, Kernel, Plan, Problem, Reduction, Role, Unit,
};
use gpu_layer_norm::{
    Affine, Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Modulation, Normalization, Region,
    StorageType, Strategy, Tensor, reference, wgpu,
};
use libtest_mimic::Failed;

use crate::Outcome;
use crate::common::gradients::{all_normalized, all_statistics, chain_bound, strategies};
use crate::common::sample::{
    ENOUGH_BUFFERS, download, stored, unit_in_the_last_place, upload, where_it_fits, with_optional,
};
use crate::common::{AFFINES, Data, STRATEGIES, Turns, bare, error_bound, rstd_bound, scale, step, submit};

const EPS: f32 = 1e-5;

/// Elements behind each tensor that nothing may touch.
const GUARD: usize = 8;

/// What is normalized together.
#[derive(Clone, Debug)]
enum Over {
    Axes(Vec<isize>),
    /// So many groups of the channels, which the second dimension has.
    Groups(usize),
}

/// What a backward pass has besides the gradients by output and input.
#[derive(Clone, Copy, Debug, Default)]
struct Backward {
    sum_gradient: bool,
    residual_gradient: bool,
    /// Those of weight and bias.
    parameters: bool,
    /// Those of scale, shift and gate, as far as there are such.
    conditions: bool,
    accumulate: bool,
}

const EVERY_GRADIENT: Backward =
    Backward { sum_gradient: true, residual_gradient: false, parameters: true, conditions: true, accumulate: false };

/// A problem whose rows lie in a grid, each tensor in a buffer of its own, with its data.
#[derive(Clone, Debug)]
struct Sample {
    shape: Vec<usize>,
    over: Over,
    normalization: Normalization,
    affine: Affine,
    zero_centred_weight: bool,
    modulation: Modulation,
    /// Of everything but statistics, parameters and gradients that are sums over rows, which are f32.
    storage: StorageType,
    parameters: StorageType,
    /// Elements before the first one of each tensor.
    offset: usize,
    residual: bool,
    gate: bool,
    scale: bool,
    shift: bool,
    rows_per_condition: usize,
    /// Written by the forward pass, given to the backward pass.
    statistics: bool,
    sum: bool,
    /// Output in the place of the input, sum in that of the residual, input gradient in that of the output gradient.
    in_place: bool,
    backward: Option<Backward>,
    strategy: Option<Strategy>,
    row_count: Option<u32>,
    /// Set after preparing, the last of these to stay.
    set_rows: Vec<usize>,
    data: Data,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            shape: vec![2, 12, 5, 3],
            over: Over::Axes(vec![1]),
            normalization: Normalization::LayerNorm,
            affine: Affine::WeightAndBias,
            zero_centred_weight: false,
            modulation: Modulation::Adaptive,
            storage: StorageType::F32,
            parameters: StorageType::F32,
            offset: 0,
            residual: false,
            gate: false,
            scale: false,
            shift: false,
            rows_per_condition: 1,
            statistics: false,
            sum: false,
            in_place: false,
            backward: None,
            strategy: None,
            row_count: None,
            set_rows: Vec::new(),
            data: Data::Normal { mean: 0.5, std: 1.0 },
        }
    }
}

/// Where the elements of rows are.
struct View {
    rows: usize,
    width: usize,
    /// Elements of a parameter.
    parameters: usize,
    /// The place in the tensor of each element, row by row.
    places: Vec<usize>,
    /// Which element of a parameter belongs to each element, row by row.
    of: Vec<usize>,
}

/// A tensor with what lies before and behind it.
#[derive(Clone, Debug)]
struct Held {
    storage: StorageType,
    values: Vec<f32>,
}

type Tensors = BTreeMap<Role, Held>;

impl Sample {
    /// The dimensions that are normalized, in the order in which they are listed.
    fn places(&self) -> Vec<usize> {
        let Over::Axes(axes) = &self.over else { return Vec::new() };
        let rank = self.shape.len() as isize;
        axes.iter().map(|&axis| if axis < 0 { (rank + axis) as usize } else { axis as usize }).collect()
    }

    fn view(&self) -> View {
        let count: usize = self.shape.iter().product();
        if let Over::Groups(groups) = self.over {
            let (channels, positions) = (self.shape[1], self.shape[2..].iter().product::<usize>());
            let width = channels / groups * positions;
            return View {
                rows: count / width,
                width,
                parameters: channels,
                places: (0..count).collect(),
                of: (0..count).map(|i| i / positions % channels).collect(),
            };
        }
        let normalized = self.places();
        let order = (0..self.shape.len()).filter(|axis| !normalized.contains(axis)).chain(normalized.iter().copied());
        let order: Vec<usize> = order.collect();
        let place = |element: usize| {
            let (mut rest, mut place) = (element, 0);
            for &axis in order.iter().rev() {
                place += rest % self.shape[axis] * self.shape[axis + 1..].iter().product::<usize>();
                rest /= self.shape[axis];
            }
            place
        };
        let width: usize = normalized.iter().map(|&axis| self.shape[axis]).product();
        View {
            rows: count / width,
            width,
            parameters: width,
            places: (0..count).map(place).collect(),
            of: (0..count).map(|element| element % width).collect(),
        }
    }

    fn config(&self) -> LayerNormConfig {
        let sizes: Vec<usize> = self.places().iter().map(|&axis| self.shape[axis]).collect();
        let config = match (&self.over, self.normalization) {
            (Over::Axes(axes), Normalization::LayerNorm) => LayerNormConfig::new(sizes).axes(axes.clone()),
            (Over::Axes(axes), Normalization::RmsNorm) => LayerNormConfig::rms(sizes).axes(axes.clone()),
            (Over::Groups(groups), _) => LayerNormConfig::group_norm(*groups, &self.shape[1..]),
        };
        let config = config.affine(self.affine).eps(EPS).modulation(self.modulation);
        config.zero_centred_weight(self.zero_centred_weight).expect_nothing()
    }

    /// The one whose buffer a tensor lies in.
    fn home(&self, role: Role) -> Role {
        match role {
            Role::Output if self.in_place => Role::Input,
            Role::Sum if self.in_place => Role::Residual,
            Role::InputGradient if self.in_place => Role::OutputGradient,
            other => other,
        }
    }

    /// The tensors that take part.
    fn roles(&self) -> Vec<Role> {
        let has_mean = self.statistics && self.normalization == Normalization::LayerNorm;
        let (has_weight, has_bias) = (self.affine.has_weight(), self.affine.has_bias());
        let both = [
            (Role::Input, true),
            (Role::Residual, self.residual),
            (Role::Gate, self.gate),
            (Role::Scale, self.scale),
            (Role::Weight, has_weight),
            (Role::Mean, has_mean),
            (Role::Rstd, self.statistics),
        ];
        let own = match self.backward {
            None => {
                vec![(Role::Bias, has_bias), (Role::Shift, self.shift), (Role::Output, true), (Role::Sum, self.sum)]
            }
            Some(backward) => {
                let reads_bias = backward.conditions && self.scale && self.modulation == Modulation::Adaptive;
                vec![
                    (Role::Bias, has_bias && reads_bias),
                    (Role::OutputGradient, true),
                    (Role::SumGradient, backward.sum_gradient),
                    (Role::InputGradient, true),
                    (Role::ResidualGradient, backward.residual_gradient),
                    (Role::WeightGradient, backward.parameters && has_weight),
                    (Role::BiasGradient, backward.parameters && has_bias),
                    (Role::ScaleGradient, backward.conditions && self.scale),
                    (Role::ShiftGradient, backward.conditions && self.shift),
                    (Role::GateGradient, backward.conditions && self.gate),
                ]
            }
        };
        both.into_iter().chain(own).filter(|(_, has)| *has).map(|(role, _)| role).collect()
    }

    fn storage_of(&self, role: Role) -> StorageType {
        match role {
            _ if role.is_statistic() || role.is_sum() => StorageType::F32,
            _ if role.is_parameter() => self.parameters,
            _ => self.storage,
        }
    }

    fn elements(&self, view: &View, role: Role) -> usize {
        match role {
            _ if role.is_statistic() => view.rows,
            _ if role.is_parameter() => view.parameters,
            _ if role.is_condition() => view.rows.div_ceil(self.rows_per_condition) * view.parameters,
            _ => view.places.len(),
        }
    }

    /// What is in the buffers at first, everything that is written among it.
    fn tensors(&self, view: &View) -> Tensors {
        let mut tensors = Tensors::new();
        for role in self.roles().into_iter().filter(|role| self.home(*role) == *role) {
            let (storage, count) = (self.storage_of(role), self.elements(view, role));
            let standard = Data::STANDARD.values(1, count + self.offset + GUARD, 7 + role as u64);
            let value = |x: f32| match role {
                Role::Weight if self.zero_centred_weight => x / 4.0,
                Role::Weight => 1.0 + x / 4.0,
                Role::Scale | Role::Shift => x / 4.0,
                // A power of two: the product is exact, and the sum the same whether or not the two are one operation.
                Role::Gate => {
                    if x > 0.0 {
                        0.5
                    } else {
                        -2.0
                    }
                }
                _ => x,
            };
            let values = match role {
                Role::Input => self.data.values(1, count + self.offset + GUARD, 7),
                _ => standard.into_iter().map(value).collect(),
            };
            let values = values.into_iter().map(|value| stored(storage, value)).collect();
            tensors.insert(role, Held { storage, values });
        }
        if self.backward.is_some() && self.statistics {
            let source: Vec<f64> = self.source(view, &tensors).iter().map(|&x| x.into()).collect();
            let statistics = all_statistics(self.normalization, &source, view.width, None, EPS.into(), false);
            for (row, of) in statistics.into_iter().enumerate() {
                for (role, value) in [(Role::Mean, of.mean), (Role::Rstd, of.rstd)] {
                    if let Some(held) = tensors.get_mut(&role) {
                        held.values[self.offset + row] = value as f32;
                    }
                }
            }
        }
        tensors
    }

    /// An element, if there is such a tensor.
    fn at(&self, tensors: &Tensors, role: Role, i: usize) -> Option<f32> {
        tensors.get(&self.home(role)).map(|held| held.values[self.offset + i])
    }

    /// What is normalized, row by row.
    fn source(&self, view: &View, tensors: &Tensors) -> Vec<f32> {
        let of = |(k, &place): (usize, &usize)| {
            let at = |role, i| self.at(tensors, role, i);
            let condition = k / view.width / self.rows_per_condition;
            let gate = at(Role::Gate, condition * view.parameters + view.of[k]).unwrap_or(1.0);
            let x = at(Role::Input, place).unwrap_or(0.0);
            at(Role::Residual, place).map_or(x, |residual| gate * x + residual)
        };
        view.places.iter().enumerate().map(of).collect()
    }

    fn layer(&self, device: &GpuDevice) -> Result<GpuLayerNorm, String> {
        GpuLayerNorm::new(device, &self.config()).map_err(|error| error.to_string())
    }

    fn bindings(&self, view: &View, buffers: &BTreeMap<Role, wgpu::Buffer>) -> Bindings {
        let region = |role: Role| {
            let region = Region::new(&buffers[&self.home(role)], self.storage_of(role));
            region.offset(self.offset as u64)
        };
        let rows = view.rows as u64;
        let bindings = match self.backward {
            None => Bindings::new(rows, region(Role::Input), region(Role::Output)),
            Some(backward) => {
                let (dy, dx) = (region(Role::OutputGradient), region(Role::InputGradient));
                Bindings::backward(rows, region(Role::Input), dy, dx).accumulate(backward.accumulate)
            }
        };
        let bindings = bindings.input_shape(self.shape.clone());
        let roles = self.roles();
        let mut bindings = with_optional(bindings, |role| roles.contains(&role).then(|| region(role)));
        if roles.iter().any(|role| role.is_condition()) {
            bindings = bindings.rows_per_condition(self.rows_per_condition as u64);
        }
        bindings
    }

    /// Runs it with a plan, by `run`, which is given the buffers as well as their bytes and gives the bytes that it leaves.
    fn run_by(
        &self,
        device: &GpuDevice,
        pick: impl FnOnce(&Problem) -> Result<Plan, Error>,
        run: impl FnOnce(&GpuLayerNorm, Plan, &Bindings, &mut Vec<(Role, Vec<u8>)>) -> Result<(), String>,
    ) -> Result<(String, Tensors), String> {
        let (view, layer) = (self.view(), self.layer(device)?);
        let before = self.tensors(&view);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let mut bytes: Vec<_> = before.iter().map(|(role, held)| (*role, held.bytes())).collect();
        let buffers: BTreeMap<_, _> = bytes.iter().map(|(role, bytes)| (*role, upload(device, usage, bytes))).collect();
        let mut bindings = self.bindings(&view, &buffers);
        if let Some(count) = self.row_count {
            bindings = bindings.row_count(&upload(device, wgpu::BufferUsages::STORAGE, &count.to_le_bytes()), 0);
        }
        let problem = layer.problem(device, &bindings).map_err(|error| error.to_string())?;
        let plan = pick(&problem).map_err(|error| error.to_string())?;
        let what = format!("{:?} {:?}, {plan}", self.shape, self.over);
        let ran = run(&layer, plan, &bindings, &mut bytes);
        ran.map_err(|error| format!("{what}: {error}"))?;
        let mut after = Tensors::new();
        for (role, bytes) in bytes {
            let storage = before[&role].storage;
            after.insert(role, Held { storage, values: from_bytes(storage, &bytes, before[&role].values.len()) });
        }
        Ok((what, after))
    }

    fn run(
        &self,
        device: &GpuDevice,
        pick: impl FnOnce(&Problem) -> Result<Plan, Error>,
    ) -> Result<(String, Tensors), String> {
        self.run_by(device, pick, |layer, plan, bindings, bytes| {
            let mut prepared = layer.prepare_plan(device, plan, bindings).map_err(|error| error.to_string())?;
            for rows in &self.set_rows {
                prepared.set_rows(*rows as u64).map_err(|error| error.to_string())?;
            }
            submit(device, &prepared);
            for (role, bytes) in bytes {
                // The buffer of a role is that of its region.
                let region = bindings.get(*role).ok_or("a tensor without a region")?;
                *bytes = download(device, region.buffer());
            }
            Ok(())
        })
    }

    /// Compares what it leaves with the reference, with a plan of the caller's choice.
    fn check_with(&self, device: &GpuDevice, pick: impl FnOnce(&Problem) -> Result<Plan, Error>) -> Result<(), String> {
        let (what, after) = self.run(device, pick)?;
        self.compare(&after).map_err(|error| format!("{what}: {error}"))
    }

    /// With the strategy that it asks for, where that can run it. A device that binds too few buffers passes.
    fn check(&self, device: &GpuDevice) -> Result<(), String> {
        where_it_fits(device, self.check_with(device, |problem| self.plan(problem, device.capabilities())))
    }

    fn plan(&self, problem: &Problem, capabilities: &Capabilities) -> Result<Plan, Error> {
        let Some(strategy) = self.strategy else { return Plan::new(problem, capabilities) };
        match Plan::with_strategy(problem, capabilities, strategy) {
            Err(Error::Strategy { .. }) => Plan::new(problem, capabilities),
            decided => decided,
        }
    }

    /// By bare calls, with WGSL of the caller's choice in place of the kernels' own.
    fn check_wgsl(
        &self,
        device: &GpuDevice,
        pick: impl FnOnce(&Problem) -> Result<Plan, Error>,
        wgsl: impl Fn(&Kernel) -> String,
    ) -> Result<(), String> {
        assert_eq!(self.offset, 0);
        let (what, after) = self.run_by(device, pick, |_, plan, _, bytes| {
            bare::run(device, &plan, |kernel| bare::wgsl(wgsl(kernel)), bytes);
            Ok(())
        })?;
        self.compare(&after).map_err(|error| format!("{what}: {error}"))
    }

    /// Compares everything that is written with what it should be, and everything else with what it was.
    fn compare(&self, after: &Tensors) -> Result<(), String> {
        let view = self.view();
        let before = self.tensors(&view);
        let wanted = match self.backward {
            None => self.outputs(&view, &before),
            Some(backward) => self.gradients(&view, &before, backward),
        };
        let mut expected = before.clone();
        for (role, values) in wanted {
            let (home, storage) = (self.home(role), self.storage_of(role));
            for (place, exact, allowed) in values {
                let found = self.at(after, role, place).ok_or("a tensor is missing")?;
                // What has no bound is to be exact.
                let allowed = if allowed == 0.0 { 0.0 } else { allowed + unit_in_the_last_place(storage, exact) };
                let error = (f64::from(found) - exact).abs();
                if error.is_nan() || error > allowed {
                    return Err(format!(
                        "{role} at {place}: {found:e} in place of {exact:e}, {error:e} off where {allowed:e} is allowed"
                    ));
                }
                if let Some(held) = expected.get_mut(&home) {
                    held.values[self.offset + place] = found;
                }
            }
        }
        for (role, held) in &expected {
            let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
            if let Some(i) = held.values.iter().zip(&after[role].values).position(differs) {
                return Err(format!("{role}: what lies {i} elements from the beginning of the buffer was touched"));
            }
        }
        Ok(())
    }

    /// Rows that are worked on.
    fn rows_of(&self, view: &View) -> usize {
        let rows = self.set_rows.last().map_or(view.rows, |rows| view.rows.min(*rows));
        self.row_count.map_or(rows, |count| rows.min(count as usize))
    }

    fn outputs(&self, view: &View, before: &Tensors) -> Vec<(Role, Vec<Wanted>)> {
        let width = view.width;
        let source = self.source(view, before);
        let exact: Vec<f64> = source.iter().map(|&x| x.into()).collect();
        let statistics = all_statistics(self.normalization, &exact, width, None, EPS.into(), false);
        let normalized = all_normalized(&exact, width, &statistics);
        let rows = self.rows_of(view);
        let output = |k: usize| {
            let (x, of) = (normalized[k], self.factors(view, before, k));
            let off = error_bound(width) * scale(x) * of.factor_size;
            // Scale and weight, their product with x̂, and the sum are rounded.
            let rounding = 2.0 * f64::from(f32::EPSILON) * (x.abs() * of.factor_size + of.addend_size);
            (view.places[k], x * of.factor + of.addend, off + rounding)
        };
        let sum = |k: usize| (view.places[k], f64::from(stored(self.storage, source[k])), 0.0);
        let mean = |row: usize| {
            let of = statistics[row];
            (row, of.mean, of.mean.abs() * 1.2e-7 + 1e-6 / of.rstd)
        };
        let rstd = |row: usize| (row, statistics[row].rstd, statistics[row].rstd * rstd_bound(width));
        let elements = rows * width;
        let all: Vec<(Role, Vec<Wanted>)> = vec![
            (Role::Output, (0..elements).map(output).collect()),
            (Role::Sum, (0..elements).map(sum).collect()),
            (Role::Mean, (0..rows).map(mean).collect()),
            (Role::Rstd, (0..rows).map(rstd).collect()),
        ];
        let roles = self.roles();
        all.into_iter().filter(|(role, _)| roles.contains(role)).collect()
    }

    fn gradients(&self, view: &View, before: &Tensors, backward: Backward) -> Vec<(Role, Vec<Wanted>)> {
        let (width, rows) = (view.width, self.rows_of(view));
        let elements = rows * width;
        let source: Vec<f64> = self.source(view, before)[..elements].iter().map(|&x| x.into()).collect();
        let statistics = all_statistics(self.normalization, &source, width, None, EPS.into(), false);
        let normalized = all_normalized(&source, width, &statistics);
        let at = |role, i| self.at(before, role, i).map(f64::from);
        let dy = |k: usize| at(Role::OutputGradient, view.places[k]).unwrap_or(0.0);
        let factors: Vec<Factors> = (0..elements).map(|k| self.factors(view, before, k)).collect();

        // g, and its size where what it is multiplied by counts as the sum of the sizes of its parts.
        let g: Vec<f64> = (0..elements).map(|k| dy(k) * factors[k].factor).collect();
        let sizes: Vec<f64> = (0..elements).map(|k| dy(k).abs() * factors[k].factor_size).collect();
        let by_source = match self.normalization {
            Normalization::LayerNorm => reference::layer_norm_backward(&source, &g, width, None, EPS.into(), false),
            Normalization::RmsNorm => reference::rms_norm_backward(&source, &g, width, None, EPS.into()),
        };
        let wide = error_bound(width) / 1e-6;
        let largest = |values: &[f64]| values.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let bound = |k: usize| {
            let row = k / width;
            let of_row = row * width..(row + 1) * width;
            let of_sizes = statistics[row].rstd * largest(&sizes[of_row.clone()]);
            2e-6 * wide * largest(&by_source.input[of_row]).max(of_sizes)
        };
        let bounds: Vec<f64> = (0..rows).flat_map(|row| vec![bound(row * width); width]).collect();

        let conditions = view.rows.div_ceil(self.rows_per_condition);
        let mut sums: BTreeMap<Role, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        let of_parameters = (vec![0.0; view.parameters], vec![0.0; view.parameters]);
        let of_conditions = (vec![0.0; conditions * view.parameters], vec![0.0; conditions * view.parameters]);
        let all =
            [Role::WeightGradient, Role::BiasGradient, Role::ScaleGradient, Role::ShiftGradient, Role::GateGradient];
        for role in all {
            sums.insert(role, if role.is_parameter() { of_parameters.clone() } else { of_conditions.clone() });
        }
        // As many terms as a parameter has elements.
        let chain = chain_bound(width, elements / view.parameters.max(1));
        let (mut by_input, mut by_residual) = (Vec::new(), Vec::new());
        for k in 0..elements {
            let (place, of, x, dy) = (view.places[k], &factors[k], normalized[k], dy(k));
            let in_condition = of.condition * view.parameters + view.of[k];
            let gradient = by_source.input[k] + at(Role::SumGradient, place).unwrap_or(0.0);
            let allowed = bounds[k] + f64::from(f32::EPSILON) * gradient.abs();
            let gate = at(Role::Gate, in_condition).unwrap_or(1.0);
            by_input.push((place, gradient * gate, allowed * gate.abs()));
            by_residual.push((place, gradient, allowed));
            let input = at(Role::Input, place).unwrap_or(0.0);
            let (x_size, dy_size) = (scale(x), dy.abs());
            let adaptive = self.modulation == Modulation::Adaptive;
            let (scaled, scaled_size) =
                if adaptive { (dy * (1.0 + of.scale), dy_size * (1.0 + of.scale.abs())) } else { (dy, dy_size) };
            let (by_scale, by_scale_size) = if adaptive {
                (dy * (x * of.weight + of.bias), dy_size * (x_size.max(x.abs()) * of.weight.abs() + of.bias.abs()))
            } else {
                (dy * x, dy_size * x_size)
            };
            for (role, i, term, size) in [
                (Role::WeightGradient, view.of[k], scaled * x, chain * scaled_size * x_size),
                (Role::BiasGradient, view.of[k], scaled, chain * scaled_size),
                (Role::ScaleGradient, in_condition, by_scale, chain * by_scale_size),
                (Role::ShiftGradient, in_condition, dy, chain * dy_size),
                (Role::GateGradient, in_condition, gradient * input, input.abs() * (allowed + chain * gradient.abs())),
            ] {
                if let Some((sum, bound)) = sums.get_mut(&role) {
                    sum[i] += term;
                    bound[i] += size;
                }
            }
        }
        let mut wanted = vec![(Role::InputGradient, by_input), (Role::ResidualGradient, by_residual)];
        for (role, (sum, bounds)) in sums {
            let old = |i| at(role, i).filter(|_| backward.accumulate).unwrap_or(0.0);
            let of = |(i, (sum, bound)): (usize, (f64, f64))| (i, sum + old(i), bound);
            wanted.push((role, sum.into_iter().zip(bounds).enumerate().map(of).collect()));
        }
        let roles = self.roles();
        wanted.into_iter().filter(|(role, _)| roles.contains(role)).collect()
    }

    /// What x̂ is multiplied by, and what is added, for an element of the rows.
    fn factors(&self, view: &View, tensors: &Tensors, k: usize) -> Factors {
        let condition = k / view.width / self.rows_per_condition;
        let at = |role, i: usize, absent: f64| self.at(tensors, role, i).map_or(absent, f64::from);
        let (of, in_condition) = (view.of[k], condition * view.parameters + view.of[k]);
        let centre = if self.zero_centred_weight && self.affine.has_weight() { 1.0 } else { 0.0 };
        let weight = centre + at(Role::Weight, of, 1.0);
        let bias = at(Role::Bias, of, 0.0);
        let (scale, shift) = (at(Role::Scale, in_condition, 0.0), at(Role::Shift, in_condition, 0.0));
        let [factor, factor_size, addend, addend_size] = match self.modulation {
            Modulation::Adaptive => {
                let size = 1.0 + scale.abs();
                let (factor, addend) = (weight * (1.0 + scale), bias * (1.0 + scale) + shift);
                [factor, weight.abs() * size, addend, bias.abs() * size + shift.abs()]
            }
            Modulation::Conditional => {
                [weight + scale, weight.abs() + scale.abs(), bias + shift, bias.abs() + shift.abs()]
            }
        };
        Factors { condition, weight, bias, scale, factor, factor_size, addend, addend_size }
    }
}

/// A place in a tensor, what is to be there, and how far off it may be besides what its storage rounds.
type Wanted = (usize, f64, f64);

/// y = x̂ · factor + addend. A size is the sum of the magnitudes of the parts.
struct Factors {
    condition: usize,
    weight: f64,
    bias: f64,
    scale: f64,
    factor: f64,
    factor_size: f64,
    addend: f64,
    addend_size: f64,
}

impl Held {
    fn bytes(&self) -> Vec<u8> {
        let values = self.values.iter();
        let mut bytes: Vec<u8> = match self.storage {
            StorageType::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
            StorageType::F16 => values.flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            StorageType::Bf16 => values.flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

fn from_bytes(storage: StorageType, bytes: &[u8], count: usize) -> Vec<f32> {
    let pairs = bytes.chunks_exact(2).map(|x| [x[0], x[1]]);
    let mut values: Vec<f32> = match storage {
        StorageType::F32 => bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect(),
        StorageType::F16 => pairs.map(|x| f16::from_le_bytes(x).to_f32()).collect(),
        StorageType::Bf16 => pairs.map(|x| bf16::from_le_bytes(x).to_f32()).collect(),
    };
    values.truncate(count);
    values
}

fn axes(shape: &[usize], axes: &[isize]) -> Sample {
    Sample { shape: shape.to_vec(), over: Over::Axes(axes.to_vec()), ..Sample::default() }
}

fn groups(shape: &[usize], groups: usize) -> Sample {
    Sample { shape: shape.to_vec(), over: Over::Groups(groups), ..Sample::default() }
}

fn normalization(i: usize) -> Normalization {
    if i.is_multiple_of(2) { Normalization::LayerNorm } else { Normalization::RmsNorm }
}

/// Every subset of so many axes.
fn subsets(rank: usize) -> impl Iterator<Item = Vec<isize>> {
    (0..1_usize << rank)
        .map(move |bits| (0..rank).filter(|axis| bits >> axis & 1 == 1).map(|axis| axis as isize).collect())
}

/// Every `step`-th of these plans, each compared; how many they are.
fn each(
    sample: &Sample,
    device: &GpuDevice,
    step: usize,
    plans: impl Fn(&Problem) -> Vec<Plan>,
) -> Result<usize, Failed> {
    let mut all: Option<Vec<Plan>> = None;
    for count in 1.. {
        let i = (count - 1) * step;
        let mut more = false;
        let pick = |problem: &Problem| {
            let all = all.get_or_insert_with(|| plans(problem));
            more = i + step < all.len();
            match all.get(i) {
                Some(plan) => Ok(plan.clone()),
                // Why there is none.
                None => Plan::new(problem, device.capabilities()),
            }
        };
        where_it_fits(device, sample.check_with(device, pick))?;
        if !more {
            return Ok(count);
        }
    }
    unreachable!("plans end")
}

/// Every set of axes of tensors of one to four dimensions, with statistics; storage types, normalizations and affine maps in turn.
pub fn every_set(_: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0_usize;
    for shape in [&[6][..], &[5, 8], &[3, 4, 8], &[2, 3, 5, 4]] {
        for set in subsets(shape.len()) {
            for strategy in STRATEGIES {
                i += 1;
                // One or two strategies a set.
                if ![0, 2].contains(&(i % 5)) {
                    continue;
                }
                let sample = Sample {
                    normalization: normalization(i / 3),
                    affine: AFFINES[(i + i / 4) % 3],
                    zero_centred_weight: i.is_multiple_of(5),
                    storage: StorageType::ALL[(i + i / 9) % 3],
                    parameters: StorageType::ALL[i / 4 % 3],
                    statistics: true,
                    strategy: Some(strategy),
                    ..axes(shape, &set)
                };
                sample.check(device)?;
            }
        }
    }
    Ok(())
}

/// Every set of axes of five dimensions; strategies in turn too.
pub fn five_dimensions(name: &str, device: &GpuDevice) -> Outcome {
    let mut turns = Turns::new(name, 2);
    for (i, set) in subsets(5).enumerate() {
        if !turns.takes() {
            continue;
        }
        for (last, storage) in [(4, StorageType::ALL[i % 3]), (8, StorageType::ALL[(i + 1) % 3])] {
            if last == 8 && i % 2 == 1 {
                continue;
            }
            let sample = Sample {
                normalization: normalization(i / 2),
                affine: AFFINES[i / 3 % 3],
                storage,
                parameters: StorageType::ALL[i / 2 % 3],
                strategy: Some(STRATEGIES[(i + last / 8) % 3]),
                ..axes(&[2, 3, 2, 3, last], &set)
            };
            sample.check(device)?;
        }
    }
    Ok(())
}

/// Axes in other orders than that of the dimensions, which weight and bias follow, and axes that are counted from the end.
pub fn listed_orders(_: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0_usize;
    for (turn, (shape, set)) in [
        (&[3, 4, 8][..], &[2, 1][..]),
        (&[3, 4, 8], &[1, 0]),
        (&[3, 4, 8], &[2, 0]),
        (&[3, 4, 8], &[0, -1]),
        (&[4, 8], &[1, 0]),
        (&[3, 4, 5, 8], &[3, 1]),
        (&[3, 4, 5, 8], &[-1, -3, 0]),
        (&[2, 3, 4, 8], &[3, 1, 2]),
        (&[2, 3, 4, 8], &[-2, -1]),
        (&[2, 3, 4, 8], &[3, 2, 1, 0]),
        (&[2, 3, 4, 2, 8], &[4, 1, 3]),
        (&[2, 3, 4, 2, 8], &[1, 0]),
        (&[2, 3, 4, 2, 8], &[-3]),
    ]
    .into_iter()
    .enumerate()
    {
        for backward in [None, Some(EVERY_GRADIENT)] {
            if backward.is_some() && turn % 4 == 3 {
                continue;
            }
            i += 1;
            let sample = Sample {
                normalization: normalization(i / 2),
                storage: StorageType::ALL[(turn + turn / 3) % 3],
                parameters: StorageType::ALL[i / 3 % 3],
                statistics: i.is_multiple_of(2),
                backward,
                strategy: Some(STRATEGIES[turn % 3]),
                ..axes(shape, set)
            };
            sample.check(device)?;
        }
    }
    Ok(())
}

/// The backward pass over every set of axes of two and of four dimensions, with given and with measured statistics.
pub fn every_gradient(_: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0_usize;
    for shape in [&[5, 8][..], &[2, 3, 5, 4]] {
        for set in subsets(shape.len()) {
            i += 1;
            let sample = Sample {
                normalization: normalization(i / 3),
                affine: AFFINES[(i + i / 3) % 3],
                zero_centred_weight: i.is_multiple_of(5),
                storage: StorageType::ALL[(i + i / 9) % 3],
                parameters: StorageType::ALL[i / 4 % 3],
                statistics: i % 4 < 2,
                in_place: i.is_multiple_of(7),
                backward: Some(Backward { accumulate: i % 8 < 3, sum_gradient: i % 5 < 3, ..EVERY_GRADIENT }),
                strategy: Some(STRATEGIES[i % 3]),
                ..axes(shape, &set)
            };
            sample.check(device)?;
        }
    }
    Ok(())
}

/// Images, channels first: numbers of pixels that vectors divide and others, few channels and many, with residual and sum, in place.
pub fn images(_: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0_usize;
    for shape in [&[2, 24, 4, 8][..], &[3, 24, 5, 5], &[1, 768, 3, 7], &[5, 3, 16], &[2, 129, 33]] {
        for strategy in STRATEGIES {
            for (residual, sum, in_place) in
                [(false, false, false), (true, true, false), (true, true, true), (false, false, true)]
            {
                i += 1;
                if !i.is_multiple_of(5) {
                    continue;
                }
                let base = Sample {
                    normalization: normalization(i),
                    affine: AFFINES[(i + i / 3) % 3],
                    storage: StorageType::ALL[i % 3],
                    parameters: StorageType::ALL[i / 4 % 3],
                    residual,
                    in_place,
                    statistics: i % 4 < 2,
                    strategy: Some(strategy),
                    ..axes(shape, &[1])
                };
                Sample { sum, ..base.clone() }.check(device)?;
                if i.is_multiple_of(2) {
                    let backward = Backward { residual_gradient: residual, ..EVERY_GRADIENT };
                    Sample { backward: Some(backward), ..base }.check(device)?;
                }
            }
        }
    }
    Ok(())
}

/// Scale, shift and gate: of each image, of several images, of each line, of each pixel, and of numbers of pixels that divide nothing.
pub fn conditions(_: &str, device: &GpuDevice) -> Outcome {
    let mut i = 0_usize;
    for (shape, set, all) in [
        (&[3, 12, 5, 3][..], &[1][..], &[15, 30, 3, 1, 7][..]),
        (&[3, 4, 5, 8], &[3, 1], &[5, 1, 15]),
        (&[2, 24, 4, 4], &[1], &[16, 4]),
    ] {
        for &rows_per_condition in all {
            i += 1;
            let base = Sample {
                normalization: normalization(i / 2),
                affine: AFFINES[i / 2 % 3],
                modulation: [Modulation::Adaptive, Modulation::Conditional][(i + i / 4) % 2],
                storage: StorageType::ALL[(i + i / 3) % 3],
                residual: !i.is_multiple_of(3),
                gate: !i.is_multiple_of(3),
                scale: i % 4 != 1,
                shift: i % 4 != 2,
                rows_per_condition,
                statistics: i.is_multiple_of(2),
                strategy: Some(STRATEGIES[i / 3 % 3]),
                ..axes(shape, set)
            };
            if i % 4 < 2 {
                base.check(device)?;
            }
            let backward = Backward { accumulate: i % 2 == 1, sum_gradient: i.is_multiple_of(4), ..EVERY_GRADIENT };
            let backward = Backward { residual_gradient: base.residual && i.is_multiple_of(2), ..backward };
            Sample { backward: Some(backward), ..base }.check(device)?;
        }
    }
    Ok(())
}

/// Tensors that begin somewhere in their buffers.
pub fn offsets(name: &str, device: &GpuDevice) -> Outcome {
    let (mut i, mut turns) = (0_usize, Turns::new(name, 2));
    for (shape, set) in [(&[2, 8, 5][..], &[1][..]), (&[2, 3, 4, 8], &[1, 3]), (&[4, 6], &[0])] {
        for offset in [1, 3, 4, 8, 72] {
            for backward in [None, Some(EVERY_GRADIENT)] {
                i += 1;
                if !turns.takes() {
                    continue;
                }
                let sample = Sample {
                    storage: StorageType::ALL[i % 3],
                    parameters: StorageType::ALL[i / 2 % 3],
                    offset,
                    statistics: true,
                    backward,
                    strategy: Some(STRATEGIES[i / 3 % 3]),
                    ..axes(shape, set)
                };
                sample.check(device)?;
            }
        }
        groups(&[2, 6, 8], 3).at_offset(3).check(device)?;
    }
    Ok(())
}

impl Sample {
    fn at_offset(self, offset: usize) -> Self {
        Self { offset, ..self }
    }
}

/// Rows of one element, dimensions of size 1, and nothing but one row.
pub fn lone_dimensions(_: &str, device: &GpuDevice) -> Outcome {
    for (i, (shape, set)) in [
        (&[3, 1, 5][..], &[1][..]),
        (&[3, 5], &[]),
        (&[1, 6, 1, 4], &[1]),
        (&[2, 6, 1, 1], &[1]),
        (&[1, 6, 1, 4], &[0, 1]),
        (&[1, 6, 1, 4], &[3, 1]),
        (&[1, 6, 1, 4], &[0, 2]),
        (&[4, 1, 1, 8], &[2, 0]),
        (&[1, 1, 1], &[1]),
        (&[7, 1], &[0]),
        (&[8, 1], &[0]),
    ]
    .into_iter()
    .enumerate()
    {
        for backward in [None, Some(EVERY_GRADIENT)] {
            let sample = Sample {
                storage: StorageType::ALL[i % 3],
                statistics: true,
                backward,
                strategy: Some(STRATEGIES[i / 2 % 3]),
                ..axes(shape, set)
            };
            sample.check(device)?;
        }
    }
    Ok(())
}

/// Bindings that hold a part of the tensors: chunks are whole samples. Where the outermost dimension is normalized, or conditions are not
/// in step with the samples, there are none, and an error says so.
pub fn chunks(_: &str, device: &GpuDevice) -> Outcome {
    let small = Capabilities { max_binding_bytes: 4096, ..*device.capabilities() };
    let several = |sample: &Sample| {
        let pick = |problem: &Problem| {
            let plan = sample.plan(problem, &small)?;
            match plan.chunks().len() {
                0..3 => Err(Error::Geometry { reason: format!("{plan} is to have several chunks") }),
                _ => Ok(plan),
            }
        };
        where_it_fits(device, sample.check_with(device, pick))
    };
    for (i, strategy) in STRATEGIES.into_iter().enumerate() {
        let images = Sample { statistics: true, strategy: Some(strategy), ..axes(&[40, 6, 5, 3], &[1]) };
        several(&images)?;
        several(&Sample { storage: StorageType::F16, offset: 1, ..axes(&[80, 6, 5, 3], &[3, 1]) })?;
        several(&Sample { strategy: Some(strategy), ..groups(&[40, 6, 15], 3) })?;
        for (rows_per_condition, accumulate) in [(15, false), (30, true), (5, false), (45, true)] {
            let conditional =
                Sample { scale: true, shift: true, rows_per_condition, strategy: Some(strategy), ..images.clone() };
            several(&conditional)?;
            let backward = Some(Backward { accumulate, ..EVERY_GRADIENT });
            several(&Sample { backward, statistics: i != 1, ..conditional })?;
        }
    }
    for (sample, what) in [
        (axes(&[40, 90], &[0]), "the outermost dimension is normalized"),
        (axes(&[40, 6, 15], &[2, 0]), "the outermost dimension is one of two that are normalized"),
        (
            Sample { scale: true, rows_per_condition: 7, ..axes(&[40, 6, 5, 3], &[1]) },
            "conditions are not in step with samples",
        ),
    ] {
        let mut found = None;
        let pick = |problem: &Problem| {
            let plan = Plan::new(problem, &small);
            found = Some(plan.clone().err());
            plan
        };
        let checked = sample.check_with(device, pick);
        if !matches!(found, Some(Some(Error::Geometry { .. }))) || checked.is_ok() {
            return Err(format!("{what}: {found:?}, {checked:?}").into());
        }
        // The same where all of it can be bound.
        sample.check(device)?;
    }
    Ok(())
}

/// Fewer rows than there are, by a count on the device.
pub fn row_counts(name: &str, device: &GpuDevice) -> Outcome {
    let small = Capabilities { max_binding_bytes: 2048, ..*device.capabilities() };
    let mut i = 0_usize;
    for base in [axes(&[40, 6, 3], &[1]), groups(&[40, 6, 3], 3)] {
        // The smaller of the two counts holds; it may be raised again.
        let set: [&[usize]; 3] = [&[60], &[119, 4], &[0, 77]];
        let counts = [120, 119, 50, 1, 0, u32::MAX].map(|count| (count, [].as_slice()));
        for (count, set_rows) in counts.into_iter().chain([50, 119, u32::MAX].into_iter().zip(set)) {
            for is_conditional in [false, true] {
                i += 1;
                let is_grouped = matches!(base.over, Over::Groups(_));
                // The groups of some samples belong together.
                let rows_per_condition = if i.is_multiple_of(4) { 6 } else { 3 };
                let forward = Sample {
                    scale: is_conditional,
                    shift: is_conditional,
                    rows_per_condition,
                    statistics: true,
                    strategy: Some(STRATEGIES[i % 3]),
                    row_count: Some(count),
                    set_rows: set_rows.to_vec(),
                    ..base.clone()
                };
                let backward = Backward { accumulate: i.is_multiple_of(2), ..EVERY_GRADIENT };
                let backward = Sample { backward: Some(backward), ..forward.clone() };
                for sample in [forward, backward] {
                    let in_one = sample.check(device);
                    in_one.map_err(|error| format!("a count of {count}, {set_rows:?}: {error}"))?;
                    // What is added up over all samples of a channel is not kept from chunk to chunk.
                    if is_grouped && sample.backward.is_some() || name == "swiftshader" && i.is_multiple_of(2) {
                        continue;
                    }
                    let chunked = sample.check_with(device, |problem| sample.plan(problem, &small));
                    let chunked = where_it_fits(device, chunked);
                    chunked.map_err(|error| format!("a count of {count}, {set_rows:?}, in chunks: {error}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Geometries in which several invocations share each of some rows that lie side by side.
fn side_by_side(problem: &Problem, capabilities: &Capabilities) -> Vec<Plan> {
    let mut plans = Vec::new();
    for lanes in [2, 4, 8, 16] {
        for (access, segment_width) in [
            (Access::Held, None),
            (Access::Reread, None),
            (Access::Reread, Some(8 * lanes)),
            (Access::Held, Some(8 * lanes)),
        ] {
            for (groups, spans_per_lane) in [(4, 1), (8, 1), (4, 2)] {
                let spans_per_workgroup = groups * spans_per_lane;
                let reduction = Reduction::Workgroup;
                let geometry =
                    Geometry { access, reduction, lanes, spans_per_lane, spans_per_workgroup, segment_width };
                plans.extend(Plan::with_geometry(problem, capabilities, geometry).ok());
            }
        }
    }
    plans
}

/// Such geometries of every kind, forward and backward.
pub fn rows_side_by_side(_: &str, device: &GpuDevice) -> Outcome {
    for (i, shape) in [[2, 40, 5, 5], [3, 33, 3, 2]].into_iter().enumerate() {
        for (backward, least) in [(None, 20), (Some(EVERY_GRADIENT), 10)] {
            let sample = Sample {
                storage: [StorageType::F32, StorageType::Bf16][i],
                residual: true,
                statistics: true,
                backward,
                ..axes(&shape, &[1])
            };
            // Lanes, accesses and groups all come in turn.
            let step = [5, 7][i];
            let count = each(&sample, device, step, |problem| {
                let plans = side_by_side(problem, device.capabilities());
                assert!(plans.iter().all(|plan| plan.kernels().iter().any(|kernel| kernel.rows_first)));
                plans
            })?;
            if device.capabilities().max_storage_buffers >= ENOUGH_BUFFERS && count * step < least {
                return Err(format!("{count} geometries are too few").into());
            }
        }
    }
    Ok(())
}

/// Four, eight, sixteen and thirty-two neighbouring rows to an invocation, more than there are rows too.
pub fn several_rows_at_once(name: &str, device: &GpuDevice) -> Outcome {
    for (i, shape) in [[3, 33, 6, 6], [1, 64, 4, 25], [2, 130, 2, 2]].into_iter().enumerate() {
        for (k, storage) in StorageType::ALL.into_iter().enumerate() {
            // A slow adapter has each storage type once.
            if !(i + k).is_multiple_of(step(name, 3)) {
                continue;
            }
            let sample = Sample { storage, residual: i == 0, statistics: true, ..axes(&shape, &[1]) };
            let count = each(&sample, device, 1, |problem| {
                let plan_of = |spans_per_lane| {
                    let geometry = Geometry {
                        access: Access::Reread,
                        reduction: Reduction::Lane,
                        lanes: 1,
                        spans_per_lane,
                        spans_per_workgroup: 2 * spans_per_lane,
                        segment_width: None,
                    };
                    Plan::with_geometry(problem, device.capabilities(), geometry).ok()
                };
                let plans: Vec<_> = [4, 8, 16, 32].into_iter().filter_map(plan_of).collect();
                assert!(plans.iter().all(|plan| plan.kernels()[0].unit == Unit::Rows));
                plans
            })?;
            if count != 4 {
                return Err(format!("{count} of 4 geometries").into());
            }
        }
    }
    Ok(())
}

/// What the planner picks for GPUs, and the other plans that it would have measured there.
pub fn plans_of_gpus(name: &str, device: &GpuDevice) -> Outcome {
    for (i, base) in [
        axes(&[2, 96, 6, 7], &[1]),
        axes(&[1, 768, 5, 3], &[1]),
        axes(&[3, 4, 9, 64], &[1, 3]),
        groups(&[3, 32, 6, 8], 8),
        groups(&[5, 6, 35], 3),
    ]
    .into_iter()
    .enumerate()
    {
        let rows_per_condition = if let Over::Groups(count) = base.over { count } else { 1 };
        let conditions = Sample { scale: true, shift: true, rows_per_condition, ..base.clone() };
        let backward = Some(EVERY_GRADIENT);
        for sample in [Sample { backward, statistics: i.is_multiple_of(2), ..conditions }, base] {
            let sample = Sample { storage: StorageType::ALL[i % 3], ..sample };
            let (first, step) = if step(name, 7) == 1 { (0, 5) } else { (i % 3, 7) };
            each(&sample, device, step, |problem| {
                let capabilities = device.capabilities_for(problem);
                let capabilities = Capabilities { class: AdapterClass::Discrete, ..capabilities };
                Plan::candidates(problem, &capabilities).unwrap_or_default().into_iter().skip(first).collect()
            })?;
        }
    }
    Ok(())
}

/// Groups of channels, from one to as many as channels: positions that vectors divide and others, none but one, several samples and one,
/// parameters of every storage type and none.
pub fn every_group(name: &str, device: &GpuDevice) -> Outcome {
    let (mut i, mut turns) = (0_usize, Turns::new(name, 2));
    for shape in [&[3, 12, 5, 5][..], &[2, 12, 8], &[1, 12, 4, 4], &[4, 12, 1], &[4, 12], &[2, 12, 3, 3]] {
        for count in [1, 2, 3, 12] {
            for strategy in STRATEGIES {
                i += 1;
                if !turns.takes() {
                    continue;
                }
                let sample = Sample {
                    affine: AFFINES[(i + i / 3) % 3],
                    zero_centred_weight: i.is_multiple_of(5),
                    storage: StorageType::ALL[i % 3],
                    parameters: StorageType::ALL[i / 2 % 3],
                    statistics: i.is_multiple_of(2),
                    residual: i.is_multiple_of(4),
                    in_place: i.is_multiple_of(3),
                    strategy: Some(strategy),
                    ..groups(shape, count)
                };
                sample.check(device)?;
            }
        }
    }
    Ok(())
}

/// Scale, shift and gate of each channel of each sample, of several samples, and of each group of each sample: adaptive group and instance
/// normalization.
pub fn groups_of_conditions(name: &str, device: &GpuDevice) -> Outcome {
    let (mut i, mut turns) = (0_usize, Turns::new(name, 2));
    for (shape, count) in [(&[3, 12, 5, 5][..], 3), (&[2, 12, 8], 12), (&[4, 6, 4], 1), (&[4, 6, 1], 2)] {
        for modulation in [Modulation::Adaptive, Modulation::Conditional] {
            // Of each sample, of two, of each group, and of rows of two samples.
            for rows_per_condition in [count, 2 * count, 1, count + 1] {
                i += 1;
                let sample = Sample {
                    affine: AFFINES[i % 3],
                    modulation,
                    storage: StorageType::ALL[i % 3],
                    parameters: StorageType::ALL[i / 2 % 3],
                    residual: i % 5 < 2,
                    gate: i % 5 < 2,
                    scale: i % 4 != 1,
                    shift: i % 4 != 2,
                    rows_per_condition,
                    strategy: Some(STRATEGIES[i / 2 % 3]),
                    ..groups(shape, count)
                };
                sample.check(device)?;
                if turns.takes() {
                    let conditions = !sample.gate;
                    let backward = Backward { conditions, accumulate: i % 5 < 3, ..EVERY_GRADIENT };
                    Sample { backward: Some(backward), statistics: i % 4 < 2, ..sample }.check(device)?;
                }
            }
        }
    }
    Ok(())
}

/// The backward pass of groups, the gradients of weight and bias too, and the input's alone.
pub fn group_gradients(name: &str, device: &GpuDevice) -> Outcome {
    let (mut i, mut turns) = (0_usize, Turns::new(name, 2));
    for shape in [&[3, 12, 5, 5][..], &[2, 12, 8], &[1, 12, 4, 4], &[4, 12, 1], &[2, 12, 3, 3]] {
        for count in [1, 3, 12] {
            for strategy in STRATEGIES {
                i += 1;
                if !turns.takes() {
                    continue;
                }
                let backward = Backward {
                    sum_gradient: i.is_multiple_of(3),
                    parameters: !i.is_multiple_of(4),
                    accumulate: i % 3 == 1,
                    ..Backward::default()
                };
                let sample = Sample {
                    affine: AFFINES[if i.is_multiple_of(4) { i / 4 % 3 } else { 1 + i % 2 }],
                    zero_centred_weight: i.is_multiple_of(5),
                    storage: StorageType::ALL[i % 3],
                    parameters: StorageType::ALL[i / 2 % 3],
                    statistics: i.is_multiple_of(2),
                    residual: i % 5 == 1,
                    in_place: i.is_multiple_of(7),
                    backward: Some(backward),
                    strategy: Some(strategy),
                    ..groups(shape, count)
                };
                sample.check(device)?;
            }
        }
    }
    Ok(())
}

/// So many samples that each walk over the rows comes by groups of every number, whose weights differ.
pub fn many_samples(name: &str, device: &GpuDevice) -> Outcome {
    let samples = if name == "swiftshader" { 300 } else { 1000 };
    for (shape, count) in [(vec![samples, 6, 4], 3), (vec![samples, 7, 2], 7), (vec![samples, 10, 1], 5)] {
        for strategy in [None, Some(Strategy::Resident), Some(Strategy::Streaming)] {
            for parameters in [false, true] {
                let backward = Some(Backward { parameters, ..Backward::default() });
                Sample { backward, statistics: parameters, strategy, ..groups(&shape, count) }.check(device)?;
            }
        }
    }
    for strategy in [None, Some(Strategy::Streaming)] {
        let backward = Some(EVERY_GRADIENT);
        Sample { backward, statistics: true, strategy, ..axes(&[samples / 10, 6, 5, 7], &[1]) }.check(device)?;
    }
    Ok(())
}

/// Rows whose mean is far away, or that have an outlier.
pub fn accuracy(name: &str, device: &GpuDevice) -> Outcome {
    let widths: &[usize] = if name == "swiftshader" { &[768] } else { &[64, 768, 4096] };
    for &width in widths {
        for data in [
            Data::Normal { mean: 1e6, std: 1.0 },
            Data::Normal { mean: -1e6, std: 1.0 },
            Data::Normal { mean: 1e2, std: 0.01 },
        ] {
            for strategy in STRATEGIES {
                for base in [axes(&[2, width, 3], &[1]), groups(&[2, 4, width / 2], 2)] {
                    let sample = Sample { data, statistics: true, strategy: Some(strategy), ..base };
                    sample.check(device)?;
                    if width == 768 {
                        let backward = Some(Backward { parameters: true, ..Backward::default() });
                        Sample { backward, ..sample }.check(device)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// A layer over the second of three dimensions.
fn layer(device: &GpuDevice, weight: &[f32], bias: &[f32]) -> Result<GpuLayerNorm, Failed> {
    let width = weight.len();
    let layer = GpuLayerNorm::new(device, &LayerNormConfig::new(width).axes([1]).expect_nothing())?;
    layer.set_weight(&Tensor::from_f32([width], weight.to_vec())?)?;
    layer.set_bias(&Tensor::from_f32([width], bias.to_vec())?)?;
    Ok(layer)
}

fn uploaded(device: &GpuDevice, shape: [usize; 3], values: &[f32]) -> Result<GpuTensor, Failed> {
    Ok(GpuTensor::upload(device, &Tensor::from_f32(shape, values.to_vec())?)?)
}

/// What is no number stays in its row, though its neighbours in memory are of other rows.
pub fn nan_stays_in_its_row(_: &str, device: &GpuDevice) -> Outcome {
    let shape @ [images, width, pixels] = [2, 33, 10];
    let standard = |count, seed| Data::STANDARD.values(1, count, seed);
    let count = images * width * pixels;
    let (clean, dy) = (standard(count, 1), uploaded(device, shape, &standard(count, 2))?);
    let layer = layer(device, &standard(width, 3), &standard(width, 4))?;
    let run = |input: &[f32]| -> Result<Vec<(String, Vec<f32>)>, Failed> {
        let input = uploaded(device, shape, input)?;
        let written = GpuTensor::zeros(device, shape)?;
        let mut found = Vec::new();
        for bindings in [Bindings::of(&input, &written), Bindings::backward_of(&input, &dy, &written)] {
            let problem = layer.problem(device, &bindings)?;
            let mut plans = strategies(&problem, device);
            plans.extend(side_by_side(&problem, device.capabilities()).into_iter().step_by(5));
            for plan in plans {
                let what = plan.to_string();
                submit(device, &layer.prepare_plan(device, plan, &bindings)?);
                found.push((what, written.download()?.into_values()));
            }
        }
        Ok(found)
    };
    let exact = run(&clean)?;
    // Element 7 of pixel 4 of the second image.
    let bad_place = (width + 7) * pixels + 4;
    for bad in [f32::NAN, f32::INFINITY] {
        let mut input = clean.clone();
        input[bad_place] = bad;
        for ((what, found), (_, exact)) in run(&input)?.iter().zip(&exact) {
            for (i, (found, exact)) in found.iter().zip(exact).enumerate() {
                let is_bad = i / (width * pixels) == 1 && i % pixels == 4;
                let is_right = if is_bad { found.is_nan() } else { (found - exact).abs() <= 1e-5 };
                if !is_right {
                    return Err(format!("{what}: {bad} makes {found:e} of {exact:e} at {i}").into());
                }
            }
        }
    }
    Ok(())
}

/// A constant row gives exactly the bias.
pub fn constant_rows(name: &str, device: &GpuDevice) -> Outcome {
    let constants = [0.0, 1.0, -0.1, 1e6, 1e-30, 1e37, f32::MIN_POSITIVE];
    let (images, pixels) = (2, constants.len());
    for width in [1, 37, 64] {
        let shape = [images, width, pixels];
        let standard = |seed| Data::STANDARD.values(1, width, seed);
        let (weight, bias) = (standard(1), standard(2));
        let input: Vec<f32> = (0..images * width).flat_map(|_| constants).collect();
        let input = uploaded(device, shape, &input)?;
        let layer = layer(device, &weight, &bias)?;
        for storage in StorageType::ALL {
            let output = GpuTensor::zeros_as(device, shape, storage)?;
            let bindings = Bindings::of(&input, &output);
            let problem = layer.problem(device, &bindings)?;
            let mut plans = strategies(&problem, device);
            plans.extend(side_by_side(&problem, device.capabilities()).into_iter().step_by(step(name, 3) * 7));
            for plan in plans {
                let what = plan.to_string();
                submit(device, &layer.prepare_plan(device, plan, &bindings)?);
                for (i, y) in output.download()?.values().iter().enumerate() {
                    let exact = stored(storage, bias[i / pixels % width]);
                    if *y != exact {
                        let constant = constants[i % pixels];
                        return Err(format!("{what}: a row of {constant:e} gives {y:e}, not {exact:e}").into());
                    }
                }
            }
        }
    }
    Ok(())
}

pub fn same_bits(name: &str, device: &GpuDevice) -> Outcome {
    if device.capabilities().max_storage_buffers < ENOUGH_BUFFERS {
        return Ok(());
    }
    let pixels = if name == "swiftshader" { 300 } else { 1000 };
    for base in [axes(&[2, 40, pixels], &[1]), axes(&[3, 4, pixels / 10, 8], &[3, 1]), groups(&[30, 12, 35], 3)] {
        let backward = Some(Backward { parameters: true, ..Backward::default() });
        for sample in [Sample { backward, ..base.clone() }, base] {
            for i in 0.. {
                let mut more = true;
                let mut run = || {
                    let pick = |problem: &Problem| {
                        let mut all = strategies(problem, device);
                        more = i + 1 < all.len();
                        Ok(all.swap_remove(i))
                    };
                    sample.run(device, pick)
                };
                let ((what, first), (_, second)) = (run()?, run()?);
                let bits = |tensors: &Tensors| tensors.values().map(Held::bytes).collect::<Vec<_>>();
                if bits(&first) != bits(&second) {
                    return Err(format!("{what}: other bits in a second run").into());
                }
                if !more {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The comparison that these tests rest on must be able to fail.
pub fn wrong_kernels(_: &str, device: &GpuDevice) -> Outcome {
    let images = axes(&[2, 8, 3, 5], &[1]);
    let permuted = axes(&[3, 4, 5, 8], &[3, 1]);
    let grouped = groups(&[3, 12, 5, 5], 3);
    let backward = Some(Backward { parameters: true, ..Backward::default() });
    let gradients = |sample: &Sample| Sample { backward, statistics: true, ..sample.clone() };
    let (images_backward, grouped_backward) = (gradients(&images), gradients(&grouped));
    let pick = |problem: &Problem| Plan::with_strategy(problem, device.capabilities(), Strategy::Streaming);
    let shared = |problem: &Problem| {
        let geometry = Geometry {
            access: Access::Reread,
            reduction: Reduction::Workgroup,
            lanes: 4,
            spans_per_lane: 1,
            spans_per_workgroup: 4,
            segment_width: None,
        };
        Plan::with_geometry(problem, device.capabilities(), geometry)
    };
    type Pick<'a> = &'a dyn Fn(&Problem) -> Result<Plan, Error>;
    let of_strategy: Pick = &pick;
    let of_geometry: Pick = &shared;
    for (what, sample, pick, from, to) in [
        ("elements one after another", &images, of_strategy, "element_offset(position)", "position"),
        ("rows one after another", &images, of_strategy, "row_offset(row)", "row"),
        (
            "the weight of the dimensions' own order",
            &permuted,
            of_strategy,
            "parameter_of_element(position)",
            "position",
        ),
        ("the first group's weight", &grouped, of_strategy, "parameter_of_row(row) + ", ""),
        ("the first channel's weight", &grouped, of_strategy, "parameter_of_element(position)", "0u"),
        ("sums of other invocations", &images, of_geometry, "reduce_as(group * LANES + lane);", ""),
        ("backward: elements one after another", &images_backward, of_strategy, "element_offset(position)", "position"),
        ("backward: the first group's weight", &grouped_backward, of_strategy, "parameter_of_row(row) + ", ""),
        ("backward: channels of all groups", &grouped_backward, of_strategy, "row += SEGMENTS", "row += 1u"),
    ] {
        where_it_fits(device, sample.check_wgsl(device, pick, Kernel::wgsl))?;
        let mut found = None;
        let picked = |problem: &Problem| {
            let plan = pick(problem)?;
            found = Some(plan.kernels().iter().any(|kernel| kernel.wgsl().contains(from)));
            Ok(plan)
        };
        let checked = sample.check_wgsl(device, picked, |kernel| kernel.wgsl().replace(from, to));
        match (found, checked) {
            (None, checked) if where_it_fits(device, checked.clone()).is_ok() => {}
            (Some(true), Err(_)) => {}
            (Some(true), Ok(())) => return Err(format!("{what}: the comparison accepts it").into()),
            (_, error) => return Err(format!("{what}: no kernel has \"{from}\"; {error:?}").into()),
        }
    }
    Ok(())
}
