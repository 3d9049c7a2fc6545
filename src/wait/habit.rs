//! Whether a connection is about to write, judged by those that its process had before.
//!
//! SQLite attaches to a WAL when it reads the schema, and says only later what for. But a process that opens the
//! database anew for each write does nothing else with it. Its next connection is *expected* to write, and may wait
//! outside (`turn::admission`): in a crowd, and with a rollback journal whenever somebody waits, or it is refused SHARED.
//!
//! Invariant: a habit is quickly lost. One that reads, or that does something else before it writes, is let in at once
//! the next time; and each time that a process has *strayed*, it takes eight times as many writes until anything
//! is expected of it again.

use crate::turn::mapped;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Nobody waits outside for longer than this, nor in the line each time that it is refused SHARED.
pub const LONGEST: u64 = 1_000_000_000;

/// The first time it is no longer than this: one write is not much of a habit.
const FIRST: u64 = 250_000_000;

/// So many connections in a row that wrote make a habit. (With two, of 1,000 processes that all begin at the same moment
/// each attaches twice: the longest waits are a third longer.)
const WRITES: u32 = 1;

/// After so many in a row that never had to wait attached one is let in at once: its timeout may be another one.
const UNCONFIRMED: u8 = 8;

/// A habit is forgotten after so long.
const RECENT: u64 = 1_000_000_000;

/// Who is about to write asks for the lock so soon after it was let in: SQLite reads the schema in a tenth of that.
const PROMPT: u64 = 2_000_000;

/// What the last connections of a process to a database did.
#[derive(Clone, Copy, Default)]
pub struct Habit {
    writes: u32,
    /// What journal they wrote.
    pub is_wal: bool,
    /// How long they would have waited for the lock.
    pub timeout: u64,
    /// How many of the last ones never had to wait attached, which is when that is learnt.
    unconfirmed: u8,
    /// The last one only read.
    pub reads: bool,
}

/// When a connection was closed last that left a habit; 0: never.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// The process that left it: a child inherits all of this by `fork`.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// How often a connection did not do what was expected of it.
static STRAYED: AtomicU32 = AtomicU32::new(0);

impl Habit {
    /// After one more connection, which wrote while others waited and would have waited for `timeout`.
    pub fn again(self, is_wal: bool, timeout: u64, is_unconfirmed: bool) -> Habit {
        OWNER.store(std::process::id(), Relaxed);
        let habit = Habit {
            writes: self.writes.saturating_add(1),
            is_wal,
            timeout,
            unconfirmed: match is_unconfirmed {
                true => self.unconfirmed.saturating_add(1),
                false => 0,
            },
            reads: false,
        };
        if habit.patience().is_some() {
            LEFT.store(mapped::now(), Relaxed);
        }
        habit
    }

    /// Nothing is expected after such a connection; whether it only read is known.
    pub fn none(reads: bool) -> Habit {
        Habit {
            reads,
            ..Habit::default()
        }
    }

    /// A connection did not write. If that was expected of it, it has strayed.
    pub fn disappoints(self) {
        if self.patience().is_some() {
            STRAYED.fetch_add(1, Relaxed);
            LEFT.store(0, Relaxed);
        }
    }

    /// How long a connection that is about to write may wait outside; `None` if it may not be about to write.
    pub fn patience(self) -> Option<u64> {
        let enough = WRITES << (3 * STRAYED.load(Relaxed)).min(30);
        let is_sure = self.writes >= enough && self.unconfirmed < UNCONFIRMED;
        let longest = match self.writes > enough {
            true => LONGEST,
            false => FIRST,
        };
        (is_sure && is_ours()).then_some(self.timeout.min(longest))
    }
}

/// Whether no parent left it.
fn is_ours() -> bool {
    OWNER.load(Relaxed) == std::process::id()
}

/// Whether something may be expected of a connection of this process, to any database.
pub fn may_be_expected() -> bool {
    let left = LEFT.load(Relaxed);
    left != 0 && is_recent(left, mapped::now()) && is_ours()
}

/// Whether what was left when a connection was closed is still worth something.
pub fn is_recent(closed: u64, now: u64) -> bool {
    now.saturating_sub(closed) < RECENT
}

/// Whether one that was let in then and wants to write now came for that.
pub fn is_prompt(since: u64, now: u64) -> bool {
    now.saturating_sub(since) < PROMPT
}
