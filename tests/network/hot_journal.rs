//! A hot journal is never overlooked, and a commit whose last step is in doubt ends right: it is there
//! if it was acknowledged, and it is never there by half.

use crate::support::within;
use crate::{cluster, rows, worker};
use cluster::{Cluster, Errno, Fault, Mount, Op};
use rows::{State, VERSIONS, all, create, rewrite};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use worker::{Answer, LONG, STOCK, Worker, tested};

fn plain() -> Cluster {
    Cluster::new(&[Mount::default(); 2])
}

fn on(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.path(node).join("a.db")
}

/// What a writer leaves that is killed when it has written a part of its transaction to the database.
fn half_a_transaction() -> TempDir {
    let cluster = plain();
    let mut writer = Worker::at(&on(&cluster, 0), STOCK, "");
    writer.run(&create());
    let half = Fault::at(&[Op::Write]).of("a.db").nth(30).times(1);
    let half = cluster.inject(half.late(Duration::from_millis(100)));
    writer.tell(&format!("sql {}", rewrite(1, "half")));
    assert!(within(LONG, || cluster.fired(half) == 1));
    writer.kill();
    let left = tempfile::tempdir().unwrap();
    for name in ["a.db", "a.db-journal"] {
        std::fs::copy(cluster.backing().join(name), left.path().join(name)).unwrap();
    }
    left
}

fn cluster_with(left: &TempDir) -> Cluster {
    let cluster = plain();
    for name in ["a.db", "a.db-journal"] {
        std::fs::copy(left.path().join(name), cluster.backing().join(name)).unwrap();
    }
    cluster
}

const FOREVER: u64 = u64::MAX;

/// A budget that is soon over where waiting does not help.
fn budget(times: u64) -> &'static str {
    if times == FOREVER {
        "retry_ms=50"
    } else {
        "retry_ms=5000"
    }
}

fn so_often(times: u64) -> &'static str {
    match times {
        1 => "once",
        3 => "three times",
        _ => "for ever",
    }
}

/// What somebody is told who opens the database when it cannot be seen whether there is a journal.
struct Met {
    said: Answer,
    took: Duration,
    /// The versions that the same process reads when that is over.
    again: Answer,
    /// What is there in the end.
    state: State,
}

fn meet(left: &TempDir, vfs: &str, errno: Errno, times: u64, sql: &str) -> Met {
    let cluster = cluster_with(left);
    let (mut worker, db) = (Worker::new(), on(&cluster, 1));
    worker.log();
    let hidden = Fault::at(&[Op::Lookup, Op::Getattr]).of("-journal");
    cluster.inject(hidden.times(times).answer(errno));
    let start = Instant::now();
    let opened = worker.open(&db, vfs, budget(times));
    let said = opened.and_then(|_| worker.sql(sql));
    let took = start.elapsed();
    cluster.lift_all();
    let _ = worker.sql("ROLLBACK");
    let again = worker
        .sql(VERSIONS)
        .or_else(|_| worker.open(&db, vfs, "").and_then(|_| worker.sql(VERSIONS)));
    drop(worker);
    let state = State::of(&cluster.backing().join("a.db"));
    Met {
        said,
        took,
        again,
        state,
    }
}

const ERRORS: [(&str, Errno); 2] = [("EIO", Errno::EIO), ("ESTALE", Errno::ESTALE)];

#[test]
fn a_reader_does_not_overlook_it() {
    if !Cluster::available("a_reader_does_not_overlook_it") {
        return;
    }
    let left = half_a_transaction();
    for (name, errno) in ERRORS {
        for times in [1, 3, FOREVER] {
            let what = format!("{name} {}", so_often(times));
            let stock = meet(&left, STOCK, errno, times, VERSIONS);
            println!("{what}, stock: {:?}", stock.said);
            // The first look is for the schema only, and Linux itself looks again when it is told ESTALE.
            if name == "EIO" && times > 1 || times == FOREVER {
                let read = stock.said.expect("stock believes that there is no journal");
                assert_ne!(read, all(0), "{what}: stock has seen the journal");
            }

            let met = meet(&left, &tested(), errno, times, VERSIONS);
            println!("{what}: {:?} after {:?}", met.said, met.took);
            if times == FOREVER {
                assert!(met.said.is_err(), "{what}: {:?}", met.said);
                assert!(met.took < Duration::from_secs(5), "{what}: {:?}", met.took);
            } else {
                assert_eq!(met.said, Ok(all(0)), "{what}");
            }
            assert_eq!(met.again, Ok(all(0)), "{what}");
            assert!(met.state.is_whole(), "{what}: {:?}", met.state);
        }
    }
}

