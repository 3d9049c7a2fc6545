//! A database that is in WAL mode is brought back to a rollback journal when it is opened in network mode.

use crate::support::within;
use crate::{cluster, worker};
use cluster::{Cluster, Fault, Mount, Op};
use std::fs::{Permissions, read, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use worker::{STOCK, Worker, tested};

/// How a WAL database was left by who wrote it last.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// Killed after a checkpoint and some more commits.
    WithFrames,
    /// The same, and the last frames are of a transaction that was not finished.
    Torn,
    /// Killed before any checkpoint: the database's file is almost empty.
    AllInTheWal,
    /// Closed in good order.
    Closed,
}

const KINDS: [Left; 4] = [
    Left::WithFrames,
    Left::Torn,
    Left::AllInTheWal,
    Left::Closed,
];

const ROWS: &str = "150";

const COUNT: &str = "SELECT count(*) FROM t";

fn insert(count: u32) -> String {
    format!(
        "WITH RECURSIVE i(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM i WHERE n<{count})
         INSERT INTO t SELECT hex(zeroblob(500)) FROM i"
    )
}

/// A WAL database as files, made by stock SQLite elsewhere.
struct Wal {
    home: TempDir,
}

impl Wal {
    fn new(left: Left) -> Wal {
        let home = tempfile::tempdir().unwrap();
        let db = home.path().join("a.db");
        let mut writer = Worker::at(&db, STOCK, "");
        writer.run("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x)");
        writer.run(&insert(100));
        if !matches!(left, Left::AllInTheWal) {
            writer.run("PRAGMA wal_checkpoint(TRUNCATE)");
        }
        writer.run(&insert(50));
        if let Left::Closed = left {
            writer.ask("close").unwrap();
        }
        writer.kill();
        if let Left::Torn = left {
            let wal = home.path().join("a.db-wal");
            let mut frames = read(&wal).unwrap();
            let half = frames[frames.len() - 6000..].to_vec();
            frames.extend(half);
            write(wal, frames).unwrap();
        }
        Wal { home }
    }

    /// Copies it, without the shared memory of its machine.
    fn copy_to(&self, directory: &Path) {
        for name in ["a.db", "a.db-wal"] {
            let from = self.home.path().join(name);
            if from.exists() {
                std::fs::copy(from, directory.join(name)).unwrap();
            }
        }
    }
}

/// A cluster with such a database in it.
fn cluster_with(wal: &Wal) -> Cluster {
    // On its files' pages stock SQLite can work, too.
    let cluster = Cluster::new(&[Mount::cached(Duration::ZERO); 2]);
    wal.copy_to(&cluster.backing());
    cluster
}

fn on(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.path(node).join("a.db")
}

/// What is behind the mounts is a whole rollback database, and nothing beside it.
#[track_caller]
fn assert_converted(directory: &Path) {
    let header = read(directory.join("a.db")).unwrap();
    assert_eq!(header[18..20], [1, 1], "its header says WAL");
    for beside in ["a.db-wal", "a.db-shm"] {
        assert!(!directory.join(beside).exists(), "{beside} is left");
    }
    // Who was killed may have left a journal that means nothing.
    let journal = read(directory.join("a.db-journal")).unwrap_or_default();
    let hot = journal.first().is_some_and(|&byte| byte != 0);
    assert!(!hot, "a hot journal is left");
    assert_whole(directory);
}

#[track_caller]
fn assert_whole(directory: &Path) {
    let db = rusqlite::Connection::open(directory.join("a.db")).unwrap();
    let text = |sql| db.query_row(sql, [], |row| row.get::<_, String>(0));
    assert_eq!(text("PRAGMA integrity_check").as_deref(), Ok("ok"));
    let count = text("SELECT CAST(count(*) AS TEXT) FROM t");
    assert_eq!(count.as_deref(), Ok(ROWS));
}

