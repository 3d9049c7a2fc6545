//! The open databases whose other files need something of us: those on another base than the registered one, and
//! those that other machines can reach.
//!
//! `xOpen` of a journal, `xDelete` and `xAccess` have a path and no open database, and which one it belongs to matters to
//! them: a base that keeps a database elsewhere than at its path has to be asked for its journals too, and on a network
//! a journal is tried for again. So while such a database is open, its path is remembered here, and the paths of its journal,
//! its WAL and its super-journals are known by it; those of any other file are not.

use super::network::{Network, Policy};
use crate::sqlite::abi::sqlite3_vfs;
use parking_lot::Mutex;
use std::ffi::CStr;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

/// The open databases that are set apart.
pub struct Apart {
    /// The registered base if there are none, which is nearly always; else NULL, and who has a path
    /// has to look further.
    straight: AtomicPtr<sqlite3_vfs>,
    registered: NonNull<sqlite3_vfs>,
    open: Mutex<Vec<Entry>>,
}

struct Entry {
    names: Names,
    path: Vec<u8>,
    base: NonNull<sqlite3_vfs>,
    network: Option<NonNull<Network>>,
    policy: Option<Policy>,
}

/// Where a connection keeps the names of its files, which nobody else calls us with.
struct Names {
    database: usize,
    journal: usize,
    wal: usize,
}

impl Names {
    /// Behind the database's path lie the URI's parameters, which end with an empty one, then its journal's path, then
    /// its WAL's (`sqlite3PagerOpen`; from 3.26 to 3.54 at least).
    ///
    /// # Safety
    /// If it `has_parameters`, the URI's lie behind `path`.
    unsafe fn behind(path: &CStr, has_parameters: bool) -> Names {
        let length = path.count_bytes();
        // SAFETY: the path with its end.
        let mut at = unsafe { path.as_ptr().add(length + 1) };
        if has_parameters {
            // SAFETY: the caller's promise: a key and a value, each terminated, again and again.
            unsafe {
                while *at != 0 {
                    at = at.add(CStr::from_ptr(at).count_bytes() + 1);
                    at = at.add(CStr::from_ptr(at).count_bytes() + 1);
                }
            }
        }
        let journal = at as usize + 1;
        Names {
            database: path.as_ptr() as usize,
            journal,
            wal: journal + length + c"-journal".count_bytes() + 1,
        }
    }

    fn has(&self, name: &CStr) -> bool {
        [self.database, self.journal, self.wal].contains(&(name.as_ptr() as usize))
    }
}

/// The database that a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub base: NonNull<sqlite3_vfs>,
    /// What the caller's connection knows, if other machines can reach the database.
    pub network: Option<NonNull<Network>>,
    /// There are databases that other machines can reach.
    pub is_network: bool,
    /// Of the database, if other machines can reach it, whosever connection it is.
    pub policy: Option<Policy>,
}

// SAFETY: the pointers are to VFSes on SQLite's list, which any thread may call.
unsafe impl Send for Apart {}
// SAFETY: likewise; the list is behind the mutex.
unsafe impl Sync for Apart {}

impl Apart {
    /// A child forked while another thread held the mutex would wait for ever; it waits this long, and
    /// then it is an error: a guess might overlook a hot journal. The mutex is held for a few hundred
    /// instructions.
    const PATIENCE: Duration = Duration::from_secs(1);

    pub const fn new(registered: NonNull<sqlite3_vfs>) -> Apart {
        Apart {
            straight: AtomicPtr::new(registered.as_ptr()),
            registered,
            open: Mutex::new(Vec::new()),
        }
    }

    /// A database is being opened on `base`. `None` if it cannot be remembered: then it must not be.
    ///
    /// # Safety
    /// If it `has_parameters`, the URI's lie behind `path`.
    pub unsafe fn enter(
        &self,
        path: &CStr,
        has_parameters: bool,
        base: NonNull<sqlite3_vfs>,
        network: Option<NonNull<Network>>,
    ) -> Option<()> {
        let mut open = self.open.try_lock_for(Self::PATIENCE)?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(path.count_bytes()).ok()?;
        copy.extend_from_slice(path.to_bytes());
        open.try_reserve(1).ok()?;
        open.push(Entry {
            // SAFETY: the caller's promise.
            names: unsafe { Names::behind(path, has_parameters) },
            path: copy,
            base,
            network,
            // SAFETY: it was made just now.
            policy: network.map(|network| unsafe { network.as_ref() }.policy()),
        });
        self.straight.store(ptr::null_mut(), Ordering::Relaxed);
        Some(())
    }

