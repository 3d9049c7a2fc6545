//! Writers that can be killed: this test binary again, as a process of its own that takes commands
//! on its standard input, and the house that they share.
//!
//! A file that uses it has `#[test] fn writer_process() { writers::serve() }`.
#![allow(dead_code)]

#[path = "writers/process.rs"]
mod process;
pub use process::serve;

use nix::time::{ClockId, clock_gettime};
use rusqlite::{Connection, OpenFlags};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Others go on after a fault: promised are 100 ms, the rest is for the machine that tests.
pub const SOON: u64 = 300;
/// The same after a stop: promised is 1 s.
pub const STOPPED_SOON: u64 = 1_500;

pub const JOURNALS: [&str; 2] = ["wal", "delete"];

const FOREVER: Duration = Duration::from_secs(30);

/// Nanoseconds of CLOCK_MONOTONIC, which all processes share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(time).as_nanos() as u64
}

pub fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Waits until `done`, and says whether it came true in that time.
pub fn within(ms: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_millis(ms);
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        sleep_ms(1);
    }
}

pub fn connect(db: &Path, timeout_ms: u64) -> Connection {
    let connection = open(db, timeout_ms);
    // What a kill of a process can lose has nothing to do with the disk.
    let quick = "PRAGMA synchronous=OFF";
    connection.execute_batch(quick).unwrap();
    connection
}

/// SQLite has not read anything yet.
pub fn open(db: &Path, timeout_ms: u64) -> Connection {
    let flags = OpenFlags::default();
    let connection = Connection::open_with_flags_and_vfs(db, flags, "turnstile").unwrap();
    let timeout = Duration::from_millis(timeout_ms);
    connection.busy_timeout(timeout).unwrap();
    connection
}

/// One transaction, stamped while the lock is held.
pub fn write(db: &Connection, who: u32, n: u32) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let result = insert(db, who, n).and_then(|()| db.execute_batch("COMMIT"));
    if result.is_err() && !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    result
}

pub fn insert(db: &Connection, who: u32, n: u32) -> rusqlite::Result<()> {
    let row = (who, n, now() as i64);
    db.prepare_cached("INSERT INTO t VALUES(?, ?, ?)")?
        .execute(row)
        .map(drop)
}

/// The parent's side of a process.
pub struct Writer {
    pub who: u32,
    pub child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<(u64, String)>,
    /// Commits that it told of.
    pub acknowledged: u32,
    status: Option<ExitStatus>,
}

