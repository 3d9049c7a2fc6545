//! What is counted: one connection that runs the same small transaction again and again.
//!
//! Nothing here depends on a clock, on chance or on what ran before, and each run has a new database.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::command::{Result, WORKLOAD};

/// How many rows the table has at the start.
pub const ROWS: u32 = 1_000;

#[derive(Clone, Copy)]
pub enum Journal {
    Wal,
    Delete,
}

#[derive(Clone, Copy)]
pub enum Statement {
    /// A point SELECT: one row by its primary key, in a read transaction of its own.
    Select,
    /// An INSERT of one row, in a write transaction of its own.
    Insert,
}

pub struct Workload {
    pub journal: Journal,
    pub statement: Statement,
    /// n: the cost is the difference between 2n of them and n.
    pub transactions: u32,
}

impl Journal {
    fn name(self) -> &'static str {
        match self {
            Journal::Wal => "wal",
            Journal::Delete => "delete",
        }
    }
}

impl Statement {
    fn name(self) -> &'static str {
        match self {
            Statement::Select => "select",
            Statement::Insert => "insert",
        }
    }
}

impl Workload {
    pub fn name(&self) -> String {
        format!("{} {}", self.statement.name(), self.journal.name())
    }

    /// What `count` says about this program running `transactions` of it on a new database.
    pub fn counted<T>(
        &self,
        vfs: &str,
        transactions: u32,
        count: impl FnOnce(&[&str]) -> Result<T>,
    ) -> Result<T> {
        // Nothing is timed, so a disk's slow syncs would only be waited for: in memory if possible.
        let memory = Path::new("/dev/shm");
        let directory = match memory.is_dir() {
            true => tempfile::tempdir_in(memory)?,
            false => tempfile::tempdir()?,
        };
        let program = std::env::current_exe()?;
        count(&[
            text(&program)?,
            WORKLOAD,
            vfs,
            self.journal.name(),
            self.statement.name(),
            &transactions.to_string(),
            text(&directory.path().join("cost.db"))?,
        ])
    }
}

fn text(path: &Path) -> Result<&str> {
    Ok(path.to_str().ok_or("a path that is not UTF-8")?)
}

/// Runs the workload in the program of [`Workload::counted`].
pub fn run(arguments: &[&str]) -> Result<()> {
    let &[vfs, journal, statement, transactions, path] = arguments else {
        return Err(format!("usage: {WORKLOAD} VFS JOURNAL STATEMENT TRANSACTIONS PATH").into());
    };
    let transactions: u32 = transactions.parse()?;
    if vfs == "turnstile" {
        turnstile::register(turnstile::Options::default())
            .map_err(|error| format!("turnstile::register: {error:?}"))?;
    }
    let path = Path::new(path);
    populate(path, journal)?;

    let connection = open(path, vfs)?;
    match statement {
        "select" => {
            let mut select = connection.prepare("SELECT payload FROM t WHERE id = ?")?;
            for i in 0..transactions {
                // 389 is prime: all rows, no two neighbours, ever the same order.
                select.raw_bind_parameter(1, 1 + i * 389 % ROWS)?;
                select.raw_query().next()?.ok_or("the row is gone")?;
            }
        }
        "insert" => {
            let mut insert = connection.prepare(INSERT)?;
            for _ in 0..transactions {
                insert.raw_execute()?;
            }
        }
        _ => return Err(format!("no such statement: {statement}").into()),
    }
    // Left open: the last close checkpoints what the WAL holds by chance of n.
    std::mem::forget(connection);
    Ok(())
}

const INSERT: &str = "INSERT INTO t (payload) VALUES ('a row of about one hundred bytes, \
     which is as good as any other row and fills a page with some forty.')";

/// A table of [`ROWS`] rows, always written by `unix`.
fn populate(path: &Path, journal: &str) -> Result<()> {
    let mut connection = open(path, "unix")?;
    let got: String =
        connection.query_row(&format!("PRAGMA journal_mode = {journal}"), [], |row| {
            row.get(0)
        })?;
    if got != journal {
        return Err(format!(
            "{}: journal_mode = {journal} is refused: {got}",
            path.display()
        )
        .into());
    }
    let transaction = connection.transaction()?;
    transaction.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)",
        [],
    )?;
    for _ in 0..ROWS {
        transaction.execute(INSERT, [])?;
    }
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error.into())
}

/// A connection with everything that bears on the counts said aloud, though most is the default.
fn open(path: &Path, vfs: &str) -> Result<Connection> {
    let vfs = std::ffi::CString::new(vfs)?;
    let connection =
        Connection::open_with_flags_and_vfs(path, OpenFlags::default(), vfs.as_c_str())?;
    connection.execute_batch(
        "PRAGMA page_size = 4096;
         PRAGMA cache_size = 2000;
         PRAGMA mmap_size = 0;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 1000;",
    )?;
    Ok(connection)
}