#[test]
fn it_opens_and_is_a_rollback_database() {
    if !Cluster::available("it_opens_and_is_a_rollback_database") {
        return;
    }
    for left in KINDS {
        let wal = Wal::new(left);
        let cluster = cluster_with(&wal);
        let mut worker = Worker::at(&on(&cluster, 0), &tested(), "");
        assert_eq!(worker.run(COUNT), ROWS, "{left:?}");
        // As the application always asked for it.
        assert_eq!(worker.run("PRAGMA journal_mode=wal"), "delete", "{left:?}");
        let other = Worker::at(&on(&cluster, 1), &tested(), "").run(COUNT);
        assert_eq!(other, ROWS, "{left:?}");
        worker.run("INSERT INTO t VALUES(1); DELETE FROM t WHERE x=1");
        drop(worker);
        assert_converted(&cluster.backing());

        // On a local directory, if it is said to be shared.
        let home = tempfile::tempdir().unwrap();
        wal.copy_to(home.path());
        let mut worker = Worker::at(&home.path().join("a.db"), &tested(), "fs=network");
        assert_eq!(worker.run(COUNT), ROWS, "{left:?}");
        assert_eq!(worker.run("PRAGMA journal_mode"), "delete", "{left:?}");
        drop(worker);
        assert_converted(home.path());
    }
}

/// Kills who converts after its n-th request, for each n until it needs no more.
#[test]
fn killed_at_any_point_it_is_intact() {
    if !Cluster::available("killed_at_any_point_it_is_intact") {
        return;
    }
    for left in [Left::WithFrames, Left::AllInTheWal] {
        let wal = Wal::new(left);
        let (next, half, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        // Most of the time is spent waiting.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !done.load(SeqCst) {
                        let n = 1 + next.fetch_add(1, SeqCst);
                        let killed = kill_at(&wal, n);
                        done.fetch_or(killed == Killed::Never, SeqCst);
                        half.fetch_add((killed == Killed::InWalMode).into(), SeqCst);
                    }
                });
            }
        });
        let [n, half] = [next, half].map(AtomicU64::into_inner);
        println!("{left:?}: killed after each of {n} requests, {half} times with a WAL");
        assert!(
            n > 10 && half > 5,
            "{left:?}: {n} requests, {half} with a WAL"
        );
    }
}

#[derive(PartialEq)]
enum Killed {
    InWalMode,
    Converted,
    Never,
}

fn kill_at(wal: &Wal, n: u64) -> Killed {
    let cluster = cluster_with(wal);
    let mut victim = Worker::new();
    // It is done, but nobody hears of it.
    let late = Fault::at(Op::ALL).on(0).nth(n).times(1);
    let last = cluster.inject(late.late(Duration::from_millis(25)));
    victim.tell(&worker::opening(&on(&cluster, 0), &tested(), ""));
    victim.tell(&format!("sql {COUNT}"));
    victim.tell("close");
    let mut answers = 0;
    within(worker::LONG, || {
        let answer = victim.answer(Duration::from_millis(1));
        if let Some(Err(error)) = &answer {
            panic!("request {n}: {error}");
        }
        answers += u32::from(answer.is_some());
        answers == 3 || cluster.fired(last) > 0
    });
    victim.kill();
    let backing = cluster.backing();
    let has_wal = backing.join("a.db-wal").exists();
    // It is intact as it is ...
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&backing).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    assert_whole(copy.path());
    // ... and whoever opens it next, there or elsewhere, finishes it.
    let mut next = Worker::at(&on(&cluster, n as usize % 2), &tested(), "");
    assert_eq!(next.run(COUNT), ROWS, "request {n}");
    assert_eq!(next.run("PRAGMA journal_mode"), "delete");
    drop(next);
    assert_converted(&backing);
    match (answers, has_wal) {
        (3, _) => Killed::Never,
        (_, true) => Killed::InWalMode,
        (_, false) => Killed::Converted,
    }
}

