//! A database that other machines can reach, and its journal: nothing is mapped, errors that pass are waited
//! out, and what was written is kept until it is synced. See `durable` for the rules.
//!
//! Invariants:
//! - What the base answers with success is passed on. What it answers with an error is tried again by the rules of
//!   `durable`, or passed on.
//! - A file whose lock was lost ([`Health::Fenced`]) changes nothing any more until the lock is given back; one of
//!   which a sync has failed for good ([`Health::Poisoned`]) changes nothing any more.
//! - The methods are those of SQLite's iVersion 1: there is no `xShmMap` and no `xFetch`.
//!
//! | file | idea |
//! |---|---|
//! | `methods` | reading, writing, syncing |
//! | `locks` | locking, and what is to be seen under a lock |
//! | `controls` | file controls: what is not offered here |
//! | `proof` | whether a file may still be read and changed |
//! | `paths` | journals by their names: looking, making, deleting |
//! | `open` | opening, and what is said about the ground |
//! | `convert` | a WAL database becomes a rollback database |

pub use convert::options as converting;

/// A method of the base's file behind `$file`, by a raw pointer.
macro_rules! base {
    ($network:expr, $error:expr, $method:ident($($argument:expr),*)) => {{
        let lower = $network.lower;
        // SAFETY: the base's file is open as long as ours is, and the arguments are SQLite's own or a part of them.
        unsafe {
            match (*lower).pMethods.as_ref().and_then(|methods| methods.$method) {
                Some(method) => method(lower, $($argument),*),
                None => $error,
            }
        }
    }};
}

pub mod controls;
mod convert;
pub mod locks;
pub mod methods;
pub mod open;
pub mod paths;
mod proof;

use super::Shim;
use super::memory::try_box;
use crate::Options;
use crate::durable::coherence::Freshness;
use crate::durable::descriptor::{Descriptor, Identity, Status, Version};
use crate::durable::episode::Episode;
use crate::durable::fence::{Belief, Proof};
use crate::durable::transient::{Call, passes};
use crate::durable::unsynced::Unsynced;
use crate::sqlite::abi::*;
use nix::errno::Errno;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};

/// Whether a file can still be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Sound,
    /// The lock was lost, until it is given back.
    Fenced,
    /// Written data was lost, until the file is closed.
    Poisoned,
}

/// What the environment and the URI say about this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long one call is tried again, in nanoseconds.
    retry: u64,
    /// How much unsynced data is kept, in bytes.
    resync: usize,
}

impl Policy {
    /// A metadata server fails over in less than half a minute.
    const RETRY_MS: u32 = 30_000;
    /// Larger transactions than that are rare, and memory is not.
    const RESYNC_KB: u32 = 65_536;

    fn of(options: &Options) -> Policy {
        let retry = u64::from(options.retry_ms.unwrap_or(Self::RETRY_MS)) * 1_000_000;
        let resync = options.resync_kb.unwrap_or(Self::RESYNC_KB) as usize * 1024;
        Policy {
            retry,
            resync: if retry == 0 { 0 } else { resync },
        }
    }
}

/// What is known of an open file. SQLite uses a file in one thread at a time.
pub struct Network {
    shim: &'static Shim,
    lower: *mut sqlite3_file,
    /// Of the stock VFS's file; others tell none.
    descriptor: Option<Descriptor>,
    path: &'static CStr,
    policy: Policy,
    unsynced: RefCell<Unsynced>,
    health: Cell<Health>,
    /// A call was given up, and none has succeeded since: the next ones are not tried again.
    is_exhausted: Cell<bool>,
    role: Role,
    /// What tells this transaction's file from another's.
    belief: Belief,
}

/// What the file is.
enum Role {
    Database(Database),
    Journal(Journal),
}

