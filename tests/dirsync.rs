//! A process syncs the directory of a WAL once, not for each connection; but again if it is another WAL.
#![cfg(all(feature = "linked", feature = "inject"))]

mod support;
#[path = "support/writers.rs"]
mod writers;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command};
use writers::{House, Writer, within};

#[test]
fn writer_process() {
    writers::serve();
}

/// In memory files have handles on every machine; in the other one inodes are used again at once.
const PLACES: [&str; 2] = ["/dev/shm", "/var/tmp"];

/// A look at the syncs of a process.
struct Trace(Child, tempfile::NamedTempFile);

impl Trace {
    fn of(writer: &Writer) -> Trace {
        let out = tempfile::NamedTempFile::new().unwrap();
        let strace = Command::new("strace")
            .args(["-f", "-q", "-y", "-e", "trace=fsync,fdatasync", "-o"])
            .arg(out.path())
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

    /// How often each of `paths` was synced.
    fn end(mut self, paths: [&Path; 2]) -> [usize; 2] {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT).unwrap();
        self.0.wait().unwrap();
        let text = std::fs::read_to_string(&self.1).unwrap();
        paths.map(|path| text.matches(&format!("<{}>", path.display())).count())
    }
}

/// How often the directory and the WAL are synced by a process that writes ten times, each time on a connection of
/// its own. Somebody else has the database open: all the time, or each time another WAL.
fn syncs(place: &str, stays: bool) -> [usize; 2] {
    let dir = tempfile::tempdir_in(place).unwrap();
    let house = House::at(dir.path(), "wal");
    let mut others = vec![house.writer()];
    let mut writer = house.writer();
    writer.ask("close", "fine");
    let trace = Trace::of(&writer);
    for round in 0..10 {
        writer.ask("later", "done");
        if !stays {
            // The last one to close removes the WAL.
            others[round].ask("close", "fine");
            others.push(house.writer());
        }
    }
    let wal = house.dir.join("a.db-wal");
    let syncs = trace.end([&house.dir, &wal]);
    others.push(writer);
    house.end(others);
    syncs
}

#[test]
fn the_directory_is_synced_once() {
    if support::has_program("the_directory_is_synced_once", "strace", "strace") {
        let [directory, wal] = syncs(PLACES[0], true);
        assert!(directory == 1 && wal >= 10, "{directory}, {wal}");
    }
}

#[test]
fn the_directory_of_another_wal_is_synced_again() {
    if support::has_program("the_directory_of_another_wal", "strace", "strace") {
        for place in PLACES {
            let [directory, wal] = syncs(place, false);
            assert!(directory == 10 && wal >= 10, "{place}: {directory}, {wal}");
        }
    }
}