    /// The connection that has its path there was closed. False: that could not be noted, and what it has must stay.
    pub fn leave(&self, path: &CStr) -> bool {
        let Some(mut open) = self.open.try_lock_for(Self::PATIENCE) else {
            return false;
        };
        let is_it = |e: &Entry| e.names.database == path.as_ptr() as usize;
        if let Some(at) = open.iter().position(is_it) {
            open.swap_remove(at);
        }
        if open.is_empty() {
            self.straight
                .store(self.registered.as_ptr(), Ordering::Relaxed);
        }
        true
    }

    /// The registered base, if no open database is set apart; else NULL.
    #[inline]
    pub fn straight(&self) -> *mut sqlite3_vfs {
        // Relaxed: who asks for a database's journal has opened the database, in this thread or
        // handed over from the one that did.
        self.straight.load(Ordering::Relaxed)
    }

    /// The open database that `path` belongs to, or the registered base if that is none of these. `None` if it
    /// cannot be told.
    #[cold]
    pub fn owner_of(&self, path: &CStr) -> Option<Owner> {
        let open = self.open.try_lock_for(Self::PATIENCE)?;
        let belongs = |e: &&Entry| {
            path.to_bytes()
                .strip_prefix(&*e.path)
                .is_some_and(is_suffix)
        };
        // Several connections may have it open. Another's than the caller's must not be touched: it may be closed
        // meanwhile. Then the longest, for the database "a" beside the database "a-journal".
        let is_callers = |e: &Entry| e.names.has(path);
        let owners = open.iter().filter(belongs);
        let owner = owners.max_by_key(|e| (is_callers(e), e.path.len()));
        let is_network = open.iter().any(|e| e.network.is_some());
        Some(Owner {
            base: owner.map_or(self.registered, |e| e.base),
            network: owner.and_then(|e| e.network.filter(|_| is_callers(e))),
            is_network,
            policy: owner.and_then(|e| e.policy),
        })
    }
}

/// What SQLite puts behind a database's path: nothing, `-journal`, `-wal` (sqlite3PagerOpen), or
/// `-mj` and nine hexadecimal digits (vdbeCommit's super-journal).
fn is_suffix(rest: &[u8]) -> bool {
    match rest {
        b"" | b"-journal" | b"-wal" => true,
        [b'-', b'm', b'j', digits @ ..] => {
            digits.len() == 9 && digits.iter().all(u8::is_ascii_hexdigit)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(apart: &Apart, path: &CStr, base: NonNull<sqlite3_vfs>) -> Option<()> {
        // SAFETY: no parameters.
        unsafe { apart.enter(path, false, base, None) }
    }

    fn base_of(apart: &Apart, path: &CStr) -> Option<NonNull<sqlite3_vfs>> {
        apart.owner_of(path).map(|owner| owner.base)
    }

    #[test]
    fn only_a_databases_own_files_follow_it() {
        let [here, there] = [1_usize, 2].map(|n| NonNull::new(n as *mut sqlite3_vfs).unwrap());
        let apart = Apart::new(here);
        let path = c"/x";
        enter(&apart, path, there).unwrap();
        for ours in [c"/x", c"/x-journal", c"/x-wal", c"/x-mj0123AB9CD"] {
            assert_eq!(base_of(&apart, ours), Some(there), "{ours:?}");
        }
        for other in [
            c"/x2.db",
            c"/x2.db-journal",
            c"/x/y",
            c"/x-mj",
            c"/x-journal2",
            c"/",
        ] {
            assert_eq!(base_of(&apart, other), Some(here), "{other:?}");
        }
        assert!(apart.leave(path));
        assert_eq!(base_of(&apart, c"/x-journal"), Some(here));
    }

    #[test]
    fn a_connection_is_known_by_where_its_names_are() {
        let names: [&[u8]; 2] = [
            b"/x.db\0fs\0network\0k\0\0\0/x.db-journal\0/x.db-wal\0\0",
            b"/x.db\0\0/x.db-journal\0/x.db-wal\0\0",
        ];
        for (names, has_parameters) in names.into_iter().zip([true, false]) {
            let inside = |name: &str| {
                let at = String::from_utf8_lossy(names)
                    .find(&format!("{name}\0"))
                    .unwrap();
                CStr::from_bytes_until_nul(&names[at..]).unwrap()
            };
            // SAFETY: they are as SQLite has them.
            let known = unsafe { Names::behind(inside("/x.db"), has_parameters) };
            for name in ["/x.db", "/x.db-journal", "/x.db-wal"] {
                assert!(known.has(inside(name)), "{name} {has_parameters}");
            }
            assert!(!known.has(c"/x.db-journal") && !known.has(inside("x.db")));
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        let [here, there] = [1_usize, 2].map(|n| NonNull::new(n as *mut sqlite3_vfs).unwrap());
        let apart = Apart::new(here);
        enter(&apart, c"/x", there).unwrap();
        // As in a child that was forked while another thread held it.
        let _held = apart.open.lock();
        assert_eq!(base_of(&apart, c"/x-journal"), None);
        assert_eq!(enter(&apart, c"/y", there), None);
    }
}
