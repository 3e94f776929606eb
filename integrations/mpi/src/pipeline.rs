//! A pass over chunks of rows, in which the device measures one chunk while the ranks exchange what is known of another.
//!
//! Three things go on at once, and each chunk goes through them in turn:
//!
//! 1. the device measures the rows of a chunk, of this rank's features, and the few numbers for each row are read back;
//! 2. an all-reduce makes those of whole rows of them;
//! 3. they are written to the device, which does the rest for the chunk.
//!
//! No more than [`AHEAD`] chunks are under way, so that the device has the next chunk to measure while it waits for an all-reduce.
//!
//! What happens to a chunk is logged at the level of trace, in the order in which it happens.
//!
//! A rank that fails goes on taking part in the all-reduces, so that no other one waits for it, and says in them that it has failed.

use std::collections::VecDeque;

use gpu_layer_norm::GpuDevice;
use mpi::request::scope;

use crate::Error;
use crate::agreement::{Call, tell_failure};
use crate::ranks::{Ranks, Reduction, Waiting};
use crate::readback::{Readback, poll};

/// Chunks under way: one that is measured, one that is exchanged, and one that waits, so that neither the device nor the ranks stand still
/// when both take about as long.
pub(crate) const AHEAD: usize = 3;

/// Some of the rows, or of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) index: usize,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// What a pass does with a chunk.
pub(crate) trait Pass {
    /// What is exchanged. All zeros must be neutral.
    type Word: mpi::traits::Equivalence + bytemuck::Pod;
    /// Words of a row, or of an element.
    const WORDS: usize;

    /// Starts what this rank's device has to do before the exchange, in slot `chunk.index % AHEAD`. `None` if it has nothing to do.
    fn measure(&mut self, chunk: Chunk) -> Result<Option<Readback>, Error>;

    /// Makes of what was read back what is exchanged.
    fn fill(&self, chunk: Chunk, bytes: &[u8], words: &mut [Self::Word]);

    /// Starts what the device does with what all ranks have together.
    fn finish(&mut self, chunk: Chunk, words: &[Self::Word]) -> Result<(), Error>;

    /// What follows the words of a chunk where this rank has failed: WORDS words. After the reduction the first is not 0.
    fn failure() -> Vec<Self::Word>;
}

/// How a pass is cut.
pub(crate) fn chunks(count: u64, of: u64) -> Vec<Chunk> {
    let firsts = (0..count).step_by(usize::try_from(of).unwrap_or(usize::MAX));
    firsts.enumerate().map(|(index, first)| Chunk { index, first, count: of.min(count - first) }).collect()
}