impl Writer {
    pub fn spawn(command: &mut Command, who: u32) -> Writer {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((at, what)) = line.strip_prefix('>').and_then(|l| l.split_once(' ')) {
                    let _ = sender.send((at.parse().unwrap(), what.to_owned()));
                }
            }
        });
        let input = child.stdin.take();
        Writer {
            who,
            child,
            input,
            lines,
            acknowledged: 0,
            status: None,
        }
    }

    pub fn send(&mut self, command: &str) {
        // One that was killed does not read any more.
        let _ = writeln!(self.input.as_mut().unwrap(), "{command}");
    }

    /// What it says next, and when it said so; `None` if it is dead, or says nothing for long.
    pub fn hear(&mut self) -> Option<(u64, String)> {
        match self.lines.recv_timeout(FOREVER) {
            Ok((at, what)) => {
                self.acknowledged += match what.strip_prefix("stored ") {
                    Some(count) => count.parse().unwrap(),
                    None => u32::from(what == "done"),
                };
                Some((at, what))
            }
            Err(RecvTimeoutError::Timeout) => panic!("writer {} hangs", self.who),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// When it said `what`, which is to be the next that it says.
    pub fn expect(&mut self, what: &str) -> u64 {
        let who = self.who;
        let (at, said) = self
            .hear()
            .unwrap_or_else(|| panic!("writer {who} is dead"));
        assert_eq!(said, what, "writer {who}");
        at
    }

    pub fn ask(&mut self, command: &str, answer: &str) -> u64 {
        self.send(command);
        self.expect(answer)
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: our child, which was not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Stops it. Then no thread of it runs any more: one that runs while another one takes the signal might come to its turn
    /// meanwhile, and be stopped with SQLite's lock in hand.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        // SAFETY: fills the structure.
        let waited = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_PID,
                self.pid() as u32,
                &mut info,
                libc::WSTOPPED | libc::WNOWAIT,
            )
        };
        assert_eq!(waited, 0);
    }

    /// Kills it and leaves it a zombie: nobody has asked for its status yet.
    pub fn kill(&mut self) -> u64 {
        let at = now();
        self.signal(libc::SIGKILL);
        at
    }

    /// Takes a dead one's status.
    pub fn reap(&mut self) {
        self.status = Some(self.child.wait().unwrap());
        while self.hear().is_some() {}
    }

    /// Whether it is dead, without taking its status.
    pub fn is_dead(&self) -> bool {
        // SAFETY: fills the structure.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.pid() as u32, &mut info, flags);
            info.si_pid() != 0
        }
    }

    /// The end of one that is well: it closes its connection and exits.
    fn end(&mut self) {
        self.input = None;
        let status = self.status.unwrap_or_else(|| self.child.wait().unwrap());
        self.status = Some(status);
        while self.hear().is_some() {}
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A database, and who writes it.
pub struct House {
    pub dir: PathBuf,
    pub db: PathBuf,
    /// Who may be found killed.
    pub victims: Vec<u32>,
    next: std::cell::Cell<u32>,
    _temporary: Option<tempfile::TempDir>,
}

impl House {
    pub fn new(journal: &str) -> House {
        let temporary = tempfile::tempdir().unwrap();
        let mut house = House::at(temporary.path(), journal);
        house._temporary = Some(temporary);
        house
    }

    pub fn at(dir: &Path, journal: &str) -> House {
        let db = dir.join("a.db");
        let stock = Connection::open(&db).unwrap();
        stock
            .query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(()))
            .unwrap();
        stock.execute_batch("CREATE TABLE t(who, n, at)").unwrap();
        House {
            dir: dir.to_owned(),
            db,
            victims: Vec::new(),
            next: 0.into(),
            _temporary: None,
        }
    }

    pub fn sidecar(&self) -> PathBuf {
        self.dir.join("a.db-turnstile")
    }

    /// How many stand in the line; 0 if there is none.
    pub fn standing(&self) -> u32 {
        self.word(8) as u32
    }

    /// Whether somebody waits for the end of a commit, out of the line.
    pub fn is_gate_armed(&self) -> bool {
        self.word(40) >> 63 != 0
    }

    /// A word of the sidecar; 0 if there is none.
    fn word(&self, index: u64) -> u64 {
        let mut word = [0; 8];
        let path = self.sidecar();
        // A directory or a link that leads nowhere may be there.
        let read = std::fs::File::open(path).and_then(|f| f.read_exact_at(&mut word, index * 8));
        read.map_or(0, |()| u64::from_le_bytes(word))
    }

    pub fn writer(&self) -> Writer {
        self.writer_with(20_000, |_| {})
    }

    pub fn writer_with(&self, timeout: u64, change: impl FnOnce(&mut Command)) -> Writer {
        let mut writer = self.starting(timeout, change);
        writer.expect("ready");
        writer
    }

    /// One that will be killed at `point`.
    pub fn doomed(&mut self, timeout: u64, point: &str) -> Writer {
        let writer = self.writer_with(timeout, |c| {
            c.env("TURNSTILE_WRITER_KILL", point);
        });
        self.victims.push(writer.who);
        writer
    }

    fn starting(&self, timeout: u64, change: impl FnOnce(&mut Command)) -> Writer {
        let who = self.next.get();
        self.next.set(who + 1);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "writer_process", "--nocapture"])
            .args(["--test-threads", "1"])
            .env("TURNSTILE_WRITER_WHO", who.to_string())
            .env("TURNSTILE_WRITER_DB", &self.db)
            .env("TURNSTILE_WRITER_TIMEOUT", timeout.to_string());
        change(&mut command);
        Writer::spawn(&mut command, who)
    }

    /// Python's SQLite (before 3.41, nobody can ask it for an interrupt: its waiters look up rarely).
    pub fn python(&self, extension: &Path, kill: &str) -> Writer {
        let who = self.next.get();
        self.next.set(who + 1);
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-c", include_str!("writers/writer.py")])
            .args([extension, &self.db])
            .arg(who.to_string())
            .env("TURNSTILE_INJECT_KILL", kill);
        let mut writer = Writer::spawn(&mut command, who);
        writer.expect("ready");
        writer
    }

    pub fn writers(&self, count: usize) -> Vec<Writer> {
        let mut writers: Vec<Writer> = (0..count).map(|_| self.starting(20_000, |_| {})).collect();
        for writer in &mut writers {
            writer.expect("ready");
        }
        writers
    }

    /// The first of `writers` holds the lock, and the others queue behind it, in their order.
    pub fn line_up(&self, writers: &mut [Writer]) {
        writers[0].ask("hold IMMEDIATE", "fine");
        for waiter in &mut writers[1..] {
            self.queue(waiter);
        }
    }

    /// So many new writers that are lined up like that.
    pub fn lined_up(&self, count: usize) -> Vec<Writer> {
        let mut writers = self.writers(count);
        self.line_up(&mut writers);
        writers
    }

    /// Lets `writer` write, and waits until it stands in the line.
    pub fn queue(&self, writer: &mut Writer) {
        assert!(
            self.try_queue(writer, 5_000),
            "{} does not wait",
            writer.who
        );
    }

    /// The same, for one that may fall, or for a line that may be out of order.
    pub fn try_queue(&self, writer: &mut Writer, ms: u64) -> bool {
        let before = self.standing();
        writer.send("write");
        within(ms, || self.standing() > before || writer.is_dead())
    }

    /// Checks that all is well in the end: nobody crashed, no acknowledged commit is missing, and the
    /// line is in order.
    pub fn end(&self, mut writers: Vec<Writer>) {
        for writer in &mut writers {
            writer.end();
            let status = writer.status.unwrap();
            if self.victims.contains(&writer.who) {
                let killed = status.signal() == Some(libc::SIGKILL);
                assert!(killed, "victim {}: {status}", writer.who);
            } else {
                assert_eq!(status.code(), Some(0), "writer {}: {status}", writer.who);
            }
        }
        let fifo = self.fifo_run();
        let db = Connection::open(&self.db).unwrap();
        db.busy_timeout(FOREVER).unwrap();
        for writer in writers.iter().chain(&fifo) {
            let stored: u32 = db
                .query_row("SELECT count(*) FROM t WHERE who=?", [writer.who], |r| {
                    r.get(0)
                })
                .unwrap();
            // What a victim has stored, it may not have had the time to tell.
            let acknowledged = writer.acknowledged;
            let may_have_more = self.victims.contains(&writer.who);
            assert!(
                stored == acknowledged || stored > acknowledged && may_have_more,
                "writer {}: {acknowledged} acknowledged, {stored} stored",
                writer.who
            );
        }
        let check: String = db
            .query_row("PRAGMA integrity_check", [], |r| r.get(0))
            .unwrap();
        assert_eq!(check, "ok");
    }

    /// Who wrote the last `count` rows, in their order.
    pub fn last(&self, count: u32) -> Vec<u32> {
        let db = Connection::open(&self.db).unwrap();
        let last = "SELECT who FROM t WHERE rowid > (SELECT max(rowid) FROM t) - ? ORDER BY rowid";
        let mut query = db.prepare(last).unwrap();
        let rows = query.query_map([count], |r| r.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// New writers are served in the order in which they came.
    pub fn fifo_run(&self) -> Vec<Writer> {
        // Whoever was left in the line is passed over.
        let mut writers = self.lined_up(4);
        writers[0].ask("commit", "done");
        let order: Vec<u64> = writers[1..].iter_mut().map(|w| w.expect("done")).collect();
        let last = self.last(4);
        let came: Vec<u32> = writers.iter().map(|w| w.who).collect();
        assert_eq!(last, came, "not served in order; {order:?}");
        for writer in &mut writers {
            writer.end();
        }
        writers
    }
}

/// From `start` on, and until each of `writers` has told of its commit, somebody commits at least every
/// `limit` milliseconds.
pub fn go_on(what: &str, start: u64, writers: &mut [Writer], limit: u64) {
    let mut times: Vec<u64> = writers.iter_mut().map(|w| w.expect("done")).collect();
    times.push(start);
    times.sort_unstable();
    let gaps: Vec<u64> = times
        .windows(2)
        .map(|t| (t[1] - t[0]) / 1_000_000)
        .collect();
    assert!(
        gaps.iter().all(|&gap| gap <= limit),
        "{what}: nobody committed for {gaps:?} ms"
    );
}
