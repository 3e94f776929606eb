//! Times work on a device.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use std::time::{Duration, Instant};

use gpu_layer_norm::kernel::AdapterClass;
use gpu_layer_norm::{Error, GpuDevice, PreparedPlan, wgpu};

/// What is timed: work recorded into a compute pass.
pub trait Work {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>);
}

impl Work for PreparedPlan {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_pass(pass);
    }
}

/// Times work on a device: by GPU timestamps where the device has them, else from submission until the device is idle. Where
/// the device is the processor, its timestamps are those of the thread that hands out the work, so they are not used.
pub struct Stopwatch<'a> {
    device: &'a GpuDevice,
    timestamps: Option<Timestamps>,
}

struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
}

/// Passes that one submission times, and so half as many timestamps as a query set may have.
const BATCH: u32 = 2048;
/// A GPU that was idle runs at a fraction of its clock; this long it is kept busy before it is timed.
const WARM_UP: Duration = Duration::from_millis(150);

impl<'a> Stopwatch<'a> {
    pub fn new(device: &'a GpuDevice) -> Self {
        let gpu = device.device();
        let usable = gpu.features().contains(wgpu::Features::TIMESTAMP_QUERY)
            && device.capabilities().class != AdapterClass::Cpu;
        let size = u64::from(BATCH) * 16;
        let buffer =
            |usage| gpu.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        let timestamps = usable.then(|| Timestamps {
            queries: gpu.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2 * BATCH,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
        });
        Self { device, timestamps }
    }

    /// From submission until the device is idle, whatever the device offers: to compare with what can only be timed so.
    pub fn by_the_clock(device: &'a GpuDevice) -> Self {
        Self { device, timestamps: None }
    }

    /// How it measures, in words.
    pub fn method(&self) -> &'static str {
        if self.timestamps.is_some() { "GPU timestamps" } else { "submission to idle" }
    }

    /// The times of so many runs of each, taken in turn, so that what else the machine does hits all of them. On a GPU all of them
    /// are passes of a few submissions, after it was kept busy for a while: one that waits for the host between two runs falls
    /// asleep.
    pub fn times(&self, works: &[&dyn Work], samples: usize) -> Result<Vec<Vec<Duration>>, Error> {
        let mut times = vec![Vec::with_capacity(samples); works.len()];
        let in_turn: Vec<usize> = (0..samples).flat_map(|_| 0..works.len()).collect();
        match &self.timestamps {
            None => {
                for which in in_turn {
                    times[which].push(self.time(works[which])?);
                }
            }
            Some(timestamps) => {
                self.warm_up(works)?;
                for part in in_turn.chunks(BATCH as usize) {
                    let passes: Vec<_> = part.iter().map(|&which| works[which]).collect();
                    for (&which, time) in part.iter().zip(self.time_batch(timestamps, &passes)?) {
                        times[which].push(time);
                    }
                }
            }
        }
        Ok(times)
    }

    /// The time of one run, from submission until the device is idle.
    pub fn time(&self, work: &dyn Work) -> Result<Duration, Error> {
        let start = Instant::now();
        self.submit(&[work])?;
        Ok(start.elapsed())
    }

    fn submit(&self, works: &[&dyn Work]) -> Result<(), Error> {
        let mut encoder = self.device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for work in works {
            work.record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        }
        self.device.queue().submit([encoder.finish()]);
        self.device.wait()
    }

    fn warm_up(&self, works: &[&dyn Work]) -> Result<(), Error> {
        let start = Instant::now();
        while start.elapsed() < WARM_UP {
            for _ in 0..8 {
                self.submit(works)?;
            }
        }
        Ok(())
    }

    fn time_batch(&self, timestamps: &Timestamps, passes: &[&dyn Work]) -> Result<Vec<Duration>, Error> {
        let mut encoder = self.device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (first, work) in (0_u32..).step_by(2).zip(passes) {
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &timestamps.queries,
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            });
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            work.record(&mut encoder.begin_compute_pass(&descriptor));
        }
        let count = 2 * passes.len() as u32;
        let bytes = u64::from(count) * 8;
        encoder.resolve_query_set(&timestamps.queries, 0..count, &timestamps.resolved, 0);
        encoder.copy_buffer_to_buffer(&timestamps.resolved, 0, &timestamps.readable, 0, bytes);
        self.device.queue().submit([encoder.finish()]);
        timestamps.readable.map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        self.device.wait()?;
        let period = f64::from(self.device.queue().get_timestamp_period());
        let times = {
            let view = timestamps.readable.get_mapped_range(..bytes).expect("mapped");
            let ticks = |pair: &[u8]| {
                let [begin, end]: [u64; 2] = bytemuck::pod_read_unaligned(pair);
                Duration::from_nanos((end.saturating_sub(begin) as f64 * period) as u64)
            };
            view.chunks_exact(16).map(ticks).collect()
        };
        timestamps.readable.unmap();
        Ok(times)
    }
}

/// Median times of each, taken in turn.
pub fn medians(stopwatch: &Stopwatch<'_>, works: &[&dyn Work], samples: usize) -> Result<Vec<Duration>, Error> {
    Ok(stopwatch.times(works, samples)?.into_iter().map(median).collect())
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
