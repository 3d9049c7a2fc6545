//! What a cluster file system does to files, and what may be done about it.
//!
//! # Errors that pass
//! A busy metadata server, a failover, a server that reboots: for some time calls fail that will succeed when they
//! are made again. Which these are is the table in [`transient`]; how long and how often they are made again, an
//! [`episode`]. On this machine's own file systems nothing passes: there EIO is a broken disk, and stock SQLite's
//! answer is the right one.
//!
//! # When a call may be made again
//!
//! | call | again | because |
//! |---|---|---|
//! | open, access, file size, reserved lock? | yes | they change nothing |
//! | lock | yes; an upgrade is then proved | a lock is had or not; but SHARED may have been lost meanwhile |
//! | unlock | yes | `posixUnlock` forgets the lock even if the call failed; see `vfs::network::locks` |
//! | read | if the lock is proved | else it may be another version of the database |
//! | write, truncate | if the write turn is proved | else another node may have written since |
//! | sync | never alone | after a failed fsync Linux takes dirty pages for clean: what was written is written again first |
//! | delete the journal | if the turn is proved | it is the commit; "no such file" after a failed attempt is success |
//! | sync the directory | yes | names are the server's affair |
//!
//! The proof is the [`fence`]. A lock that was lost stays lost: every call of that transaction is refused then, and
//! the transaction ends with an error.
//!
//! # What caches hide
//! Locks do not empty a client's caches: see [`coherence`].
//!
//! | file | idea |
//! |---|---|
//! | `transient` | which errors pass, call by call |
//! | `episode` | trying again: how often, how long, and what is said of it |
//! | `fence` | whether the lock is still ours |
//! | `unsynced` | what is to be written again before it is synced again |
//! | `coherence` | under a lock, what the last owner wrote is seen |
//! | `descriptor` | the system calls on a file that SQLite has open |

pub mod coherence;
pub mod descriptor;
pub mod episode;
pub mod fence;
pub mod transient;
pub mod unsynced;
