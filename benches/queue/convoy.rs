//! The convoy: transactions so short that changing over costs more than they do.
//!
//! In memory, not synchronous, kept open, without a pause, a write takes some microseconds and a
//! strict queue a context switch for each: the yardstick shows what that makes of the rate. A
//! quantum lets whoever has its turn go on for a while. What it buys in rate it costs in waiting:
//! no more than one quantum for each writer ahead, so that the longest wait is promised to stay
//! below 2 × N × quantum + 10 ms.

use crate::cells::{ALL, Cell, Connection, Directories, Journal, Pace, Place, Sync};
use crate::figures::{
    IDEAL, JAIN, MAX, OURS, STOCK, Sample, THROUGHPUT, failed, index, others, short,
};
use crate::run;
use crate::{Arguments, Result, asked};

/// What the longest wait may be beside the quanta: the scheduler's and the file system's part.
const SLACK_US: f64 = 10_000.0;

/// Prints one row for each number of writers and quantum. True if no commit and no writer was lost.
pub fn sweep(arguments: &Arguments) -> Result<bool> {
    let directories = Directories::of(arguments)?;
    let headline = Cell {
        place: Place::Tmpfs,
        journal: Journal::Wal,
        writers: 0,
        pace: Pace::NoSleep,
        connection: Connection::Kept,
        timeout_ms: arguments.timeout_ms,
        sync: arguments.sync.unwrap_or(Sync::Off),
        seconds: arguments.seconds.unwrap_or(2.0),
        pairs: arguments.pairs.unwrap_or(1),
        vfs: ALL,
        quantum_us: None,
    };
    println!(
        "{:36} {:>7} |{:>9} {:>6} {:>6} |{:>6} {:>6} {:>6} |{:>10} {:>10} {:>12} |{:>7}{:>7} | others",
        "place journal   N pace     connection",
        "quantum",
        "stock/s",
        "t/s",
        "y/s",
        "Jain s",
        "t",
        "y",
        "max s",
        "t",
        "t / bound",
        "fail s",
        "t"
    );
    let mut sound = true;
    for place in asked(&arguments.places, &[Place::Tmpfs]) {
        for journal in asked(&arguments.journal, &[Journal::Wal]) {
            for writers in asked(&arguments.writers, &[2, 8, 64]) {
                for &quantum in &arguments.quantum_us {
                    let cell = Cell {
                        place,
                        journal,
                        writers,
                        quantum_us: Some(quantum),
                        ..headline
                    };
                    sound &= row(&cell, quantum, &directories)?;
                }
            }
        }
    }
    println!("\nbound: 2 × N × quantum + 10 ms");
    Ok(sound)
}

fn row(cell: &Cell, quantum: u64, directories: &Directories) -> Result<bool> {
    let Some(run) = run::run(cell, directories)? else {
        return Ok(true);
    };
    let ratio = |one| short(Sample::ratio(&run, THROUGHPUT, one, STOCK).median());
    let stock = Sample::of(&run, STOCK, THROUGHPUT).median();
    let jain = [STOCK, OURS, IDEAL].map(|vfs| index(Sample::of(&run, vfs, JAIN).median()));
    let longest = |vfs| Sample::of(&run, vfs, MAX).worst();
    let ms =
        |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{:.1} ms", us / 1e3));
    let bound = 2.0 * f64::from(cell.writers) * quantum as f64 + SLACK_US;
    let of_bound = longest(OURS).map(|max| max / bound);
    let mark = match of_bound {
        Some(part) if part > 1.0 => "ABOVE ",
        _ => "",
    };
    println!(
        "{:36} {quantum:>7} |{:>9.0} {:>6} {:>6} |{:>6} {:>6} {:>6} |{:>10} {:>10} {:>12} |{:>7}{:>7} |{:>6}",
        cell.to_string(),
        stock.unwrap_or(0.0),
        ratio(OURS),
        ratio(IDEAL),
        jain[0],
        jain[1],
        jain[2],
        ms(longest(STOCK)),
        ms(longest(OURS)),
        format!("{mark}{}", short(of_bound)),
        failed(&run, STOCK),
        failed(&run, OURS),
        short(Some(others(&run))),
    );
    Ok(run.sound())
}
