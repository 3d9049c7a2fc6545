//! Whether the lock is still ours.
//!
//! A client that was not heard of for too long is evicted: its locks go to others, and what it asks meanwhile fails
//! with an error that passes. If the call that failed is then simply made again, a write lands in the middle of
//! what somebody else has written, and a read returns a page of another version. So before a call is made again:
//!
//! 1. The lock is asked for once more, as it is recorded in SQLite's books. A lock that we have is granted again; one
//!    that another has taken is refused; one that another has *had* is granted, too, hence:
//! 2. The database's change counter is what this transaction has seen, or has written itself. Every commit changes
//!    it (`pager_write_changecounter`).
//! 3. A writer's journal is still the file at its path, and begins as this transaction has written it: whoever had the
//!    lock meanwhile has rolled it back, and so deleted, cut or overwritten it. A reader finds no hot
//!    journal.
//!
//! If all that is so, the database is what it was when the lock was taken, plus what we wrote: whether the lock
//! was ours all the time makes no difference then.
//!
//! Between the proof and the call that it allows the lock can be lost once more: no client can exclude that. It is a
//! few hundred microseconds instead of the length of the fault.

use nix::errno::Errno;
use std::cell::Cell;

/// What became of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    Ours,
    /// Somebody else has had it, or may have.
    Lost(&'static str),
    /// The server does not answer; ask again.
    Unknown(Errno),
}

/// What `N` bytes at offset `AT` of a file are for this transaction, as far as it has read or written them.
pub struct Belief<const AT: i64, const N: usize> {
    /// Read, or written with success.
    known: Cell<[Option<u8>; N]>,
    /// Written, and nobody knows with what success.
    pending: Cell<[Option<u8>; N]>,
    /// The file may be empty: it was cut, or nobody knows with what success.
    may_be_empty: Cell<bool>,
}

/// The change counter in the database's header.
pub type Counter = Belief<24, 4>;

/// A rollback journal's header (`writeJournalHdr`): magic, number of records, nonce, size of the database, sector and
/// page size.
pub type JournalHeader = Belief<0, 28>;

impl<const AT: i64, const N: usize> Default for Belief<AT, N> {
    fn default() -> Self {
        Belief {
            known: Cell::new([None; N]),
            pending: Cell::new([None; N]),
            may_be_empty: Cell::new(false),
        }
    }
}

impl<const AT: i64, const N: usize> Belief<AT, N> {
    /// A new transaction believes nothing.
    pub fn forget(&self) {
        self.known.set([None; N]);
        self.pending.set([None; N]);
        self.may_be_empty.set(false);
    }

    /// The part of `data`, which lies at `at`, that is ours, with its places.
    fn part<'a>(at: i64, data: &'a [u8]) -> impl Iterator<Item = (usize, u8)> + 'a {
        let places =
            (0..N).map(move |place| (place, AT.saturating_add(place as i64).checked_sub(at)));
        places.filter_map(|(place, from)| {
            let byte = data.get(usize::try_from(from?).ok()?)?;
            Some((place, *byte))
        })
    }

    /// `data` was read at `at`. What is known already stays.
    pub fn read(&self, at: i64, data: &[u8]) {
        if at < AT + N as i64 {
            let mut known = self.known.get();
            Self::part(at, data).for_each(|(place, byte)| {
                known[place].get_or_insert(byte);
            });
            self.known.set(known);
        }
    }

    /// `data` is about to be written at `at`.
    pub fn writes(&self, at: i64, data: &[u8]) {
        if at < AT + N as i64 {
            let mut pending = self.pending.get();
            Self::part(at, data).for_each(|(place, byte)| pending[place] = Some(byte));
            self.pending.set(pending);
        }
    }

    /// It was written.
    pub fn wrote(&self, at: i64, data: &[u8]) {
        if at < AT + N as i64 {
            let (mut known, mut pending) = (self.known.get(), self.pending.get());
            Self::part(at, data).for_each(|(place, byte)| {
                (known[place], pending[place]) = (Some(byte), None);
            });
            self.known.set(known);
            self.pending.set(pending);
            self.may_be_empty.set(false);
        }
    }

    /// The file is about to be cut.
    pub fn truncates(&self, size: i64) {
        if size < AT + N as i64 {
            self.may_be_empty.set(true);
        }
    }

    /// It was cut.
    pub fn truncated(&self, size: i64) {
        if size < AT + N as i64 {
            self.forget();
        }
    }

    /// Whether these bytes, which are there now, are what is believed. Fewer than `N`: the file ends there.
    pub fn holds(&self, now: &[u8]) -> bool {
        if self.may_be_empty.get() && now.is_empty() {
            return true;
        }
        let (known, pending) = (self.known.get(), self.pending.get());
        (0..N).all(|place| {
            let now = now.get(place).copied();
            match (known[place], pending[place]) {
                (None, _) => true,
                (known, None) => now == known,
                (known, pending) => now == known || now == pending,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counter: [u8; 4]) -> Vec<u8> {
        let mut page = vec![7; 100];
        page[24..28].copy_from_slice(&counter);
        page
    }

    #[test]
    fn what_was_read_is_what_must_be_there() {
        let counter = Counter::default();
        assert!(counter.holds(&[]) && counter.holds(&[9; 4]));
        counter.read(4096, &[1; 4096]);
        counter.read(0, &page([0, 0, 0, 5])[..26]);
        counter.read(24, &[0, 0, 0, 5, 1, 1]);
        assert!(counter.holds(&[0, 0, 0, 5]));
        assert!(!counter.holds(&[0, 0, 0, 6]));
        assert!(!counter.holds(&[]) && !counter.holds(&[0, 0, 0]));
        // A later read does not change what the transaction has begun with.
        counter.read(0, &page([0, 0, 0, 6]));
        assert!(counter.holds(&[0, 0, 0, 5]));
        counter.forget();
        assert!(counter.holds(&[0, 0, 0, 6]));
    }

    #[test]
    fn a_write_that_failed_may_have_been_done_or_not() {
        let counter = Counter::default();
        counter.read(0, &page([0, 0, 0, 5]));
        counter.writes(0, &page([0, 0, 0, 6]));
        assert!(counter.holds(&[0, 0, 0, 5]) && counter.holds(&[0, 0, 0, 6]));
        assert!(!counter.holds(&[0, 0, 0, 7]));
        counter.wrote(0, &page([0, 0, 0, 6]));
        assert!(!counter.holds(&[0, 0, 0, 5]) && counter.holds(&[0, 0, 0, 6]));
    }

    #[test]
    fn a_journals_header_is_written_in_parts_and_cut() {
        let header = JournalHeader::default();
        let mut now = [1; 28];
        header.wrote(0, &now);
        header.writes(8, &[2; 4]);
        assert!(header.holds(&now));
        header.wrote(8, &[2; 4]);
        assert!(!header.holds(&now));
        now[8..12].fill(2);
        assert!(header.holds(&now));
        header.truncates(0);
        assert!(header.holds(&now) && header.holds(&[]) && !header.holds(&[0; 28]));
        header.truncated(0);
        assert!(header.holds(&[]));
    }
}
