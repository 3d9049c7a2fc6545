//! Whoever has lost his locks writes no more: a node that was not heard of for a second has been
//! given up, and another one has written meanwhile.

use crate::support::within;
use crate::{cluster, naive, rows, worker};
use cluster::{Cluster, Errno, Fault, Id, Mount, Op};
use naive::NAIVE;
use rows::{State, all, change, create, rewrite};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use worker::{Answer, LONG, STOCK, Worker, tested};

/// All that the first node asks is answered with EIO. With its locks forgotten that is `Cluster::evict`, but
/// it ends by what has happened, and so does not depend on how busy this machine is.
struct Silence<'a> {
    cluster: &'a Cluster,
    fault: Id,
    start: Instant,
}

impl Silence<'_> {
    fn begin(cluster: &Cluster) -> Silence<'_> {
        let silent = Fault::at(Op::ALL).on(0).answer(Errno::EIO);
        let fault = cluster.inject(silent);
        let start = Instant::now();
        Silence {
            cluster,
            fault,
            start,
        }
    }

    /// It lasts for a second at least, and until the node has noticed it.
    fn end(self) {
        std::thread::sleep(Duration::from_secs(1).saturating_sub(self.start.elapsed()));
        assert!(within(LONG, || self.cluster.fired(self.fault) > 0));
        self.cluster.lift(self.fault);
    }
}

const MODES: [&str; 3] = ["DELETE", "TRUNCATE", "PERSIST"];

/// What the first node has done last when it is given up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    /// It has its write lock.
    Reserved,
    /// It has written a part of its journal.
    Journal,
    /// It has synced its journal.
    JournalSynced,
    /// It has written a part of a transaction that is too big for its memory.
    Spilled,
    /// It has written a part of the database, to commit.
    Database,
    /// It has written the whole database, and syncs it next.
    Written,
    /// It has synced the database: what comes next commits.
    Synced,
}

const POINTS: [Point; 7] = [
    Point::Reserved,
    Point::Journal,
    Point::JournalSynced,
    Point::Spilled,
    Point::Database,
    Point::Written,
    Point::Synced,
];

impl Point {
    /// The request that is done last, out of so many writes to the database.
    fn last(self, writes: u64) -> Option<Fault> {
        let fault = match self {
            Point::Reserved => return None,
            Point::Journal => Fault::at(&[Op::Write]).of("-journal").nth(3),
            Point::JournalSynced => Fault::at(&[Op::Fsync]).of("-journal"),
            Point::Spilled | Point::Database => Fault::at(&[Op::Write]).of("a.db").nth(3),
            Point::Written => Fault::at(&[Op::Write]).of("a.db").nth(writes),
            Point::Synced => Fault::at(&[Op::Fsync]).of("a.db"),
        };
        Some(fault.on(0).times(1).late(Duration::from_millis(150)))
    }
}

/// Who is given up, and who writes instead.
#[derive(Clone, Copy, Debug)]
struct Who {
    first: &'static str,
    /// If not, turnstile does not look whether its locks are still there, and stock SQLite is above a shim
    /// that retries.
    fenced: bool,
    other: &'static str,
    /// How long the first one tries again, in the URI.
    patience: &'static str,
}

impl Who {
    /// Turnstile as it is, on both nodes.
    fn ours() -> Who {
        Who::both(turnstile())
    }

    fn both(vfs: &'static str) -> Who {
        Who {
            first: vfs,
            fenced: true,
            other: vfs,
            patience: "",
        }
    }
}

fn turnstile() -> &'static str {
    tested().leak()
}

fn on(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.path(node).join("a.db")
}

