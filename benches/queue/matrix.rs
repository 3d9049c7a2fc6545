//! Every combination of file system, journal, number of writers, pace and kind of connection.

use crate::cells::{ALL, Cell, Connection, Directories, Journal, Pace, Place, Sync};
use crate::figures::{
    CPU, IDEAL, JAIN, OURS, P999, SPREAD, STOCK, Sample, THROUGHPUT, WAITS, failed, index, others,
    short,
};
use crate::run::{self, Run};
use crate::{Arguments, Result, asked};

/// Prints one row for each cell. True if no commit and no writer was lost.
pub fn show(arguments: &Arguments) -> Result<bool> {
    let cells = cells(arguments);
    let directories = Directories::of(arguments)?;
    if let Some(environment) = run::environment() {
        println!("{environment}");
    }
    println!(
        "t turnstile, s stock, y yardstick; t/s is a ratio within a pair, its median over {} pairs.\n",
        cells.first().map_or(0, |cell| cell.pairs)
    );
    println!(
        "{:36}|{:^25}|{:^12}|{:^18}|{:^5}|{:^18}|{:^6}|{:^18}|{:^14}|",
        "", "writes/s", "p99.9", "p99.9/p50", "line", "Jain", "CPU", "waits/write", "failed"
    );
    println!(
        "{:36}|{:>6} {:>6} {:>5} {:>5}|{:>6} {:>5}|{:>6} {:>5} {:>5}|{:>5}|{:>6}{:>6}{:>6}|{:>6}|{:>6} {:>5} {:>5}|{:>7}{:>7}|others",
        "place journal   N pace     connection",
        "s",
        "t/s",
        "y/s",
        "t/y",
        "t/s",
        "t/y",
        "s",
        "t",
        "y",
        "t",
        "s",
        "t",
        "y",
        "t/s",
        "s",
        "t",
        "y",
        "s",
        "t"
    );
    let mut sound = true;
    for cell in &cells {
        if let Some(run) = run::run(cell, &directories)? {
            println!("{}", row(cell, &run));
            sound &= run.sound();
        }
    }
    println!(
        "\nline: the longest wait of turnstile, in times that all writers need to write once.\n\
         others: cores that others kept busy in the worst round."
    );
    Ok(sound)
}

fn cells(arguments: &Arguments) -> Vec<Cell> {
    fn all<T: Clone>(whole: bool, part: &[T], all: &[T]) -> Vec<T> {
        if whole { all } else { part }.to_vec()
    }
    let whole = arguments.all;
    let places = asked(&arguments.places, &[Place::Tmpfs, Place::Disk]);
    let journals = asked(&arguments.journal, &[Journal::Wal, Journal::Delete]);
    let writers = all(whole, &[8, 64, 250], &[2, 8, 64, 250, 1000]);
    let writers = asked(&arguments.writers, &writers);
    let pace = all(whole, &[Pace::Sleep], &[Pace::Sleep, Pace::NoSleep]);
    let pace = asked(&arguments.pace, &pace);
    let both = [Connection::Reopened, Connection::Kept];
    let connections = asked(&arguments.connection, &all(whole, &both[..1], &both));

    let mut cells = Vec::new();
    for &place in &places {
        for &journal in &journals {
            for &writers in &writers {
                for &pace in &pace {
                    for &connection in &connections {
                        cells.push(Cell {
                            place,
                            journal,
                            writers,
                            pace,
                            connection,
                            timeout_ms: arguments.timeout_ms,
                            sync: arguments.sync.unwrap_or(Sync::Full),
                            seconds: arguments.seconds.unwrap_or(3.0),
                            pairs: arguments.pairs.unwrap_or(2),
                            vfs: ALL,
                            quantum_us: None,
                        });
                    }
                }
            }
        }
    }
    cells
}

fn row(cell: &Cell, run: &Run) -> String {
    let middle = |vfs, figure| Sample::of(run, vfs, figure).median();
    let ratio = |figure, one, other| short(Sample::ratio(run, figure, one, other).median());
    let three = |figure| [STOCK, OURS, IDEAL].map(|vfs| middle(vfs, figure));
    let spread = three(SPREAD).map(short);
    let jain = three(JAIN).map(index);
    let waits = three(WAITS).map(short);
    let line = Sample::lines_waited(run, OURS, cell.writers).worst();
    let stock = middle(STOCK, THROUGHPUT).map_or_else(|| "-".to_owned(), |w| format!("{w:.0}"));
    format!(
        "{:36}|{stock:>6} {:>6} {:>5} {:>5}|{:>6} {:>5}|{:>6} {:>5} {:>5}|{:>5}|{:>6}{:>6}{:>6}|{:>6}|{:>6} {:>5} {:>5}|{:>7}{:>7}|{:>6}",
        cell.to_string(),
        ratio(THROUGHPUT, OURS, STOCK),
        ratio(THROUGHPUT, IDEAL, STOCK),
        ratio(THROUGHPUT, OURS, IDEAL),
        ratio(P999, OURS, STOCK),
        ratio(P999, OURS, IDEAL),
        spread[0],
        spread[1],
        spread[2],
        short(line),
        jain[0],
        jain[1],
        jain[2],
        ratio(CPU, OURS, STOCK),
        waits[0],
        waits[1],
        waits[2],
        failed(run, STOCK),
        failed(run, OURS),
        short(Some(others(run))),
    )
}
