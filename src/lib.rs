//! **turnstile**: a SQLite VFS shim for one database file that very many processes share, or that
//! lives on a cluster file system.
//!
//! # Purpose
//! The VFS `turnstile` wraps the stock VFS `unix`. Everything that SQLite does works through it
//! unchanged, but for the waiting: writers that find the database locked stand in a line and are
//! served in turn.
//!
//! **The one law: SQLite's own locks are the truth; everything we add is courtesy.** No fault of
//! ours, of a peer process or of the file system may corrupt a database, lose an acknowledged
//! commit, let two writers in, crash the host or hang it.
//!
//! # Loading
//! Three doors lead to the same VFS ([`register`] is the second):
//!
//! | door | file | for |
//! |---|---|---|
//! | loadable extension | `c/extension.c` | `.load`, `load_extension` in any program |
//! | Rust crate | this one, feature `linked` | a program that links SQLite: rusqlite, sqlx, diesel |
//! | C header | `c/turnstile.h`, `c/linked.c` | a C or C++ program that links SQLite |
//!
//! # Using
//! A connection chooses the VFS by name: `file:state.db?vfs=turnstile`, or as the last argument of
//! `sqlite3_open_v2`. With `TURNSTILE_DEFAULT=1` in the environment it is the process's default.
//!
//! # Controlling
//! [`Options`] in the URI, in the environment or from the program.
//!
//! # Where things are
//! | folder | idea |
//! |---|---|
//! | `sqlite` | the SQLite functions and types that we call, and how they are obtained |
//! | `vfs` | the C-ABI methods: translate, call, translate back |
//! | `turn` | the queue: tickets, the sidecar, who is told next |
//! | `wait` | what a busy connection waits for, and how long |
//! | `filesystem` | what a database lies on, and what is safe there |
//! | `durable` | errors that pass, locks that get lost, data that is not synced, caches: a cluster's file systems |
//! | `environment`, `options` | URI > environment > program > default |
//! | `error`, `text` | what is said, and that saying it needs no memory |
//!
//! # Panics
//! A panic never crosses into C and never aborts the process: it becomes the method's own SQLite
//! error and one line in `sqlite3_log`. That needs `panic = "unwind"`, cargo's default; a program
//! built with `panic = "abort"` has decided otherwise.
#![deny(unsafe_op_in_unsafe_fn, missing_docs)]
#![warn(clippy::undocumented_unsafe_blocks)]
// An error carries its text on the stack: see `text`.
#![allow(clippy::result_large_err)]

mod durable;
mod environment;
mod error;
mod filesystem;
#[cfg(feature = "inject")]
#[doc(hidden)]
pub mod inject;
#[cfg(not(feature = "inject"))]
mod inject;
mod options;
mod sqlite;
mod text;
mod turn;
mod vfs;
mod wait;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use error::Error;
pub use options::{Fs, Options, VfsName};

/// Registers the VFS `turnstile` in the SQLite that is linked into this program.
///
/// Call it once, before the first connection that names the VFS. Calling it again with the same
/// options does no harm. The environment overrides `options`, and a connection's URI overrides both.
///
/// ```
/// use rusqlite::{Connection, OpenFlags};
///
/// turnstile::register(turnstile::Options::default())?;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("state.db");
/// let db = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), "turnstile")?;
/// db.execute_batch("CREATE TABLE job(id INTEGER PRIMARY KEY)")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `SQLITE_ERROR` if an option in the environment is not allowed, if the base VFS does not exist, or if
/// the VFS is registered already with other options; `SQLITE_NOMEM`, or what
/// `sqlite3_vfs_register` answers.
#[cfg(feature = "linked")]
pub fn register(options: Options) -> Result<(), Error> {
    vfs::register(sqlite::linked::sqlite(), options)
}

/// Makes `connection` wait up to `timeout`, to the millisecond: in turn where there is a queue, at
/// random elsewhere. Zero: not at all.
///
/// `Connection::busy_timeout` works as well, since the VFS waits in turn for it, too; this handler does not
/// depend on how SQLite's own one counts.
///
/// ```
/// use std::time::Duration;
///
/// turnstile::register(turnstile::Options::default())?;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("state.db");
/// # let flags = rusqlite::OpenFlags::default();
/// let db = rusqlite::Connection::open_with_flags_and_vfs(path, flags, "turnstile")?;
/// turnstile::busy_handler(&db, Duration::from_secs(60))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// What `sqlite3_busy_handler` answers.
#[cfg(feature = "rusqlite")]
pub fn busy_handler(
    connection: &rusqlite::Connection,
    timeout: std::time::Duration,
) -> Result<(), Error> {
    // SAFETY: the handle of an open connection.
    let code = unsafe {
        let db = connection.handle().cast();
        wait::handler::install(sqlite::linked::sqlite(), db, timeout)
    };
    match code {
        sqlite::abi::SQLITE_OK => Ok(()),
        code => Err(Error::new(code, "sqlite3_busy_handler refused the handler")),
    }
}
