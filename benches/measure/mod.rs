//! Timing on a device, beside a copy of the same bytes. Shared by the benchmarks and the demo.
#![allow(dead_code, unused_imports, reason = "each binary that includes this uses a part of it")]

mod case;
mod copies;
mod detour;
mod gradients;
mod pool;
pub mod report;
mod stopwatch;

use std::time::Duration;

use gpu_layer_norm::{Affine, Error, GpuLayerNorm, Plan, PreparedPlan, Tensor, wgpu};

pub use case::{Case, Operation};
pub use copies::Copies;
use copies::Copy;
pub use detour::Detour;
pub use gradients::ExactGradients;
pub use pool::Pool;
pub use stopwatch::{Stopwatch, Work, median, medians};

/// One case: plans for it, each checked, and the fastest copy of the same bytes.
pub struct Bench {
    pub case: Case,
    pub plans: Vec<PreparedPlan>,
    /// Of a backward pass that reads statistics: the forward pass that saves them.
    pub forward: Option<PreparedPlan>,
    pub copies: Copies,
    /// Of an operation over dimensions that are not the last ones: transposed, over the last one, and transposed again.
    pub detour: Option<Detour>,
    /// |y − y_f64| at most, the rounding to storage taken off. Of a backward pass |dx − dx_f64|, as a share of what
    /// [`ExactGradients::input_error`] says.
    pub largest_error: f64,
}

impl Bench {
    /// Prepares the planner's pick, or all its candidates, and compares their results with the f64 reference.
    ///
    /// # Panics
    /// If one of them is wrong.
    pub fn new(pool: &mut Pool, case: Case, all_candidates: bool) -> Result<Self, Error> {
        assert!(case.elements() <= pool.elements, "{case:?} is larger than its buffers");
        pool.fill(case.storage)?;
        pool.make_room(&case)?;
        let device = &pool.device;
        let stopwatch = Stopwatch::new(device);
        let layer = GpuLayerNorm::new(device, &case.config())?;
        let shaped = |values| Ok::<_, Error>(Tensor::from_f32([case.width], values)?.to_storage(case.storage));
        layer.set_weight(&shaped(case.weight())?)?;
        if layer.config().affine_kind() == Affine::WeightAndBias {
            layer.set_bias(&shaped(case.bias())?)?;
        }
        let bindings = pool.bindings(&case);
        let problem = layer.problem(device, &bindings)?;
        let capabilities = device.capabilities_for(&problem);
        let candidates = if all_candidates {
            Plan::candidates(&problem, &capabilities)?
        } else {
            vec![Plan::new(&problem, &capabilities)?]
        };
        let forward = pool.saving_statistics(&case).map(|bindings| layer.prepare(device, &bindings)).transpose()?;
        let mut largest_error = 0.0_f64;
        let mut plans = Vec::new();
        for plan in candidates {
            let prepared = layer.prepare_plan(device, plan, &bindings)?;
            let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if let Some(forward) = &forward {
                forward.encode(&mut encoder);
            }
            for written in pool.written() {
                encoder.clear_buffer(written, 0, None);
            }
            prepared.encode(&mut encoder);
            device.queue().submit([encoder.finish()]);
            largest_error = largest_error.max(pool.check(&case)?);
            plans.push(prepared);
        }

        let detour = Detour::new(pool, &case, &layer)?;
        if let Some(detour) = &detour {
            let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            pool.written().into_iter().for_each(|written| encoder.clear_buffer(written, 0, None));
            detour.record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
            device.queue().submit([encoder.finish()]);
            pool.check_output(&case, &pool.sum)?;
        }

        let moves = pool.moves(&case);
        let most = device.capabilities().max_invocations_per_workgroup;
        let mut copies: Vec<_> = Copy::VARIANTS
            .into_iter()
            .filter(|(size, _)| *size <= most)
            .map(|variant| {
                let bytes = case.tensor_bytes();
                let copy = moves.iter().map(|(sources, target)| Copy::new(device, sources, target, bytes, variant));
                Copies(copy.collect())
            })
            .collect();
        let works: Vec<&dyn Work> = copies.iter().map(|copies| copies as &dyn Work).collect();
        let times = medians(&stopwatch, &works, 5)?;
        let fastest = (0..times.len()).min_by_key(|&i| times[i]).expect("there are copies");
        let copies = copies.swap_remove(fastest);
        let few = 0..case.tensor_bytes().min(1 << 18) / 16 * 16;
        for (sources, target) in moves {
            let mut copied = pool.bytes(target, few.clone())?;
            for source in sources {
                copied.iter_mut().zip(pool.bytes(source, few.clone())?).for_each(|(byte, source)| *byte ^= source);
            }
            assert!(copied.iter().all(|&byte| byte == 0), "the copy copies");
        }
        Ok(Self { case, plans, forward, copies, detour, largest_error })
    }

