//! What is said about the place where a database lies: once, with the mount, the reason and the remedy.

use crate::{cluster, worker};
use cluster::{Cluster, LockScope, Mount};
use std::path::PathBuf;
use worker::{Worker, tested};

/// A database on a mount of that type, and what its connections log.
fn on(kind: &'static str, locks: LockScope) -> (Cluster, PathBuf, String) {
    let mount = Mount {
        kind,
        locks,
        ..Mount::default()
    };
    let cluster = Cluster::new(&[mount]);
    let db = cluster.path(0).join("a.db");
    let point = cluster.path(0).display().to_string();
    // A long path is cut at its beginning.
    let point = point[point.len() - 20..].to_owned();
    (cluster, db, point)
}

fn count(log: &str, parts: &[&str]) -> usize {
    let says = |line: &&str| parts.iter().all(|part| line.contains(part));
    log.lines().filter(says).count()
}

#[test]
fn locks_that_hold_here_only_are_warned_of_once() {
    if !Cluster::available("locks_that_hold_here_only_are_warned_of_once") {
        return;
    }
    let (_cluster, db, point) = on("fuse.sshfs", LockScope::Node);
    let mut worker = Worker::new();
    for _ in 0..3 {
        worker.open(&db, &tested(), "").unwrap();
        worker.run("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)");
    }
    let log = worker.log();
    let parts = [
        "locks hold on this node only",
        "fuse.sshfs",
        &point,
        "one machine",
    ];
    assert_eq!(count(&log, &parts), 1, "{log}");
}

#[test]
fn where_there_are_no_locks_a_database_does_not_open() {
    if !Cluster::available("where_there_are_no_locks_a_database_does_not_open") {
        return;
    }
    let (_cluster, db, point) = on("fuse.portal", LockScope::Cluster);
    let mut worker = Worker::new();
    for options in ["", "fs=network"] {
        let error = worker.open(&db, &tested(), options).unwrap_err();
        assert_eq!(error.primary(), 14, "{error}");
        let log = worker.log();
        let parts = ["locks do not work", "fuse.portal", &point, "a.db"];
        assert!(count(&log, &parts) > 0, "{log}");
    }
    // Whoever says that it is local is warned and answers for it.
    worker.open(&db, &tested(), "fs=local").unwrap();
    worker.run("PRAGMA user_version");
}

#[test]
fn a_lock_call_that_does_not_exist_is_explained() {
    if !Cluster::available("a_lock_call_that_does_not_exist_is_explained") {
        return;
    }
    let (_cluster, db, point) = on("fuse.cluster", LockScope::Nobody);
    let mut worker = Worker::new();
    let opened = worker.open(&db, &tested(), "");
    let used = opened.and_then(|_| worker.sql("CREATE TABLE t(x)"));
    let error = used.unwrap_err();
    let log = worker.log();
    assert_eq!(error.primary(), 10, "{error}");
    assert_eq!(
        count(&log, &["has no locks", "ENOSYS", &point, "a.db"]),
        1,
        "{log}"
    );
}
