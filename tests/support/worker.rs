//! A process that uses SQLite: this test binary again, told what to do line by line.
//!
//! A file that uses it has `#[test] fn worker_process() { worker::serve() }`. Its process is not the
//! test's, because the test's own process serves the file system and must not wait for itself.
//!
//! `TURNSTILE_TEST_VFS=unix` runs the promises on the stock VFS instead, to see that they are not kept there.
#![allow(dead_code)]

#[path = "worker/process.rs"]
pub mod process;

use crate::support::encoded;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The process's side. Returns at once in the test's own process.
pub fn serve() {
    process::serve(|| {});
}

/// The same, with something to be done before the first connection.
pub fn serve_with(prepare: fn()) {
    process::serve(prepare);
}

/// Longer than anything takes that ends.
pub const LONG: Duration = Duration::from_secs(120);

pub const STOCK: &str = "unix";

/// The VFS that is to keep the promises.
pub fn tested() -> String {
    std::env::var("TURNSTILE_TEST_VFS").unwrap_or_else(|_| "turnstile".to_owned())
}

/// An error of SQLite's: the extended code and its text. 0 is the worker's death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: i32,
    pub text: String,
}

impl Failure {
    /// The code without what extends it.
    pub fn primary(&self) -> i32 {
        self.code & 0xFF
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {} {}", self.code, self.text)
    }
}

/// Rows are lines, and their columns are parted by `|`.
pub type Answer = Result<String, Failure>;

pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: Receiver<Answer>,
}

impl Worker {
    pub fn new() -> Worker {
        Worker::with(|_| {})
    }

    /// One whose process is `change`d before it starts.
    pub fn with(change: impl FnOnce(&mut Command)) -> Worker {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command
            .args(["--exact", "worker_process", "--nocapture"])
            .args(["--test-threads", "1"])
            .env("TURNSTILE_WORKER", "yes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().expect("this test again");
        let (sender, output) = channel();
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if let Some(answer) = line.strip_prefix('>') {
                    let _ = sender.send(parse(answer));
                }
            }
        });
        let input = child.stdin.take().expect("a pipe");
        Worker {
            child,
            input,
            output,
        }
    }

    /// One that has a database open, with a timeout of 10 s.
    #[track_caller]
    pub fn at(db: &Path, vfs: &str, options: &str) -> Worker {
        let mut worker = Worker::new();
        if let Err(error) = worker.open(db, vfs, options) {
            panic!("{}: {error}", db.display());
        }
        worker
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Begins something, and does not wait for the answer.
    pub fn tell(&mut self, command: &str) {
        // One that was killed does not listen any more.
        let _ = writeln!(self.input, "{}", command.replace('\n', " "));
    }

    /// The next answer, if it comes in that time.
    pub fn answer(&mut self, time: Duration) -> Option<Answer> {
        match self.output.recv_timeout(time) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(Failure {
                code: 0,
                text: format!("it died: {:?}", self.child.wait()),
            })),
        }
    }

    /// The next answer.
    pub fn hear(&mut self) -> Answer {
        let answer = self.answer(LONG);
        answer.unwrap_or_else(|| panic!("worker {} hangs", self.id()))
    }

    pub fn ask(&mut self, command: &str) -> Answer {
        self.tell(command);
        self.hear()
    }

    /// Opens a database in place of the one that is open. `options` are of the URI: `retry_ms=50&mode=ro`.
    pub fn open(&mut self, db: &Path, vfs: &str, options: &str) -> Answer {
        self.ask(&opening(db, vfs, options))
    }

    /// Runs statements; the rows of all of them.
    pub fn sql(&mut self, sql: &str) -> Answer {
        self.ask(&format!("sql {sql}"))
    }

    /// The same for what must go well.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> String {
        match self.sql(sql) {
            Ok(rows) => rows,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// What `sqlite3_log` was told since it was asked last.
    pub fn log(&mut self) -> String {
        self.ask("log").expect("a log")
    }

    /// Kills it. Returns when it is dead.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The command that opens a database.
pub fn opening(db: &Path, vfs: &str, options: &str) -> String {
    format!("open file:{}?vfs={vfs}&{options}", encoded(db))
}

fn parse(answer: &str) -> Answer {
    let text = |text: &str| text.replace('\u{1e}', "\n");
    let (kind, rest) = answer.split_once(' ').unwrap_or((answer, ""));
    if kind == "ok" {
        return Ok(text(rest));
    }
    let (code, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    Err(Failure {
        code: code.parse().expect("a code"),
        text: text(rest),
    })
}
