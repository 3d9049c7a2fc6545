//! A cluster file system to test on: several mounts of one directory, on this machine and in this
//! process, that behave as the nodes of a cluster.
//!
//! Each node is a FUSE mount with page, attribute and name caches of its own. Behind them is one
//! server: it has the files (a backing directory), the byte-range locks of all nodes, and a plan of what
//! is to go wrong.
//!
//! ```ignore
//! let cluster = Cluster::new(&[Mount::default(); 2]);
//! let db = cluster.path(0).join("state.db");          // and cluster.path(1) for the other node
//! let fault = cluster.inject(Fault::at(&[Op::Unlink]).of("-journal").nth(3).times(1).lie(Errno::EIO));
//! // ... processes work on the two nodes ...
//! assert_eq!(cluster.fired(fault), 1);
//! println!("{:?}", cluster.counts(0));
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `mount` | mount, unmount whatever happens |
//! | `node` | a node, and the way of its requests: count, let the plan decide, do, answer |
//! | `requests`, `locking` | what it asks for |
//! | `ops` | the kinds of requests, and their counts |
//! | `faults` | the plan |
//! | `locks` | the table of locks |
//! | `inodes` | the files |
//! | `unsynced` | their data, as long as it can be lost |
//! | `guest` | a process that works on it |
//!
//! A process must not wait for itself: what maps a file of the cluster should be another process.
#![allow(dead_code)]

pub mod faults;
pub mod guest;
mod inodes;
mod locking;
pub mod locks;
mod mount;
mod node;
mod ops;
mod requests;
pub mod unsynced;

pub use faults::{Fault, Id};
pub use fuser::Errno;
pub use ops::{Counts, Op};

use faults::Plan;
use fuser::{INodeNo, ReplyEmpty};
use inodes::Inodes;
use locks::Locks;
use mount::{Mounted, Watchdog};
use node::{Handles, Node};
use ops::Tally;
use parking_lot::Mutex;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use unsynced::Store;

/// What of a file's data a node's kernel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Nothing (`FOPEN_DIRECT_IO`): each `read` is a request. `MAP_SHARED` is refused with ENODEV.
    Direct,
    /// Nothing, and files can be mapped all the same. What is mapped is kept.
    DirectMapped,
    /// Its pages, until somebody on this node opens the file.
    UntilOpened,
    /// Its pages (`FOPEN_KEEP_CACHE`).
    Kept,
}

/// Who knows of a node's locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockScope {
    Cluster,
    /// Its own kernel only, as with Lustre's `localflock` and NFS's `local_lock=all`.
    Node,
    /// Nobody: each call is answered with ENOSYS, as with Lustre's `noflock`.
    Nobody,
}

/// How a node mounts the file system.
#[derive(Clone, Copy, Debug)]
pub struct Mount {
    pub pages: Pages,
    /// How long attributes are believed. Whenever they are fetched anew and size or time of
    /// modification differ, the file's pages are dropped.
    pub attributes: Duration,
    /// How long a name is believed to lead to the same file.
    pub entries: Duration,
    /// How long a name is believed to lead nowhere.
    pub absences: Duration,
    pub locks: LockScope,
    /// Its type in `/proc/self/mountinfo`: `fuse.` and a name.
    pub kind: &'static str,
}

impl Default for Mount {
    /// Nothing is cached.
    fn default() -> Self {
        Mount {
            pages: Pages::Direct,
            attributes: Duration::ZERO,
            entries: Duration::ZERO,
            absences: Duration::ZERO,
            locks: LockScope::Cluster,
            kind: "fuse.cluster",
        }
    }
}

impl Mount {
    /// Everything is cached, and believed for so long.
    pub fn cached(time: Duration) -> Mount {
        Mount {
            pages: Pages::Kept,
            attributes: time,
            entries: time,
            absences: time,
            ..Mount::default()
        }
    }
}

/// What all nodes share.
struct Server {
    inodes: Inodes,
    handles: Handles,
    store: Store,
    locks: Mutex<Locks<ReplyEmpty>>,
    plan: Mutex<Plan>,
    requests: Tally,
    injected: Tally,
}

impl Server {
    /// Drops the locks of which this is true and lets in who waited for them.
    fn drop_locks(&self, gone: impl Fn(u64, &locks::Lock) -> bool) {
        let granted = self.locks.lock().drop_if(gone);
        granted.into_iter().for_each(ReplyEmpty::ok);
    }
}

