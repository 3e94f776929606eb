//! The ranks that work together: collective operations that never wait for ever.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use mpi::Rank;
use mpi::collective::{SystemOperation, UnsafeUserFunction, UnsafeUserOperation};
use mpi::datatype::UserDatatype;
use mpi::ffi;
use mpi::request::{LocalScope, Request, Scope, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{AsRaw, Communicator, CommunicatorCollectives, Equivalence};

/// The exit status of a job that was ended because a rank was missing.
const MISSING: c_int = 75;

/// How long a rank that gives up waits for the others to say so too, so that those that do not are known.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// A communicator of this crate's own, and how long this rank waits for the others.
pub(crate) struct Ranks {
    communicator: SimpleCommunicator,
    timeout: Duration,
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranks").field("rank", &self.rank()).field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Ranks {
    /// Collective over the ranks of `of`, whose own messages stay apart.
    pub(crate) fn new(of: &impl Communicator, timeout: Duration) -> Self {
        // A duplication cannot be waited for with a limit, so all have to be there before it.
        wait_for_all(of, timeout, "all ranks to make a layer");
        Self { communicator: of.duplicate(), timeout }
    }

    pub(crate) fn rank(&self) -> Rank {
        self.communicator.rank()
    }

    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.communicator.size()).unwrap_or(1)
    }

    /// What every rank has, in their order.
    pub(crate) fn all_gather<T: Equivalence + Copy + 'static>(&self, own: T, what: &str) -> Vec<T> {
        let own = [own];
        let mut all = vec![own[0]; self.size()];
        scope(|scope| {
            let mut request = self.communicator.immediate_all_gather_into(scope, &own[..], &mut all[..]);
            let mut waiting = Waiting::default();
            loop {
                match request.test() {
                    Ok(_) => break,
                    Err(pending) => request = pending,
                }
                self.pause(&mut waiting, || what.to_owned());
            }
        });
        all
    }

    /// The texts of all ranks, each cut to what a message holds.
    pub(crate) fn all_gather_texts(&self, own: &str, what: &str) -> Vec<String> {
        let all = self.all_gather(Text::new(own), what);
        all.iter().map(Text::to_string).collect()
    }

    /// Starts an all-reduce. Buffers of all ranks must have the same length, a multiple of what the reduction takes together.
    pub(crate) fn all_reduce<'a, 'scope, T: Equivalence>(
        &self,
        scope: &'scope LocalScope<'a>,
        own: &'a [T],
        all: &'a mut [T],
        reduction: &'a Reduction,
    ) -> Request<'a, [T], &'scope LocalScope<'a>>
    where
        &'scope LocalScope<'a>: Scope<'a>,
    {
        let plain = T::equivalent_datatype();
        let datatype = reduction.datatype.as_ref().map_or_else(|| plain.as_raw(), AsRaw::as_raw);
        assert!(own.len() == all.len() && own.len().is_multiple_of(reduction.together));
        let count = c_int::try_from(own.len() / reduction.together).unwrap_or_else(|_| unreachable!("{CUT}"));
        let mut request = std::mem::MaybeUninit::uninit();
        // Safety: both buffers have `count` elements of the datatype. They, the datatype and the operation are borrowed for as long as
        // the scope lasts, at whose end the request is done.
        unsafe {
            ffi::MPI_Iallreduce(
                own.as_ptr().cast(),
                all.as_mut_ptr().cast(),
                count,
                datatype,
                reduction.raw_operation(),
                self.communicator.as_raw(),
                request.as_mut_ptr(),
            );
            Request::from_raw(request.assume_init(), all, scope)
        }
    }

    /// Lets others run for a moment. Ends all ranks where this one has waited for too long.
    pub(crate) fn pause(&self, waiting: &mut Waiting, what: impl FnOnce() -> String) {
        waiting.pause();
        if waiting.is_over(self.timeout) {
            give_up(&self.communicator, self.timeout, &what());
        }
    }
}

const CUT: &str = "buffers are cut to what a c_int counts";

/// Waits until all ranks are here.
pub(crate) fn wait_for_all(of: &impl Communicator, timeout: Duration, what: &str) {
    let mut barrier = of.immediate_barrier();
    let mut waiting = Waiting::default();
    loop {
        match barrier.test() {
            Ok(_) => return,
            Err(pending) => barrier = pending,
        }
        waiting.pause();
        if waiting.is_over(timeout) {
            give_up(of, timeout, what);
        }
    }
}