#[test]
fn a_writer_does_not_overlook_it() {
    if !Cluster::available("a_writer_does_not_overlook_it") {
        return;
    }
    let left = half_a_transaction();
    // Not all rows: what the killed one has left must not survive beneath.
    let change = "UPDATE t SET v=v+10 WHERE id <= 150; INSERT INTO marker VALUES('second')";
    let rest = "SELECT group_concat(DISTINCT v) FROM t WHERE id > 150";
    let right = ("0,10|300".to_owned(), "0|300".to_owned());
    for (name, errno) in ERRORS {
        for times in [1, FOREVER] {
            let what = format!("{name} {}", so_often(times));
            let sql = format!("BEGIN IMMEDIATE; {change}; COMMIT; {rest}");
            let stock = meet(&left, STOCK, errno, times, &sql);
            println!("{what}, stock: {:?}, {:?}", stock.said, stock.state);

            let met = meet(&left, &tested(), errno, times, &sql);
            println!("{what}: {:?}, {:?}", met.said, met.state);
            assert_eq!(
                met.said.is_err(),
                times == FOREVER,
                "{what}: {:?}",
                met.said
            );
            assert_eq!(met.state.integrity, "ok", "{what}");
            let versions = sorted(&met.state.versions);
            let expected = if met.said.is_ok() { &right.0 } else { &right.1 };
            assert_eq!(&versions, expected, "{what}: {:?}", met.state);
            assert_eq!(met.state.has("second"), met.said.is_ok(), "{what}");
        }
    }
}

fn sorted(versions: &str) -> String {
    let (versions, count) = versions.split_once('|').unwrap_or((versions, ""));
    let mut versions: Vec<&str> = versions.split(',').collect();
    versions.sort_unstable();
    format!("{}|{count}", versions.join(","))
}

const MODES: [&str; 3] = ["DELETE", "TRUNCATE", "PERSIST"];

/// The table at version 1, and who has it open.
fn before(mode: &str, vfs: &str, options: &str) -> (Cluster, Worker) {
    let cluster = plain();
    let mut worker = Worker::at(&on(&cluster, 0), vfs, options);
    worker.run(&create());
    worker.run(&format!(
        "PRAGMA synchronous=FULL; PRAGMA journal_mode={mode}"
    ));
    worker.run(&rewrite(1, "before"));
    (cluster, worker)
}

/// The request with which the next transaction is committed.
fn commit_point(mode: &str, vfs: &str) -> Fault {
    match mode {
        "DELETE" => Fault::at(&[Op::Unlink]).of("-journal"),
        "TRUNCATE" => Fault::at(&[Op::Truncate]).of("-journal"),
        _ => {
            // The last write to the journal. How many there are is found out elsewhere.
            let (cluster, mut worker) = before(mode, vfs, "");
            let writes = Fault::at(&[Op::Write]).of("-journal");
            let count = cluster.inject(writes.clone());
            worker.run(&rewrite(2, "during"));
            writes.nth(cluster.fired(count))
        }
    }
}

/// One commit whose last step fails, and what becomes of it.
#[derive(Debug)]
struct Commit {
    said: Answer,
    later: Option<Answer>,
    state: State,
}

impl Commit {
    fn new(mode: &str, vfs: &str, fault: Fault, options: &str, goes_on: bool) -> Commit {
        let (cluster, mut worker) = before(mode, vfs, options);
        let fault = cluster.inject(fault);
        let said = worker.sql(&rewrite(2, "during"));
        assert!(cluster.fired(fault) > 0, "{mode}: nothing failed");
        cluster.lift_all();
        let later = goes_on.then(|| {
            let _ = worker.sql("ROLLBACK");
            worker.sql(&rewrite(3, "later"))
        });
        worker.kill();
        // Somebody elsewhere finds what was left.
        let mut other = Worker::at(&on(&cluster, 1), STOCK, "");
        let seen = other.sql(VERSIONS);
        drop(other);
        let state = State::of(&cluster.backing().join("a.db"));
        assert_eq!(seen.unwrap_or_else(|e| e.to_string()), state.versions);
        Commit { said, later, state }
    }

    /// What is wrong with it, if anything is.
    fn wrong(&self) -> Option<String> {
        let later = self.later.as_ref().is_some_and(|answer| answer.is_ok());
        let kept = (self.said.is_err() || self.state.has("during"))
            && (!later || self.state.has("later"))
            && self.state.has("before");
        let right = kept && self.state.is_whole();
        (!right).then(|| format!("{self:?}"))
    }
}

