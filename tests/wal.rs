//! A WAL that is there is not opened as a new one: a process syncs its directory once, not for each connection, but
//! again if it is another WAL; and root gives it to the database's owner only if it is not his.
#![cfg(all(feature = "linked", feature = "inject"))]

mod support;
#[path = "support/writers.rs"]
mod writers;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use writers::{House, Writer, within};

#[test]
fn writer_process() {
    writers::serve();
}

/// In memory files have handles on every machine; in the other one inodes are used again at once.
const PLACES: [&str; 2] = ["/dev/shm", "/var/tmp"];

const WRITES: usize = 10;

/// A look at the system calls of a process.
struct Trace(Child, tempfile::NamedTempFile);

impl Trace {
    fn of(writer: &Writer) -> Trace {
        let out = tempfile::NamedTempFile::new().unwrap();
        let strace = Command::new("strace")
            .args(["-f", "-q", "-y", "-o"])
            .arg(out.path())
            .args(["-e", "trace=fsync,fdatasync,fchown"])
            .args(["-p", &writer.pid().to_string()])
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", writer.pid());
        let is_traced = || {
            let status = std::fs::read_to_string(&status).unwrap();
            !status.contains("TracerPid:\t0\n")
        };
        assert!(within(5_000, is_traced), "strace does not come");
        Trace(strace, out)
    }

    fn end(mut self) -> String {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT).unwrap();
        self.0.wait().unwrap();
        std::fs::read_to_string(&self.1).unwrap()
    }
}

fn wal(house: &House) -> PathBuf {
    house.dir.join("a.db-wal")
}

/// What a process calls that writes so often, each time on a connection of its own: how often it syncs the directory, and
/// the WAL, and gives the WAL away. Somebody else has the database open: all the time, or each time another WAL.
fn calls(place: &str, stays: bool) -> [usize; 3] {
    let dir = tempfile::tempdir_in(place).unwrap();
    let house = House::at(dir.path(), "wal");
    let mut others = vec![house.writer()];
    let mut writer = house.writer();
    writer.ask("close", "fine");
    let trace = Trace::of(&writer);
    for round in 0..WRITES {
        writer.ask("later", "done");
        if !stays {
            // The last one to close removes the WAL.
            others[round].ask("close", "fine");
            others.push(house.writer());
        }
    }
    let trace = trace.end();
    others.push(writer);
    let count = |call: &str, path: &Path| {
        let path = format!("<{}>", path.display());
        let is_one = |line: &&str| line.contains(call) && line.contains(&path);
        trace.lines().filter(is_one).count()
    };
    let wal = wal(&house);
    let counts = [
        count("sync(", &house.dir),
        count("sync(", &wal),
        count("fchown(", &wal),
    ];
    house.end(others);
    counts
}

#[test]
fn the_directory_is_synced_once() {
    if support::has_program("the_directory_is_synced_once", "strace", "strace") {
        let [directory, wal, given] = calls(PLACES[0], true);
        assert!(
            directory == 1 && wal >= WRITES && given == 0,
            "{directory}, {wal}, {given}"
        );
    }
}

#[test]
fn the_directory_of_another_wal_is_synced_again() {
    if support::has_program(
        "the_directory_of_another_wal_is_synced_again",
        "strace",
        "strace",
    ) {
        for place in PLACES {
            let [directory, wal, _] = calls(place, false);
            assert!(
                directory == WRITES && wal >= WRITES,
                "{place}: {directory}, {wal}"
            );
        }
    }
}

#[test]
fn root_gives_a_wal_to_the_owner() {
    if !support::is_root("root_gives_a_wal_to_the_owner") {
        return;
    }
    let house = House::new("wal");
    let mut all = house.writers(2);
    for owner in [0, 65_534] {
        chown(&house.db, Some(owner), Some(owner)).unwrap();
        all[1].ask("later", "done");
        assert_eq!(wal(&house).metadata().unwrap().uid(), owner);
    }
    house.end(all);
}
