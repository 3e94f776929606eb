//! That all ranks are in the same call, before anything of it is sent: buffers of different lengths, or of different operations, are what
//! MPI leaves undefined.

use mpi::request::{LocalScope, Request};

use crate::Error;
use crate::ranks::{Ranks, Reduction};

/// A call, as this rank makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    /// The how-manieth of its layer, for messages.
    pub(crate) number: u64,
    /// Rows, or elements of tensors.
    pub(crate) count: u64,
    /// A digest of shapes that are to be the same.
    pub(crate) shapes: u64,
    /// Whether the rank cannot take part.
    pub(crate) failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Forward,
    Backward,
    Sum,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Sum];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Sum => "a sum of gradients",
        }
    }
}

/// Numbers that say what a call is.
const FIELDS: usize = 4;

/// What a rank sends: each number and its complement, of which the largest and, as the complement of the largest complement, the smallest
/// of all ranks come back.
pub(crate) type Words = [u64; 2 * FIELDS];

impl Call {
    pub(crate) fn words(self) -> Words {
        let fields = self.fields();
        std::array::from_fn(|i| if i < FIELDS { fields[i] } else { !fields[i - FIELDS] })
    }

    fn fields(self) -> [u64; FIELDS] {
        [self.operation as u64, self.count, self.shapes, u64::from(self.failed)]
    }

    /// How much is worked on.
    pub(crate) fn counted(&self) -> String {
        let what = if self.operation == Operation::Sum { "elements" } else { "rows" };
        format!("{} {what}", self.count)
    }

    /// Whether all ranks make this call and none has failed, from the largest words of all.
    pub(crate) fn is_agreed(self, heard: &[u64]) -> bool {
        heard == self.words() && !self.failed
    }

    /// Of what all ranks have sent, starts finding the largest.
    pub(crate) fn start<'a, 'scope>(
        own: &'a Words,
        heard: &'a mut Words,
        ranks: &Ranks,
        scope: &'scope LocalScope<'a>,
        max: &'a Reduction,
    ) -> Request<'a, [u64], &'scope LocalScope<'a>> {
        ranks.all_reduce(scope, own, heard, max)
    }

    /// What to tell of a call that is not agreed on. Collective: all ranks know that it is not. `error` is what failed here, `shapes` what
    /// the digest is of.
    pub(crate) fn refuse(self, ranks: &Ranks, shapes: &str, error: Option<Error>) -> Error {
        let what = || format!("what the others say of {}", self.operation.name());
        let calls: Vec<[u64; FIELDS]> =
            ranks.all_gather(Fields(self.fields()), &what()).iter().map(|fields| fields.0).collect();
        if calls.iter().any(|call| call[FIELDS - 1] != 0) {
            return tell_failure(ranks, error, &what());
        }
        let name = |operation: &u64| {
            let named = Operation::ALL.into_iter().find(|it| *it as u64 == *operation);
            named.map_or_else(|| operation.to_string(), |it| it.name().to_owned())
        };
        let column = |i: usize| calls.iter().map(|call| call[i]).collect::<Vec<u64>>();
        let (rows, remedy) = match self.operation {
            Operation::Sum => {
                ("number of elements", "pass gradients of the same shapes in the same order on every rank")
            }
            _ => ("number of rows", "pass the same rows, each with its own features, on every rank"),
        };
        let same_calls = "make the same calls in the same order on every rank";
        let disagreement = Error::of_disagreement("operation", &column(0), name, same_calls)
            .or_else(|| Error::of_disagreement(rows, &column(1), u64::to_string, remedy));
        if let Some(disagreement) = disagreement {
            return disagreement;
        }
        let shapes = ranks.all_gather_texts(shapes, &what());
        // Where they differ only behind what a message holds, the digests tell who differs.
        let digest = |digest: &u64| format!("some with digest {digest:016x}");
        Error::of_disagreement("shapes", &shapes, String::clone, remedy)
            .or_else(|| Error::of_disagreement("shapes", &column(2), digest, remedy))
            .unwrap_or_else(|| unreachable!("all ranks saw that something differs, and it is nothing else"))
    }
}

/// The error of a call in which some ranks have failed. Collective; `error` is what failed here.
pub(crate) fn tell_failure(ranks: &Ranks, error: Option<Error>, what: &str) -> Error {
    let own = error.as_ref().map(ToString::to_string).unwrap_or_default();
    let texts = ranks.all_gather_texts(&own, what);
    error.unwrap_or_else(|| {
        let told = (0..).zip(texts).find(|(_, text)| !text.is_empty());
        let (rank, message) = told.unwrap_or_else(|| unreachable!("some rank has said that it failed"));
        Error::OtherRank { rank, message }
    })
}

/// The numbers of a call as one message.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fields([u64; FIELDS]);

// Safety: it is so many u64.
unsafe impl mpi::traits::Equivalence for Fields {
    type Out = mpi::datatype::UserDatatype;
    fn equivalent_datatype() -> Self::Out {
        mpi::datatype::UserDatatype::contiguous(FIELDS as i32, &u64::equivalent_datatype())
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Operation, Words};

    fn largest(calls: &[Call]) -> Words {
        let words = calls.iter().map(|call| call.words());
        words.reduce(|a, b| std::array::from_fn(|i| a[i].max(b[i]))).expect("some")
    }

    #[test]
    fn every_rank_sees_that_one_differs() {
        let call = Call { operation: Operation::Forward, number: 7, count: 12, shapes: 3, failed: false };
        let heard = largest(&[call; 4]);
        assert!(call.is_agreed(&heard));
        for other in [
            Call { operation: Operation::Backward, ..call },
            Call { count: 11, ..call },
            Call { count: u64::MAX, ..call },
            Call { shapes: 4, ..call },
            Call { failed: true, ..call },
        ] {
            let heard = largest(&[call, other, call]);
            assert!(!call.is_agreed(&heard) && !other.is_agreed(&heard), "{other:?}");
        }
    }

    #[test]
    fn ranks_that_have_all_failed_do_not_agree() {
        let call = Call { operation: Operation::Sum, number: 1, count: 2, shapes: 0, failed: true };
        assert!(!call.is_agreed(&largest(&[call; 3])));
    }
}
