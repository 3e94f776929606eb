use std::collections::BTreeMap;
use std::fmt;

use super::geometry::task;
use super::{Geometry, Problem};

/// The geometries that were measured to be the fastest on one adapter, by what they were measured for.
///
/// Written and read as text: a line that says what the rest is for, then a line for each entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tunings {
    adapter: String,
    geometries: BTreeMap<String, Geometry>,
}

impl Tunings {
    /// None yet, for an adapter of this name. The name should tell driver versions apart: what is fastest on one need not be
    /// so on another.
    pub fn new(adapter: impl fmt::Display) -> Self {
        let adapter = format!("{} {}: {adapter}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        Self { adapter: adapter.replace(['\n', '\r'], " "), geometries: BTreeMap::new() }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.geometries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.geometries.is_empty()
    }

    /// What was found for such a problem: one with as many rows, to the next power of two, of the same width, whose tensors are
    /// stored and placed alike.
    pub fn get(&self, problem: &Problem) -> Option<Geometry> {
        // The name of the task is worked out only if there is something to look up.
        if self.is_empty() { None } else { self.geometries.get(&task(problem).ok()?).copied() }
    }

    /// Enters what was found. A problem whose tensors overlap is not one that was measured.
    pub fn insert(&mut self, problem: &Problem, geometry: Geometry) {
        if let Ok(task) = task(problem) {
            self.geometries.insert(task, geometry);
        }
    }

    /// Adds the entries of a text, in place of those for the same; returns their number. A text of another adapter, driver or
    /// version of this crate, and a line that cannot be read, is passed over and logged.
    pub fn read(&mut self, text: &str) -> usize {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if first != self.adapter {
            log::warn!("tunings for \"{first}\" are of no use to \"{}\"", self.adapter);
            return 0;
        }
        let mut read = 0;
        for line in lines {
            match line.split_once(": ").map(|(task, geometry)| (task, geometry.parse())) {
                Some((task, Ok(geometry))) => {
                    self.geometries.insert(task.into(), geometry);
                    read += 1;
                }
                _ => {
                    let beginning: String = line.chars().take(200).collect();
                    log::warn!("no tuning: \"{beginning}\" ({} bytes)", line.len());
                }
            }
        }
        read
    }
}

impl fmt::Display for Tunings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.adapter)?;
        self.geometries.iter().try_for_each(|(task, geometry)| writeln!(f, "{task}: {geometry}"))
    }
}
