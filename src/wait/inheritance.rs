//! What a connection leaves to the next one of its process: some open the database anew for each write or each try,
//! and SQLite tells us nothing that links one connection to the next.
//!
//! A process that comes [`AT_ONCE`], has a `habit` or knocks also keeps its mapping of the sidecar from one connection to the
//! next (a tenth of all that such a write costs); others leave nothing open behind them.

use super::habit::{self, Habit};
use super::waiter::Guest;
use crate::turn::mapped::{self, Mapped};
use crate::turn::quantum::{AT_ONCE, Turn};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What closed connections leave that were refused and have given up, or had a way of their own to wait.
pub static CLAIMS: Inheritance<Claim, 16> = Inheritance::new();

/// When a guest's claim was left last, in nanoseconds; 0: never.
static CLAIMED: AtomicU64 = AtomicU64::new(0);

/// What other connections leave.
pub static LEGACIES: Inheritance<Legacy, 4> = Inheritance::new();

/// What one that will come again is owed.
#[derive(Clone, Copy)]
pub struct Claim {
    /// See `Waiter::due`.
    pub due: Option<u32>,
    /// Nothing is known of it with a WAL, where SQLite may not be refused what it reads.
    pub guest: Guest,
}

/// Leaves a claim.
pub fn claim(database: u64, claim: Claim) {
    if claim.guest.knocks() {
        CLAIMED.store(mapped::now(), Relaxed);
    }
    CLAIMS.leave(database, claim);
}

/// Whether a connection of this process, to any database, may be a guest's.
pub fn is_claimed() -> bool {
    let claimed = CLAIMED.load(Relaxed);
    claimed != 0 && habit::is_recent(claimed, mapped::now())
}

/// What a closed connection had.
pub struct Legacy {
    pub closed: u64,
    /// What is left of its turn.
    pub turn: Option<Turn>,
    pub sidecar: Option<Mapped>,
    pub habit: Habit,
}

impl Legacy {
    pub fn is_fresh(&self, now: u64) -> bool {
        now.saturating_sub(self.closed) < AT_ONCE
    }
}

/// The last few, each with a hash of its database's path; more than that many databases or threads get theirs
/// by luck. A child that is forked while another thread holds the lock does without.
pub struct Inheritance<T, const MOST: usize>(Mutex<[Option<(u64, T)>; MOST]>);

impl<T, const MOST: usize> Inheritance<T, MOST> {
    pub const fn new() -> Self {
        Inheritance(Mutex::new([const { None }; MOST]))
    }

    pub fn leave(&self, database: u64, what: T) {
        let forgotten = self.0.try_lock().map(|mut all| {
            all.rotate_right(1);
            all[0].replace((database, what))
        });
        drop(forgotten);
    }

    /// Whether `what` was left for `database` and nobody has taken it over.
    pub fn has(&self, database: u64, what: &T) -> bool
    where
        T: PartialEq,
    {
        let all = self.0.try_lock();
        let is = |(of, left): &(u64, T)| *of == database && left == what;
        all.is_some_and(|all| all.iter().flatten().any(is))
    }

    /// Takes over what was left for `database` first.
    pub fn oldest(&self, database: u64) -> Option<T> {
        take(self.0.try_lock()?.iter_mut().rev(), database)
    }

    /// Takes over what was left for `database` last.
    pub fn newest(&self, database: u64) -> Option<T> {
        take(self.0.try_lock()?.iter_mut(), database)
    }
}

fn take<'a, T: 'a>(
    mut all: impl Iterator<Item = &'a mut Option<(u64, T)>>,
    database: u64,
) -> Option<T> {
    let found = all.find(|left| left.as_ref().is_some_and(|(of, _)| *of == database))?;
    found.take().map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_taken_once() {
        let (left, here, elsewhere) = (Inheritance::<_, 16>::new(), 1, 2);
        for what in [1, 3, 4] {
            left.leave(here, what);
        }
        left.leave(elsewhere, 2);
        assert_eq!(left.newest(here), Some(4));
        let oldest = [left.oldest(here), left.oldest(here), left.oldest(here)];
        assert_eq!(oldest, [Some(1), Some(3), None]);
        assert_eq!(left.oldest(elsewhere), Some(2));
        for what in 0..20 {
            left.leave(here, what);
        }
        assert_eq!(left.oldest(here), Some(4));
    }
}
