//! The fault sweep: the n-th request of every kind fails, for n = 1 until nothing fails any more: once,
//! three times, for ever; with each journal mode, synced fully and normally.
//!
//! A passing fault must not end the job; one that lasts may, and soon. Whatever happened, another node
//! then finds the database intact, with every acknowledged commit and with no transaction half there.
//!
//! One run of it can be repeated. What a failure prints is put into the environment:
//!
//! ```text
//! TURNSTILE_SWEEP="delete full unlink lie once 3" cargo test --release --test sweep
//! ```
//!
//! Some of these words, in any order, are a part of the sweep: `TURNSTILE_SWEEP="truncate unlink"`.
//! `TURNSTILE_SWEEP_SEED` decides how long the rows are, and which runs end with a crash of all machines;
//! `TURNSTILE_SWEEP_VFS=unix` sweeps stock SQLite.
#![cfg(feature = "linked")]

mod support;

#[path = "support/cluster/mod.rs"]
mod cluster;

#[path = "support/sweep/mod.rs"]
mod sweep;

use cluster::{Cluster, Op};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};
use sweep::case::{CHANGES, Case, Harm, JOURNALS, SYNCS, Times};
use sweep::lane::{Flaw, Lane, Run};
use sweep::worker;

/// At least so many.
const FAULTS: u64 = 20_000;
/// Much of a run is waiting, for an answer or for the next try.
const LANES: usize = 12;
/// No workload makes so many requests of one kind: its faults would never end.
const TOO_MANY: u64 = 2_000;
/// More failures are counted, but not printed.
const PRINTED: usize = 60;
/// Each costs its patience. After so many nothing more is to be learnt.
const HANGING: u64 = 20;

/// The process of [`Lane`]s.
#[test]
fn worker_process() {
    worker::serve();
}

fn seed() -> u64 {
    let seed = std::env::var("TURNSTILE_SWEEP_SEED").ok();
    seed.map_or(1, |seed| {
        seed.parse().expect("TURNSTILE_SWEEP_SEED: a number")
    })
}

/// Printed past the test harness, which keeps to itself what a test that passes has to say.
fn print(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Cases that differ in nothing but n, which is counted up until the fault does not strike any more.
#[derive(Clone, Copy)]
struct Column {
    case: Case,
    /// How many requests of that kind a healthy run makes.
    requests: u64,
}

/// The columns, the long ones first.
fn columns(lane: &mut Lane, times: &[Times], harms: &[Harm]) -> Vec<Column> {
    let mut columns = Vec::new();
    for (journal, sync) in JOURNALS.iter().flat_map(|j| SYNCS.map(|s| (*j, s))) {
        let counts = lane.healthy(journal, sync);
        for (&op, &harm, &times) in product(Op::ALL, harms, times) {
            if counts[op] == 0 || nobody_hears(op) || harm == Harm::Lie && !CHANGES.contains(&op) {
                continue;
            }
            let case = Case {
                journal,
                sync,
                op,
                harm,
                times,
                n: 1,
                crash: false,
            };
            let requests = counts[op];
            columns.push(Column { case, requests });
        }
    }
    columns.sort_by_key(|column| std::cmp::Reverse(column.requests));
    columns
}

fn product<'a, A, B, C>(
    a: &'a [A],
    b: &'a [B],
    c: &'a [C],
) -> impl Iterator<Item = (&'a A, &'a B, &'a C)> {
    a.iter()
        .flat_map(move |a| b.iter().flat_map(move |b| c.iter().map(move |c| (a, b, c))))
}

/// The kernel asks for it when nobody waits any more.
fn nobody_hears(op: Op) -> bool {
    matches!(op, Op::Release | Op::Releasedir)
}

#[derive(Default)]
struct Tally {
    runs: u64,
    faults: u64,
    by_op: BTreeMap<String, Row>,
    failures: Vec<(Flaw, String)>,
    flaws: BTreeMap<Flaw, u64>,
    slowest: Option<(Duration, Case)>,
}

#[derive(Default)]
struct Row {
    runs: u64,
    faults: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, case: &Case, run: Run) {
        let Run {
            fired,
            time,
            result,
        } = run;
        if self.slowest.is_none_or(|(slowest, _)| time > slowest) {
            self.slowest = Some((time, *case));
        }
        let name = format!("{:?} {:?}", case.op, case.harm);
        let row = self.by_op.entry(name).or_default();
        self.runs += 1;
        self.faults += fired;
        row.runs += 1;
        row.faults += fired;
        if let Err(failure) = result {
            row.failed += 1;
            *self.flaws.entry(failure.flaw).or_default() += 1;
            let line = format!("{case}: {failure}");
            self.failures.push((failure.flaw, line));
        }
    }

    fn hangs(&self) -> bool {
        let count = |flaw| self.flaws.get(&flaw).unwrap_or(&0);
        count(Flaw::Ended) + count(Flaw::Stuck) > HANGING
    }

    fn report(&self, what: &str, start: Instant, printed: usize) -> String {
        let seconds = start.elapsed().as_secs_f64();
        let mut text = format!(
            "{what}, seed {}: {} runs, {} faults, {} failed {:?}; {seconds:.1} s, {:.0} runs/s\n",
            seed(),
            self.runs,
            self.faults,
            self.failures.len(),
            self.flaws,
            self.runs as f64 / seconds,
        );
        if let Some((time, case)) = self.slowest {
            let _ = writeln!(text, "  the slowest took {} ms: {case}", time.as_millis());
        }
        for (op, row) in &self.by_op {
            let Row {
                runs,
                faults,
                failed,
            } = row;
            let _ = writeln!(
                text,
                "  {op:16} {runs:6} runs {faults:7} faults {failed:6} failed"
            );
        }
        let mut failures: Vec<_> = self.failures.iter().collect();
        failures.sort_by_key(|(flaw, _)| std::cmp::Reverse(*flaw));
        for (_, failure) in failures.iter().take(printed) {
            let _ = writeln!(text, "  {failure}");
        }
        text
    }
}

