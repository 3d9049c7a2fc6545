//! The cluster's byte-range locks: a table and nothing else.
//!
//! An owner is what the kernel says it is: a process for POSIX locks, an open file for OFD locks (and
//! for flock, which comes as a lock of the whole file, as on NFS). The same number from two nodes is
//! two owners. Whatever frees bytes returns those whose waiting has thereby ended.

use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub node: usize,
    pub id: u64,
}

/// Bytes of a file, both ends included, as FUSE has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    pub first: u64,
    pub last: u64,
}

impl Bytes {
    fn overlap(self, other: Bytes) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What is left of these bytes without `other`: nothing, one piece or two.
    fn without(self, other: Bytes) -> impl Iterator<Item = Bytes> {
        let before = other.first.checked_sub(1).map(|last| Bytes {
            first: self.first,
            last: last.min(self.last),
        });
        let behind = other.last.checked_add(1).map(|first| Bytes {
            first: first.max(self.first),
            last: self.last,
        });
        let pieces = before.into_iter().chain(behind);
        pieces.filter(|piece| piece.first <= piece.last)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub owner: Owner,
    pub kind: Kind,
    pub bytes: Bytes,
    /// Through which open file it was set: an OFD lock ends with that one.
    pub handle: u64,
    /// For F_GETLK.
    pub pid: u32,
}

impl Lock {
    fn excludes(&self, other: &Lock) -> bool {
        self.owner != other.owner
            && self.bytes.overlap(other.bytes)
            && (self.kind == Kind::Write || other.kind == Kind::Write)
    }
}

/// The locks by file, and who waits for one (`W` is how to tell him).
#[derive(Debug)]
pub struct Locks<W> {
    held: HashMap<u64, Vec<Lock>>,
    waiting: Vec<(u64, Lock, W)>,
}

impl<W> Default for Locks<W> {
    fn default() -> Self {
        Locks {
            held: HashMap::new(),
            waiting: Vec::new(),
        }
    }
}

impl<W> Locks<W> {
    pub fn held(&self, file: u64) -> &[Lock] {
        self.held.get(&file).map_or(&[], Vec::as_slice)
    }

    /// A lock that stands in the way.
    pub fn conflict(&self, file: u64, wanted: &Lock) -> Option<Lock> {
        let held = self.held(file);
        held.iter().find(|lock| lock.excludes(wanted)).copied()
    }

    /// F_SETLK: sets the lock, in place of what its owner had on these bytes, or says what stands in the
    /// way. Others may come in when it replaces a write lock by a read lock.
    pub fn set(&mut self, file: u64, lock: Lock) -> Result<Vec<W>, Lock> {
        match self.conflict(file, &lock) {
            Some(other) => Err(other),
            None => {
                self.put(file, lock);
                Ok(self.granted())
            }
        }
    }

    /// F_SETLKW. The waiter may be among those that are returned.
    pub fn wait(&mut self, file: u64, lock: Lock, waiter: W) -> Vec<W> {
        self.waiting.push((file, lock, waiter));
        self.granted()
    }

    /// F_UNLCK.
    pub fn unlock(&mut self, file: u64, owner: Owner, bytes: Bytes) -> Vec<W> {
        self.cut(file, owner, bytes);
        self.granted()
    }

    /// Drops the locks of which this is true: an owner's, an open file's, a node's.
    pub fn drop_if(&mut self, gone: impl Fn(u64, &Lock) -> bool) -> Vec<W> {
        self.held.retain(|&file, locks| {
            locks.retain(|lock| !gone(file, lock));
            !locks.is_empty()
        });
        self.granted()
    }

    fn put(&mut self, file: u64, lock: Lock) {
        self.cut(file, lock.owner, lock.bytes);
        self.held.entry(file).or_default().push(lock);
    }

    fn cut(&mut self, file: u64, owner: Owner, bytes: Bytes) {
        let Some(locks) = self.held.get_mut(&file) else {
            return;
        };
        let affected = |lock: &mut Lock| lock.owner == owner && lock.bytes.overlap(bytes);
        let cut: Vec<Lock> = locks.extract_if(.., affected).collect();
        for lock in cut {
            let rest = lock.bytes.without(bytes);
            locks.extend(rest.map(|bytes| Lock { bytes, ..lock }));
        }
    }

    /// Those whose lock is free now, first come first served. They hold it when this returns.
    fn granted(&mut self) -> Vec<W> {
        let mut granted = Vec::new();
        for (file, lock, waiter) in std::mem::take(&mut self.waiting) {
            if self.conflict(file, &lock).is_some() {
                self.waiting.push((file, lock, waiter));
            } else {
                self.put(file, lock);
                granted.push(waiter);
            }
        }
        granted
    }
}
