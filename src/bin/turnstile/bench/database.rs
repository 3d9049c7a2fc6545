//! The database of a round, and the one write that is measured on it.
//!
//! A row says which write of which writer it is, so that afterwards each acknowledged commit can
//! be looked for. The table has no index: one more row is one more record on the last page, the
//! cheapest write there is, and what is measured is the waiting.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Result};

use super::arguments::{Journal, Sync};
use super::messages::Orders;
use crate::Failure;

/// Both sides of a comparison are created and read back by the same, stock, VFS.
pub const STOCK: &str = "unix";

/// Makes the database file, in its journal mode, and leaves nobody holding it open.
pub fn create(path: &Path, journal: Journal) -> Result<(), Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags_and_vfs(path, flags, STOCK)?;
    let mode = set_journal(&connection, journal)?;
    if !mode.eq_ignore_ascii_case(&journal.to_string()) {
        return Err(format!("journal mode {journal} is refused, it stays in {mode}").into());
    }
    create_table(&connection)?;
    connection.close().map_err(|(_, e)| e)?;
    Ok(())
}

/// The database for reading back, by the stock VFS.
pub fn read_back(path: &Path) -> Result<Connection> {
    // Read-write: a journal that a killed writer left is to be rolled back.
    Connection::open_with_flags_and_vfs(path, OpenFlags::SQLITE_OPEN_READ_WRITE, STOCK)
}

/// A writer's connection.
pub fn open(orders: &Orders) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags_and_vfs(&orders.database, flags, orders.vfs.as_str())?;
    connection.busy_timeout(Duration::from_millis(orders.timeout_ms.into()))?;
    // FULL is what a connection starts with, WAL is kept in the file, DELETE is the default.
    if orders.sync != Sync::Full {
        connection.pragma_update(None, "synchronous", orders.sync.to_string())?;
    }
    if matches!(orders.journal, Journal::Truncate | Journal::Persist) {
        set_journal(&connection, orders.journal)?;
    }
    Ok(connection)
}

/// A connection that stands in no transaction, but that SQLite counts as one that uses the
/// database: it has read from it.
pub fn open_idle(orders: &Orders) -> Result<Connection> {
    let connection = open(orders)?;
    connection.query_row("SELECT count(*) FROM writes", (), |_| Ok(()))?;
    Ok(connection)
}

/// An empty database in memory that takes [`insert`]s.
pub fn in_memory(vfs: &str) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags_and_vfs(":memory:", flags, vfs)?;
    create_table(&connection)?;
    Ok(connection)
}

/// The measured transaction. On an error nothing of it stays open.
pub fn insert(connection: &Connection, writer: u32, attempt: u64) -> Result<()> {
    let outcome = transaction(connection, writer, attempt);
    if outcome.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    outcome
}

fn transaction(connection: &Connection, writer: u32, attempt: u64) -> Result<()> {
    connection.prepare_cached("BEGIN")?.execute(())?;
    connection
        .prepare_cached("INSERT INTO writes (writer, attempt) VALUES (?1, ?2)")?
        .execute((writer, attempt as i64))?;
    connection.prepare_cached("COMMIT")?.execute(())?;
    Ok(())
}

fn create_table(connection: &Connection) -> Result<()> {
    connection
        .execute_batch("CREATE TABLE writes (writer INTEGER NOT NULL, attempt INTEGER NOT NULL)")
}

fn set_journal(connection: &Connection, journal: Journal) -> Result<String> {
    connection.query_row(&format!("PRAGMA journal_mode={journal}"), (), |row| {
        row.get(0)
    })
}
