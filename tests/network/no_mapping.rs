//! In network mode nothing that is shared is mapped: neither the database nor `-shm` nor the sidecar,
//! whatever is asked for.

use crate::{cluster, worker};
use cluster::{Cluster, Fault, Mount, Op};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use worker::process::maps;
use worker::{STOCK, Worker, tested};

/// Two nodes on which files can be mapped.
fn mappable() -> Cluster {
    Cluster::new(&[Mount::cached(Duration::from_secs(1)); 2])
}

/// Looks all the time at what a process has mapped.
struct Watch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    fn over(process: u32, directory: &Path) -> Watch {
        let end = Arc::new(AtomicBool::new(false));
        let (over, directory) = (end.clone(), directory.display().to_string());
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !over.load(Relaxed) {
                seen.extend(maps(process, &directory).lines().map(str::to_owned));
                std::thread::sleep(Duration::from_micros(300));
            }
            seen
        });
        Watch { end, thread }
    }

    fn end(self) -> BTreeSet<String> {
        self.end.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// What was asked for, what was answered and what is right, and all that was mapped meanwhile.
#[derive(Default)]
struct Account {
    wrong: Vec<String>,
    mapped: BTreeSet<String>,
}

struct Subject<'a> {
    worker: Worker,
    directory: &'a Path,
    account: Account,
}

impl Subject<'_> {
    fn look(&mut self) {
        let here = self.directory.display();
        let mapped = self.worker.ask(&format!("maps {here}")).unwrap();
        let mapped = mapped.lines().map(str::to_owned);
        self.account.mapped.extend(mapped);
    }

    fn expect(&mut self, command: &str, right: &str) {
        let said = self.worker.ask(command);
        if said.as_deref() != Ok(right) {
            self.account
                .wrong
                .push(format!("{command}: {said:?}, not {right:?}"));
        }
        self.look();
    }

    fn run(&mut self, sql: &str) {
        if let Err(error) = self.worker.sql(sql) {
            self.account.wrong.push(format!("{sql}: {error}"));
        }
        self.look();
    }
}

/// All that could lead to a mapping.
fn workload(db: &Path, vfs: &str, options: &str, default_size: i64) -> Account {
    let directory = db.parent().unwrap();
    let worker = Worker::with(|c| {
        if default_size > 0 {
            c.env("TURNSTILE_WORKER_MMAP", default_size.to_string());
        }
    });
    let watch = Watch::over(worker.id(), directory);
    let mut subject = Subject {
        worker,
        directory,
        account: Account::default(),
    };
    subject.expect(&worker::opening(db, vfs, options), "");
    subject.run("CREATE TABLE IF NOT EXISTS t(x); DELETE FROM t");
    let fill = "WITH RECURSIVE i(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM i WHERE n<200)
                INSERT INTO t SELECT hex(zeroblob(500)) FROM i";
    subject.run(fill);
    subject.expect("sql SELECT count(*) FROM t", "200");

    subject.expect("sql PRAGMA mmap_size", "0");
    subject.expect("sql PRAGMA mmap_size=268435456", "0");
    subject.expect("sql SELECT count(*) FROM t", "200");
    subject.expect("map 268435456", "0");
    subject.expect("sql SELECT sum(length(x)) FROM t", "200000");
    subject.run("UPDATE t SET x=x||'.' WHERE rowid%2");

    for mode in ["truncate", "persist", "delete"] {
        subject.expect(&format!("sql PRAGMA journal_mode={mode}"), mode);
        subject.expect("sql PRAGMA journal_mode=wal", mode);
        subject.expect("sql PRAGMA journal_mode", mode);
        subject.run("BEGIN IMMEDIATE; INSERT INTO t VALUES(1); DELETE FROM t WHERE x=1; COMMIT");
        subject.expect("sql SELECT count(*) FROM t", "200");
    }
    subject.expect("sql PRAGMA locking_mode=exclusive", "exclusive");
    subject.expect("sql PRAGMA journal_mode=wal", "delete");
    subject.run("INSERT INTO t VALUES(1); DELETE FROM t WHERE x=1");
    subject.expect("sql PRAGMA locking_mode=normal", "normal");
    subject.expect("sql SELECT count(*) FROM t", "200");

    let other = directory.join("other.db");
    let uri = worker::opening(&other, vfs, options).replace("open ", "");
    subject.run(&format!("ATTACH '{uri}' AS other"));
    subject.expect("sql PRAGMA other.mmap_size=1000000", "0");
    subject.expect("sql PRAGMA other.journal_mode=wal", "delete");
    subject.run("CREATE TABLE IF NOT EXISTS other.u(x); INSERT INTO other.u SELECT x FROM t");
    subject.run("DROP TABLE other.u; DETACH other; VACUUM");
    // A second connection of the process.
    subject.expect("use second", "");
    subject.expect(&worker::opening(db, vfs, options), "");
    subject.expect("sql PRAGMA journal_mode=wal", "delete");
    subject.run("INSERT INTO t VALUES(1); DELETE FROM t WHERE x=1");
    subject.expect("sql PRAGMA integrity_check", "ok");
    subject.expect("close", "");
    let mut account = subject.account;
    account.mapped.extend(watch.end());
    account
}

