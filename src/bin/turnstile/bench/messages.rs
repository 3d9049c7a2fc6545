//! What a writer is told when it starts, and what it tells when it is done.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arguments::{Journal, Sync};

/// The same for all writers of a round.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    /// [`super::control::Control::path`].
    pub control: PathBuf,
    /// Whoever is not this process's child any more has nobody to write for.
    pub parent: u32,
    /// Makes the sleeps of this round differ from those of the next.
    pub seed: u64,
    pub database: PathBuf,
    /// SQLite's name for it.
    pub vfs: String,
    /// Each write takes its turn by the [yardstick](super::yardstick).
    pub in_line: bool,
    pub journal: Journal,
    pub sync: Sync,
    pub timeout_ms: u32,
    pub keep_open: bool,
    pub no_sleep: bool,
}

/// What a writer sends back.
#[derive(Serialize, Deserialize)]
pub enum Report {
    /// It never came to the gate, and why.
    CannotStart(String),
    /// It came through the round.
    Done(Log),
}

/// All that one writer did. Its attempts are numbered from 0; those that are not in `failures`
/// were acknowledged.
#[derive(Default, Serialize, Deserialize)]
pub struct Log {
    /// Nanoseconds of each acknowledged write, in order.
    pub latencies: Vec<u64>,
    /// How many of them were acknowledged before the deadline.
    pub in_window: u64,
    pub failures: Vec<Failed>,
    /// From the gate to the end of the last write.
    pub cpu: Duration,
    /// Voluntary context switches in that time.
    pub waits: u64,
}

/// The attempts of one writer that failed in the same way.
#[derive(Serialize, Deserialize)]
pub struct Failed {
    /// SQLite's extended result code.
    pub code: i32,
    /// SQLite's words for the first of them.
    pub message: String,
    pub attempts: Vec<u64>,
    pub longest: Duration,
}

impl Log {
    /// Acknowledged and failed attempts together.
    pub fn attempts(&self) -> u64 {
        (self.latencies.len()
            + self
                .failures
                .iter()
                .map(|f| f.attempts.len())
                .sum::<usize>()) as u64
    }
}