/// Runs all columns, on several clusters at once.
fn sweep(vfs: &'static str, columns: &[Column]) -> Tally {
    let (tally, next) = (Mutex::new(Tally::default()), Mutex::new(columns.iter()));
    std::thread::scope(|scope| {
        for number in 0..LANES {
            let (tally, next) = (&tally, &next);
            scope.spawn(move || {
                stay_on_one_processor(number);
                let mut lane = Lane::new(vfs, seed());
                while let Some(column) = next_of(next)
                    && !tally.lock().hangs()
                {
                    run(&mut lane, column, tally);
                }
            });
        }
    });
    tally.into_inner()
}

fn next_of<'a, T>(all: &Mutex<impl Iterator<Item = &'a T>>) -> Option<&'a T> {
    all.lock().next()
}

/// This thread, and whom it will start: its cluster's threads and its processes. They wait for each
/// other all the time, and to wake somebody on the same processor is several times cheaper.
fn stay_on_one_processor(number: usize) {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let this = nix::unistd::Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("this thread's processors");
    let mut all = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
    let count = all.clone().count();
    let mut one = CpuSet::new();
    let chosen = all.nth(number % count).expect("a processor");
    one.set(chosen).expect("it is one of them");
    sched_setaffinity(this, &one).expect("a processor that was allowed");
}

fn run(lane: &mut Lane, column: &Column, tally: &Mutex<Tally>) {
    for n in 1..TOO_MANY {
        let all = [false, true];
        // What a sync that failed has lost shows with and without a crash.
        let one = [(n + seed() + column.case.times as u64).is_multiple_of(2)];
        let crashes: &[bool] = match column.case.op {
            Op::Fsync => &all,
            _ => &one,
        };
        for &crash in crashes {
            let case = Case {
                n,
                crash,
                ..column.case
            };
            let run = lane.run(&case);
            let ends = run.fired == 0;
            let mut tally = tally.lock();
            tally.add(&case, run);
            if ends || tally.hangs() {
                return;
            }
        }
    }
    panic!("{}: the faults do not end", column.case);
}

#[test]
fn no_fault_ends_a_job_or_harms_a_database() {
    let test = "no_fault_ends_a_job_or_harms_a_database";
    if !Cluster::available(test) {
        return;
    }
    let vfs = match std::env::var("TURNSTILE_SWEEP_VFS") {
        Ok(vfs) if vfs == "unix" => "unix",
        _ => "turnstile",
    };
    let words = std::env::var("TURNSTILE_SWEEP").unwrap_or_default();
    let mut lane = Lane::new(vfs, seed());
    if let Ok(case) = words.parse::<Case>() {
        let run = lane.run(&case);
        print(&format!("{case}: {} faults, {:?}", run.fired, run.time));
        return run.result.unwrap_or_else(|failure| panic!("{failure}"));
    }
    let start = Instant::now();
    let times = [Times::Once, Times::Thrice, Times::Ever];
    let mut columns = columns(&mut lane, &times, &[Harm::Eio, Harm::Lie]);
    drop(lane);
    for word in words.split_whitespace() {
        columns.retain(|column| column.case.to_string().split(' ').any(|w| w == word));
        assert!(!columns.is_empty(), "nothing left with {word:?}");
    }
    let tally = sweep(vfs, &columns);
    print(&tally.report(vfs, start, PRINTED));
    assert!(tally.failures.is_empty(), "see above");
    let few = words.is_empty() && tally.faults < FAULTS;
    assert!(!few, "only {} faults", tally.faults);
}

/// The same on the stock VFS, a small part of it: what the sweep is to find, it does find.
#[test]
fn stock_ends_jobs() {
    let test = "stock_ends_jobs";
    if !Cluster::available(test) || std::env::var_os("TURNSTILE_SWEEP").is_some() {
        return;
    }
    let start = Instant::now();
    let mut columns = columns(&mut Lane::new("unix", seed()), &[Times::Once], &[Harm::Eio]);
    columns.retain(|column| column.case.journal == "delete" && column.case.sync == "full");
    let tally = sweep("unix", &columns);
    print(&tally.report("stock", start, 5));
    assert!(tally.flaws.contains_key(&Flaw::Error), "{:?}", tally.flaws);
}

/// What the sweep must never find, it would find: here nothing is synced, or there is no journal.
#[test]
fn lost_and_halved_transactions_are_seen() {
    if !Cluster::available("lost_and_halved_transactions_are_seen") {
        return;
    }
    let mut lane = Lane::new("unix", seed());
    let mut flaws_of = |journal, sync, op, crash| -> BTreeSet<Flaw> {
        let cases = (1..100).map(|n| Case {
            journal,
            sync,
            op,
            harm: Harm::Eio,
            times: Times::Once,
            n,
            crash,
        });
        let results = cases.map(|case| lane.run(&case).result);
        results.filter_map(|r| r.err()).map(|f| f.flaw).collect()
    };
    let lost = flaws_of("delete", "off", Op::Fsync, true);
    assert!(lost.contains(&Flaw::Lost), "{lost:?}");
    let halved = flaws_of("off", "full", Op::Write, false);
    assert!(halved.contains(&Flaw::Half), "{halved:?}");
    assert!(halved.contains(&Flaw::Broken), "{halved:?}");
}
