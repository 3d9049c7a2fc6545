//! Whether the lock is still ours.
//!
//! A client that was not heard of for too long is evicted: its locks go to others, and what it asks meanwhile fails
//! with an error that passes. If the call that failed is then simply made again, a write lands in the middle of
//! what somebody else has written, and a read returns a page of another version. So before a call is made again:
//!
//! 1. The lock is asked for once more, as it is recorded in SQLite's books. A lock that we have is granted again; one
//!    that another has taken is refused; one that another has *had* is granted, too, hence:
//! 2. The database's change counter is what this transaction has seen, or has written itself. Every commit changes
//!    it (`pager_write_changecounter`). But whoever rolls our transaction back and then commits counts up to the same number; so
//!    the time of the last change is that of our last look, too, if we have not written since.
//! 3. A writer's journal is still the file at its path, and begins as this transaction has written it: whoever had the
//!    lock meanwhile has rolled it back, and so deleted, cut or overwritten it. A reader finds no hot
//!    journal.
//!
//! If all that is so, the database is what it was when the lock was taken, plus what we wrote: whether the lock
//! was ours all the time makes no difference then.
//!
//! Between the proof and the call that it allows the lock can be lost once more: no client can exclude that. It is a
//! few hundred microseconds instead of the length of the fault.

use super::descriptor::Descriptor;
use nix::errno::Errno;
use std::cell::Cell;
use std::ops::Range;

/// What became of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    Ours,
    /// Somebody else has had it, or may have.
    Lost(&'static str),
    /// The server does not answer; ask again.
    Unknown(Errno),
}

/// What some bytes of a file are for this transaction, as far as it has read or written them.
///
/// Until it is synced, what was written may get lost again (and is then written once more: see `unsynced`), so both
/// are believed, what was there and what was written.
pub struct Belief {
    /// Where they are.
    place: Range<i64>,
    /// Read, or written and synced.
    settled: Cell<[Option<u8>; MOST]>,
    /// Written since, whoever knows with what success.
    written: Cell<[Option<u8>; MOST]>,
    /// The file was cut since.
    may_be_empty: Cell<bool>,
}

/// So many bytes at most are believed of a file.
const MOST: usize = 28;

impl Belief {
    fn of(place: Range<i64>) -> Belief {
        Belief {
            place,
            settled: Cell::new([None; MOST]),
            written: Cell::new([None; MOST]),
            may_be_empty: Cell::new(false),
        }
    }

    /// Of the change counter in the database's header.
    pub fn of_counter() -> Belief {
        Belief::of(24..28)
    }

    /// Of a rollback journal's header (`writeJournalHdr`): magic, number of records, nonce, size of the database, sector
    /// and page size.
    pub fn of_journal() -> Belief {
        Belief::of(0..28)
    }

    fn length(&self) -> usize {
        (self.place.end - self.place.start) as usize
    }