/// Says on standard error what was waited for, and ends the processes of all ranks.
fn give_up(communicator: &impl Communicator, timeout: Duration, what: &str) -> ! {
    say(format_args!(
        "rank {} of {}: no word from the other ranks for {} s, waiting for {what}. All ranks end now; a rank that does not say this is \
         one that was waited for.",
        communicator.rank(),
        communicator.size(),
        timeout.as_secs_f64(),
    ));
    std::thread::sleep(LAST_WORDS);
    communicator.abort(MISSING)
}

/// A line on standard error, in one piece: other ranks may be writing too.
pub(crate) fn say(what: fmt::Arguments<'_>) {
    let line = format!("gpu-layer-norm-mpi: {what}\n");
    // Nobody is left to be told that it cannot be written.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// How numbers of the ranks become one.
pub(crate) struct Reduction {
    /// How many belong together.
    together: usize,
    /// Of as many, where it is more than one.
    datatype: Option<UserDatatype>,
    operation: Operation,
}

enum Operation {
    System(SystemOperation),
    User(UnsafeUserOperation),
}

impl fmt::Debug for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reduction").field("together", &self.together).finish_non_exhaustive()
    }
}

impl Reduction {
    pub(crate) fn sum() -> Self {
        Self { together: 1, datatype: None, operation: Operation::System(SystemOperation::sum()) }
    }

    pub(crate) fn max() -> Self {
        Self { together: 1, datatype: None, operation: Operation::System(SystemOperation::max()) }
    }

    /// `function` merges the first vector, whose elements are N f64 each, into the second. It must be associative but for rounding, and
    /// commutative.
    ///
    /// # Safety
    /// `function` must stay within the elements that it is told of.
    pub(crate) unsafe fn of<const N: usize>(function: UnsafeUserFunction) -> Self {
        let count = c_int::try_from(N).unwrap_or_else(|_| unreachable!("{CUT}"));
        let datatype = UserDatatype::contiguous(count, &f64::equivalent_datatype());
        // Safety: as promised.
        let operation = Operation::User(unsafe { UnsafeUserOperation::commutative(function) });
        Self { together: N, datatype: Some(datatype), operation }
    }

    fn raw_operation(&self) -> ffi::MPI_Op {
        match &self.operation {
            Operation::System(operation) => operation.as_raw(),
            Operation::User(operation) => operation.as_raw(),
        }
    }
}

/// The two vectors of a reduction, as MPI hands them over.
///
/// # Safety
/// As an operation is called by MPI: both have `len` elements of type `T`, and do not overlap.
pub(crate) unsafe fn vectors<'a, T>(
    first: *mut c_void,
    second: *mut c_void,
    len: *mut c_int,
) -> (&'a [T], &'a mut [T]) {
    // Safety: as promised.
    unsafe {
        let len = usize::try_from(*len).unwrap_or(0);
        (std::slice::from_raw_parts(first.cast(), len), std::slice::from_raw_parts_mut(second.cast(), len))
    }
}

/// Waiting in a loop that has to look at two things, neither of which wakes it: MPI goes on only inside its calls.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    since: Option<Instant>,
    pauses: u32,
}

impl Waiting {
    /// Something happened.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Lets others run for a moment: not at all at first, because most waits are short, then for longer, because there may be more ranks
    /// than cores.
    pub(crate) fn pause(&mut self) {
        const SPINS: u32 = 200;
        const YIELDS: u32 = 2000;
        self.pauses = self.pauses.saturating_add(1);
        match self.pauses {
            ..SPINS => std::hint::spin_loop(),
            SPINS..YIELDS => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }

    fn is_over(&mut self, timeout: Duration) -> bool {
        // The clock is not looked at while waits are short.
        self.pauses > 100 && self.since.get_or_insert_with(Instant::now).elapsed() >= timeout
    }
}

/// A text that goes over in one message of a fixed size.
#[repr(C)]
#[derive(Clone, Copy)]
struct Text([u8; Text::BYTES]);

impl Text {
    const BYTES: usize = 256;

    fn new(text: &str) -> Self {
        let mut end = text.len().min(Self::BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; Self::BYTES];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self(bytes)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.0).trim_end_matches('\0'))
    }
}

// Safety: it is so many bytes.
unsafe impl Equivalence for Text {
    type Out = UserDatatype;
    fn equivalent_datatype() -> UserDatatype {
        UserDatatype::contiguous(Self::BYTES as c_int, &u8::equivalent_datatype())
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(Text::new("the device is lost").to_string(), "the device is lost");
        assert_eq!(Text::new("").to_string(), "");
        let long = "é".repeat(200);
        assert_eq!(Text::new(&format!("x{long}")).to_string(), format!("x{}", "é".repeat(127)));
    }
}
