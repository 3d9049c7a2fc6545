//! What is counted: one connection that runs the same small transaction whenever it is told to.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rusqlite::{Connection, OpenFlags};

use crate::command::{Result, WORKLOAD};

pub const JOURNALS: [&str; 3] = ["delete", "truncate", "persist"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// A point SELECT: one row by its primary key, in a read transaction of its own.
    Select,
    /// An INSERT of one row, in a write transaction of its own.
    Insert,
    /// The same on a new connection each time. Afterwards there is no other one.
    OpenInsertClose,
}

impl Statement {
    pub const ALL: [Statement; 3] = [
        Statement::Select,
        Statement::Insert,
        Statement::OpenInsertClose,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Statement::Select => "read",
            Statement::Insert => "write",
            Statement::OpenInsertClose => "open+write+close",
        }
    }
}

/// The process, and how to tell it.
pub struct Workload {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Workload {
    /// Returns when its connection is open.
    pub fn start(vfs: &str, journal: &str, path: &Path) -> Result<Workload> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([WORKLOAD, vfs, journal]).arg(path);
        // Nothing that could make turnstile behave otherwise than by default.
        let ours = |name: &str| name.starts_with("TURNSTILE_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
            command.env_remove(name);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no pipe")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let mut workload = Workload {
            child,
            input,
            output,
        };
        workload.hear()?;
        Ok(workload)
    }

    /// Returns when it is done.
    pub fn transact(&mut self, statement: Statement, times: u32) -> Result<()> {
        writeln!(self.input, "{} {times}", statement.name())?;
        self.hear()
    }

    fn hear(&mut self) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match line.as_str() {
            "done\n" => Ok(()),
            said => Err(format!("the workload says {said:?}").into()),
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the workload in the program of [`Workload::start`].
pub fn run(arguments: &[&str]) -> Result<()> {
    let &[vfs, journal, path] = arguments else {
        return Err(format!("usage: {WORKLOAD} VFS JOURNAL PATH").into());
    };
    if vfs == "turnstile" {
        turnstile::register(turnstile::Options::default())
            .map_err(|error| format!("turnstile::register: {error:?}"))?;
    }
    let path = Path::new(path);
    let mut connection = Some(open(path, vfs, journal)?);
    let first = connection.as_ref().ok_or("it is open")?;
    first.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)")?;
    insert(first)?;
    println!("done");
    for line in std::io::stdin().lines() {
        let line = line?;
        let (statement, times) = line.split_once(' ').ok_or("what?")?;
        for _ in 0..times.parse::<u32>()? {
            match (statement, &connection) {
                ("read", Some(open)) => select(open)?,
                ("write", Some(open)) => insert(open)?,
                ("open+write+close", _) => {
                    connection = None;
                    insert(&open(path, vfs, journal)?)?;
                }
                _ => return Err(format!("no such statement: {statement}").into()),
            }
        }
        println!("done");
    }
    Ok(())
}

fn select(connection: &Connection) -> Result<()> {
    let mut select = connection.prepare_cached("SELECT payload FROM t WHERE id = 1")?;
    select.query([])?.next()?.ok_or("the row is gone")?;
    Ok(())
}

fn insert(connection: &Connection) -> Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO t (payload) VALUES ('a row')")?;
    insert.execute([])?;
    Ok(())
}

/// A connection with everything that bears on the counts said aloud, though most is the default.
fn open(path: &Path, vfs: &str, journal: &str) -> Result<Connection> {
    let vfs = std::ffi::CString::new(vfs)?;
    let flags = OpenFlags::default();
    let connection = Connection::open_with_flags_and_vfs(path, flags, vfs.as_c_str())?;
    connection.execute_batch(
        "PRAGMA page_size = 4096;
         PRAGMA cache_size = 2000;
         PRAGMA mmap_size = 0;
         PRAGMA synchronous = FULL;",
    )?;
    let ask = format!("PRAGMA journal_mode = {journal}");
    let got: String = connection.query_row(&ask, [], |row| row.get(0))?;
    if got != journal {
        return Err(format!("journal_mode = {journal} is refused: {got}").into());
    }
    Ok(connection)
}
