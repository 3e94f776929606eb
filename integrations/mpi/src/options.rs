use std::time::Duration;

use crate::Error;

/// How ranks work together.
///
/// ```
/// use std::time::Duration;
/// use gpu_layer_norm_mpi::Options;
///
/// let options = Options::default().rows_per_chunk(256).timeout(Duration::from_secs(10));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub(crate) rows_per_chunk: Option<u64>,
    pub(crate) elements_per_chunk: u64,
    pub(crate) timeout: Duration,
    pub(crate) widest_part: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { rows_per_chunk: None, elements_per_chunk: 1 << 20, timeout: Duration::from_secs(60), widest_part: None }
    }
}

impl Options {
    /// Rows that go through a pass together; the same on every rank. Default:
    /// [`model::default_rows_per_chunk`](crate::model::default_rows_per_chunk), or
    /// [`model::rows_in_cache`](crate::model::rows_in_cache) where a device is a processor. [`model`](crate::model) tells what chunks cost and hide.
    #[must_use]
    pub fn rows_per_chunk(self, rows: u64) -> Self {
        Self { rows_per_chunk: Some(rows), ..self }
    }

    /// Elements of gradients that are added up over the ranks together; the same on every rank. Default: 2^20.
    #[must_use]
    pub fn elements_per_chunk(self, elements: u64) -> Self {
        Self { elements_per_chunk: elements, ..self }
    }

    /// For how long this rank waits for a word of the others before it ends the processes of all. Default: 60 seconds. It must be longer than
    /// ranks may be apart in what they do between two calls, and than the slowest device takes for a chunk.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// No kernel takes a wider part of this rank's shard. Default: what the device takes, 2^24 at most.
    #[must_use]
    pub fn widest_part(self, elements: u64) -> Self {
        Self { widest_part: Some(elements), ..self }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        // MPI counts with c_int, and so do the words of a chunk.
        let checks = [
            ("rows_per_chunk", self.rows_per_chunk == Some(0)),
            ("elements_per_chunk", self.elements_per_chunk == 0),
            ("timeout", self.timeout.is_zero()),
            ("widest_part", self.widest_part == Some(0)),
        ];
        match checks.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((what, _)) => Err(Error::Zero { what }),
            None => Ok(()),
        }
    }
}

/// No chunk has more, so that a c_int counts its words.
pub(crate) const MOST_IN_A_CHUNK: u64 = 1 << 28;