    /// The planner's pick.
    pub fn pick(&self) -> &Plan {
        self.plans[0].plan()
    }

    /// Median times of each plan and of the copy, taken in turn so that noise hits all.
    pub fn compare(&self, stopwatch: &Stopwatch<'_>, samples: usize) -> Result<(Vec<Duration>, Duration), Error> {
        let Times { plans, copy, .. } = self.compare_with(None, stopwatch, samples)?;
        Ok((plans, copy))
    }

    /// The same with the planner's pick for another operation taken in turn with them.
    pub fn compare_with(
        &self,
        counterpart: Option<&Self>,
        stopwatch: &Stopwatch<'_>,
        samples: usize,
    ) -> Result<Times, Error> {
        let mut works: Vec<&dyn Work> = vec![&self.copies];
        works.extend(self.plans.iter().map(|plan| plan as &dyn Work));
        works.extend(self.detour.as_ref().map(|detour| detour as &dyn Work));
        works.extend(counterpart.map(|bench| &bench.plans[0] as &dyn Work));
        let mut times = stopwatch.times(&works, samples)?;
        let counterpart = counterpart.and_then(|bench| {
            let other = times.pop()?;
            let ratio = median_ratio(&times[1], &other);
            Some(Counterpart { operation: bench.case.operation, time: median(other), ratio })
        });
        let detour = self.detour.as_ref().and_then(|_| {
            let other = times.pop()?;
            let ratio = median_ratio(&times[1], &other);
            Some((median(other), ratio))
        });
        let mut medians: Vec<_> = times.into_iter().map(median).collect();
        let copy = medians.remove(0);
        Ok(Times { plans: medians, copy, counterpart, detour })
    }
}

/// Median times of a case.
pub struct Times {
    /// Of each plan, the planner's pick first.
    pub plans: Vec<Duration>,
    /// Of the copy of the same bytes.
    pub copy: Duration,
    /// Of another operation of the same shape.
    pub counterpart: Option<Counterpart>,
    /// Of the way by transposed copies, and how many times as long as that the planner's pick takes.
    pub detour: Option<(Duration, f64)>,
}

/// What a case is measured beside.
pub struct Counterpart {
    pub operation: Operation,
    pub time: Duration,
    /// How many times as long as it the planner's pick takes: the median of the ratios of runs one after another, which hardly feels
    /// what else the machine does for a while.
    pub ratio: f64,
}

/// The median of the ratios of times.
fn median_ratio(times: &[Duration], others: &[Duration]) -> f64 {
    let ratio = |(time, other): (&Duration, &Duration)| time.as_secs_f64() / other.as_secs_f64().max(1e-9);
    let mut ratios: Vec<f64> = times.iter().zip(others).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// The largest |y − exact|; NaN if one of them is.
pub fn largest_difference(output: &[f32], exact: &[f64]) -> f64 {
    largest(output.iter().zip(exact).map(|(&y, exact)| (f64::from(y) - exact).abs()))
}

/// The largest of these errors, 0 if none is above; NaN if one of them is.
pub fn largest(errors: impl IntoIterator<Item = f64>) -> f64 {
    // f64::max would pass over a NaN.
    errors.into_iter().fold(0.0, |largest: f64, next| if largest.is_nan() || next <= largest { largest } else { next })
}

pub fn gigabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9) / 1e9
}