/// Runs a pass on all ranks. `pass` is what this rank has prepared, or why it could not; `shapes` tells what else ranks must agree on.
/// Collective.
pub(crate) fn run<P: Pass>(
    ranks: &Ranks,
    device: &GpuDevice,
    reduction: &Reduction,
    call: Call,
    chunk: u64,
    shapes: &str,
    pass: Result<P, Error>,
) -> Result<P, Error> {
    let chunks = chunks(call.count, chunk);
    let call = Call { failed: pass.is_err(), ..call };
    let (own_call, mut heard_call, max) = (call.words(), call.words(), Reduction::max());
    let (mut pass, mut failure) = match pass {
        Ok(pass) => (Some(pass), None),
        Err(error) => (None, Some(error)),
    };
    let name = |chunk: usize| {
        let (number, operation) = (call.number, call.operation.name());
        format!("chunk {} of {} of call {number}, {operation} of {}", chunk + 1, chunks.len(), call.counted())
    };
    // Behind the words of each chunk are those of failures.
    let length = |chunk: &Chunk| (chunk.count as usize + 1) * P::WORDS;
    let total = if pass.is_some() { chunks.iter().map(length).sum() } else { 0 };
    let zero = <P::Word as bytemuck::Zeroable>::zeroed();
    let (mut own, mut all) = (vec![zero; total], vec![zero; total]);

    let ended = scope(|scope| {
        let (mut own, mut all) = (&mut own[..], &mut all[..]);
        let mut agreement = Some(Call::start(&own_call, &mut heard_call, ranks, scope, &max));
        let mut measured: VecDeque<Option<Readback>> = VecDeque::new();
        let mut exchanged = VecDeque::new();
        let (mut started, mut sent, mut done) = (0, 0, 0);
        let mut some_rank_failed = false;
        let mut waiting = Waiting::default();
        loop {
            let mut goes_on = false;
            if let Some(request) = agreement.take() {
                match request.test_with_data() {
                    Ok((_, heard)) if !call.is_agreed(heard) => return Ended::Refused,
                    Ok(_) => goes_on = true,
                    Err(pending) => agreement = Some(pending),
                }
            }
            if agreement.is_none() && done == chunks.len() {
                return if some_rank_failed { Ended::Failed } else { Ended::Done };
            }
            if let (true, Some(pass)) = (started < chunks.len().min(done + AHEAD), &mut pass) {
                let idle = failure.is_some() || some_rank_failed;
                let readback = if idle { Ok(None) } else { pass.measure(chunks[started]) };
                measured.push_back(readback.unwrap_or_else(|error| {
                    failure = Some(error);
                    None
                }));
                started += 1;
                goes_on = true;
            }
            if let (Err(error), true) = (poll(device), failure.is_none()) {
                failure = Some(error.into());
            }
            if let (None, Some(pass), Some(readback)) = (&agreement, &pass, measured.front()) {
                let chunk = chunks[sent];
                let words = chunk.count as usize * P::WORDS;
                let is_there = match readback {
                    Some(readback) if failure.is_none() => {
                        readback.read(|bytes| pass.fill(chunk, bytes, &mut own[..words])).unwrap_or_else(|error| {
                            failure = Some(error.into());
                            true
                        })
                    }
                    _ => true,
                };
                if is_there {
                    if failure.is_some() {
                        own[..words].fill(zero);
                        own[words..words + P::WORDS].copy_from_slice(&P::failure());
                    }
                    let (part, rest) = std::mem::take(&mut own).split_at_mut(length(&chunk));
                    let (whole, other_rest) = std::mem::take(&mut all).split_at_mut(length(&chunk));
                    (own, all) = (rest, other_rest);
                    log::trace!("the device has measured {}, whose exchange begins", name(sent));
                    exchanged.push_back(ranks.all_reduce(scope, part, whole, reduction));
                    measured.pop_front();
                    sent += 1;
                    goes_on = true;
                }
            }
            if let Some(request) = exchanged.pop_front() {
                match request.test_with_data() {
                    Err(pending) => exchanged.push_front(pending),
                    Ok((_, whole)) => {
                        let chunk = chunks[done];
                        log::trace!("the ranks have exchanged {}", name(done));
                        let (words, flag) = whole.split_at(chunk.count as usize * P::WORDS);
                        some_rank_failed |= bytemuck::bytes_of(&flag[0]) != bytemuck::bytes_of(&zero);
                        if let (None, false, Some(pass)) = (&failure, some_rank_failed, &mut pass) {
                            failure = pass.finish(chunk, words).err();
                        }
                        done += 1;
                        goes_on = true;
                    }
                }
            }
            if goes_on {
                waiting.restart();
            } else if agreement.is_none() && exchanged.is_empty() {
                // For the device, which may take as long as it needs.
                waiting.pause();
            } else {
                ranks.pause(&mut waiting, || match agreement {
                    Some(_) => format!("all to agree on call {}, {}", call.number, call.operation.name()),
                    None => name(done),
                });
            }
        }
    });
    match (ended, failure, pass) {
        (Ended::Refused, failure, _) => Err(call.refuse(ranks, shapes, failure)),
        (Ended::Failed, failure, _) => {
            Err(tell_failure(ranks, failure, &format!("why a rank cannot go on with {}", call.operation.name())))
        }
        // After the last exchange: the other ranks have what they need.
        (Ended::Done, Some(error), _) => Err(error),
        (Ended::Done, None, Some(pass)) => Ok(pass),
        (Ended::Done, None, None) => unreachable!("a rank that has prepared nothing has failed"),
    }
}

enum Ended {
    /// All chunks went through.
    Done,
    /// The ranks did not agree, and nothing was exchanged.
    Refused,
    /// Some rank has said that it failed.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::{Chunk, chunks};

    #[test]
    fn chunks_cover_every_row_once() {
        assert_eq!(chunks(0, 4), []);
        let last = Chunk { index: 2, first: 8, count: 1 };
        assert_eq!(
            chunks(9, 4),
            [Chunk { index: 0, first: 0, count: 4 }, Chunk { index: 1, first: 4, count: 4 }, last]
        );
        assert_eq!(chunks(3, u64::MAX), [Chunk { index: 0, first: 0, count: 3 }]);
    }
}
