//! Waiting: where SQLite waits, and what we do there instead.
//!
//! # The seam
//! Nobody has to change a program for it. `sqlite3_busy_timeout` (Python's `timeout=`, `PRAGMA
//! busy_timeout`) installs SQLite's `sqliteDefaultBusyCallback`, which sleeps by the `xSleep` of the
//! connection's VFS: on the same thread, right after the lock call that failed.
//!
//! - A lock call that fails leaves a *note* for its thread: which connection, and what it wanted.
//! - `xSleep` finds the note and waits in the way that fits: in the line, for the end of a commit, for
//!   the last reader, or at random. It never touches SQLite's locks; when it returns, SQLite asks again.
//!
//! | wanted | of whom | waits |
//! |---|---|---|
//! | the write turn: RESERVED, or the WAL's write lock with a snapshot in hand | other writers | in the line |
//! | SHARED | a writer that commits | at the gate, woken by the end of the commit; in the line, if it is expected to write (`habit`) |
//! | EXCLUSIVE, with RESERVED in hand | readers | for the drain, woken by the last reader |
//! | anything else (recovery, checkpoint) | | randomized backoff |
//!
//! # Invariants
//! - A lock call does not wait for the turn. (In `xLock(RESERVED)` it would keep a SHARED lock that the owner needs
//!   gone; in `xShmLock` the snapshot would be old by then.) It waits for a moment, 2 ms, where the application
//!   may decide how it waits and the others would suffer from that: with PENDING in hand, for the last
//!   readers to leave; and before a transaction takes its first lock, if it was refused, or one before it had to wait
//!   (`Waiter::knock`). The exception is a connection's first lock, in a crowd, if it is expected to write (`habit`; with a
//!   rollback journal one is a crowd): it waits there for its turn, attached to nothing, for up to 1 s.
//! - What SQLite's own lock says is passed on. The one answer of ours is SQLITE_BUSY to somebody whose turn it is
//!   not.
//! - The application's timeout is kept; see `patience`.
//!
//! | file | idea |
//! |---|---|
//! | `waiter` | one connection's waiting |
//! | `attachment` | a connection's hold on the sidecar |
//! | `habit` | whether a connection is about to write |
//! | `manners` | how one database is waited for |
//! | `note` | from the lock call that failed to `xSleep` |
//! | `inheritance` | what a closed connection leaves to the next of its process |
//! | `patience` | how long the application's busy timeout lets us wait |
//! | `backoff` | randomized exponential backoff |
//! | `handler` | a busy handler of our own |

mod attachment;
pub mod backoff;
pub mod habit;
pub mod handler;
pub mod inheritance;
pub mod manners;
pub mod note;
pub mod patience;
pub mod waiter;
