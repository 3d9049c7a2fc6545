//! Which VFS is underneath, if a URI (or the environment, later on) names another than the
//! registered one.
//!
//! `xDelete` and `xAccess` have a path and no open file, and the base matters to them: one that
//! keeps a database elsewhere than at its path has to be asked for its journals too. So while a
//! database is open on another base, its path is remembered here, and the paths of its journal, its
//! WAL and its super-journals go to the same base; those of any other file do not.

use crate::Error;
use crate::options::Options;
use crate::sqlite::Sqlite;
use crate::sqlite::abi::{SQLITE_ERROR, sqlite3_vfs};
use parking_lot::Mutex;
use std::ffi::CStr;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

/// The VFS that `options` names as base.
pub fn find(sqlite: &Sqlite, options: &Options) -> Result<NonNull<sqlite3_vfs>, Error> {
    let name = options.base.as_c_str();
    let error = |text: &str| {
        let text = format_args!("option base names the VFS \"{}\"{text}", options.base);
        Err(Error::new(SQLITE_ERROR, text))
    };
    if name == super::NAME {
        return error(", which cannot lie on itself; name another, for example unix");
    }
    match sqlite.find(Some(name)) {
        Some(base) => Ok(base),
        None => error(", which is not registered; register it first, or use unix"),
    }
}

/// Whether `base` keeps a database in the file that its path names. `memdb` does not, and the locks of
/// `unix-none` are nobody's.
pub fn has_files(base: NonNull<sqlite3_vfs>) -> bool {
    // SAFETY: a VFS on SQLite's list, whose name is terminated.
    let name = unsafe { CStr::from_ptr(base.as_ref().zName) };
    ![c"memdb", c"unix-none"].contains(&name)
}

/// The open databases that do not lie on the registered base.
pub struct Elsewhere {
    /// The registered base if there are none, which is nearly always; else NULL, and who has a path
    /// has to look further.
    straight: AtomicPtr<sqlite3_vfs>,
    registered: NonNull<sqlite3_vfs>,
    open: Mutex<Vec<Entry>>,
}

struct Entry {
    path: Vec<u8>,
    base: NonNull<sqlite3_vfs>,
}

// SAFETY: the pointers are to VFSes on SQLite's list, which any thread may call.
unsafe impl Send for Elsewhere {}
// SAFETY: likewise; the list is behind the mutex.
unsafe impl Sync for Elsewhere {}

impl Elsewhere {
    /// A child forked while another thread held the mutex would wait for ever; it waits this long, and
    /// then it is an error: a guess might overlook a hot journal. The mutex is held for a few hundred
    /// instructions.
    const PATIENCE: Duration = Duration::from_secs(1);

    pub const fn new(registered: NonNull<sqlite3_vfs>) -> Elsewhere {
        Elsewhere {
            straight: AtomicPtr::new(registered.as_ptr()),
            registered,
            open: Mutex::new(Vec::new()),
        }
    }

    /// A database is being opened on `base`. `None` if it cannot be remembered: then it must not be.
    pub fn enter(&self, path: &CStr, base: NonNull<sqlite3_vfs>) -> Option<()> {
        let mut open = self.open.try_lock_for(Self::PATIENCE)?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(path.count_bytes()).ok()?;
        copy.extend_from_slice(path.to_bytes());
        open.try_reserve(1).ok()?;
        open.push(Entry { path: copy, base });
        self.straight.store(ptr::null_mut(), Ordering::Relaxed);
        Some(())
    }

    /// It was closed.
    pub fn leave(&self, path: &CStr, base: NonNull<sqlite3_vfs>) {
        if let Some(mut open) = self.open.try_lock_for(Self::PATIENCE) {
            let is_it = |e: &Entry| e.base == base && *e.path == *path.to_bytes();
            if let Some(at) = open.iter().position(is_it) {
                open.swap_remove(at);
            }
            if open.is_empty() {
                self.straight
                    .store(self.registered.as_ptr(), Ordering::Relaxed);
            }
        }
    }

    /// The registered base, if every open database lies on it; else NULL.
    #[inline]
    pub fn straight(&self) -> *mut sqlite3_vfs {
        // Relaxed: who asks for a database's journal has opened the database, in this thread or
        // handed over from the one that did.
        self.straight.load(Ordering::Relaxed)
    }

    /// The base of the open database that `path` belongs to, or the registered one if that is none of
    /// these. `None` if it cannot be told.
    #[cold]
    pub fn base_of(&self, path: &CStr) -> Option<NonNull<sqlite3_vfs>> {
        let open = self.open.try_lock_for(Self::PATIENCE)?;
        let belongs = |e: &&Entry| {
            path.to_bytes()
                .strip_prefix(&*e.path)
                .is_some_and(is_suffix)
        };
        // The longest, for the database "a" beside the database "a-journal".
        let database = open.iter().filter(belongs).max_by_key(|e| e.path.len());
        Some(database.map_or(self.registered, |e| e.base))
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

    #[test]
    fn only_a_databases_own_files_follow_it() {
        let [here, there] = [1_usize, 2].map(|n| NonNull::new(n as *mut sqlite3_vfs).unwrap());
        let elsewhere = Elsewhere::new(here);
        elsewhere.enter(c"/x", there).unwrap();
        for ours in [c"/x", c"/x-journal", c"/x-wal", c"/x-mj0123AB9CD"] {
            assert_eq!(elsewhere.base_of(ours), Some(there), "{ours:?}");
        }
        for other in [
            c"/x2.db",
            c"/x2.db-journal",
            c"/x/y",
            c"/x-mj",
            c"/x-journal2",
            c"/",
        ] {
            assert_eq!(elsewhere.base_of(other), Some(here), "{other:?}");
        }
        elsewhere.leave(c"/x", there);
        assert_eq!(elsewhere.base_of(c"/x-journal"), Some(here));
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        let [here, there] = [1_usize, 2].map(|n| NonNull::new(n as *mut sqlite3_vfs).unwrap());
        let elsewhere = Elsewhere::new(here);
        elsewhere.enter(c"/x", there).unwrap();
        // As in a child that was forked while another thread held it.
        let _held = elsewhere.open.lock();
        assert_eq!(elsewhere.base_of(c"/x-journal"), None);
        assert_eq!(elsewhere.enter(c"/y", there), None);
    }
}
