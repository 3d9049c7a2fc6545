//! The numbers of one round, and those of all rounds of one VFS. Their JSON is what `--json` prints.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::arguments::Arguments;
use super::machine::Machine;
use super::messages::Log;
use super::proof::Proof;
use super::sqlite_error;
use super::statistics::{jain, median, percentile};

/// One VFS, one fresh database, one gate.
#[derive(Serialize)]
pub struct Round {
    pub round: u32,
    pub vfs: String,
    /// From the gate's opening to the deadline, or to the interrupt.
    pub window_seconds: f64,
    /// Acknowledged writes, those that were finished after the deadline included.
    pub writes: u64,
    pub writes_in_window: u64,
    pub writes_per_second: f64,
    pub latency: Option<Latency>,
    pub failures: Failures,
    pub jain: Option<f64>,
    /// Writers that came through without one acknowledged write.
    pub writers_left_out: usize,
    pub cpu_us_per_write: Option<f64>,
    /// Voluntary context switches; the pause between two writes is one of them.
    pub waits_per_write: Option<f64>,
    /// How many cores the rest of the machine kept busy meanwhile, the kernel's own threads
    /// (writing to the disk, for one) included.
    pub others_cores: Option<f64>,
    /// Writers that crashed or had to be killed.
    pub casualties: Vec<String>,
    pub proof: Proof,
    #[serde(skip)]
    pub latencies: Vec<u64>,
    #[serde(skip)]
    pub cpu: Duration,
    #[serde(skip)]
    pub waits: u64,
}

/// Of acknowledged writes, in microseconds.
#[derive(Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    pub p999_over_p50: f64,
}

impl Latency {
    fn of(sorted: &[u64]) -> Option<Self> {
        let at = |fraction| percentile(sorted, fraction).map(|ns| ns as f64 / 1e3);
        let (p50_us, p999_us) = (at(0.5)?, at(0.999)?);
        Some(Self {
            p50_us,
            p99_us: at(0.99)?,
            p999_us,
            max_us: at(1.0)?,
            p999_over_p50: p999_us / p50_us,
        })
    }
}

/// By SQLite's name for the error.
pub type Failures = BTreeMap<String, Failure>;

/// All failed writes with one error.
#[derive(Clone, Serialize)]
pub struct Failure {
    pub code: i32,
    pub count: u64,
    /// SQLite's words for one of them.
    pub message: String,
    /// How long the unluckiest of them had waited.
    pub longest_ms: f64,
}

fn merge(into: &mut Failures, code: i32, count: u64, message: &str, longest_ms: f64) {
    let entry = into
        .entry(sqlite_error::name(code))
        .or_insert_with(|| Failure {
            code,
            count: 0,
            message: message.to_owned(),
            longest_ms: 0.0,
        });
    entry.count += count;
    entry.longest_ms = entry.longest_ms.max(longest_ms);
}

/// How many writes failed.
pub fn failed(failures: &Failures) -> u64 {
    failures.values().map(|failure| failure.count).sum()
}

/// What a round measured beside the writers' logs.
pub struct Circumstances {
    pub round: u32,
    pub vfs: String,
    pub window: Duration,
    pub others_cores: Option<f64>,
    pub casualties: Vec<String>,
    pub proof: Proof,
}

impl Round {
    /// The figures of one round. `logs` has one entry for each writer, `None` for a casualty.
    pub fn new(around: Circumstances, logs: &[Option<Log>]) -> Self {
        let mut failures = Failures::new();
        for failed in logs.iter().flatten().flat_map(|log| &log.failures) {
            let longest_ms = failed.longest.as_secs_f64() * 1e3;
            merge(
                &mut failures,
                failed.code,
                failed.attempts.len() as u64,
                &failed.message,
                longest_ms,
            );
        }
        let logs_there = || logs.iter().flatten();
        let mut latencies: Vec<u64> = logs_there()
            .flat_map(|log| log.latencies.iter().copied())
            .collect();
        latencies.sort_unstable();
        let shares: Vec<u64> = logs_there().map(|log| log.in_window).collect();
        let writes_in_window: u64 = shares.iter().sum();
        let cpu: Duration = logs_there().map(|log| log.cpu).sum();
        let waits: u64 = logs_there().map(|log| log.waits).sum();
        let window_seconds = around.window.as_secs_f64();
        Self {
            round: around.round,
            vfs: around.vfs,
            window_seconds,
            writes: latencies.len() as u64,
            writes_in_window,
            writes_per_second: writes_in_window as f64 / window_seconds.max(1e-9),
            latency: Latency::of(&latencies),
            failures,
            jain: jain(&shares),
            writers_left_out: logs_there().filter(|log| log.latencies.is_empty()).count(),
            cpu_us_per_write: per_write(cpu.as_secs_f64() * 1e6, latencies.len()),
            waits_per_write: per_write(waits as f64, latencies.len()),
            others_cores: around.others_cores,
            casualties: around.casualties,
            proof: around.proof,
            latencies,
            cpu,
            waits,
        }
    }
}