#[test]
fn the_commit_point_in_doubt_ends_right() {
    if !Cluster::available("the_commit_point_in_doubt_ends_right") {
        return;
    }
    let mut failures = Vec::new();
    for mode in MODES {
        let points = [STOCK.to_owned(), tested()].map(|vfs| (commit_point(mode, &vfs), vfs));
        for done in [true, false] {
            for times in [1, FOREVER] {
                for goes_on in [false, true] {
                    for (point, vfs) in &points {
                        let fault = point.clone().times(times);
                        let fault = match done {
                            true => fault.lie(Errno::EIO),
                            false => fault.answer(Errno::EIO),
                        };
                        let how = if done { "done" } else { "not done" };
                        let what = format!("{vfs}, {mode}, EIO but {how}, {}", so_often(times));
                        let commit = Commit::new(mode, vfs, fault, budget(times), goes_on);
                        println!("{what}: {commit:?}");
                        if vfs == STOCK && tested() != STOCK {
                            continue;
                        }
                        failures.extend(commit.wrong().map(|wrong| format!("{what}: {wrong}")));
                        if times == 1 && commit.said.is_err() {
                            failures.push(format!("{what}: {:?}", commit.said));
                        }
                        // What is not done is not acknowledged, whatever it takes.
                        if times == FOREVER && !done && commit.said.is_ok() {
                            failures.push(format!("{what}: acknowledged"));
                        }
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// With synchronous=EXTRA the directory is synced after the unlink, too: that is tried again likewise.
#[test]
fn the_sync_of_the_directory_is_tried_again() {
    if !Cluster::available("the_sync_of_the_directory_is_tried_again") {
        return;
    }
    const EXTRA: &str = "DELETE; PRAGMA synchronous=EXTRA";
    for nth in [1, 2] {
        for times in [1, 3] {
            let fault = Fault::at(&[Op::Fsyncdir]).nth(nth).times(times);
            let fault = fault.answer(Errno::EIO);
            let stock = Commit::new(EXTRA, STOCK, fault.clone(), "", true);
            println!("{nth}, {}, stock: {:?}", so_often(times), stock.said);
            let commit = Commit::new(EXTRA, &tested(), fault, budget(times), true);
            assert_eq!(commit.wrong(), None);
            assert!(commit.said.is_ok(), "{commit:?}");
        }
    }
}

/// While a writer is at work with it, its journal is none of anybody's business: there are clients that wait for half a
/// minute to read it, and keep what they have read (MooseFS).
#[test]
fn a_journal_in_use_is_not_read() {
    if !Cluster::available("a_journal_in_use_is_not_read") {
        return;
    }
    let cluster = plain();
    let mut writer = Worker::at(&on(&cluster, 0), &tested(), "");
    writer.run(&create());
    writer.run("BEGIN IMMEDIATE");
    writer.run(&rows::change(1, "first"));
    let journal = cluster.backing().join("a.db-journal");
    assert!(journal.metadata().unwrap().len() > 0);
    let read = cluster.inject(Fault::at(&[Op::Open, Op::Read]).of("-journal").on(1));
    let mut reader = Worker::at(&on(&cluster, 1), &tested(), "");
    assert_eq!(reader.run(VERSIONS), all(0));
    assert_eq!(cluster.fired(read), 0);
    writer.run("COMMIT");
}

/// Whoever finds a hot journal wants to be alone with it, and who looks at one holds SHARED meanwhile: where requests take
/// their time, many at once are always in each other's way.
#[test]
fn many_find_it_at_once() {
    if !Cluster::available("many_find_it_at_once") {
        return;
    }
    let left = half_a_transaction();
    let read_by_many = |vfs: &str| {
        let cluster = cluster_with(&left);
        cluster.inject(Fault::at(Op::ALL).late(Duration::from_millis(3)));
        let open = |at: usize| Worker::at(&on(&cluster, at % 2), vfs, "");
        let mut readers: Vec<Worker> = (0..24).map(open).collect();
        let start = Instant::now();
        readers
            .iter_mut()
            .for_each(|reader| reader.tell(&format!("sql {VERSIONS}")));
        let read: Vec<Answer> = readers.iter_mut().map(Worker::hear).collect();
        println!("{vfs}: after {:?}", start.elapsed());
        read
    };
    let stock = read_by_many(STOCK);
    println!(
        "stock: {} of 24",
        stock.iter().filter(|read| **read == Ok(all(0))).count()
    );
    for read in read_by_many(&tested()) {
        assert_eq!(read, Ok(all(0)));
    }
}
