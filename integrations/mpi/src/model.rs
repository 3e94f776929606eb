//! What sharding costs and where it pays: a model of the time of a pass, made of bytes and latencies.
//!
//! A pass over sharded rows reads its shard twice, because rows are normalized only when all ranks have measured them; a pass over whole
//! rows reads them once if they stay on the chip ([`Machine::on_chip`]), otherwise twice too. A pass over sharded rows also waits for the
//! other ranks. What it gains is that each device has only its share of the bytes. The model counts all of that:
//!
//! * **a kernel** takes [`Machine::launch`], and the time of the bytes that it reads and writes at [`Machine::memory`];
//! * **what is read back** is there after [`Machine::readback`], and so is what goes back to the device;
//! * **an all-reduce** of n bytes on P ranks takes the lesser time of two algorithms, with α the [latency](Machine::latency) of a message,
//!   β the seconds that a byte takes on a [link](Machine::link), and log₂P rounded up: recursive doubling, log₂P · (α + n · β), and halving
//!   and doubling (Rabenseifner), 2 · log₂P · α + 2 · (P − 1) / P · n · β;
//! * **chunks** of rows go through the three stages one after another, several at once, in the order in which this crate submits them
//!   ([`pipelined`]).
//!
//! All times are in seconds.

/// What a device and its links can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Bytes a second that a kernel reads and writes in the device's memory.
    pub memory: f64,
    /// Seconds that a submission takes besides its bytes.
    pub launch: f64,
    /// Seconds until the host has what a kernel has written, or the device what the host has.
    pub readback: f64,
    /// Seconds that a message takes besides its bytes: α.
    pub latency: f64,
    /// Bytes a second from rank to rank: 1 / β.
    pub link: f64,
    /// Bytes of the longest row that one device reads only once, because it keeps it on the chip.
    pub on_chip: f64,
}

impl Machine {
    /// A GPU of 3 TB/s with links of 25 GB/s and 5 µs, in a network of such: 5 µs for a submission, 10 µs for a read-back, and rows of up to
    /// 64 KiB on the chip.
    pub const GPU: Self =
        Self { memory: 3e12, launch: 5e-6, readback: 10e-6, latency: 5e-6, link: 25e9, on_chip: 65536.0 };
}

/// Which pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the input to the output.
    Forward,
    /// From the gradient of the output to the others.
    Backward,
}

/// Rows on all ranks together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Which pass.
    pub direction: Direction,
    /// Rows.
    pub rows: f64,
    /// Elements of a row on all ranks.
    pub width: f64,
    /// Bytes of an element.
    pub element: f64,
}

impl Work {
    /// Bytes of one tensor of all rows.
    fn bytes(&self) -> f64 {
        self.rows * self.width * self.element
    }

    /// How many tensors are read before the exchange, and how many are read and written after it.
    fn tensors(&self) -> (f64, f64) {
        match self.direction {
            // x; x and y.
            Direction::Forward => (1.0, 2.0),
            // x and dy; x, dy and dx.
            Direction::Backward => (2.0, 3.0),
        }
    }

    /// Bytes that go from rank to rank for each row.
    pub fn exchanged(&self) -> f64 {
        match self.direction {
            Direction::Forward => 24.0,
            Direction::Backward => 16.0,
        }
    }
}

/// An all-reduce of so many bytes: the least of what is described [above](self).
pub fn all_reduce(machine: &Machine, ranks: f64, bytes: f64) -> f64 {
    if ranks <= 1.0 {
        return 0.0;
    }
    let (steps, transfer) = (ranks.log2().ceil(), bytes / machine.link);
    let doubling = steps * (machine.latency + transfer);
    let halving_and_doubling = 2.0 * steps * machine.latency + 2.0 * (ranks - 1.0) / ranks * transfer;
    doubling.min(halving_and_doubling)
}

/// The pass on one device that has whole rows.
pub fn one_device(machine: &Machine, work: &Work) -> f64 {
    let (before, after) = work.tensors();
    // Rows that stay on the chip between measuring and normalizing are read once.
    let tensors = if work.width * work.element <= machine.on_chip { after } else { before + after };
    machine.launch + tensors * work.bytes() / machine.memory
}

/// The pass on rows that are sharded over the ranks, in chunks of so many rows, with the agreement before it.
pub fn sharded(machine: &Machine, work: &Work, ranks: f64, rows_per_chunk: f64) -> f64 {
    let chunks = (work.rows / rows_per_chunk).ceil().max(1.0);
    let rows = work.rows / chunks;
    let (before, after) = work.tensors();
    let tensor = rows * work.width * work.element / ranks / machine.memory;
    let stages = Stages {
        measure: machine.launch + before * tensor,
        readback: machine.readback,
        exchange: all_reduce(machine, ranks, (rows + 1.0) * work.exchanged()),
        finish: machine.launch + after * tensor,
    };
    pipelined(&stages, chunks as usize, AHEAD, all_reduce(machine, ranks, AGREEMENT))
}