fn per_write(total: f64, writes: usize) -> Option<f64> {
    (writes > 0).then(|| total / writes as f64)
}

/// One VFS over all its rounds: rates are medians, latencies are pooled, counts are sums.
#[derive(Serialize)]
pub struct Summary {
    pub vfs: String,
    pub rounds: usize,
    pub writes: u64,
    pub writes_per_second: f64,
    pub latency: Option<Latency>,
    pub failures: Failures,
    pub jain: Option<f64>,
    pub writers_left_out: f64,
    pub cpu_us_per_write: Option<f64>,
    pub waits_per_write: Option<f64>,
    pub others_cores: Option<f64>,
    pub acknowledged: u64,
    pub rows: u64,
    pub lost: u64,
    pub unacknowledged_but_stored: u64,
    pub proven: bool,
    /// Sorted.
    #[serde(skip)]
    pub latencies: Vec<u64>,
}

impl Summary {
    /// `None` if `vfs` has no round.
    pub fn of(vfs: &str, rounds: &[Round]) -> Option<Self> {
        let mine: Vec<&Round> = rounds.iter().filter(|round| round.vfs == vfs).collect();
        if mine.is_empty() {
            return None;
        }
        let mut latencies: Vec<u64> = mine
            .iter()
            .flat_map(|round| round.latencies.iter().copied())
            .collect();
        latencies.sort_unstable();
        let mut failures = Failures::new();
        for f in mine.iter().flat_map(|round| round.failures.values()) {
            merge(&mut failures, f.code, f.count, &f.message, f.longest_ms);
        }
        let middle = |figure: fn(&Round) -> Option<f64>| {
            let there: Vec<f64> = mine.iter().filter_map(|round| figure(round)).collect();
            (!there.is_empty()).then(|| median(&there))
        };
        let cpu: Duration = mine.iter().map(|r| r.cpu).sum();
        let waits: u64 = mine.iter().map(|r| r.waits).sum();
        let total = |figure: fn(&Proof) -> u64| mine.iter().map(|r| figure(&r.proof)).sum();
        Some(Self {
            vfs: vfs.to_owned(),
            rounds: mine.len(),
            writes: latencies.len() as u64,
            writes_per_second: middle(|r| Some(r.writes_per_second)).unwrap_or(0.0),
            latency: Latency::of(&latencies),
            failures,
            jain: middle(|r| r.jain),
            writers_left_out: middle(|r| Some(r.writers_left_out as f64)).unwrap_or(0.0),
            cpu_us_per_write: per_write(cpu.as_secs_f64() * 1e6, latencies.len()),
            waits_per_write: per_write(waits as f64, latencies.len()),
            others_cores: middle(|r| r.others_cores),
            acknowledged: total(|p| p.acknowledged),
            rows: total(|p| p.rows),
            lost: total(|p| p.lost),
            unacknowledged_but_stored: total(|p| p.unacknowledged_but_stored),
            proven: mine.iter().all(|r| r.proof.holds()),
            latencies,
        })
    }
}

/// All that a run has to say.
#[derive(Serialize)]
pub struct Results {
    pub version: &'static str,
    pub parameters: Parameters,
    pub machine: Machine,
    /// Stopped by a signal: the last round is shorter, and some may be missing.
    pub interrupted: bool,
    pub summary: Vec<Summary>,
    pub rounds: Vec<Round>,
    #[serde(skip)]
    pub title: String,
}

/// What was asked for.
#[derive(Serialize)]
pub struct Parameters {
    pub writers: u32,
    seconds: f64,
    pub rounds: u32,
    journal: super::arguments::Journal,
    sync: super::arguments::Sync,
    timeout_ms: u32,
    keep_open: bool,
    no_sleep: bool,
    pub vfs: Vec<String>,
}

impl Results {
    /// Puts the rounds together.
    pub fn new(
        arguments: &Arguments,
        machine: Machine,
        rounds: Vec<Round>,
        interrupted: bool,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            parameters: Parameters {
                writers: arguments.writers,
                seconds: arguments.seconds,
                rounds: arguments.rounds,
                journal: arguments.journal,
                sync: arguments.sync,
                timeout_ms: arguments.timeout_ms,
                keep_open: arguments.keep_open,
                no_sleep: arguments.no_sleep,
                vfs: arguments.vfs.clone(),
            },
            machine,
            interrupted,
            summary: arguments
                .vfs
                .iter()
                .filter_map(|vfs| Summary::of(vfs, &rounds))
                .collect(),
            rounds,
            title: arguments.title(),
        }
    }

    /// Whether every round's database held what was acknowledged, and every writer came through
    /// (except those that an interrupt cut short).
    pub fn good(&self) -> bool {
        self.rounds
            .iter()
            .all(|r| r.proof.holds() && (self.interrupted || r.casualties.is_empty()))
    }
}
