//! What the user can ask `bench` for, checked before anything is started.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};
use serde::{Deserialize, Serialize};

/// Measure many processes writing to one database: stock SQLite against turnstile
///
/// Starts --writers real processes. Each one, until --seconds are over: opens the database,
/// inserts one row, commits, closes, and sleeps 0 to 100 ms (uniform). The VFSs of --vfs take
/// turns, A B, B A, in --rounds rounds on a fresh database each time, and one table compares
/// them. Then every round's database is proven: each acknowledged commit is a row that is
/// there, and PRAGMA integrity_check says ok.
///
/// A write's latency is what its caller waits: from before sqlite3_open until COMMIT returned,
/// retries and sleeps of the busy timeout included. With --keep-open it starts at BEGIN.
/// At the deadline nobody starts a new write; those under way finish and are counted among the
/// latencies, but not in writes/s. A write that fails is a failure, not a latency.
#[derive(Args)]
pub struct Arguments {
    /// Processes that write at the same time
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    pub writers: u32,

    /// Length of one round
    #[arg(short, long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,

    /// Rounds for each VFS; rates are the median over them, latencies are pooled
    #[arg(long, value_name = "K", default_value_t = 2)]
    #[arg(value_parser = value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,

    /// Where the databases are made, each in a fresh directory that is removed afterwards
    /// [default: the directory for temporary files]
    #[arg(short, long)]
    pub dir: Option<PathBuf>,

    /// PRAGMA journal_mode
    #[arg(short, long, value_enum, value_name = "MODE", default_value_t = Journal::Wal)]
    pub journal: Journal,

    /// PRAGMA synchronous
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Sync::Full)]
    pub sync: Sync,

    /// sqlite3_busy_timeout of each connection
    #[arg(short, long, value_name = "MS", default_value_t = 5_000)]
    #[arg(value_parser = value_parser!(u32).range(0..=3_600_000))]
    pub timeout_ms: u32,

    /// Each writer opens the database once instead of once per write
    #[arg(long)]
    pub keep_open: bool,

    /// No pause between two writes of one process
    #[arg(long)]
    pub no_sleep: bool,

    /// VFSs to compare; `yardstick` is unix behind an ideal queue
    ///
    /// `yardstick` takes a strict first-come-first-served lock around each transaction of the stock
    /// VFS, in memory that the writers share. It cannot be used outside of this bench: a process
    /// that dies holding the lock stops all others. It is here to show what a queue could reach.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    #[arg(default_value = "unix,turnstile")]
    pub vfs: Vec<String>,

    /// One JSON document on standard output instead of the table
    #[arg(long)]
    pub json: bool,

    /// Draw the latency distributions
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.1 to 86400".to_owned()),
    }
}

impl Arguments {
    /// The run in one line, as the table and the plot show it.
    pub fn title(&self) -> String {
        let s = |n: u32| if n == 1 { "" } else { "s" };
        format!(
            "{} writer{}, {} s, {}, synchronous {}, timeout {} ms, {}, {}",
            self.writers,
            s(self.writers),
            self.seconds,
            self.journal,
            self.sync,
            self.timeout_ms,
            if self.keep_open {
                "kept open"
            } else {
                "open per write"
            },
            if self.no_sleep {
                "no sleep"
            } else {
                "sleep 0–100 ms"
            },
        )
    }
}

/// `PRAGMA journal_mode`.
#[derive(Clone, Copy, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Journal {
    Wal,
    Delete,
    Truncate,
    Persist,
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wal => "WAL",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::Persist => "PERSIST",
        })
    }
}

/// `PRAGMA synchronous`.
#[derive(Clone, Copy, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    Full,
    Normal,
    Off,
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
            Self::Off => "OFF",
        })
    }
}
