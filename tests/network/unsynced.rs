//! After a failed fsync the data may be gone: it is written again before it is synced again, or the
//! connection writes no more. Shown on a file system that really drops it, as Linux does.

use crate::support::within;
use crate::{cluster, naive, rows, worker};
use cluster::{Cluster, Errno, Fault, Mount, Op, Pages};
use naive::NAIVE;
use rows::{State, all, create, rewrite};
use std::path::PathBuf;
use std::time::Duration;
use worker::{Answer, LONG, STOCK, Worker, tested};

const MODES: [&str; 3] = ["DELETE", "TRUNCATE", "PERSIST"];

/// The file system, and a worker on it that has made the table.
fn begin(mode: &str, vfs: &str, options: &str, naive: bool) -> (Cluster, Worker) {
    let cluster = Cluster::volatile(&[Mount::default()]);
    let mut worker = Worker::with(|c| {
        if naive {
            c.env(NAIVE, "yes");
        }
    });
    worker.open(&db(&cluster), vfs, options).unwrap();
    worker.run(&format!("PRAGMA auto_vacuum=FULL; {}", create()));
    worker.run(&format!(
        "PRAGMA journal_mode={mode}; PRAGMA synchronous=FULL"
    ));
    worker.run(&rewrite(1, "before"));
    worker.log();
    (cluster, worker)
}

fn db(cluster: &Cluster) -> PathBuf {
    cluster.path(0).join("a.db")
}

/// fsync of such a file fails so many times.
fn failing(file: &str, times: u64) -> Fault {
    Fault::at(&[Op::Fsync])
        .of(file)
        .times(times)
        .answer(Errno::EIO)
}

/// The machine is off and on again: what the disk has then.
fn after_a_crash(cluster: &Cluster) -> State {
    cluster.crash();
    let mut next = Worker::at(&db(cluster), STOCK, "");
    let versions = next.sql(rows::VERSIONS);
    drop(next);
    cluster.crash();
    let state = State::of(&cluster.backing().join("a.db"));
    if state.is_whole() {
        assert_eq!(versions.as_deref(), Ok(state.versions.as_str()));
    }
    state
}

/// Nothing acknowledged is lost and nothing is there by half.
fn wrong(state: &State, acknowledged: &[&str]) -> Option<String> {
    let lost = acknowledged.iter().find(|marker| !state.has(marker));
    (lost.is_some() || !state.is_whole()).then(|| format!("lost {lost:?}, left {state:?}"))
}

#[test]
fn what_was_acknowledged_is_on_the_disk() {
    if !Cluster::available("what_was_acknowledged_is_on_the_disk") {
        return;
    }
    for mode in MODES {
        for file in ["a.db", "-journal"] {
            for times in [1, 3] {
                let what = format!("{mode}, fsync of {file} fails {times} times");
                let (cluster, mut worker) = begin(mode, &tested(), "", false);
                let fault = cluster.inject(failing(file, times));
                worker.run(&rewrite(2, "during"));
                assert_eq!(cluster.fired(fault), times, "{what}");
                // It is seen at once, and the next one is as good.
                assert_eq!(worker.run(rows::VERSIONS), all(2), "{what}");
                let state = {
                    worker.run("DELETE FROM t WHERE id > 150");
                    worker.run("INSERT INTO marker VALUES('after')");
                    after_a_crash(&cluster)
                };
                assert_eq!(
                    wrong(&state, &["before", "during", "after"]),
                    None,
                    "{what}"
                );
                assert_eq!(state.versions, "2|150", "{what}");
            }
        }
    }
}

/// A crash right after the commit, with files that grew and shrank in it.
#[test]
fn what_was_cut_off_is_cut_off_again() {
    if !Cluster::available("what_was_cut_off_is_cut_off_again") {
        return;
    }
    for mode in MODES {
        for change in [
            "DELETE FROM t WHERE id > 10",
            "INSERT INTO t SELECT id+300, v, pad FROM t",
        ] {
            let (cluster, mut worker) = begin(mode, &tested(), "", false);
            let fault = cluster.inject(failing("a.db", 2));
            worker.run(change);
            assert_eq!(cluster.fired(fault), 2, "{mode}, {change}");
            let right = worker.run(rows::VERSIONS);
            let state = after_a_crash(&cluster);
            assert_eq!(wrong(&state, &["before"]), None, "{mode}, {change}");
            assert_eq!(state.versions, right, "{mode}, {change}");
        }
    }
}

/// The commit that meets the fault, with stock SQLite above an fsync that is simply called again.
fn naive_commit(mode: &str, times: u64) -> (Answer, State) {
    let (cluster, mut worker) = begin(mode, STOCK, "", true);
    cluster.inject(failing("a.db", times));
    let said = worker.sql(&rewrite(2, "during"));
    (said, after_a_crash(&cluster))
}

/// Killed in the middle of what it writes to the database, when the journal is believed to be on the
/// disk: what the next one reads.
fn journal_lost(mode: &str, times: u64, vfs: &str, naive: bool) -> String {
    let (cluster, mut worker) = begin(mode, vfs, "", naive);
    cluster.inject(failing("-journal", times));
    let half = Fault::at(&[Op::Write]).of("a.db").nth(20).times(1);
    let half = cluster.inject(half.late(Duration::from_millis(100)));
    worker.run("PRAGMA cache_size=5");
    worker.tell(&format!("sql {}", rewrite(2, "during")));
    let reached = within(Duration::from_secs(10), || cluster.fired(half) == 1);
    assert!(reached, "{mode}: {:?}", worker.answer(LONG));
    worker.kill();
    let mut next = Worker::at(&db(&cluster), STOCK, "");
    next.sql(rows::VERSIONS).unwrap_or_else(|e| e.to_string())
}

