//! That a device measures chunks while the ranks exchange another one: without a clock, by an exchange that cannot end before that.
//!
//! Rank 1 is held back where its part of the second exchange is due, until rank 0 says that its device has measured the chunk that could only
//! be begun after the first exchange. A pass that waited for an exchange before it measured more would never get there, nor would one that
//! measured several chunks, then exchanged them all.

use std::error::Error;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gpu_layer_norm::{GpuDevice, GpuTensor, LayerNormConfig};
use gpu_layer_norm_mpi::mpi::topology::SimpleCommunicator;
use gpu_layer_norm_mpi::mpi::traits::{Communicator, Destination, Source};
use gpu_layer_norm_mpi::{DataParallel, Options, ShardedLayerNorm};

/// Into how many chunks each pass is cut.
const CHUNKS: u64 = 5;
/// The first chunk that is begun after an exchange: three are under way at once.
const NEXT: u64 = 4;
/// Of the message by which rank 0 lets rank 1 go on.
const TAG: i32 = 7;
/// How long rank 1 waits for it.
const LIMIT: Duration = Duration::from_secs(20);

/// What the crate has logged of a chunk, from 1 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Measured(u64),
    Exchanged(u64),
}

impl Event {
    fn of(line: &str) -> Option<Self> {
        let after = |words: &str| line.strip_prefix(words)?.split(' ').next()?.parse().ok();
        let measured = after("the device has measured chunk ").map(Self::Measured);
        measured.or_else(|| after("the ranks have exchanged chunk ").map(Self::Exchanged))
    }
}

/// Takes what the crate logs, and acts on it where it stands.
#[derive(Default)]
struct Listener {
    rank: OnceLock<i32>,
    events: Mutex<Vec<Event>>,
}

impl Listener {
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl log::Log for Listener {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("gpu_layer_norm_mpi")
    }

    fn log(&self, record: &log::Record<'_>) {
        let event = self.enabled(record.metadata()).then(|| Event::of(&record.args().to_string())).flatten();
        let Some(event) = event else { return };
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let world = SimpleCommunicator::world();
        match (self.rank.get(), event) {
            (Some(0), Event::Measured(NEXT)) if !events.contains(&Event::Exchanged(2)) => {
                world.process_at_rank(1).send_with_tag(&1_u8, TAG);
            }
            (Some(1), Event::Measured(2)) => {
                let (rank_0, began) = (world.process_at_rank(0), Instant::now());
                while rank_0.immediate_probe_with_tag(TAG).is_none() {
                    if began.elapsed() > LIMIT {
                        // The list of events is then not what is expected.
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                let _ = rank_0.receive_with_tag::<u8>(TAG);
            }
            _ => {}
        }
        events.push(event);
    }

    fn flush(&self) {}
}

pub fn measuring_goes_on(world: &SimpleCommunicator) -> Result<(), Box<dyn Error>> {
    static LISTENER: OnceLock<Listener> = OnceLock::new();
    let listener = LISTENER.get_or_init(Listener::default);
    listener.rank.get_or_init(|| world.rank());
    log::set_logger(listener).map_err(|error| error.to_string())?;
    log::set_max_level(log::LevelFilter::Trace);

    let device = GpuDevice::new()?;
    let rows = 8 * CHUNKS;
    let options = Options::default().rows_per_chunk(8).elements_per_chunk(rows * 32 / CHUNKS);
    let layer = ShardedLayerNorm::with_options(world, &device, &LayerNormConfig::new(32), &options)?;
    let data_parallel = DataParallel::with_options(world, &device, &options)?;
    let input = GpuTensor::zeros(&device, [rows as usize, 32])?;

    let check = |what: &str| -> Result<(), String> {
        let events = listener.take();
        let place =
            |event: Event| events.iter().position(|other| *other == event).ok_or(format!("{what}: no {event:?}"));
        for chunk in 1..=CHUNKS {
            let (measured, exchanged) = (place(Event::Measured(chunk))?, place(Event::Exchanged(chunk))?);
            if measured > exchanged {
                return Err(format!("{what}: exchanged before it was measured: {events:?}"));
            }
        }
        if world.rank() == 0 && place(Event::Measured(NEXT))? > place(Event::Exchanged(2))? {
            return Err(format!("{what}: nothing was measured while the second chunk was exchanged: {events:?}"));
        }
        Ok(())
    };
    let (output, moments) = layer.forward(&input)?;
    check("forward")?;
    layer.backward(&input, &output, &moments)?;
    check("backward")?;
    data_parallel.all_reduce(&[&output])?;
    check("a sum of gradients")?;
    Ok(())
}
