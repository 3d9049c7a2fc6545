//! What a transaction costs a healthy network file system when nobody is waiting: the requests that
//! it gets, through turnstile and through `unix`, counted side by side in one run.
//!
//! ```text
//! cargo bench --bench network                # turnstile against unix
//! cargo bench --bench network -- unix        # the control: what it shows is the noise
//! ```
//!
//! **How.** The file system is the FUSE cluster of the tests, which counts what the kernel asks it.
//! The bench runs itself again as a [workload] that keeps one connection open; what its first
//! transactions ask for is not counted.
//!
//! **Two mounts.** On one nothing is cached: each look at a name or an attribute is a request. On the
//! other all is cached for a second, as on NFS, and what turnstile asks for all the same shows.
//!
//! **The verdict.** A write transaction costs at most 4 requests more than on `unix`, and a read
//! transaction at most 2; else the exit code is not 0. To open, insert and close is shown for
//! information. Without FUSE nothing is measured, which is a failure if the environment variable `CI`
//! is set and elsewhere a line beginning with `SKIPPED`.

#[path = "../../tests/support/cluster/mod.rs"]
mod cluster;
#[path = "../command.rs"]
mod command;
#[path = "../../tests/support/mod.rs"]
mod support;
mod workload;

use std::process::ExitCode;
use std::time::Duration;

use cluster::{Cluster, Counts, Mount, Op};
use command::Result;
use workload::{JOURNALS, Statement, Workload};

/// How many transactions are counted.
const TRANSACTIONS: u32 = 100;

/// What is cached for a second is asked for again now and then, in one run and not in the other.
const NOISE: f64 = 0.1;

/// How many requests more than `unix` are accepted.
fn limit(statement: Statement) -> Option<f64> {
    match statement {
        Statement::Select => Some(2.0),
        Statement::Insert => Some(4.0),
        Statement::OpenInsertClose => None,
    }
}

fn main() -> ExitCode {
    command::run("network", compare, workload::run)
}

/// Prints the tables for `vfs` against `unix`. True if `vfs` keeps within what is accepted, or if
/// this machine cannot tell.
fn compare(vfs: &str) -> Result<bool> {
    if !Cluster::available("network") {
        return Ok(true);
    }
    let mounts = [
        ("nothing cached", Mount::default()),
        ("all cached for 1 s", Mount::cached(Duration::from_secs(1))),
    ];
    let mut kept = true;
    let mut summary = Vec::new();
    for (caching, mount) in mounts {
        for journal in JOURNALS {
            let unix = count(mount, "unix", journal)?;
            let ours = count(mount, vfs, journal)?;
            for ((statement, unix), (_, ours)) in unix.into_iter().zip(ours) {
                let name = format!("{}, {journal}, {caching}", statement.name());
                let more = print(&name, vfs, &unix, &ours);
                let verdict = match limit(statement) {
                    None => "for information".to_owned(),
                    Some(limit) if more <= limit + NOISE => format!("at most {limit:+.0}"),
                    Some(limit) => {
                        kept = false;
                        format!("FAILED: more than {limit:+.0}")
                    }
                };
                let (unix, ours) = (each(unix.total()), each(ours.total()));
                summary.push(format!(
                    "{name:48} {unix:>9.2} {ours:>9.2} {more:>+9.2}  {verdict}"
                ));
            }
        }
    }
    println!(
        "{:48} {:>9} {vfs:>9} {:>9}",
        "Requests per transaction", "unix", "more"
    );
    println!("{}", summary.join("\n"));
    Ok(kept)
}

/// What each statement asks of a file system that is mounted so.
fn count(mount: Mount, vfs: &str, journal: &str) -> Result<Vec<(Statement, Counts)>> {
    let cluster = Cluster::new(&[mount]);
    let mut workload = Workload::start(vfs, journal, &cluster.path(0).join("state.db"))?;
    let mut counted = Vec::new();
    for statement in Statement::ALL {
        workload.transact(statement, 3)?;
        settled(&cluster);
        cluster.reset_counts();
        workload.transact(statement, TRANSACTIONS)?;
        counted.push((statement, settled(&cluster)));
    }
    Ok(counted)
}

/// The counts when nothing comes any more: that a file is not open any more, the kernel tells later.
fn settled(cluster: &Cluster) -> Counts {
    let mut counts = cluster.counts(0);
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = cluster.counts(0);
        if now == counts {
            return counts;
        }
        counts = now;
    }
}

fn each(total: u64) -> f64 {
    total as f64 / f64::from(TRANSACTIONS)
}

/// A table by kind of request. Returns how many more they are in all.
fn print(name: &str, vfs: &str, unix: &Counts, ours: &Counts) -> f64 {
    println!("{name:48} {:>9} {vfs:>9} {:>9}", "unix", "more");
    let line = |name: &str, unix: u64, ours: u64| {
        let (unix, ours) = (each(unix), each(ours));
        println!("  {name:46} {unix:>9.2} {ours:>9.2} {:>+9.2}", ours - unix);
        ours - unix
    };
    for &op in Op::ALL.iter().filter(|&&op| unix[op] + ours[op] > 0) {
        line(&format!("{op:?}"), unix[op], ours[op]);
    }
    let more = line("total", unix.total(), ours.total());
    println!();
    more
}
