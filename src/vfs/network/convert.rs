//! A WAL database becomes a rollback database.
//!
//! A WAL needs an index in memory that all share, and no two machines share any. Where a database already is in WAL mode
//! it can be had by one connection alone, with the index on its heap (`locking_mode=EXCLUSIVE`); that is
//! how it is turned back, by SQLite itself in a connection of our own, before the connection that wants it sees it. SQLite's
//! EXCLUSIVE lock says whether anybody else has it open: whoever uses a WAL holds SHARED all the time. Killed at any
//! point, it is a WAL database with its WAL, or a rollback database, perhaps with a hot journal.

use super::{Network, paths};
use crate::Options;
use crate::durable::transient::Call;
use crate::filesystem::Ground;
use crate::sqlite::abi::*;
use crate::text::PathEnd;
use nix::errno::Errno;
use std::cell::Cell;
use std::ffi::{CStr, c_int};

/// How long we wait for another who is at the same work, in milliseconds.
const PATIENCE_MS: c_int = 5_000;

const CONVERT: &CStr =
    c"PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL; PRAGMA journal_mode=DELETE";

thread_local! {
    /// The options of the connection for which this thread converts a database.
    static CONVERTING: Cell<Option<Options>> = const { Cell::new(None) };
}

/// The options of the connection of our own that is being opened, if it is.
pub fn options() -> Option<Options> {
    CONVERTING.get()
}

/// Turns the database into a rollback database if it is in WAL mode. `flags`: how it is open.
pub fn if_wal(
    network: &Network,
    options: &Options,
    ground: &Ground,
    flags: c_int,
) -> Result<(), c_int> {
    if CONVERTING.get().is_some() || !is_wal(network)? {
        return Ok(());
    }
    let (shim, path) = (network.shim, network.path);
    let say = |code, what: &str| {
        let path = PathEnd(path);
        shim.log(
            code,
            format_args!("{path} is in WAL mode, and {ground}; {what}"),
        );
        code
    };
    if flags & SQLITE_OPEN_READONLY != 0 {
        let what = "it is open for reading only: open it once for writing, that turns it into a rollback database";
        return Err(say(SQLITE_CANTOPEN, what));
    }
    CONVERTING.set(Some(*options));
    let vfs = crate::vfs::NAME;
    let code = shim.sqlite.execute_once(path, vfs, PATIENCE_MS, CONVERT);
    CONVERTING.set(None);
    let still = is_wal(network)?;
    match code & 0xff {
        SQLITE_OK if !still => {
            say(SQLITE_NOTICE, "it was turned into a rollback database");
            Ok(())
        }
        // Another was faster.
        _ if !still => Ok(()),
        SQLITE_OK | SQLITE_BUSY | SQLITE_LOCKED => Err(say(
            SQLITE_BUSY,
            "another connection has it open: close all, then open it once",
        )),
        _ => Err(say(code, "it could not be turned into a rollback database")),
    }
}

/// Whether the database's header says so, or there is a WAL.
fn is_wal(network: &Network) -> Result<bool, c_int> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut header = [0; 20];
    match network.read(&mut header, 0) {
        SQLITE_OK => {}
        SQLITE_IOERR_SHORT_READ => return Ok(false),
        code => return Err(code),
    }
    if !header.starts_with(MAGIC) {
        return Ok(false);
    }
    // Write and read version: 2 is WAL.
    if header[18] == 2 || header[19] == 2 {
        return Ok(true);
    }
    let size = network.look(Call::Look, || {
        paths::of_wal(network.path, nix::sys::stat::stat)
    });
    match size {
        Ok(wal) => Ok(wal.st_size > 0),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => {
            Errno::set(errno);
            Err(SQLITE_IOERR_ACCESS)
        }
    }
}
