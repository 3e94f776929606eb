//! `mpirun` with this binary.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Names the scenario of a process that is a rank.
pub const SCENARIO: &str = "GPU_LAYER_NORM_MPI_SCENARIO";

pub struct Job {
    scenario: &'static str,
    ranks: u32,
    environment: Vec<(&'static str, &'static str)>,
    limit: Duration,
}

impl Job {
    pub fn new(scenario: &'static str, ranks: u32) -> Self {
        Self { scenario, ranks, environment: Vec::new(), limit: Duration::from_secs(300) }
    }

    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// No job may take longer.
    pub fn seconds(self, seconds: u64) -> Self {
        Self { limit: Duration::from_secs(seconds), ..self }
    }

    /// That all ranks find what they expect.
    pub fn passes(&self) -> Result<(), String> {
        let (status, output) = self.run()?;
        if status.success() { Ok(()) } else { Err(format!("{status}\n{output}")) }
    }

    /// That the job ends, with these words of a reason.
    pub fn ends_with(&self, words: &[&str]) -> Result<(), String> {
        let (status, output) = self.run()?;
        if status.success() {
            return Err(format!("it went well, which it should not\n{output}"));
        }
        // mpirun breaks its lines.
        let flowing = output.split_whitespace().collect::<Vec<_>>().join(" ");
        match words.iter().find(|words| !flowing.contains(**words)) {
            Some(words) => Err(format!("{status}, without a word of \"{words}\"\n{output}")),
            None => Ok(()),
        }
    }

    fn run(&self) -> Result<(ExitStatus, String), String> {
        static JOBS: AtomicU32 = AtomicU32::new(0);
        let job = JOBS.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("ranks-{}-{job}.txt", std::process::id()));
        let failed = |error: std::io::Error| format!("mpirun: {error}");
        let output = File::create(&path).map_err(failed)?;
        let mut command = Command::new("mpirun");
        // In a container one is root, and there are more ranks than cores.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.args(["--oversubscribe", "-n", &self.ranks.to_string()]);
        command.arg(std::env::current_exe().map_err(failed)?);
        command.env(SCENARIO, self.scenario).envs(self.environment.iter().copied());
        // A software adapter takes all cores for each rank otherwise.
        if std::env::var_os("LP_NUM_THREADS").is_none() {
            command.env("LP_NUM_THREADS", "1");
        }
        command.stdin(std::process::Stdio::null());
        command.stdout(output.try_clone().map_err(failed)?).stderr(output);
        let mut child = command.spawn().map_err(failed)?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break status;
            }
            if began.elapsed() > self.limit {
                // What mpirun started ends with it.
                let _ = Command::new("kill").arg(child.id().to_string()).status();
                std::thread::sleep(Duration::from_secs(3));
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(&path).unwrap_or_default();
                return Err(format!("still running after {} s\n{said}", self.limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = fs::read(&path).map_err(failed)?;
        let _ = fs::remove_file(&path);
        Ok((status, String::from_utf8_lossy(&said).into_owned()))
    }
}