/// A refusal in a bounded time, and a line in the log that names the file and says what to do.
#[track_caller]
fn assert_refused(worker: &mut Worker, db: &Path, options: &str, codes: &[i32]) {
    let start = Instant::now();
    let opened = worker.open(db, &tested(), options);
    let patience = opened.and_then(|_| worker.sql("PRAGMA busy_timeout=1000"));
    let error = patience.and_then(|_| worker.sql(COUNT)).unwrap_err();
    let took = start.elapsed();
    let log = worker.log();
    println!("{options:?}: {error} after {took:?}; the log: {log}");
    assert!(codes.contains(&error.primary()), "{error}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    let file = db.file_name().unwrap().to_str().unwrap();
    let says = |line: &str| line.contains(file) && line.contains("journal_mode");
    assert!(log.lines().any(says), "it is not said what to do: {log}");
}

const BUSY: i32 = 5;
const READONLY: i32 = 8;
const CANTOPEN: i32 = 14;

#[test]
fn somebody_else_has_it_open() {
    if !Cluster::available("somebody_else_has_it_open") {
        return;
    }
    for node in [0, 1] {
        for hold in [COUNT, "BEGIN; SELECT count(*) FROM t", "BEGIN IMMEDIATE"] {
            let wal = Wal::new(Left::WithFrames);
            let cluster = cluster_with(&wal);
            let mut other = Worker::at(&on(&cluster, node), STOCK, "");
            other.run(hold);
            let mut worker = Worker::new();
            let db = on(&cluster, 0);
            assert_refused(&mut worker, &db, "", &[BUSY, CANTOPEN]);
            // The other one is not disturbed ...
            if hold == "BEGIN IMMEDIATE" {
                other.run("INSERT INTO t VALUES(1); DELETE FROM t WHERE x=1; COMMIT");
            }
            assert_eq!(other.run(COUNT), ROWS);
            other.ask("close").unwrap();
            // ... and when it has gone all is well.
            worker.open(&db, &tested(), "").unwrap();
            assert_eq!(worker.run(COUNT), ROWS);
            assert_eq!(worker.run("PRAGMA journal_mode"), "delete");
            drop((worker, other));
            assert_converted(&cluster.backing());
        }
    }
}

#[test]
fn who_may_only_read_is_told() {
    if !Cluster::available("who_may_only_read_is_told") {
        return;
    }
    let wal = Wal::new(Left::WithFrames);
    let cluster = cluster_with(&wal);
    let state = || {
        let name = |n| read(cluster.backing().join(n)).ok();
        ["a.db", "a.db-wal", "a.db-shm", "a.db-journal"].map(name)
    };
    let before = state();
    let db = on(&cluster, 0);
    let codes = [BUSY, READONLY, CANTOPEN];
    assert_refused(&mut Worker::new(), &db, "mode=ro", &codes);
    assert!(state() == before, "a reader has changed something");

    // The way to the mount is open, the directory and the files are not.
    let home = cluster.backing();
    set_permissions(home.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    for name in ["a.db", "a.db-wal"] {
        set_permissions(home.join(name), Permissions::from_mode(0o444)).unwrap();
    }
    cluster.drop_caches(0);
    let nobody = 65534.to_string();
    let mut worker = Worker::with(|c| {
        c.env("TURNSTILE_WORKER_UID", nobody);
    });
    assert_refused(&mut worker, &db, "", &codes);
    assert!(state() == before, "a reader has changed something");
    // Who may write converts it, and then the others can read it.
    let mut owner = Worker::at(&db, &tested(), "");
    assert_eq!(owner.run(COUNT), ROWS);
    worker.open(&db, &tested(), "").unwrap();
    assert_eq!(worker.run(COUNT), ROWS);
    drop((worker, owner));
    assert_converted(&home);
}

#[test]
fn twenty_open_it_at_the_same_moment() {
    if !Cluster::available("twenty_open_it_at_the_same_moment") {
        return;
    }
    for left in KINDS {
        let wal = Wal::new(left);
        let cluster = cluster_with(&wal);
        let mut workers: Vec<Worker> = (0..20).map(|_| Worker::new()).collect();
        for worker in &mut workers {
            // It has started.
            worker.log();
        }
        for (who, worker) in workers.iter_mut().enumerate() {
            worker.tell(&worker::opening(&on(&cluster, who % 2), &tested(), ""));
            worker.tell(&format!("sql {COUNT}"));
            worker.tell("sql PRAGMA journal_mode");
        }
        let mut failures = Vec::new();
        for worker in &mut workers {
            for right in ["", ROWS, "delete"] {
                let answer = worker.hear();
                if answer.as_deref() != Ok(right) {
                    failures.push(answer);
                    // What follows follows from it, or the worker is dead.
                    break;
                }
            }
        }
        assert!(failures.is_empty(), "{left:?}: {failures:#?}");
        drop(workers);
        assert_converted(&cluster.backing());
    }
}
