//! A process that works on a node: this test binary again, with commands on its standard input.
//!
//! Each answer is a line that begins with `>`: the test harness says something as well.

use super::work::{SETTINGS, Transaction, digest, run, transactions};
use crate::support::encoded;
use rusqlite::{Connection, OpenFlags};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const SERVES: &str = "TURNSTILE_SWEEP_WORKER";

/// What the process is to do: fields between tabs.
pub struct Order<'a> {
    /// `work`, `look` or `look and write`.
    pub verb: &'a str,
    pub vfs: &'a str,
    /// Of the URI, from an ampersand on.
    pub parameters: &'a str,
    pub journal: &'a str,
    pub sync: &'a str,
    pub seed: u64,
    pub path: &'a Path,
}

impl Order<'_> {
    fn line(&self) -> String {
        let Order {
            verb,
            vfs,
            parameters,
            journal,
            sync,
            seed,
            path,
        } = self;
        let path = encoded(path);
        format!("{verb}\t{vfs}\t{parameters}\t{journal}\t{sync}\t{seed}\t{path}")
    }

    fn parse(line: &str) -> Order<'_> {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[verb, vfs, parameters, journal, sync, seed, path] = &fields[..] else {
            panic!("{line}");
        };
        Order {
            verb,
            vfs,
            parameters,
            journal,
            sync,
            seed: seed.parse().expect("a seed"),
            // As it is in the URI.
            path: Path::new(path),
        }
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let Order {
            vfs,
            parameters,
            path,
            ..
        } = self;
        // The path is resolved before the URI's parameters are known.
        let retry = parameters.strip_prefix("&retry_ms=");
        // SAFETY: this process has no other thread.
        unsafe {
            match retry {
                Some(retry) => std::env::set_var("TURNSTILE_RETRY_MS", retry),
                None => std::env::remove_var("TURNSTILE_RETRY_MS"),
            }
        }
        let uri = format!("file:{}?vfs={vfs}{parameters}", path.display());
        let db = Connection::open_with_flags(uri, OpenFlags::default())?;
        db.busy_timeout(Duration::from_secs(2))?;
        Ok(db)
    }
}

/// The process's side: what `#[test] fn worker_process` does. Returns at once in the test's own process.
pub fn serve() {
    if std::env::var_os(SERVES).is_none() {
        return;
    }
    turnstile::register(turnstile::Options::default()).expect("a VFS");
    for line in std::io::stdin().lines() {
        let line = line.expect("a command");
        let order = Order::parse(&line);
        match order.verb {
            "work" => work(&order),
            "look" | "look and write" => match look(&order) {
                Ok(found) => say(&found),
                Err(e) => say(&format!("error {}", text(&e))),
            },
            verb => panic!("{verb}"),
        }
    }
    std::process::exit(0);
}

fn text(error: &rusqlite::Error) -> String {
    let code = error.sqlite_error().map_or(0, |e| e.extended_code);
    format!("{error} ({code})").replace(['\n', '\t'], " ")
}

/// Works until the first error. Says `commit` after each commit, `saw` and a digest of what a second
/// connection reads, and in the end `done`, or `failed` and where, when all is closed.
fn work(order: &Order) {
    let step = Cell::new("open");
    let mut connections = Vec::new();
    let result = steps(order, &step, &mut connections);
    for db in &connections {
        if !db.is_autocommit() {
            let _ = run(db, "ROLLBACK");
        }
    }
    drop(connections);
    match result {
        Ok(()) => say("done"),
        Err(e) => say(&format!("failed\t{}\t{}", step.get(), text(&e))),
    }
}

fn steps(
    order: &Order,
    step: &Cell<&'static str>,
    connections: &mut Vec<Connection>,
) -> rusqlite::Result<()> {
    let open = |connections: &mut Vec<Connection>| -> rusqlite::Result<()> {
        step.set("open");
        let db = order.open()?;
        connections.push(db);
        let db = connections.last().expect("just opened");
        step.set("settings");
        db.execute_batch(SETTINGS)?;
        run(db, &format!("PRAGMA synchronous={}", order.sync))?;
        let ask = format!("PRAGMA journal_mode={}", order.journal);
        let journal: String = db.query_row(&ask, [], |r| r.get(0))?;
        assert_eq!(journal, order.journal);
        Ok(())
    };
    open(connections)?;
    let transactions = transactions(order.seed);
    let last = transactions.len() - 1;
    for (at, transaction) in transactions.iter().enumerate() {
        transact(&connections[0], transaction, step)?;
        if at == 0 {
            open(connections)?;
        }
        // Its cache is filled once, and is old news in the end.
        if at == 0 || at == last {
            step.set("read");
            say(&format!("saw {}", digest(&connections[1])?));
        }
    }
    Ok(())
}

fn transact(
    db: &Connection,
    transaction: &Transaction,
    step: &Cell<&'static str>,
) -> rusqlite::Result<()> {
    step.set("statement");
    for sql in &transaction.sql {
        run(db, sql)?;
    }
    if transaction.commits {
        step.set("commit");
        run(db, "COMMIT")?;
        say("commit");
    } else {
        step.set("rollback");
        run(db, "ROLLBACK")?;
    }
    Ok(())
}

/// What the database contains, and whether it is intact. Nobody may have left a lock behind: it can be
/// written, too.
fn look(order: &Order) -> rusqlite::Result<String> {
    let db = order.open()?;
    let check: String = db.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0))?;
    if check != "ok" {
        return Ok(format!("broken {}", check.replace('\n', " ")));
    }
    let found = digest(&db)?;
    if order.verb == "look and write" {
        db.execute_batch("CREATE TABLE after(x); INSERT INTO after VALUES(1)")?;
    }
    Ok(format!("found {found}"))
}

/// One line to the parent, in one write.
fn say(what: &str) {
    let line = format!("\n>{what}\n");
    let mut output = std::io::stdout().lock();
    let written = output.write_all(line.as_bytes());
    written.and_then(|()| output.flush()).expect("a parent");
}

/// The parent's side.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Worker {
    pub fn new() -> Worker {
        let mut child = Command::new(std::env::current_exe().expect("the test's path"))
            .args(["--exact", "worker_process", "--nocapture"])
            .args(["--test-threads", "1"])
            .env(SERVES, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test again");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(what) = line.strip_prefix('>') {
                    let _ = sender.send(what.to_owned());
                }
            }
        });
        let input = child.stdin.take().expect("a pipe");
        Worker {
            child,
            input,
            lines,
        }
    }

    pub fn tell(&mut self, order: &Order) {
        // One that is dead does not hear; it will not answer either.
        let _ = writeln!(self.input, "{}", order.line());
    }

    /// What it says next, until `end`.
    pub fn hear(&mut self, end: Instant) -> Result<String, &'static str> {
        let left = end.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).map_err(|e| match e {
            RecvTimeoutError::Timeout => "hangs",
            RecvTimeoutError::Disconnected => "died",
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
