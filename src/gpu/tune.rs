use std::time::Duration;

use super::GpuDevice;
use crate::kernel::{Plan, Problem};
#[cfg(not(target_arch = "wasm32"))]
use crate::{Error, gpu::PreparedPlan, kernel::Role};

/// What measuring found.
#[derive(Clone, Debug)]
pub struct Tuning {
    // Never empty.
    measured: Vec<(Plan, Duration)>,
}

impl Tuning {
    /// The fastest plan, or the planner's pick if none is faster than that by more than chance.
    pub fn best(&self) -> &Plan {
        &self.measured[0].0
    }

    /// Plans with the median time of one run: [`best`](Self::best), then the others, the fastest first.
    pub fn measured(&self) -> &[(Plan, Duration)] {
        &self.measured
    }
}

impl GpuDevice {
    /// The plan that measuring found to be the fastest for such a problem.
    pub(crate) fn tuned_plan(&self, problem: &Problem) -> Option<Plan> {
        let geometry = self.tunings().get(problem)?;
        Plan::with_geometry(problem, &self.capabilities_for(problem), geometry).ok()
    }

    /// Adds the tunings of a text that [`tunings_text`](Self::tunings_text) gave, and returns their number: 0 if they are for
    /// another adapter, driver or version of this crate, which is logged. Layers and operations made afterwards use them.
    pub fn load_tunings_text(&self, text: &str) -> usize {
        self.tunings().read(text)
    }

    /// Everything that [`GpuLayerNorm::tune`](crate::GpuLayerNorm::tune) found on this device or that was loaded, as text.
    pub fn tunings_text(&self) -> String {
        self.tunings().to_string()
    }
}

