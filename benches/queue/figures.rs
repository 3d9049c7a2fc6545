//! Figures of rounds, and ratios within pairs.

use crate::run::{Round, Run};

/// The VFSs by their part in the comparison.
pub const STOCK: &str = "unix";
pub const OURS: &str = "turnstile";
pub const IDEAL: &str = "yardstick";

/// Something that a round measured; `None` if nothing was written in it.
pub type Figure = fn(&Round) -> Option<f64>;

pub const THROUGHPUT: Figure = |r| Some(r.writes_per_second);
pub const P999: Figure = |r| r.latency.as_ref().map(|l| l.p999_us);
pub const MAX: Figure = |r| r.latency.as_ref().map(|l| l.max_us);
/// p99.9 / p50.
pub const SPREAD: Figure = |r| r.latency.as_ref().map(|l| l.p999_over_p50);
pub const JAIN: Figure = |r| r.jain;
pub const CPU: Figure = |r| r.cpu_us_per_write;
pub const WAITS: Figure = |r| r.waits_per_write;

/// The same figure of several rounds or pairs.
#[derive(Clone)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// `figure` of `vfs`, round by round.
    pub fn of(run: &Run, vfs: &str, figure: Figure) -> Self {
        let rounds = run.rounds.iter().filter(|round| round.vfs == vfs);
        Self(rounds.filter_map(figure).collect())
    }

    /// `figure` of `one` divided by that of `other`, pair by pair.
    pub fn ratio(run: &Run, figure: Figure, one: &str, other: &str) -> Self {
        let rounds = run.rounds.iter().filter(|round| round.vfs == one);
        let ratio = |round: &Round| {
            let mut all = run.rounds.iter();
            let partner = all.find(|r| r.vfs == other && r.round == round.round)?;
            Some(figure(round)? / figure(partner)?)
        };
        Self(
            rounds
                .filter_map(ratio)
                .filter(|ratio| ratio.is_finite())
                .collect(),
        )
    }

    /// The longest wait of `vfs` over what a whole line of `writers` takes at the rate of the
    /// round: in a strict queue that is never full twice, about 1.
    pub fn lines_waited(run: &Run, vfs: &str, writers: u32) -> Self {
        let rounds = run.rounds.iter().filter(|round| round.vfs == vfs);
        let lines = |round: &Round| {
            let line_us = f64::from(writers) * 1e6 / round.writes_per_second;
            MAX(round).map(|max| max / line_us)
        };
        Self(rounds.filter_map(lines).collect())
    }

    /// The middle value, or the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            n if n % 2 == 1 => Some(sorted[half]),
            _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
        }
    }

    /// The largest.
    pub fn worst(&self) -> Option<f64> {
        self.0.iter().copied().reduce(f64::max)
    }

    /// All of them, as they were measured.
    pub fn each(&self) -> &[f64] {
        &self.0
    }
}

/// Failed writes of `vfs` in all rounds.
pub fn failed(run: &Run, vfs: &str) -> u64 {
    let rounds = run.rounds.iter().filter(|round| round.vfs == vfs);
    rounds
        .flat_map(|round| round.failures.values())
        .map(|failure| failure.count)
        .sum()
}

/// The cores that others kept busy in the worst round.
pub fn others(run: &Run) -> f64 {
    let rounds = run.rounds.iter();
    rounds.filter_map(|r| r.others_cores).fold(0.0, f64::max)
}

/// 2.13, 21.3, 213; what was not measured is a dash.
pub fn short(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(v) if v < 9.995 => format!("{v:.2}"),
        Some(v) if v < 99.95 => format!("{v:.1}"),
        Some(v) => format!("{v:.0}"),
    }
}

/// An index from 0 to 1: the third digit tells good from nearly good.
pub fn index(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"))
}
