use std::fmt;

use mpi::Rank;

/// What can go wrong. Every rank gets an error where one does, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What this rank's own device or layer says. The other ranks get [`Error::OtherRank`].
    #[error(transparent)]
    Device(#[from] gpu_layer_norm::Error),
    /// Another rank could not go on. It has its own error; this rank's device is as it was, and further calls may be made.
    #[error("rank {rank} could not go on: {message}")]
    OtherRank {
        /// The rank in the communicator that the layer was made with; the lowest one where there are several.
        rank: Rank,
        /// The beginning of what its error says.
        message: String,
    },
    /// Ranks that should say the same and do not: of layers that are made together, or in calls that go together.
    #[error("the ranks do not agree on the {what}: {}; {remedy}", list(found))]
    Disagreement {
        /// What they should agree on.
        what: &'static str,
        /// Each value that was found, with the ranks that have it, in the order of their first ranks.
        found: Vec<Found>,
        /// What would have been right.
        remedy: &'static str,
    },
    /// A row has too many elements, or too few, over all ranks.
    #[error("the shards of all ranks have {width} elements a row, between {min} and {max} are possible")]
    Width {
        /// The sum of the widths of all shards.
        width: u64,
        /// The least that is possible: 2 for the unbiased variance, otherwise 1.
        min: u64,
        /// The most that is possible.
        max: u64,
    },
    /// A layer that cannot be sharded by its features.
    #[error(
        "{what} cannot be sharded; use LayerNormConfig::new or LayerNormConfig::rms of the trailing dimensions of this rank's shard"
    )]
    Config {
        /// What the config asks for.
        what: &'static str,
    },
    /// A tensor of another shape than its call needs.
    #[error("the {what} has shape {actual:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        what: &'static str,
        /// What would have been right.
        expected: Vec<usize>,
        /// What was passed.
        actual: Vec<usize>,
    },
    /// Gradients that do not add up because one rank stores them as something else than f32.
    #[error("tensor {index} is stored as {storage:?}; tensors that are added up over the ranks must be f32")]
    Storage {
        /// The place of the tensor among those passed.
        index: usize,
        /// What its elements are.
        storage: gpu_layer_norm::StorageType,
    },
    /// No rows in a chunk, or no time to wait.
    #[error("{what} must be more than 0")]
    Zero {
        /// The option.
        what: &'static str,
    },
    /// MPI has been initialized before, or is finalized. This rank alone knows.
    #[error("MPI is initialized already, or was finalized; it can be initialized once in a process")]
    Initialized,
}

/// A value, and the ranks that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value, as text.
    pub value: String,
    /// The ranks, in ascending order.
    pub ranks: Vec<Rank>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Runs of ranks in short, as there may be thousands.
        let mut runs: Vec<(Rank, Rank)> = Vec::new();
        for &rank in &self.ranks {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == rank => *last = rank,
                _ => runs.push((rank, rank)),
            }
        }
        let several = self.ranks.len() > 1;
        write!(f, "{} on rank{} ", self.value, if several { "s" } else { "" })?;
        for (i, (first, last)) in runs.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                1 => write!(f, "{separator}{first}, {last}")?,
                _ => write!(f, "{separator}{first} to {last}")?,
            }
        }
        Ok(())
    }
}

impl Error {
    /// A disagreement, if there is one among these values, which are in the order of the ranks.
    pub(crate) fn of_disagreement<V: PartialEq>(
        what: &'static str,
        values: &[V],
        show: impl Fn(&V) -> String,
        remedy: &'static str,
    ) -> Option<Self> {
        let mut found: Vec<(&V, Vec<Rank>)> = Vec::new();
        for (rank, value) in (0..).zip(values) {
            match found.iter_mut().find(|(other, _)| *other == value) {
                Some((_, ranks)) => ranks.push(rank),
                None => found.push((value, vec![rank])),
            }
        }
        if found.len() < 2 {
            return None;
        }
        let found = found.into_iter().map(|(value, ranks)| Found { value: show(value), ranks }).collect();
        Some(Self::Disagreement { what, found, remedy })
    }
}

fn list(found: &[Found]) -> String {
    let found: Vec<String> = found.iter().map(Found::to_string).collect();
    found.join("; ")
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_disagreement_names_each_value_with_its_ranks() {
        let rows = [8, 8, 8, 5, 8, 5, 5, 8, 8];
        let error = Error::of_disagreement("number of rows", &rows, i32::to_string, "pass the same rows on every rank");
        assert_eq!(
            error.expect("they differ").to_string(),
            "the ranks do not agree on the number of rows: 8 on ranks 0 to 2, 4, 7, 8; 5 on ranks 3, 5, 6; pass the same rows on \
             every rank"
        );
        assert!(Error::of_disagreement("number of rows", &[3; 5], i32::to_string, "").is_none());
    }

    #[test]
    fn a_rank_that_is_alone_is_named_alone() {
        let error = Error::of_disagreement("eps", &["1e-5", "1e-6"], |eps| (*eps).into(), "pass the same");
        let text = error.expect("they differ").to_string();
        assert!(text.contains("1e-5 on rank 0; 1e-6 on rank 1; pass the same"), "{text}");
    }
}
