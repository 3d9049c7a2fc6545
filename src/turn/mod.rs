//! The queue: waiting writers stand in a line and are served in the order in which they came.
//!
//! Invariant: **the line decides who may try next, and nothing else.** Whoever is told that it is
//! its turn asks for SQLite's own lock like everybody else; a line that is wrong, lost or full of
//! garbage costs fairness and never safety.
//!
//! # The line
//! A *ticket* is a number from one counter. The tickets from `head` to `tail` stand in the line;
//! each has a *place*, one word in a ring, on which its owner sleeps (futex):
//!
//! ```text
//!    served ...  | head |      |      |      | tail: the next ticket
//!                 TOLD   PARKED PARKED AWAKE
//! ```
//!
//! | state | meaning | who sets it |
//! |---|---|---|
//! | `AWAKE` | the owner runs, and looks at the line before it sleeps | the owner |
//! | `PARKED` | the owner sleeps, or is about to | the owner |
//! | `TOLD` | its turn: try now | whoever releases the lock |
//! | `CALLED` | like `TOLD`, but the futex found nobody asleep there | the same |
//! | `GONE` | served, timed out or closed: to be passed over | the owner |
//! | `OUTSIDE` | like `PARKED`, but the owner is not attached to the database yet | the owner |
//! | `ENTERING` | the owner attaches, and tries without being told | whoever is served before it, or the owner |
//!
//! - A release tells the head, one `FUTEX_WAKE` for one waiter; the others sleep on.
//! - Whoever gets the lock moves `head` behind its own ticket. It wakes nobody who is attached.
//! - A head that knows of it polls the lock as well: a holder on the stock VFS tells no one.
//!
//! # The dead, the stopped and the departed
//! Each place names its owner (its *member* number). A teller who finds nobody asleep there looks
//! whether the owner lives, and passes over the dead at once. One waiter of the line is the *watcher*: it
//! wakes every few milliseconds, and if the head has not moved meanwhile it tells the head (the holder
//! may have died), or passes over a head that does not answer (it was stopped). Whoever was passed
//! over takes a new ticket.
//!
//! | file | idea |
//! |---|---|
//! | `layout` | the words that the waiters share |
//! | `machine` | what the line needs of a machine; a simulation has its own |
//! | `line` | tickets: take, wait, tell, leave |
//! | `admission` | waiting before the database is attached: in a crowd, or for a rollback journal |
//! | `watch` | the watcher: no progress, who is to blame |
//! | `quantum` | bounded barging, and checkpoints |
//! | `knock` | a turn for those who never come to wait |
//! | `signal` | waking readers after a commit, and a writer after the last reader |
//! | `sidecar` | the file, made and mended |
//! | `mapped` | the machine: a mapping, futexes, signal 0 |
//! | `sigbus` | a sidecar that is truncated under us |

pub mod admission;
pub mod knock;
pub mod layout;
pub mod line;
pub mod machine;
pub mod mapped;
pub mod quantum;
pub mod sidecar;
mod sigbus;
pub mod signal;
#[cfg(test)]
mod simulation;
pub mod watch;