pub struct Database {
    inode: Option<u64>,
    /// Nothing is read without one: a read that is under way leaves old pages behind for those who have one.
    has_locks: bool,
    /// Whether it is in WAL mode is not known yet.
    pending: RefCell<Option<Box<convert::Pending>>>,
    /// GlusterFS' client answers from caches of its own.
    is_gluster: bool,
    /// When the database was changed last and how large it is, if we have not written since.
    version: Cell<Option<Version>>,
    freshness: Freshness,
    /// A call was given up: the lock is proved before anything else.
    in_doubt: Cell<bool>,
    /// Something was read since its last change was seen: SQLite has found no hot journal then, or played it back.
    is_looked_after: Cell<bool>,
    /// Nothing was written since: there is no journal to look for.
    is_unchanged: Cell<bool>,
    /// Nothing is written without a new time of the last change.
    stamps_writes: bool,
    /// The journal that this transaction has opened for writing, as long as the turn lasts.
    journal: Cell<Option<Identity>>,
    /// The same, as long as it is open.
    open_journal: Cell<Option<NonNull<Network>>>,
    /// Names are asked of the server by an attempt to make them; see `durable::coherence`.
    asks_by_making: bool,
    /// Its attributes are fetched under each lock, where that helps against cached names.
    directory: Option<OwnedFd>,
}

pub struct Journal {
    /// Whose it is; `None` if it is only looked at.
    database: Option<NonNull<Network>>,
    /// Its name is nobody else's, so it needs no lock.
    is_super: bool,
    /// It may have been made by us, and its directory is not synced yet.
    is_new: Cell<bool>,
}

impl Network {
    /// `None` if memory is out.
    fn new(
        shim: &'static Shim,
        lower: *mut sqlite3_file,
        descriptor: Option<Descriptor>,
        path: &'static CStr,
        policy: Policy,
        role: Role,
    ) -> Option<NonNull<Network>> {
        let belief = match role {
            Role::Database(_) => Belief::of_counter(),
            Role::Journal(_) => Belief::of_journal(),
        };
        let network = try_box(Network {
            shim,
            lower,
            descriptor,
            path,
            policy,
            unsynced: RefCell::new(Unsynced::new(policy.resync)),
            health: Cell::new(Health::Sound),
            is_exhausted: Cell::new(false),
            role,
            belief,
        })?;
        Some(NonNull::from(Box::leak(network)))
    }

    /// The file is closed.
    ///
    /// # Safety
    /// It came from [`Network::new`] and is not used any more.
    pub unsafe fn free(network: NonNull<Network>) {
        // SAFETY: the caller's promise.
        let network = unsafe { Box::from_raw(network.as_ptr()) };
        if let Role::Journal(Journal {
            database: Some(database),
            ..
        }) = &network.role
        {
            // SAFETY: SQLite closes a journal before its database (sqlite3PagerClose).
            let database = unsafe { database.as_ref() };
            if let Some(database) = database.database() {
                database.open_journal.set(None);
            }
        }
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    fn database(&self) -> Option<&Database> {
        match &self.role {
            Role::Database(database) => Some(database),
            Role::Journal(_) => None,
        }
    }

    /// The database whose turn allows changes to this file.
    fn owner(&self) -> Option<&Network> {
        match &self.role {
            Role::Database(_) => Some(self),
            // SAFETY: as in `free`.
            Role::Journal(journal) => journal.database.map(|owner| unsafe { owner.as_ref() }),
        }
    }

    /// Whether its connection may write now.
    fn has_the_turn(&self) -> bool {
        self.lock_state() >= SQLITE_LOCK_RESERVED
    }

    /// Data was lost: nothing is written any more.
    fn poison(&self, errno: Errno) {
        self.health.set(Health::Poisoned);
        if let Some(descriptor) = self.descriptor {
            // Others on this machine are to see what the server has.
            descriptor.drop_pages();
        }
        self.shim.log(
            SQLITE_IOERR_FSYNC,
            format_args!(
                "{} is not written to any more: a sync failed ({errno:?}), and what it would have saved may be lost; \
                 reopen the connection",
                crate::text::PathEnd(self.path)
            ),
        );
    }

    /// The errno of the base's last failure.
    fn errno(&self) -> Errno {
        let mut errno: c_int = 0;
        self.control(SQLITE_FCNTL_LAST_ERRNO, ptr::from_mut(&mut errno).cast());
        Errno::from_raw(errno)
    }

    /// SQLITE_LOCK_*: what the base has in its books.
    fn lock_state(&self) -> c_int {
        let mut level: c_int = SQLITE_LOCK_NONE;
        self.control(SQLITE_FCNTL_LOCKSTATE, ptr::from_mut(&mut level).cast());
        level
    }

    fn control(&self, op: c_int, argument: *mut std::ffi::c_void) -> c_int {
        // SAFETY: the base's file is open as long as ours is; the argument is what `op` has.
        unsafe {
            match (*self.lower).pMethods.as_ref().and_then(|m| m.xFileControl) {
                Some(x_file_control) => x_file_control(self.lower, op, argument),
                None => SQLITE_NOTFOUND,
            }
        }
    }

    fn episode(&self, call: Call, at: Option<i64>) -> Episode<'_> {
        Episode::new(&self.shim.sqlite, self.path, (call, at), self.budget())
    }

