//! What the queue is worth: stock SQLite, turnstile and the ideal, side by side in one run.
//!
//! ```text
//! cargo bench --bench queue                          # a part of the matrix, some five minutes
//! cargo bench --bench queue -- --all                 # all of it, some two hours
//! cargo bench --bench queue -- --writers 1000 --journal wal --where disk --pairs 3 --seconds 5
//! cargo bench --bench queue -- --promises            # what is promised, some fifteen minutes
//! cargo bench --bench queue -- --promises --where disk --journal wal    # a part of that
//! cargo bench --bench queue -- --convoy              # very short transactions, some four minutes
//! ```
//!
//! **How.** Each row is one run of the command `turnstile bench`, which proves that every
//! acknowledged commit is there. Its VFSs take turns, so round *i* of one and round *i* of another
//! are a **pair**, measured within seconds of each other. A ratio is taken within each pair, and
//! the median over the pairs is shown. No time is compared with a fixed one: a slow machine is
//! slow for all three.
//!
//! **The three.** `unix` is stock SQLite. `yardstick` is stock SQLite behind an ideal queue that
//! cannot be used in earnest (`turnstile bench --help`). `turnstile` is to be far from the first
//! and near the second.
//!
//! **The verdict.** Only `--promises` gives one: [`promises`] lists them, and the exit code is not
//! 0 if one is broken. It is not 0 in any mode if a commit was lost or a writer did not come back.

mod cells;
mod convoy;
mod figures;
mod matrix;
mod promises;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use cells::{Connection, Journal, Pace, Place, Sync};

/// What this bench fails with: a sentence.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Stock SQLite, turnstile and the ideal queue, side by side
#[derive(Parser)]
#[command(name = "queue")]
pub struct Arguments {
    /// Measure what is promised, say of each promise whether it is kept, fail if one is not
    #[arg(long, conflicts_with_all = ["convoy", "all"])]
    promises: bool,

    /// Transactions of microseconds: throughput and fairness over TURNSTILE_QUANTUM_US
    #[arg(long, conflicts_with = "all")]
    convoy: bool,

    /// The whole matrix; what is given explicitly still limits it
    #[arg(long)]
    all: bool,

    /// Numbers of writing processes
    #[arg(short = 'n', long, value_delimiter = ',', value_name = "N,...")]
    writers: Vec<u32>,

    /// Journal modes
    #[arg(
        short,
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "MODE,..."
    )]
    journal: Vec<Journal>,

    /// Where the databases are: in memory (/dev/shm) or on a disk
    #[arg(
        short = 'w',
        long = "where",
        value_enum,
        value_delimiter = ',',
        value_name = "PLACE,..."
    )]
    places: Vec<Place>,

    /// Whether a writer pauses for 0 to 100 ms after each write
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PACE,...")]
    pace: Vec<Pace>,

    /// Whether a writer opens the database for each write or once
    #[arg(long, value_enum, value_delimiter = ',', value_name = "HOW,...")]
    connection: Vec<Connection>,

    /// Quanta of --convoy, in microseconds
    #[arg(long, value_delimiter = ',', value_name = "US,...")]
    #[arg(default_value = "0,400,1000,2000,4000,10000")]
    quantum_us: Vec<u64>,

    /// Length of one round [default: 3; of --promises 10, of --convoy 2]
    #[arg(short, long, value_name = "S")]
    seconds: Option<f64>,

    /// Rounds for each of the three [default: 2; of --promises 3, and not less; of --convoy 1]
    #[arg(short, long, value_name = "K")]
    pairs: Option<u32>,

    /// sqlite3_busy_timeout of each connection (--promises has its own)
    #[arg(short, long, value_name = "MS", default_value_t = 60_000)]
    timeout_ms: u32,

    /// PRAGMA synchronous [default: full; of --convoy off] (--promises has its own)
    #[arg(long, value_enum)]
    sync: Option<Sync>,

    /// The directory on a disk [default: cargo's target/tmp]
    #[arg(short, long)]
    dir: Option<PathBuf>,

    /// Cargo adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.promises {
        promises::check(&arguments)
    } else if arguments.convoy {
        convoy::sweep(&arguments)
    } else {
        matrix::show(&arguments)
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("queue: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for, or else `default`.
fn asked<T: Clone>(asked: &[T], default: &[T]) -> Vec<T> {
    if asked.is_empty() { default } else { asked }.to_vec()
}

/// Whether `value` is among what was asked for, if anything was.
fn wanted<T: PartialEq>(asked: &[T], value: &T) -> bool {
    asked.is_empty() || asked.contains(value)
}
