//! A WAL database becomes a rollback database.
//!
//! A WAL needs an index in memory that all share, and no two machines share any. Where a database already is in WAL mode
//! it can be had by one connection alone, with the index on its heap (`locking_mode=EXCLUSIVE`); that is
//! how it is turned back, by SQLite itself in a connection of our own, when the connection that wants it first locks it. SQLite's
//! EXCLUSIVE lock says whether anybody else has it open: whoever uses a WAL holds SHARED all the time. Killed at any
//! point, it is a WAL database with its WAL, or a rollback database, perhaps with a hot journal.

use super::{Network, open, paths};
use crate::Options;
use crate::durable::transient::Call;
use crate::filesystem::{Ground, Locks};
use crate::sqlite::abi::*;
use crate::text::{PathEnd, Text};
use crate::vfs::memory::try_box;
use nix::errno::Errno;
use nix::sys::uio::pread;
use std::cell::Cell;
use std::ffi::{CStr, c_int};

const CONVERT: &CStr =
    c"PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL; PRAGMA journal_mode=DELETE";

thread_local! {
    /// The database that this thread converts, and the options of the connection for which it does.
    static CONVERTING: Cell<Option<(&'static CStr, Options)>> = const { Cell::new(None) };
}

/// The options for the database at `path`, if it is opened by a connection of our own.
pub fn options(path: &CStr) -> Option<Options> {
    let ours = CONVERTING.get().filter(|(converted, _)| *converted == path);
    ours.map(|(_, options)| options)
}

/// What is needed to convert a database, until it is known that it needs it not.
#[derive(Clone)]
pub struct Pending {
    options: Options,
    ground: Ground,
    /// How it is open.
    flags: c_int,
}

impl Pending {
    /// `None` in the connection that converts.
    pub fn new(
        path: &CStr,
        options: &Options,
        ground: &Ground,
        flags: c_int,
    ) -> Option<Box<Pending>> {
        if self::options(path).is_some() {
            return None;
        }
        try_box(Pending {
            options: *options,
            ground: ground.clone(),
            flags,
        })
    }
}

/// Turns the database, which is in WAL mode, into a rollback database. No lock is held.
pub fn convert(network: &Network, pending: &Pending) -> c_int {
    let (shim, path) = (network.shim, network.path);
    let say = |code, what: &str| {
        let (path, kind) = (PathEnd(path), &pending.ground.name);
        let line = Text::new(format_args!(
            "{path} is in WAL mode, which {kind} cannot share{what}"
        ));
        if open::is_news(&line) {
            shim.log(code, line);
        }
        code
    };
    if pending.flags & SQLITE_OPEN_READONLY != 0 {
        let what = ", and open for reading only: whoever may write, run PRAGMA journal_mode=DELETE";
        return say(SQLITE_CANTOPEN, what);
    }
    if pending.ground.locks != Locks::Shared {
        let what =
            ", whose locks hold on one node only: where it is used, run PRAGMA journal_mode=DELETE";
        return say(SQLITE_CANTOPEN, what);
    }
    CONVERTING.set(Some((path, pending.options)));
    // No busy timeout: in the exclusive mode the connection would keep SHARED while it waits, as others do who are
    // at the same work, and none would ever have EXCLUSIVE. Our own connection's busy handler tries again.
    let code = shim.sqlite.execute_once(path, crate::vfs::NAME, CONVERT);
    CONVERTING.set(None);
    match code & 0xff {
        SQLITE_OK => {
            say(SQLITE_NOTICE, ": turned into a rollback database");
            SQLITE_OK
        }
        SQLITE_BUSY | SQLITE_LOCKED => {
            let what = ", and in use: close it everywhere, then run PRAGMA journal_mode=DELETE";
            say(SQLITE_BUSY, what)
        }
        _ => say(code, ", and cannot be turned into a rollback database"),
    }
}

/// Whether the database's header says so, or will after a rollback, or there is a WAL.
pub fn is_wal(network: &Network) -> Result<bool, c_int> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut header = [0; 20];
    match network.read_base(&mut header, 0) {
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
    let found = network.look(Call::Look, || {
        if paths::of_wal(network.path, |wal| paths::is_there(network, wal))? {
            return Ok(true);
        }
        paths::of_journal(network.path, |journal| brings_wal_back(network, journal))
    });
    found.map_err(|errno| {
        Errno::set(errno);
        SQLITE_IOERR_ACCESS
    })
}

/// Whether this journal is that of a conversion that was not finished: its first and only page is page 1, with a WAL's
/// version numbers. (The sector size is at 20, and the first record in the next sector: `writeJournalHdr`.)
fn brings_wal_back(network: &Network, path: &CStr) -> nix::Result<bool> {
    let Some(file) = paths::open_hot(network, path)? else {
        return Ok(false);
    };
    let (mut header, mut record) = ([0; 28], [0; 24]);
    if pread(&file, &mut header, 0)? < header.len() || header[0] == 0 {
        return Ok(false);
    }
    let sector = u32::from_be_bytes([header[20], header[21], header[22], header[23]]);
    let read = pread(&file, &mut record, i64::from(sector))?;
    let is_page_1 = record.starts_with(&[0, 0, 0, 1]);
    Ok(read == record.len() && is_page_1 && (record[22] == 2 || record[23] == 2))
}