    fn budget(&self) -> u64 {
        match self.is_exhausted.get() {
            true => 0,
            false => self.policy.retry,
        }
    }

    /// What the server says of the file.
    fn fresh_status(&self, descriptor: Descriptor) -> nix::Result<Status> {
        if self.database().is_some_and(|d| d.is_gluster) {
            descriptor.sync()?;
        }
        descriptor.status()
    }

    /// Makes a call of the base's, and makes it again for as long as its error passes.
    fn attempt(&self, call: Call, at: Option<i64>, mut make: impl FnMut() -> c_int) -> c_int {
        match make() {
            code if may_pass(code) => self.attempt_again(call, at, code, &mut make),
            code => {
                self.is_exhausted.set(false);
                code
            }
        }
    }

    #[cold]
    fn attempt_again(
        &self,
        call: Call,
        at: Option<i64>,
        mut code: c_int,
        make: &mut dyn FnMut() -> c_int,
    ) -> c_int {
        let mut episode = self.episode(call, at);
        loop {
            let errno = self.errno();
            if !passes(call, errno) {
                episode.failed("this error does not pass");
                self.doubt();
                return code;
            }
            if self.may_go_on(&mut episode, errno).is_err() {
                return code;
            }
            code = make();
            if !may_pass(code) {
                episode.succeeded();
                return code;
            }
        }
    }

    /// A call of our own that changes nothing, made again for as long as its error passes.
    fn look<T>(&self, call: Call, make: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
        self.look_at(self.path, call, make)
    }

    /// The same, about `path`. After an error the lock is in doubt, whatever the call was.
    fn look_at<T>(
        &self,
        path: &CStr,
        call: Call,
        mut make: impl FnMut() -> nix::Result<T>,
    ) -> nix::Result<T> {
        let mut episode = Episode::new(&self.shim.sqlite, path, (call, None), self.budget());
        let found = look(&mut episode, &mut make);
        if let Err(errno) = found
            && passes(call, errno)
        {
            self.is_exhausted.set(true);
            self.doubt();
            return Err(errno);
        }
        self.is_exhausted.set(false);
        if !episode.has_begun() {
            return found;
        }
        match self.prove(call) {
            Proof::Ours => found,
            Proof::Lost(why) => {
                self.fence(call, why);
                Err(Errno::EIO)
            }
            Proof::Unknown(errno) => match self.may_go_on(&mut episode, errno) {
                Ok(()) => found,
                Err(_) => Err(errno),
            },
        }
    }
}

/// Makes a call for as long as its error passes.
fn look<T>(episode: &mut Episode<'_>, make: &mut dyn FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match make() {
            Err(errno) if passes(episode.call(), errno) => {
                if !episode.goes_on(errno) {
                    episode.failed("raise retry_ms, or see to the file system");
                    return Err(errno);
                }
            }
            result => {
                episode.succeeded();
                return result;
            }
        }
    }
}

/// Whether the base answers so if a system call has failed. (SQLITE_FULL is none: there is no room.)
fn may_pass(code: c_int) -> bool {
    let is_error = matches!(code & 0xff, SQLITE_IOERR | SQLITE_CANTOPEN);
    is_error && code != SQLITE_IOERR_SHORT_READ && code != SQLITE_IOERR_NOMEM
}
