//! All that takes several ranks. This binary is run twice: `cargo test` runs it with trials, each of which starts `mpirun` with this very
//! binary; a process that `mpirun` started plays the rank of a scenario.
//!
//! A scenario passes where every rank finds what it expects. One that ends all ranks passes where `mpirun` says why.

mod accuracy;
mod data_parallel;
mod failures;
mod job;
mod misuse;
mod overlap;
mod sample;
mod wide;

use std::process::ExitCode;

use gpu_layer_norm_mpi::mpi::topology::SimpleCommunicator;
use job::Job;
use libtest_mimic::{Arguments, Trial};

/// What a rank does, and what it finds wrong.
type Scenario = fn(&SimpleCommunicator) -> Result<(), Box<dyn std::error::Error>>;

/// The scenarios by name.
fn scenario(name: &str) -> Option<Scenario> {
    let all: &[(&str, Scenario)] = &[
        ("accuracy", accuracy::every_case),
        ("accuracy_of_shards_alone", accuracy::shards_alone),
        ("data_parallel", data_parallel::gradients_of_all_rows),
        ("making", misuse::making),
        ("calling", misuse::calling),
        ("adding_up", misuse::adding_up),
        ("device_lost", failures::device_lost),
        ("panics", failures::panics),
        ("killed", failures::killed),
        ("exits", failures::exits),
        ("exits_in_peace", failures::exits_in_peace),
        ("returns_an_error", failures::returns_an_error),
        ("stops", failures::stops),
        ("leaves", failures::leaves),
        ("never_makes_a_layer", failures::never_makes_a_layer),
        ("overlap", overlap::measuring_goes_on),
        ("wide", wide::wide),
    ];
    all.iter().find(|(other, _)| *other == name).map(|(_, scenario)| *scenario)
}

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(job::SCENARIO) {
        let Some(scenario) = scenario(&name) else {
            eprintln!("there is no scenario {name}");
            return ExitCode::from(2);
        };
        return match gpu_layer_norm_mpi::run(scenario) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    // Ranks are processes that each want a core.
    arguments.test_threads.get_or_insert(1);
    let trial = |name: &str, job: Job| Trial::test(name, move || job.passes().map_err(Into::into));
    let ends = |name: &str, job: Job, words: &'static [&'static str]| {
        Trial::test(name, move || job.ends_with(words).map_err(Into::into))
    };
    let mut trials = Vec::new();
    for ranks in [1, 2, 4] {
        trials.push(trial(
            &format!("{ranks} ranks have the outputs and gradients of the reference"),
            Job::new("accuracy", ranks),
        ));
        trials.push(trial(
            &format!("{ranks} ranks with rows of their own have the gradients of all rows"),
            Job::new("data_parallel", ranks),
        ));
        let name = format!("rows of 2^28 elements on {ranks} ranks");
        let job = Job::new("wide", ranks).env(wide::LOG2_WIDTH, "28").seconds(3000);
        trials.push(trial(&name, job).with_ignored_flag(true));
    }
    trials.extend([
        trial("shards that are normalized alone fail the comparison", Job::new("accuracy_of_shards_alone", 2)),
        trial("rows of 2^20 elements against sums in f64", Job::new("wide", 2).env(wide::LOG2_WIDTH, "20")),
        trial("devices measure while ranks exchange", Job::new("overlap", 2)),
        trial("ranks that make other layers are told so", Job::new("making", 4)),
        trial("ranks that make other calls, or pass wrong shapes, are told so, and go on", Job::new("calling", 4)),
        trial("ranks that add up other gradients are told so, and go on", Job::new("adding_up", 4)),
        trial("all ranks are told of a device that is lost in the middle of a pass", Job::new("device_lost", 4)),
        ends(
            "a rank that panics ends all",
            Job::new("panics", 4),
            &["on purpose", "rank 1 of 4 ends all ranks, because it panicked"],
        ),
        ends("a rank that is killed ends all", Job::new("killed", 4), &["rank 2", "signal 9"]),
        ends("a rank that exits ends all", Job::new("exits", 4), &["Exit code: 3"]),
        ends("a rank that exits as if all were well ends all", Job::new("exits_in_peace", 4), &["rank 1", "finalize"]),
        ends(
            "a rank that returns an error ends all",
            Job::new("returns_an_error", 4),
            &["rank 3 of 4 ends all ranks, because of an error: on purpose"],
        ),
        ends(
            "a rank that stops is waited for no longer than was said",
            Job::new("stops", 4),
            &[
                "rank 0 of 4: no word from the other ranks for 3 s, waiting for chunk ",
                "rank 2 of 4: no word",
                "rank 3 of 4: no word",
                " of 20000 of call 2, forward of 20000 rows",
            ],
        ),
        ends(
            "a rank that leaves early is waited for no longer than was said",
            Job::new("leaves", 4),
            &["no word from the other ranks for 3 s, waiting for all to agree on call 2, forward"],
        ),
        ends(
            "a rank that never makes its layer is waited for no longer than was said",
            Job::new("never_makes_a_layer", 2),
            &["no word from the other ranks for 3 s, waiting for all ranks to make a layer"],
        ),
    ]);
    libtest_mimic::run(&arguments, trials).exit_code()
}
