//! The requests that a kernel sends, and how many of each came from each node.

use std::fmt;
use std::ops::Index;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! ops {
    ($($op:ident),* $(,)?) => {
        /// A kind of request, as FUSE names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op { $($op),* }

        impl Op {
            pub const ALL: &[Op] = &[$(Op::$op),*];
        }
    };
}

ops! {
    // A path becomes an inode; its attributes (`stat` is one or both of them).
    Lookup, Getattr,
    // `Truncate` is a setattr that sets the size.
    Setattr, Truncate,
    Open, Create, Read, Write, Fsync,
    // Each `close`, and the last one of an open file (later, and nobody waits for it).
    Flush, Release,
    Opendir, Readdir, Releasedir, Fsyncdir,
    Mknod, Mkdir, Rmdir, Symlink, Readlink, Link, Rename, Unlink,
    Getlk, Setlk, Unlock,
    Statfs,
}

impl Op {
    /// A close closes, whatever it answers: the kernel will not ask again.
    pub fn always_done(self) -> bool {
        matches!(self, Op::Flush | Op::Release | Op::Releasedir)
    }
}

const KINDS: usize = Op::ALL.len();

/// A count by node and kind.
pub struct Tally(Vec<[AtomicU64; KINDS]>);

impl Tally {
    pub fn new(nodes: usize) -> Tally {
        let zeros = || [const { AtomicU64::new(0) }; KINDS];
        Tally((0..nodes).map(|_| zeros()).collect())
    }

    pub fn add(&self, node: usize, op: Op) {
        self.0[node][op as usize].fetch_add(1, Relaxed);
    }

    pub fn of(&self, node: usize) -> Counts {
        Counts(std::array::from_fn(|op| self.0[node][op].load(Relaxed)))
    }

    pub fn reset(&self) {
        for count in self.0.iter().flatten() {
            count.store(0, Relaxed);
        }
    }
}

/// The counts of one node: `counts[Op::Fsync]`, `counts.total()`, or all of them, printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Counts([u64; KINDS]);

impl Counts {
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Index<Op> for Counts {
    type Output = u64;

    fn index(&self, op: Op) -> &u64 {
        &self.0[op as usize]
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = Op::ALL.iter().filter(|&&op| self[op] > 0);
        f.debug_map()
            .entries(some.map(|&op| (op, self[op])))
            .finish()
    }
}
