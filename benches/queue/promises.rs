//! What is promised, and whether it is kept.
//!
//! A thousand writers, each: open, one row, commit, close, 0 to 100 ms of sleep; synchronous FULL;
//! nobody may fail.
//!
//! | promise | where |
//! |---|---|
//! | writes/s ≥ 1.5 × stock | disk, WAL |
//! | writes/s ≥ 1.0 × stock | tmpfs, WAL |
//! | p99.9 ≤ stock / 5 | everywhere |
//! | p99.9 ≤ 2 × p50 | WAL, without the sleep: the line is never empty |
//! | max ≤ 2 × what a whole line takes (N × the mean time of a write) | everywhere |
//! | Jain's index ≥ 0.99 | everywhere |
//! | CPU per write ≤ 0.4 × stock | disk, WAL |
//! | writes/s ≥ 0.85 × yardstick, p99.9 ≤ 1.3 × yardstick | WAL |
//! | writes/s ≥ 0.8 × yardstick | DELETE, 250 and 1,000 writers |
//! | no failed write | everywhere, with timeouts of 60 s; tmpfs and WAL also with 5 s |
//!
//! Ratios are medians over the pairs; the longest wait is that of the worst round.

use crate::cells::{ALL, Cell, Connection, Directories, Journal, Pace, Place, Sync, WITHOUT_STOCK};
use crate::figures::{
    CPU, IDEAL, JAIN, OURS, P999, SPREAD, STOCK, Sample, THROUGHPUT, failed, others,
};
use crate::run::{self, Run};
use crate::{Arguments, Result, wanted};

/// A machine that others use more than this is no place for a verdict. The kernel's own threads
/// are among the others, and on a disk they take up to a quarter of a core.
const BUSY: f64 = 0.35;

/// What a figure may be.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};

/// One sentence of the table above, with what was measured.
struct Promise {
    what: &'static str,
    measured: Option<f64>,
    bound: Bound,
    /// By pair or round.
    each: Vec<f64>,
}

impl Promise {
    fn median(what: &'static str, sample: Sample, bound: Bound) -> Self {
        Self {
            what,
            measured: sample.median(),
            bound,
            each: sample.each().to_vec(),
        }
    }

    fn worst(what: &'static str, sample: Sample, limit: f64) -> Self {
        Self {
            what,
            measured: sample.worst(),
            bound: AtMost(limit),
            each: sample.each().to_vec(),
        }
    }

    fn kept(&self) -> bool {
        self.measured.is_some_and(|measured| match self.bound {
            AtLeast(limit) => measured >= limit,
            AtMost(limit) => measured <= limit,
        })
    }

    fn show(&self) -> String {
        let (sign, limit) = match self.bound {
            AtLeast(limit) => ('≥', limit),
            AtMost(limit) => ('≤', limit),
        };
        let verdict = if self.kept() { "kept  " } else { "BROKEN" };
        let measured = self
            .measured
            .map_or_else(|| "not measured".to_owned(), |v| format!("{v:.3}"));
        let mut line = format!(
            "  {verdict}  {:24} {measured:>8}  {sign} {limit:<4}",
            self.what
        );
        if !self.each.is_empty() {
            let each: Vec<String> = self.each.iter().map(|v| format!("{v:.3}")).collect();
            line = format!("{line}  of {}", each.join(" "));
        }
        line
    }
}

/// Measures and prints all promises. True if all are kept.
pub fn check(arguments: &Arguments) -> Result<bool> {
    let directories = Directories::of(arguments)?;
    if let Some(environment) = run::environment() {
        println!("NOTE: promised is what turnstile does by default; set is {environment}\n");
    }
    let (mut promised, mut broken) = (0, 0);
    let mut sound = true;
    let mut busy = 0.0_f64;
    let mut machine = None;
    for cell in cells(arguments) {
        let Some(run) = run::run(&cell, &directories)? else {
            continue;
        };
        println!(
            "{cell} timeout {} s ({})",
            cell.timeout_ms / 1000,
            run.machine.file_system
        );
        println!("  {}", rates(&run));
        for promise in promises(&cell, &run) {
            println!("{}", promise.show());
            promised += 1;
            broken += u32::from(!promise.kept());
        }
        for damage in run.damage() {
            println!("  BROKEN  {damage}");
            sound = false;
        }
        busy = busy.max(others(&run));
        machine = Some(run.machine);
    }
    let Some(machine) = machine else {
        return Err("no promise is about what was asked for".into());
    };
    println!(
        "\n{} cores, Linux {}, SQLite {}; others kept up to {busy:.2} cores busy",
        machine.cores, machine.kernel, machine.sqlite
    );
    if busy > BUSY {
        println!(
            "NOTE: that is much; measure again on an idle machine before believing either way"
        );
    }
    println!("{} of {promised} promises kept", promised - broken);
    Ok(broken == 0 && sound)
}