/// The cluster. When it is dropped it is unmounted, whoever still uses it, and its files are gone.
pub struct Cluster {
    // In the order in which they are dropped.
    mounts: Vec<Mounted>,
    watchdog: Watchdog,
    server: Arc<Server>,
    home: TempDir,
}

impl Cluster {
    /// Whether this machine can have one. If not, the test named `test` is to return.
    pub fn available(test: &str) -> bool {
        let mut options = OpenOptions::new();
        let device = options.read(true).write(true).open("/dev/fuse");
        let there = nix::unistd::geteuid().is_root() && device.is_ok();
        let remedy = "run as root, with the device /dev/fuse";
        crate::support::available(test, "FUSE", there, remedy)
    }

    /// One node for each mount. What is written is in the backing file at once.
    pub fn new(mounts: &[Mount]) -> Cluster {
        Cluster::with(mounts, Store::WriteThrough)
    }

    /// What is written can be lost until it is synced: by an injected failure of fsync, or by [`Cluster::crash`].
    pub fn volatile(mounts: &[Mount]) -> Cluster {
        Cluster::with(mounts, Store::Volatile(Mutex::default()))
    }

    fn with(mounts: &[Mount], store: Store) -> Cluster {
        let home = tempfile::tempdir().expect("a directory");
        let backing = home.path().join("backing");
        std::fs::create_dir(&backing).expect("the backing directory");
        let server = Arc::new(Server {
            inodes: Inodes::new(&backing, mounts.len()).expect("the root"),
            handles: Handles::default(),
            store,
            locks: Mutex::default(),
            plan: Mutex::default(),
            requests: Tally::new(mounts.len()),
            injected: Tally::new(mounts.len()),
        });
        let paths: Vec<PathBuf> = (0..mounts.len())
            .map(|id| home.path().join(format!("node{id}")))
            .collect();
        let watchdog = Watchdog::new(paths.iter().map(PathBuf::as_path)).expect("sh");
        let mount = |(id, path)| {
            let (server, mount) = (server.clone(), mounts[id]);
            Mounted::new(path, Node { server, id, mount }).expect("mount")
        };
        Cluster {
            mounts: paths.into_iter().enumerate().map(mount).collect(),
            watchdog,
            server,
            home,
        }
    }

    /// Where a node's mount is.
    pub fn path(&self, node: usize) -> &Path {
        &self.mounts[node].path
    }

    /// The directory behind all nodes: what is in it has reached the disk.
    pub fn backing(&self) -> PathBuf {
        self.home.path().join("backing")
    }

    /// From now on this goes wrong.
    pub fn inject(&self, fault: Fault) -> Id {
        self.server.plan.lock().inject(fault)
    }

    /// How many requests the fault has struck.
    pub fn fired(&self, fault: Id) -> u64 {
        self.server.plan.lock().fired(fault)
    }

    pub fn lift(&self, fault: Id) {
        self.server.plan.lock().lift(fault);
    }

    pub fn lift_all(&self) {
        self.server.plan.lock().lift_all();
    }

    /// Drops all locks of a node, and nobody tells it.
    pub fn forget_locks(&self, node: usize) {
        self.server.drop_locks(|_, lock| lock.owner.node == node);
    }

    /// What happens to a client that was not heard of for too long: its locks go to others, and for some
    /// time all that it asks is answered with EIO.
    pub fn evict(&self, node: usize, time: Duration) -> Id {
        let silence = Fault::at(Op::ALL).on(node).answer(Errno::EIO);
        let fault = self.inject(silence.lasting(time));
        self.forget_locks(node);
        fault
    }

    /// Drops all that is not synced, and what the nodes have cached of it: the machines were off.
    /// Processes, open files and locks are still there.
    pub fn crash(&self) {
        self.server.store.lose_all();
        (0..self.mounts.len()).for_each(|node| self.drop_caches(node));
    }

    /// Makes a node's kernel drop all pages and attributes, but not names.
    pub fn drop_caches(&self, node: usize) {
        let notifier = self.mounts[node].notifier();
        for number in self.server.inodes.numbers() {
            let _ = notifier.inval_inode(INodeNo(number), 0, 0);
        }
    }

    /// What a node has asked since the last [`Cluster::reset_counts`].
    pub fn counts(&self, node: usize) -> Counts {
        self.server.requests.of(node)
    }

    /// How much of it was struck by faults.
    pub fn injected(&self, node: usize) -> Counts {
        self.server.injected.of(node)
    }

    pub fn reset_counts(&self) {
        self.server.requests.reset();
        self.server.injected.reset();
    }
}
