//! A batch of jobs as users run it, on two nodes of a busy cluster: 71 Python processes share one database,
//! and 3 of 100 calls end with EIO.
//!
//! There are 20 rounds, or as many as fit into 90 s. `TURNSTILE_CLIMATE_ROUNDS` says how many, however
//! long they take, and `TURNSTILE_CLIMATE_SEED` which faults there are in the first one.

mod support;

#[path = "support/cluster/mod.rs"]
mod cluster;
#[path = "support/worker.rs"]
mod worker;

use cluster::{Cluster, Errno, Fault, Mount, Op};
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{encoded, extension, has_program};
use worker::{STOCK, Worker, tested};

const PYTHON: &str = "/usr/bin/python3";

const JOBS: usize = 71;

const STRUCK: [Op; 9] = [
    Op::Read,
    Op::Write,
    Op::Fsync,
    Op::Unlink,
    Op::Setlk,
    Op::Unlock,
    Op::Getlk,
    Op::Lookup,
    Op::Getattr,
];

#[test]
fn worker_process() {
    worker::serve();
}

/// How one round ended.
#[derive(Debug)]
struct Round {
    seed: u64,
    /// Jobs that did not end well, by what they said last.
    failures: BTreeMap<String, usize>,
    /// What was acknowledged and is not there, as each node sees it, or why it cannot be seen.
    lost: [Result<usize, String>; 2],
    integrity: String,
    faults: u64,
    took: Duration,
}

impl Round {
    fn new(vfs: &str, seed: u64) -> Round {
        let start = Instant::now();
        let cluster = Cluster::new(&[Mount::cached(Duration::from_secs(1)); 2]);
        let db = rusqlite::Connection::open(cluster.backing().join("state.db")).unwrap();
        db.execute_batch(
            "CREATE TABLE job(id INTEGER PRIMARY KEY, status); CREATE TABLE log(id, status)",
        )
        .unwrap();
        for id in 0..JOBS {
            let sql = "INSERT INTO job VALUES(?, 'waiting')";
            db.execute(sql, [id as u32]).unwrap();
        }
        drop(db);
        let transient = Fault::at(&STRUCK).chance(0.03, seed);
        let fault = cluster.inject(transient.answer(Errno::EIO));
        let jobs: Vec<Child> = (0..JOBS).map(|id| begin(&cluster, vfs, id)).collect();
        let mut failures = BTreeMap::new();
        let mut acknowledged = Vec::new();
        for (id, job) in jobs.into_iter().enumerate() {
            let (done, failure) = end(job);
            acknowledged.extend(done.into_iter().map(|status| format!("{id}|{status}")));
            if let Some(failure) = failure {
                *failures.entry(failure).or_default() += 1;
            }
        }
        let faults = cluster.fired(fault);
        cluster.lift_all();
        let mut integrity = String::new();
        let lost = [0, 1].map(|node| {
            let mut worker = Worker::new();
            let db = cluster.path(node).join("state.db");
            let opened = worker.open(&db, vfs, "");
            let there = opened.and_then(|_| worker.sql("SELECT id, status FROM log"));
            let there = there.map_err(|error| error.to_string())?;
            let check = worker.sql("PRAGMA integrity_check(1)");
            integrity = check.unwrap_or_else(|error| error.to_string());
            let there: Vec<&str> = there.lines().collect();
            let lost = |row: &&String| !there.contains(&row.as_str());
            Ok(acknowledged.iter().filter(lost).count())
        });
        let took = start.elapsed();
        Round {
            seed,
            failures,
            lost,
            integrity,
            faults,
            took,
        }
    }

    fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    fn print(&self, what: &str) {
        let Round {
            seed,
            failures,
            lost,
            integrity,
            faults,
            took,
        } = self;
        let failed = self.failed();
        println!(
            "{what}, seed {seed}: {failed}/{JOBS} failed, {faults} faults, {took:.1?}; {failures:?}"
        );
        println!("  acknowledged and lost, by node: {lost:?}, integrity {integrity}");
    }

    fn is_right(&self) -> bool {
        self.failed() == 0 && self.lost == [Ok(0), Ok(0)] && self.integrity == "ok"
    }
}

fn begin(cluster: &Cluster, vfs: &str, id: usize) -> Child {
    let db = cluster.path(id % 2).join("state.db");
    Command::new(PYTHON)
        .args(["-c", include_str!("support/climate/job.py")])
        .arg(extension())
        .args([encoded(&db), vfs.to_owned(), id.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it has acknowledged, and what it died of.
fn end(mut job: Child) -> (Vec<String>, Option<String>) {
    let over = support::within(Duration::from_secs(150), || {
        job.try_wait().unwrap().is_some()
    });
    let _ = job.kill();
    let status = job.wait().unwrap();
    let (mut said, mut errors) = (String::new(), String::new());
    job.stdout.unwrap().read_to_string(&mut said).unwrap();
    job.stderr.unwrap().read_to_string(&mut errors).unwrap();
    let last = errors.trim().lines().last().unwrap_or_default();
    let failure = match over {
        false => Some("hangs".to_owned()),
        true if status.success() => None,
        true if last.is_empty() => Some(status.to_string()),
        true => Some(last.to_owned()),
    };
    (said.lines().map(str::to_owned).collect(), failure)
}

#[test]
fn no_job_fails() {
    let test = "no_job_fails";
    if !Cluster::available(test) || !has_program(test, PYTHON, "python3") {
        return;
    }
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = variable("TURNSTILE_CLIMATE_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    Round::new(STOCK, seed).print("stock");
    let rounds = variable("TURNSTILE_CLIMATE_ROUNDS");
    let start = Instant::now();
    let mut wrong = Vec::new();
    for round in 0..rounds.unwrap_or(20) {
        if rounds.is_none() && start.elapsed() > Duration::from_secs(90) {
            println!("stopped after {round} rounds: set TURNSTILE_CLIMATE_ROUNDS=20 for all");
            break;
        }
        let one = Round::new(&tested(), seed + round);
        one.print(&format!("round {}", round + 1));
        if !one.is_right() {
            wrong.push(one);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