fn report(what: &str, account: &Account) {
    println!("{what}: mapped {:?}", account.mapped);
    account.wrong.iter().for_each(|line| println!("  {line}"));
}

#[track_caller]
fn assert_clean(what: &str, account: &Account) {
    report(what, account);
    assert!(account.mapped.is_empty(), "{what}: {:?}", account.mapped);
    assert!(account.wrong.is_empty(), "{what}: {:#?}", account.wrong);
}

/// The names of mapped files, without their directory.
fn names(account: &Account) -> Vec<&str> {
    let name = |path: &'_ String| path.rfind('/').map_or(0, |at| at + 1);
    account
        .mapped
        .iter()
        .map(|path| &path[name(path)..])
        .collect()
}

#[test]
fn nothing_is_mapped_on_a_cluster_file_system() {
    if !Cluster::available("nothing_is_mapped_on_a_cluster_file_system") {
        return;
    }
    for default_size in [0, 1 << 28] {
        let cluster = mappable();
        let made = cluster.inject(Fault::at(&[Op::Create, Op::Mknod]).of("-shm"));
        let db = cluster.path(0).join("a.db");
        let account = workload(&db, STOCK, "", default_size);
        report("stock", &account);
        assert!(names(&account).contains(&"a.db"), "stock maps the database");
        assert!(names(&account).contains(&"a.db-shm"), "stock maps the -shm");
        assert!(cluster.fired(made) > 0);

        let cluster = mappable();
        let made = cluster.inject(Fault::at(&[Op::Create, Op::Mknod]).of("-shm"));
        let db = cluster.path(0).join("a.db");
        let what = format!("default mmap_size {default_size}");
        assert_clean(&what, &workload(&db, &tested(), "", default_size));
        assert_eq!(cluster.fired(made), 0, "a -shm was made");
    }
}

#[test]
fn nothing_is_mapped_on_a_local_one_that_is_said_to_be_shared() {
    for default_size in [0, 1 << 28] {
        let home = tempfile::tempdir().unwrap();
        let account = workload(&home.path().join("a.db"), STOCK, "", default_size);
        report("stock", &account);
        assert!(names(&account).contains(&"a.db-shm"), "stock maps the -shm");

        let home = tempfile::tempdir().unwrap();
        let db = home.path().join("a.db");
        let account = workload(&db, &tested(), "fs=network", default_size);
        assert_clean("fs=network", &account);
        assert!(!home.path().join("a.db-shm").exists());
    }
}

/// Processes on two nodes that get in each other's way: whoever waits, waits without a mapping.
#[test]
fn nothing_is_mapped_by_those_who_wait() {
    if !Cluster::available("nothing_is_mapped_by_those_who_wait") {
        return;
    }
    let cluster = mappable();
    let made = cluster.inject(Fault::at(&[Op::Create, Op::Mknod]).of("-shm"));
    let db: Vec<PathBuf> = (0..2).map(|node| cluster.path(node).join("a.db")).collect();
    Worker::at(&db[0], &tested(), "").run("CREATE TABLE t(x)");
    let mut workers: Vec<Worker> = (0..6)
        .map(|who| Worker::at(&db[who % 2], &tested(), ""))
        .collect();
    let watches: Vec<Watch> = (0..6)
        .map(|who| Watch::over(workers[who].id(), cluster.path(who % 2)))
        .collect();
    const EACH: usize = 20;
    for worker in &mut workers {
        worker.run("PRAGMA synchronous=OFF; PRAGMA mmap_size=100000000; PRAGMA journal_mode=wal");
    }
    for worker in &mut workers {
        for _ in 0..EACH {
            worker.tell("sql BEGIN IMMEDIATE; INSERT INTO t VALUES(1); COMMIT");
        }
    }
    for worker in &mut workers {
        (0..EACH).for_each(|_| assert_eq!(worker.hear().as_deref(), Ok("")));
    }
    let count = workers[1].run("SELECT count(*) FROM t");
    assert_eq!(count, (6 * EACH).to_string());
    for watch in watches {
        let seen = watch.end();
        assert!(seen.is_empty(), "{seen:?}");
    }
    assert_eq!(cluster.fired(made), 0, "a -shm was made");
}