/// The rows of a chunk with which [`sharded`] takes the least time, and that time. What is tried is 1, 2, 4 and so on up to 64 equal
/// chunks.
pub fn best_chunk(machine: &Machine, work: &Work, ranks: f64) -> (f64, f64) {
    let candidates = (0..7).map(|log2| (work.rows / f64::from(1 << log2)).ceil().max(1.0));
    let timed = candidates.map(|rows| (rows, sharded(machine, work, ranks, rows)));
    timed.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((work.rows, f64::INFINITY))
}

/// The rows of a chunk where nobody says how many and all devices are GPUs: a quarter of all, and as many as have 2^24 elements on each rank, on average, if that is
/// more. On the [GPU](Machine::GPU) of this model that is within a third of [`best_chunk`].
pub fn default_rows_per_chunk(rows: u64, row_width: u64, ranks: u64) -> u64 {
    let share = row_width.div_ceil(ranks.max(1)).max(1);
    rows.div_ceil(4).max((1_u64 << 24).div_ceil(share)).max(1)
}

/// The rows of a chunk where nobody says how many and some devices are processors: as many as have 2^20 elements on each rank, on average, so
/// that a chunk that is measured is still in the cache when it is normalized. There that counts for more than what a chunk costs.
pub fn rows_in_cache(row_width: u64, ranks: u64) -> u64 {
    let share = row_width.div_ceil(ranks.max(1)).max(1);
    (1_u64 << 20).div_ceil(share)
}

/// The pass without this crate: the ranks exchange their shards, so that each has its share of the rows as whole rows, normalize these, and
/// exchange them back.
pub fn gathered(machine: &Machine, work: &Work, ranks: f64) -> f64 {
    let own = Work { rows: (work.rows / ranks).ceil(), ..*work };
    if ranks <= 1.0 {
        return one_device(machine, work);
    }
    // An all-to-all there and one back, each of which moves all but a share of what a rank has.
    let moved = 2.0 * work.bytes() / ranks * (ranks - 1.0) / ranks / machine.link;
    let messages = 2.0 * ranks.log2().ceil() * machine.latency;
    messages + moved + one_device(machine, &own)
}

/// The least width, a power of two up to 2^28, from which on sharding is faster than one device with whole rows. `None` where it never is.
pub fn pays_from(machine: &Machine, work: &Work, ranks: f64) -> Option<u64> {
    let pays = |log2: &u32| {
        let work = Work { width: f64::from(1_u32 << log2), ..*work };
        best_chunk(machine, &work, ranks).1 < one_device(machine, &work)
    };
    // From the widest down, for as long as it pays.
    (0..=28).rev().take_while(pays).last().map(|log2| 1 << log2)
}

/// What one chunk takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    /// The device, before the exchange.
    pub measure: f64,
    /// From there to the host, and from the host back.
    pub readback: f64,
    /// The all-reduce.
    pub exchange: f64,
    /// The device, after the exchange.
    pub finish: f64,
}

/// Bytes of the agreement before a pass.
const AGREEMENT: f64 = 64.0;

/// Chunks under way at once.
const AHEAD: usize = crate::pipeline::AHEAD;