fn begin(who: Who, mode: &str) -> (Cluster, Worker, Worker) {
    let cluster = Cluster::new(&[Mount::default(); 2]);
    let mut first = Worker::with(|c| {
        if !who.fenced {
            let naive = if who.first == STOCK {
                NAIVE
            } else {
                "TURNSTILE_INJECT_NO_FENCE"
            };
            c.env(naive, "1");
        }
    });
    first
        .open(&on(&cluster, 0), who.first, who.patience)
        .unwrap();
    first.run(&create());
    let mode = format!("PRAGMA journal_mode={mode}");
    first.run(&mode);
    first.run(&rewrite(1, "before"));
    let mut other = Worker::at(&on(&cluster, 1), who.other, "");
    other.run(&mode);
    other.run(rows::VERSIONS);
    (cluster, first, other)
}

/// How many writes to the database one transaction makes.
fn writes(who: Who) -> u64 {
    let (cluster, mut first, _other) = begin(who, "DELETE");
    let count = cluster.inject(Fault::at(&[Op::Write]).of("a.db"));
    first.run(&rewrite(2, "first"));
    cluster.fired(count)
}

/// Begins a transaction and brings it to this point: what is to be told then to have an answer.
fn reach(cluster: &Cluster, first: &mut Worker, point: Point, writes: u64) -> String {
    if point == Point::Spilled {
        first.run("PRAGMA cache_size=5");
    }
    let Some(last) = point.last(writes) else {
        first.run("BEGIN IMMEDIATE");
        return format!("sql {}; COMMIT", change(2, "first"));
    };
    let last = cluster.inject(last);
    first.tell(&format!("sql {}", rewrite(2, "first")));
    assert!(within(LONG, || cluster.fired(last) == 1), "{point:?}");
    String::new()
}

/// One transaction, interrupted.
#[derive(Debug)]
struct Interrupted {
    said: Answer,
    other: Answer,
    /// What is there then.
    state: State,
    log: String,
    /// What is there when both have written again.
    end: Option<State>,
}

impl Interrupted {
    fn new(who: Who, mode: &str, point: Point, writes: u64, goes_on: bool) -> Interrupted {
        let (cluster, mut first, mut other) = begin(who, mode);
        let rest = reach(&cluster, &mut first, point, writes);
        let silence = Silence::begin(&cluster);
        cluster.forget_locks(0);
        if !rest.is_empty() {
            first.tell(&rest);
        }
        let committed = other.sql(&rewrite(9, "other"));
        silence.end();
        let said = first.hear();
        let log = first.log();
        let mut interrupted = Interrupted {
            said,
            other: committed,
            state: State::seen_by(&mut other),
            log,
            end: None,
        };
        if goes_on {
            let _ = first.sql("ROLLBACK");
            let later = first.sql(&rewrite(3, "later"));
            let again = first.open(&on(&cluster, 0), who.first, who.patience);
            let again = again.and_then(|_| first.sql(&rewrite(4, "again")));
            drop((first, other));
            let end = State::of(&cluster.backing().join("a.db"));
            let kept = (later.is_err() || end.has("later")) && end.has("again");
            assert!(kept, "{later:?}, {again:?}, {end:?}");
            interrupted.end = Some(end);
        }
        interrupted
    }

    /// Whether something is broken, half, or not there although it was acknowledged.
    fn is_wrong(&self) -> bool {
        let lost = self.other.is_ok() && !self.state.has("other");
        let lied = self.said.is_ok() && !self.state.has("first");
        !self.state.is_whole() || !self.state.has("before") || lost || lied
    }
}