    /// What is there now.
    pub fn now<'a>(&self, file: Descriptor, room: &'a mut [u8; MOST]) -> nix::Result<&'a [u8]> {
        let length = file.read_at(&mut room[..self.length()], self.place.start)?;
        Ok(&room[..length])
    }

    /// What is there `now` is what is believed from now on.
    pub fn learn(&self, now: &[u8]) {
        self.read(self.place.start, now);
    }

    /// A new transaction believes nothing.
    pub fn forget(&self) {
        self.settled.set([None; MOST]);
        self.written.set([None; MOST]);
        self.may_be_empty.set(false);
    }

    /// Whether nothing is believed.
    pub fn is_blank(&self) -> bool {
        self.settled.get() == [None; MOST] && self.written.get() == [None; MOST]
    }

    /// The part of `data`, which lies at `at`, that is ours, with its places.
    fn part(&self, at: i64, data: &[u8]) -> impl Iterator<Item = (usize, u8)> {
        let places = self.place.clone().enumerate();
        let from = move |byte: i64| usize::try_from(byte.checked_sub(at)?).ok();
        places.filter_map(move |(place, byte)| Some((place, *data.get(from(byte)?)?)))
    }

    /// `data` was read at `at`. What is known already stays.
    pub fn read(&self, at: i64, data: &[u8]) {
        if at < self.place.end {
            let (mut settled, written) = (self.settled.get(), self.written.get());
            self.part(at, data)
                .filter(|(place, _)| written[*place].is_none())
                .for_each(|(place, byte)| {
                    settled[place].get_or_insert(byte);
                });
            self.settled.set(settled);
        }
    }

    /// `data` is about to be written at `at`.
    pub fn writes(&self, at: i64, data: &[u8]) {
        if at < self.place.end {
            let mut written = self.written.get();
            self.part(at, data)
                .for_each(|(place, byte)| written[place] = Some(byte));
            self.written.set(written);
        }
    }

    /// The file is about to be cut.
    pub fn truncates(&self, size: i64) {
        if size < self.place.end {
            self.may_be_empty.set(true);
        }
    }

    /// All that was done is there to stay.
    pub fn synced(&self) {
        let written = self.written.replace([None; MOST]);
        let mut settled = self.settled.get();
        if self.may_be_empty.replace(false) {
            settled = [None; MOST];
        }
        for (settled, written) in settled.iter_mut().zip(written) {
            *settled = written.or(*settled);
        }
        self.settled.set(settled);
    }

    /// Whether these bytes, which are there now, are known to be this transaction's: another's would differ.
    pub fn proves(&self, now: &[u8]) -> bool {
        let (settled, written) = (self.settled.get(), self.written.get());
        let is_known =
            |place: usize| settled[place].is_some() || written[place] == Some(now[place]);
        now.len() == self.length() && self.holds(now) && (0..self.length()).all(is_known)
    }

    /// Whether these bytes, which are there now, are what is believed. If they are fewer, the file ends there.
    pub fn holds(&self, now: &[u8]) -> bool {
        if self.may_be_empty.get() && now.is_empty() {
            return true;
        }
        let (settled, written) = (self.settled.get(), self.written.get());
        (0..self.length()).all(|place| {
            let now = now.get(place).copied();
            match (settled[place], written[place]) {
                (None, _) => true,
                (settled, None) => now == settled,
                (settled, written) => now == settled || now == written,
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
        let counter = Belief::of_counter();
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
    fn what_was_written_is_there_for_sure_when_it_is_synced() {
        let counter = Belief::of_counter();
        counter.read(0, &page([0, 0, 0, 5]));
        counter.writes(0, &page([0, 0, 0, 6]));
        assert!(counter.holds(&[0, 0, 0, 5]) && counter.holds(&[0, 0, 0, 6]));
        assert!(!counter.holds(&[0, 0, 0, 7]));
        counter.read(0, &page([0, 0, 0, 6]));
        assert!(counter.holds(&[0, 0, 0, 5]));
        counter.synced();
        assert!(!counter.holds(&[0, 0, 0, 5]) && counter.holds(&[0, 0, 0, 6]));
    }

    #[test]
    fn a_journals_header_is_written_in_parts_and_cut() {
        let header = Belief::of_journal();
        let mut now = [1; 28];
        header.writes(0, &now);
        assert!(header.proves(&now) && !header.proves(&[2; 28]) && !header.proves(&[]));
        // What was there before it was cut may come back.
        assert!(header.holds(&[2; 28]));
        header.synced();
        header.writes(8, &[2; 4]);
        assert!(header.holds(&now));
        header.synced();
        assert!(!header.holds(&now));
        now[8..12].fill(2);
        assert!(header.holds(&now));
        header.truncates(0);
        assert!(header.holds(&now) && header.holds(&[]) && !header.holds(&[0; 28]));
        header.synced();
        assert!(header.holds(&[]) && header.holds(&[0; 28]));
    }
}