/// What waits for the device, or has files: not for a browser.
#[cfg(not(target_arch = "wasm32"))]
impl GpuDevice {
    /// Measures plans for one problem, of which the first is the planner's pick.
    pub(crate) fn measure(&self, plans: Vec<Plan>) -> Result<Tuning, Error> {
        const ROUNDS: usize = 7;
        // The planner's pick stays unless another is faster by more than chance.
        const MARGIN: f64 = 0.97;

        let problem = *plans[0].problem();
        let buffers = self.stand_ins(&problem)?;
        let mut contenders = Vec::new();
        for plan in plans {
            // The first run warms caches up, the second says how many fill a measurement.
            let what = plan.to_string();
            let prepared = PreparedPlan::new(self, plan, &buffers, None);
            let once = prepared.and_then(|prepared| {
                self.time(&prepared, 1)?;
                Ok((self.time(&prepared, 1)?, prepared))
            });
            let (once, prepared) = match once {
                Ok(once) => once,
                // Without the others the pick stays.
                Err(error) if !contenders.is_empty() && self.check_lost().is_ok() => {
                    log::warn!("not measured: {what}: {error}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let turns = (Duration::from_millis(2).as_nanos() / once.as_nanos().max(1)).clamp(1, 64) as u32;
            contenders.push((prepared, turns, Vec::with_capacity(ROUNDS)));
        }
        // In turn, so that what else the machine does hits all of them.
        for _ in 0..ROUNDS {
            for (prepared, turns, times) in &mut contenders {
                times.push(self.time(prepared, *turns)? / *turns);
            }
        }
        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let mut measured: Vec<_> =
            contenders.into_iter().map(|(prepared, _, times)| (prepared.plan().clone(), median(times))).collect();
        let (pick, pick_time) = measured[0].clone();
        measured.sort_by_key(|(_, time)| *time);
        if measured[0].1.as_secs_f64() > pick_time.as_secs_f64() * MARGIN {
            let position = measured.iter().position(|(plan, _)| *plan == pick).unwrap_or(0);
            measured[..=position].rotate_right(1);
        }
        Ok(Tuning { measured })
    }

    /// Takes this plan from now on where such a problem is met.
    pub(crate) fn remember(&self, plan: &Plan) {
        if plan.problem().rows() > 0 {
            self.tunings().insert(plan.problem(), *plan.geometry());
        }
    }

    /// As [`load_tunings_text`](Self::load_tunings_text), from a file. Where there is no such file, nothing is loaded.
    ///
    /// # Errors
    /// [`Error::TuningFile`] if there is one that cannot be read.
    pub fn load_tunings(&self, path: impl AsRef<std::path::Path>) -> Result<usize, Error> {
        let path = path.as_ref();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(self.load_tunings_text(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                log::info!("no tunings in {}", path.display());
                Ok(0)
            }
            Err(error) => Err(Error::TuningFile { path: path.display().to_string(), reason: error.to_string() }),
        }
    }

    /// Writes [`tunings_text`](Self::tunings_text) to a file.
    ///
    /// # Errors
    /// [`Error::TuningFile`].
    pub fn save_tunings(&self, path: impl AsRef<std::path::Path>) -> Result<(), Error> {
        let path = path.as_ref();
        std::fs::write(path, self.tunings_text())
            .map_err(|error| Error::TuningFile { path: path.display().to_string(), reason: error.to_string() })
    }

    /// Buffers as the problem's tensors have them, with numbers that are ordinary in every storage type.
    fn stand_ins(&self, problem: &Problem) -> Result<[Option<wgpu::Buffer>; Role::ALL.len()], Error> {
        let mut buffers = [const { None }; Role::ALL.len()];
        let mut shared: Vec<(u32, wgpu::Buffer)> = Vec::new();
        for (role, layout) in problem.tensors() {
            let known = layout.buffer.and_then(|id| shared.iter().find(|(other, _)| *other == id));
            if let Some((_, buffer)) = known {
                buffers[role as usize] = Some(buffer.clone());
                continue;
            }
            let mut bytes = problem.byte_range(role)?.end;
            for (other, other_layout) in problem.tensors() {
                if layout.buffer.is_some() && other_layout.buffer == layout.buffer {
                    bytes = bytes.max(problem.byte_range(other)?.end);
                }
            }
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let buffer = self.create_buffer("layer norm tuning", bytes, usage)?;
            self.fill_with_numbers(&buffer)?;
            shared.extend(layout.buffer.map(|id| (id, buffer.clone())));
            buffers[role as usize] = Some(buffer);
        }
        Ok(buffers)
    }

    /// Fills a buffer with numbers from 1 to 2 as f32 and bf16, as f16 a little below 2: a part of them, copied on and on.
    fn fill_with_numbers(&self, buffer: &wgpu::Buffer) -> Result<(), Error> {
        const PART: u64 = 1 << 16;
        let size = buffer.size().min(PART);
        let words: Vec<u32> = (0..size / 4)
            .map(|i| 0x3f80_3f80 | ((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 & 0x007f_007f))
            .collect();
        let part = self.create_buffer_with(
            "layer norm tuning numbers",
            wgpu::BufferUsages::COPY_SRC,
            bytemuck::cast_slice(&words),
        )?;
        self.scoped("the filling of a buffer", buffer.size(), |device| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("tuning") });
            for start in (0..buffer.size()).step_by(PART as usize) {
                let size = PART.min(buffer.size() - start);
                encoder.copy_buffer_to_buffer(&part, 0, buffer, start, size);
            }
            self.queue().submit([encoder.finish()]);
        })
    }

    /// The time of so many runs, from submission until the device is idle.
    fn time(&self, prepared: &PreparedPlan, turns: u32) -> Result<Duration, Error> {
        let commands = self.scoped("the recording of a measurement", 0, |device| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("tuning") });
            for _ in 0..turns {
                prepared.encode(&mut encoder);
            }
            encoder.finish()
        })?;
        let start = std::time::Instant::now();
        self.scoped("the running of a measurement", 0, |_| self.queue().submit([commands]))?;
        self.wait()?;
        Ok(start.elapsed())
    }
}
