//! What was written to a file since it was last synced.
//!
//! Invariant: as long as it has not [`Unsynced::overflowed`], writing it all again in its order brings the file to
//! what it is for everybody now, wherever the write-back of any of it failed.

/// A change to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    Write { at: i64, data: &'a [u8] },
    Truncate { size: i64 },
}

enum Entry {
    /// The next so many bytes of `data`.
    Write {
        at: i64,
        length: usize,
    },
    Truncate {
        size: i64,
    },
}

/// The changes since the last sync that succeeded.
pub struct Unsynced {
    entries: Vec<Entry>,
    data: Vec<u8>,
    /// Bytes.
    limit: usize,
    overflowed: bool,
}

impl Unsynced {
    /// So much memory is kept for the next transaction.
    const KEPT: usize = 1 << 20;

    /// `limit`: how much is kept, in bytes.
    pub fn new(limit: usize) -> Unsynced {
        Unsynced {
            entries: Vec::new(),
            data: Vec::new(),
            limit,
            overflowed: false,
        }
    }

    /// More was written than may be kept, or than there is memory for.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub fn wrote(&mut self, at: i64, data: &[u8]) {
        let length = data.len();
        self.push(Entry::Write { at, length }, data);
    }

    pub fn truncated(&mut self, size: i64) {
        self.push(Entry::Truncate { size }, &[]);
    }

    fn push(&mut self, entry: Entry, data: &[u8]) {
        if self.overflowed {
            return;
        }
        let used = self.data.len() + self.entries.len() * size_of::<Entry>();
        let fits = used + data.len() + size_of::<Entry>() <= self.limit
            && self.entries.try_reserve(1).is_ok()
            && self.data.try_reserve(data.len()).is_ok();
        if fits {
            self.entries.push(entry);
            self.data.extend_from_slice(data);
        } else {
            self.clear();
            self.overflowed = true;
        }
    }

    /// It is synced, or it is not ours to write any more.
    pub fn clear(&mut self) {
        self.overflowed = false;
        self.entries.clear();
        self.data.clear();
        if self.data.capacity() > Self::KEPT {
            self.data = Vec::new();
        }
        if self.entries.capacity() > Self::KEPT / size_of::<Entry>() {
            self.entries = Vec::new();
        }
    }

    /// All changes, in their order.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut rest = &self.data[..];
        self.entries.iter().map(move |entry| match *entry {
            Entry::Truncate { size } => Change::Truncate { size },
            Entry::Write { at, length } => {
                let (data, after) = rest.split_at(length.min(rest.len()));
                rest = after;
                Change::Write { at, data }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_in_their_order() {
        let mut unsynced = Unsynced::new(1 << 20);
        unsynced.wrote(4096, b"abc");
        unsynced.truncated(8192);
        unsynced.wrote(0, b"de");
        let expected = [
            Change::Write {
                at: 4096,
                data: b"abc",
            },
            Change::Truncate { size: 8192 },
            Change::Write { at: 0, data: b"de" },
        ];
        assert!(unsynced.changes().eq(expected));
        unsynced.clear();
        assert_eq!(unsynced.changes().count(), 0);
    }

    #[test]
    fn what_is_too_much_is_known_to_be_until_the_next_sync() {
        let mut unsynced = Unsynced::new(100);
        unsynced.wrote(0, &[1; 50]);
        assert!(!unsynced.overflowed());
        unsynced.wrote(50, &[1; 50]);
        unsynced.wrote(0, b"x");
        assert!(unsynced.overflowed());
        assert_eq!(unsynced.changes().count(), 0);
        unsynced.clear();
        unsynced.wrote(0, b"x");
        assert!(!unsynced.overflowed());
        let mut nothing = Unsynced::new(0);
        nothing.truncated(0);
        assert!(nothing.overflowed());
    }
}