fn cells(arguments: &Arguments) -> Vec<Cell> {
    let headline = Cell {
        place: Place::Disk,
        journal: Journal::Wal,
        writers: 1000,
        pace: Pace::Sleep,
        connection: Connection::Reopened,
        timeout_ms: 60_000,
        sync: Sync::Full,
        // Long enough for each writer to write some ten times: Jain's index sees whole writes.
        seconds: arguments.seconds.unwrap_or(10.0),
        pairs: arguments.pairs.unwrap_or(3).max(3),
        vfs: ALL,
        quantum_us: None,
    };
    let mut cells = Vec::new();
    for place in [Place::Disk, Place::Tmpfs] {
        let here = Cell { place, ..headline };
        let delete = Cell {
            journal: Journal::Delete,
            ..here
        };
        cells.push(here);
        if place == Place::Tmpfs {
            cells.push(Cell {
                timeout_ms: 5_000,
                ..here
            });
        }
        cells.push(Cell {
            pace: Pace::NoSleep,
            vfs: WITHOUT_STOCK,
            ..here
        });
        cells.push(delete);
        cells.push(Cell {
            writers: 250,
            vfs: WITHOUT_STOCK,
            ..delete
        });
    }
    cells.retain(|cell| {
        wanted(&arguments.places, &cell.place)
            && wanted(&arguments.journal, &cell.journal)
            && wanted(&arguments.writers, &cell.writers)
            && wanted(&arguments.pace, &cell.pace)
            && wanted(&arguments.connection, &cell.connection)
    });
    cells
}

/// What is promised of `cell`.
fn promises(cell: &Cell, run: &Run) -> Vec<Promise> {
    let against = |what, figure, other, bound| {
        Promise::median(what, Sample::ratio(run, figure, OURS, other), bound)
    };
    let wal = cell.journal == Journal::Wal;
    let stock = cell.vfs == ALL;
    let mut promises = Vec::new();
    if stock && wal {
        let least = match cell.place {
            Place::Disk => 1.5,
            Place::Tmpfs => 1.0,
        };
        promises.push(against(
            "writes/s / stock",
            THROUGHPUT,
            STOCK,
            AtLeast(least),
        ));
    }
    if stock {
        promises.push(against("p99.9 / stock", P999, STOCK, AtMost(0.2)));
    }
    if stock && wal && cell.place == Place::Disk {
        promises.push(against("CPU per write / stock", CPU, STOCK, AtMost(0.4)));
    }
    let least = if wal { 0.85 } else { 0.8 };
    promises.push(against(
        "writes/s / yardstick",
        THROUGHPUT,
        IDEAL,
        AtLeast(least),
    ));
    if wal {
        promises.push(against("p99.9 / yardstick", P999, IDEAL, AtMost(1.3)));
    }
    if cell.pace == Pace::NoSleep {
        let spread = Sample::of(run, OURS, SPREAD);
        promises.push(Promise::median("p99.9 / p50", spread, AtMost(2.0)));
    }
    let lines = Sample::lines_waited(run, OURS, cell.writers);
    promises.push(Promise::worst("max / a whole line", lines, 2.0));
    let jain = Sample::of(run, OURS, JAIN);
    promises.push(Promise::median("Jain's index", jain, AtLeast(0.99)));
    promises.push(Promise {
        what: "failed writes",
        measured: Some(failed(run, OURS) as f64),
        bound: AtMost(0.0),
        each: Vec::new(),
    });
    promises
}

/// Beside the ratios, what they are made of.
fn rates(run: &Run) -> String {
    let parts = [STOCK, OURS, IDEAL].into_iter().filter_map(|vfs| {
        let rate = Sample::of(run, vfs, THROUGHPUT).median()?;
        let p999 = Sample::of(run, vfs, P999).median().unwrap_or(f64::NAN) / 1e3;
        let jain = Sample::of(run, vfs, JAIN).median().unwrap_or(f64::NAN);
        let failed = failed(run, vfs);
        Some(format!(
            "{vfs} {rate:.0}/s, p99.9 {p999:.0} ms, Jain {jain:.3}, {failed} failed"
        ))
    });
    parts.collect::<Vec<_>>().join("; ")
}
