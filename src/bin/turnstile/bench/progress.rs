//! What the user sees while it runs: on standard error, a bar on a terminal, a plain line now and
//! then anywhere else.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units::{count, three_digits};

/// Between two plain lines.
const LINES: Duration = Duration::from_secs(2);
const STEPS: u64 = 1000;

/// The progress of one round.
pub struct Progress {
    label: String,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Progress {
    /// For the round called `label`.
    pub fn new(label: String) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{prefix}  {bar:24.cyan/dim}  {msg}") {
                bar.set_style(style.progress_chars("━━─"));
            }
            bar.set_prefix(label.clone());
            bar
        });
        Self {
            label,
            bar,
            last_line: None,
        }
    }

    /// `ready` of `writers` stand at the gate.
    pub fn starting(&mut self, ready: u64, writers: u32) {
        self.show(0.0, || format!("starting {ready} of {writers} writers"));
    }

    /// The gate is open.
    pub fn running(&mut self, elapsed: f64, seconds: f64, writes: u64, failed: u64) {
        self.show(elapsed / seconds, || {
            format!(
                "{elapsed:.1} of {seconds} s  {} writes/s  {} failed",
                count((writes as f64 / elapsed.max(1e-3)) as u64),
                count(failed)
            )
        });
    }

    /// The deadline is over, some still wait in a write that they began before.
    pub fn draining(&mut self, since: f64, left: u64, failed: u64) {
        self.show(1.0, || {
            format!(
                "draining for {since:.1} s: {} still in a write  {} failed",
                count(left),
                count(failed)
            )
        });
    }

    /// The round's last line, which stays.
    pub fn done(&self, writes_per_second: f64, failed: u64, others: Option<f64>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let others = others.map_or(String::new(), |cores| {
            format!("  (others used {} cores)", three_digits(cores))
        });
        say(&format!(
            "{}  {} writes/s  {} failed{others}",
            self.label,
            count(writes_per_second as u64),
            count(failed)
        ));
    }

    fn show(&mut self, fraction: f64, text: impl Fn() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position((fraction.clamp(0.0, 1.0) * STEPS as f64) as u64);
            bar.set_message(text());
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINES) {
            self.last_line = Some(Instant::now());
            say(&format!("{}  {}", self.label, text()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// One line on standard error. A closed one is no reason to stop measuring.
pub fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
