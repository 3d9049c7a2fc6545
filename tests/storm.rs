//! A storm: sixteen writers, and every few milliseconds one of them is killed and another one comes.
#![cfg(all(feature = "linked", feature = "inject"))]

#[path = "support/writers.rs"]
mod writers;

use rusqlite::Connection;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use writers::{House, connect, now, sleep_ms, write};

const WRITERS: usize = 16;
const KILLS: usize = 500;
/// Numbers above those of the house's own writers.
const FIRST: u32 = 1_000;

/// A writer; or the storm's own process: it has one thread, so that it may fork without more ado.
#[test]
fn writer_process() {
    let Some(dir) = std::env::var_os("TURNSTILE_STORM") else {
        return writers::serve();
    };
    turnstile::register(turnstile::Options::default()).unwrap();
    rage(Path::new(&dir));
    std::process::exit(0);
}

fn rage(dir: &Path) {
    let mut random = now();
    let mut below = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let mut who = FIRST;
    let mut born = || {
        who += 1;
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => write_for_ever(dir, who),
            pid => pid,
        }
    };
    let mut living: Vec<i32> = (0..WRITERS).map(|_| born()).collect();
    let mut zombies = Vec::new();
    let kill = |pid: i32| {
        // SAFETY: our child, for whom nobody has waited.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    };
    for _ in 0..KILLS {
        sleep_ms(2 + below(18));
        let at = below(WRITERS as u64) as usize;
        kill(living[at]);
        zombies.push(std::mem::replace(&mut living[at], born()));
        // Some parents wait for their children late.
        if zombies.len() > 8 {
            zombies.drain(..).for_each(bury);
        }
    }
    sleep_ms(300);
    for pid in living {
        kill(pid);
        zombies.push(pid);
    }
    zombies.into_iter().for_each(bury);
}

/// Whoever did not die by our hand has crashed.
fn bury(pid: i32) {
    let mut status = 0;
    // SAFETY: our child; the status is a number.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
    assert!(killed, "a writer ended with {status:#x}");
}

/// Commits, and acknowledges each with one write to a file of its own.
fn write_for_ever(dir: &Path, who: u32) -> ! {
    // SAFETY: plain system call. Not beyond the end of the storm, however it ends.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let db = connect(&dir.join("a.db"), 30_000);
    let told = dir.join(format!("told-{who}"));
    let mut told = OpenOptions::new()
        .create(true)
        .append(true)
        .open(told)
        .unwrap();
    for n in 0.. {
        if let Err(error) = write(&db, who, n) {
            println!("writer {who}: {error}");
            std::process::exit(1);
        }
        told.write_all(&[1]).unwrap();
    }
    unreachable!();
}

fn storm(journal: &str) {
    let house = House::new(journal);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "writer_process", "--nocapture"])
        .args(["--test-threads", "1"])
        .env("TURNSTILE_STORM", &house.dir)
        .process_group(0);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let cried = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}{cried}", output.status);

    let db = Connection::open(&house.db).unwrap();
    let mut commits = 0;
    for who in FIRST + 1..=FIRST + (WRITERS + KILLS) as u32 {
        let told = std::fs::metadata(house.dir.join(format!("told-{who}")));
        let told = told.map_or(0, |m| m.len() as i64);
        let (stored, last): (i64, i64) = db
            .query_row(
                "SELECT count(*), coalesce(max(n), -1) FROM t WHERE who=?",
                [who],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .unwrap();
        // The acknowledgement of the last one may have been cut off.
        assert!(
            (told..=told + 1).contains(&stored) && last == stored - 1,
            "{journal}, writer {who}: {told} acknowledged, {stored} stored, the last is {last}"
        );
        commits += stored;
    }
    let gap: i64 = db
        .query_row(
            "SELECT max(gap) FROM (SELECT at - lag(at) OVER (ORDER BY rowid) AS gap FROM t)",
            [],
            |r| r.get(0),
        )
        .unwrap();
    let stall = gap / 1_000_000;
    println!("{journal}: {KILLS} kills, {commits} commits, longest stall {stall} ms");
    assert!(commits > 1_000, "{journal}: {commits} commits");
    assert!(stall <= 1_000, "{journal}: nobody committed for {stall} ms");
    drop(db);
    house.end(Vec::new());
}

#[test]
fn storm_wal() {
    storm("wal");
}

#[test]
fn storm_delete() {
    storm("delete");
}