/// All points in all modes. Most of the time is spent waiting.
fn everywhere(who: Who, goes_on: bool) -> Vec<(String, Interrupted)> {
    let writes = writes(who);
    let todo: Vec<(&str, Point)> = MODES
        .into_iter()
        .flat_map(|mode| POINTS.map(|point| (mode, point)))
        .collect();
    let (todo, done) = (Mutex::new(todo), Mutex::new(Vec::new()));
    let next = || todo.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((mode, point)) = next() {
                    let what = format!("{who:?}, {mode}, {point:?}");
                    let interrupted = Interrupted::new(who, mode, point, writes, goes_on);
                    done.lock().unwrap().push((what, interrupted));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by(|a, b| a.0.cmp(&b.0));
    done
}

fn print(what: &str, one: &Interrupted) {
    let verdict = if one.is_wrong() { "WRONG" } else { "right" };
    let said = match &one.said {
        Ok(_) => "committed".to_owned(),
        Err(error) => error.to_string(),
    };
    let State {
        versions,
        markers,
        integrity,
    } = &one.state;
    println!("{verdict} {what}: {said}; {versions} {markers:?} {integrity}");
}

/// The transaction ends with an error, and what the other one has committed is there.
#[test]
fn who_was_given_up_writes_no_more() {
    if !Cluster::available("who_was_given_up_writes_no_more") {
        return;
    }
    // The silence is longer than that: the call is given up, and SQLite rolls back.
    let impatient = (turnstile(), "retry_ms=100");
    for (other, patience) in [(turnstile(), ""), (STOCK, ""), impatient] {
        let who = Who {
            other,
            patience,
            ..Who::ours()
        };
        for (what, one) in everywhere(who, true) {
            print(&what, &one);
            assert!(one.other.is_ok(), "{what}: {:?}", one.other);
            assert!(!one.is_wrong(), "{what}: {one:#?}");
            assert!(one.said.is_err(), "{what}: {}", one.log);
            assert!(!one.state.has("first"), "{what}: {:?}", one.state);
            assert_eq!(one.state.versions, all(9), "{what}");
            let end = one.end.unwrap();
            assert!(end.is_whole() && end.has("other"), "{what}: {end:?}");
        }
    }
}

/// The same silence, but the locks are still there: it costs a pause, and not the transaction.
#[test]
fn who_was_only_silent_goes_on() {
    if !Cluster::available("who_was_only_silent_goes_on") {
        return;
    }
    let who = Who::ours();
    let writes = writes(who);
    let silent = |mode| {
        for point in POINTS {
            let (cluster, mut first, mut other) = begin(who, mode);
            let rest = reach(&cluster, &mut first, point, writes);
            let silence = Silence::begin(&cluster);
            if !rest.is_empty() {
                first.tell(&rest);
            }
            silence.end();
            let said = first.hear();
            assert_eq!(
                said.as_deref(),
                Ok(""),
                "{mode}, {point:?}: {}",
                first.log()
            );
            let state = State::seen_by(&mut other);
            let right = state.is_whole() && state.has("first") && state.versions == all(2);
            assert!(right, "{mode}, {point:?}: {state:?}");
        }
    };
    std::thread::scope(|scope| {
        for mode in MODES {
            scope.spawn(move || silent(mode));
        }
    });
}

/// A journal whose sync fails for good is emptied, lest it be played back one day: but not another's, in the same file.
#[test]
fn anothers_journal_is_not_cut() {
    if !Cluster::available("anothers_journal_is_not_cut") {
        return;
    }
    let who = Who::ours();
    for mode in ["TRUNCATE", "PERSIST"] {
        let (cluster, mut first, mut other) = begin(who, mode);
        first.run("BEGIN IMMEDIATE");
        first.run(&change(2, "first"));
        let full = Fault::at(&[Op::Fsync]).of("-journal").on(0);
        let full = full.answer(Errno::ENOSPC).late(Duration::from_secs(2));
        let full = cluster.inject(full);
        first.tell("sql COMMIT");
        assert!(within(LONG, || cluster.fired(full) > 0));
        cluster.forget_locks(0);
        // Spilled: it needs its journal from here on.
        other.run("PRAGMA cache_size=5; BEGIN IMMEDIATE");
        other.run(&change(9, "other"));
        let said = first.hear();
        assert!(said.is_err(), "{mode}");
        other.kill();
        drop(first);
        let state = State::of(&cluster.backing().join("a.db"));
        let kept = state.is_whole() && state.has("before") && state.versions == all(1);
        assert!(kept, "{mode}: {said:?}, {state:?}");
    }
}

/// Of the control: without the fence databases are really destroyed, or commits lost.
#[cfg(feature = "inject")]
#[test]
fn without_the_fence_commits_are_lost() {
    if !Cluster::available("without_the_fence_commits_are_lost") {
        return;
    }
    let who = Who {
        fenced: false,
        ..Who::ours()
    };
    let mut wrong = 0;
    for (what, one) in everywhere(who, false) {
        print(&what, &one);
        wrong += u32::from(one.is_wrong());
    }
    println!(
        "without the fence: {wrong} of {} went wrong",
        3 * POINTS.len()
    );
    assert!(wrong > 0, "the fence was not needed");
}

/// Of the control: stock SQLite, which gives up at the first error, and above a shim that merely retries.
#[test]
fn whoever_merely_retries_destroys_databases() {
    if !Cluster::available("whoever_merely_retries_destroys_databases") {
        return;
    }
    let wrong = [true, false].map(|fenced| {
        let (first, other) = (STOCK, STOCK);
        let who = Who {
            first,
            fenced,
            other,
            patience: "",
        };
        let all = everywhere(who, false);
        all.iter().for_each(|(what, one)| print(what, one));
        all.iter().filter(|(_, one)| one.is_wrong()).count()
    });
    println!("stock: {} of {} went wrong", wrong[0], 3 * POINTS.len());
    println!(
        "with naive retries: {} of {} went wrong",
        wrong[1],
        3 * POINTS.len()
    );
    assert!(wrong[1] > 0, "retries do no harm here");
}

/// What a reader is told whose lock was lost in the middle of a table: how many rows of which versions.
fn read_on(who: Who, noticed: bool) -> (Answer, Answer) {
    let (cluster, mut reader, mut other) = begin(who, "DELETE");
    reader.run("PRAGMA cache_size=5");
    reader.ask("cursor SELECT v FROM t ORDER BY id").unwrap();
    let first = reader.ask("fetch 20").unwrap();
    if noticed {
        let silence = Silence::begin(&cluster);
        cluster.forget_locks(0);
        reader.tell("fetch 1000");
        other.run(&rewrite(9, "other"));
        silence.end();
    } else {
        cluster.forget_locks(0);
        other.run(&rewrite(9, "other"));
        reader.tell("fetch 1000");
    }
    let rest = reader.hear().map(|rest| {
        let seen: Vec<&str> = first.lines().chain(rest.lines()).collect();
        let versions: BTreeSet<&str> = seen.iter().copied().collect();
        format!("{} rows of versions {versions:?}", seen.len())
    });
    let _ = reader.ask("finish");
    let mut again = reader.sql(rows::VERSIONS);
    if again.is_err() {
        let db = on(&cluster, 0);
        again = reader.open(&db, who.first, "");
        again = again.and_then(|_| reader.sql(rows::VERSIONS));
    }
    (rest, again)
}

#[test]
fn a_reader_does_not_mix_versions() {
    if !Cluster::available("a_reader_does_not_mix_versions") {
        return;
    }
    for noticed in [true, false] {
        let (rest, _) = read_on(Who::both(STOCK), noticed);
        println!("stock, it got an error: {noticed}: {rest:?}");
    }
    let who = Who {
        fenced: false,
        ..Who::both(STOCK)
    };
    let (rest, _) = read_on(who, true);
    println!("with naive retries: {rest:?}");
    let mixed = r#"300 rows of versions {"1", "9"}"#;
    assert_eq!(rest.as_deref(), Ok(mixed));
    #[cfg(feature = "inject")]
    {
        let who = Who {
            fenced: false,
            ..Who::ours()
        };
        println!("without the fence: {:?}", read_on(who, true).0);
    }
    for other in [turnstile(), STOCK] {
        let who = Who {
            other,
            ..Who::ours()
        };
        let (rest, again) = read_on(who, true);
        println!("{who:?}: {rest:?}");
        assert!(rest.is_err(), "{rest:?}");
        assert_eq!(again, Ok(all(9)));
    }
}