#[test]
fn a_journal_is_really_on_the_disk() {
    if !Cluster::available("a_journal_is_really_on_the_disk") {
        return;
    }
    for mode in MODES {
        for times in [1, 3] {
            let read = journal_lost(mode, times, &tested(), false);
            assert_eq!(read, all(1), "{mode}, {times}");
        }
    }
}

/// Of the control: whoever merely repeats fsync loses what he has acknowledged.
#[test]
fn whoever_merely_repeats_it_loses_commits() {
    if !Cluster::available("whoever_merely_repeats_it_loses_commits") {
        return;
    }
    for mode in MODES {
        for times in [1, 3] {
            let (said, state) = naive_commit(mode, times);
            let lost = wrong(&state, &["before", "during"]);
            println!("{mode}, fsync of the database fails {times} times: {said:?}; {lost:?}");
            assert!(
                said.is_ok() && lost.is_some(),
                "{mode}: {said:?}, {state:?}"
            );

            let read = journal_lost(mode, times, STOCK, true);
            println!("{mode}, fsync of the journal fails {times} times: {read}");
            assert_ne!(read, all(1), "{mode}");
        }
        // And stock SQLite by itself passes the error on, whatever the application does then.
        let (cluster, mut worker) = begin(mode, STOCK, "", false);
        cluster.inject(failing("a.db", 1));
        let said = worker.sql(&rewrite(2, "during"));
        let again = worker.sql("COMMIT");
        let state = after_a_crash(&cluster);
        println!("{mode}, stock: {said:?}, again: {again:?}; {state:?}");
        assert!(said.is_err());
    }
}

/// Where it cannot be written again the error is passed on, and then nothing is written by that handle.
#[test]
fn beyond_the_limit_nothing_more_is_written() {
    if !Cluster::available("beyond_the_limit_nothing_more_is_written") {
        return;
    }
    let mut failures = Vec::new();
    for options in ["resync_kb=0", "resync_kb=1", "fs=local"] {
        for mode in MODES {
            for file in ["a.db", "-journal"] {
                let what = format!("{options}, {mode}, {file}");
                let (cluster, mut worker) = begin(mode, &tested(), options, false);
                let fault = cluster.inject(failing(file, 1));
                let said = worker.sql(&rewrite(2, "during"));
                let fired = cluster.fired(fault);
                let mut fail = |text: String| failures.push(format!("{what}: {text}"));
                if said.is_ok() || fired != 1 {
                    fail(format!(
                        "the error was not passed on: {said:?}, fired {fired}"
                    ));
                }
                let _ = worker.sql("ROLLBACK");
                let mut acknowledged = vec!["before"];
                let later = worker.sql(&rewrite(3, "later"));
                let log = worker.log();
                if later.is_ok() {
                    acknowledged.push("later");
                }
                // The journal of the next transaction is another file, but for the database there is no other.
                if file == "a.db" {
                    if later.is_ok() {
                        fail("the next write was not refused".to_owned());
                    }
                    let log = log.to_lowercase();
                    let says = |line: &str| {
                        let reopen = line.contains("reopen") || line.contains("re-open");
                        line.contains("a.db") && reopen
                    };
                    if !log.lines().any(says) {
                        fail(format!("the log does not say to reopen: {log}"));
                    }
                }
                // Opened again, all is well.
                let _ = worker.sql("ROLLBACK");
                let again = worker.open(&db(&cluster), &tested(), options);
                let again = again.and_then(|_| worker.sql(&rewrite(4, "again")));
                match &again {
                    Ok(_) => acknowledged.push("again"),
                    Err(error) => fail(format!("reopened: {error}")),
                }
                drop(worker);
                if let Some(lost) = wrong(&after_a_crash(&cluster), &acknowledged) {
                    fail(lost);
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// On a local disk a WAL is there, and a sync of it that failed is not believed the second time.
#[test]
fn a_wal_of_which_a_sync_failed_is_not_written_to() {
    if !Cluster::available("a_wal_of_which_a_sync_failed_is_not_written_to") {
        return;
    }
    let mount = Mount {
        pages: Pages::DirectMapped,
        ..Mount::default()
    };
    for (what, refused) in [("turnstile", true), ("retry_ms=0", false), ("stock", false)] {
        let cluster = Cluster::volatile(&[mount]);
        let (vfs, options) = match what {
            "stock" => (STOCK.to_owned(), ""),
            _ => (tested(), "fs=local"),
        };
        let mut worker = Worker::with(|c| {
            if what == "retry_ms=0" {
                c.env("TURNSTILE_RETRY_MS", "0");
            }
        });
        worker.open(&db(&cluster), &vfs, options).unwrap();
        let mode = worker.run("PRAGMA journal_mode=wal; PRAGMA synchronous=FULL");
        assert!(mode.contains("wal"), "{mode}");
        worker.run(&create());
        worker.run(&rewrite(1, "before"));
        let fault = cluster.inject(failing("-wal", 1));
        let said = worker.sql(&rewrite(2, "during"));
        assert!(said.is_err() && cluster.fired(fault) == 1, "{said:?}");
        let _ = worker.sql("ROLLBACK");
        let later = worker.sql(&rewrite(3, "later"));
        assert_eq!(later.is_err(), refused, "{what}: {later:?}");
        if refused {
            let log = worker.log();
            assert!(log.contains("reopen"), "{log}");
            worker.open(&db(&cluster), &vfs, options).unwrap();
            worker.run(&rewrite(4, "again"));
        }
    }
}