/// So many equal chunks, of which no more than `ahead` are under way, played through as they are submitted. The device takes what is submitted
/// in turn: it measures the first `ahead` chunks, then finishes one and measures another. Exchanges take turns too, and none begins before the
/// ranks have agreed, which goes on while the first chunk is measured.
pub fn pipelined(stages: &Stages, chunks: usize, ahead: usize, agreement: f64) -> f64 {
    let ahead = ahead.max(1);
    let mut measured = Vec::with_capacity(chunks);
    let mut device = 0.0;
    for _ in 0..chunks.min(ahead) {
        device += stages.measure;
        measured.push(device);
    }
    let mut exchanged = agreement;
    for chunk in 0..chunks {
        exchanged = f64::max(exchanged, measured[chunk] + stages.readback) + stages.exchange;
        device = f64::max(device, exchanged + stages.readback) + stages.finish;
        if measured.len() < chunks {
            device += stages.measure;
            measured.push(device);
        }
    }
    device.max(agreement)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work { direction: Direction::Forward, rows: 4096.0, width: 65536.0, element: 4.0 };

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
    }

    #[test]
    fn one_chunk_takes_the_sum_of_its_stages() {
        let stages = Stages { measure: 1.0, readback: 0.25, exchange: 3.0, finish: 2.0 };
        assert!(close(pipelined(&stages, 1, 3, 0.0), 6.5));
        // The agreement is hidden behind the measuring, or else waited for.
        assert!(close(pipelined(&stages, 1, 3, 1.0), 6.5));
        assert!(close(pipelined(&stages, 1, 3, 2.0), 7.25));
        assert!(close(pipelined(&stages, 0, 3, 2.0), 2.0));
    }

    #[test]
    fn many_chunks_take_what_the_slower_of_device_and_ranks_takes() {
        let chunks = 1000;
        let by_the_device = Stages { measure: 1.0, readback: 0.0, exchange: 0.5, finish: 2.0 };
        let time = pipelined(&by_the_device, chunks, 3, 0.0);
        assert!((3000.0..3002.0).contains(&time), "{time}");
        let by_the_ranks = Stages { exchange: 5.0, ..by_the_device };
        let time = pipelined(&by_the_ranks, chunks, 3, 0.0);
        assert!((5000.0..5004.0).contains(&time), "{time}");
        // One at a time, nothing overlaps.
        assert!(close(pipelined(&by_the_ranks, chunks, 1, 0.0), 8000.0));
    }

    #[test]
    fn an_all_reduce_takes_its_latency_and_its_bytes() {
        let machine = Machine::GPU;
        assert!(close(all_reduce(&machine, 1.0, 1e6), 0.0));
        // Small: recursive doubling.
        assert!(close(all_reduce(&machine, 4.0, 0.0), 2.0 * 5e-6));
        assert!(close(all_reduce(&machine, 4096.0, 0.0), 12.0 * 5e-6));
        // Large: twice the bytes, whatever the ranks.
        let large = all_reduce(&machine, 4096.0, 25e9);
        assert!((large - 2.0 * 4095.0 / 4096.0 - 24.0 * 5e-6).abs() < 1e-9, "{large}");
        assert!(all_reduce(&machine, 3.0, 100.0) >= all_reduce(&machine, 2.0, 100.0));
    }

    #[test]
    fn with_free_links_a_shard_takes_its_share() {
        let machine = Machine { launch: 0.0, readback: 0.0, latency: 0.0, link: f64::INFINITY, ..Machine::GPU };
        let whole = one_device(&machine, &WORK);
        for ranks in [1.0, 2.0, 64.0] {
            assert!(close(sharded(&machine, &WORK, ranks, 512.0), whole / ranks));
        }
        // Rows that one device reads once are read twice where they are sharded.
        let short = Work { width: 4096.0, ..WORK };
        assert!(close(sharded(&machine, &short, 2.0, 512.0), one_device(&machine, &short) * 3.0 / 2.0 / 2.0));
    }

    #[test]
    fn it_pays_for_wide_rows_and_not_for_narrow_ones() {
        let few = Work { rows: 128.0, ..WORK };
        for ranks in [4.0, 64.0, 4096.0] {
            let from = pays_from(&Machine::GPU, &few, ranks).expect("the widest rows pay");
            let at = |width: u64| {
                let work = Work { width: width as f64, ..few };
                best_chunk(&Machine::GPU, &work, ranks).1 / one_device(&Machine::GPU, &work)
            };
            assert!(at(from) < 1.0 && at(from / 2) >= 1.0, "{ranks}: {from}");
        }
        let slow = Machine { latency: 1e3, ..Machine::GPU };
        assert_eq!(pays_from(&slow, &few, 4.0), None);
    }

    #[test]
    fn the_best_chunk_is_no_worse_than_any_other() {
        let (rows, time) = best_chunk(&Machine::GPU, &WORK, 8.0);
        assert!(close(time, sharded(&Machine::GPU, &WORK, 8.0, rows)));
        for rows in [1.0, 64.0, 4096.0] {
            assert!(time <= sharded(&Machine::GPU, &WORK, 8.0, rows) * 1.000_001 || rows < 64.0);
        }
        assert!(time < sharded(&Machine::GPU, &WORK, 8.0, 1.0));
    }

    #[test]
    fn the_default_chunk_is_within_a_third_of_the_best() {
        let mut worst = (0.0, String::new());
        for direction in [Direction::Forward, Direction::Backward] {
            for ranks in [2_u64, 4, 8, 64, 512, 4096] {
                for rows in [1_u64, 32, 1024, 4096, 32_768] {
                    for width in [1_u64 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 28] {
                        let work = Work { direction, rows: rows as f64, width: width as f64, element: 4.0 };
                        let chunk = default_rows_per_chunk(rows, width, ranks).min(rows) as f64;
                        let (_, best) = best_chunk(&Machine::GPU, &work, ranks as f64);
                        let share = sharded(&Machine::GPU, &work, ranks as f64, chunk) / best;
                        if share > worst.0 {
                            worst = (share, format!("{direction:?} of {rows} × {width} on {ranks}"));
                        }
                    }
                }
            }
        }
        assert!((1.0..1.34).contains(&worst.0), "{worst:?}");
    }

    #[test]
    fn gathering_moves_the_rows_themselves() {
        // 24 bytes a row in place of 65536 elements.
        assert!(best_chunk(&Machine::GPU, &WORK, 8.0).1 < gathered(&Machine::GPU, &WORK, 8.0));
        assert!(close(gathered(&Machine::GPU, &WORK, 1.0), one_device(&Machine::GPU, &WORK)));
    }
}
