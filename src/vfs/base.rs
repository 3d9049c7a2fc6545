//! Which VFS is underneath, if a URI (or the environment, later on) names another than the
//! registered one.
//!
//! `xDelete` and `xAccess` have a path and no open file, and the base matters to them: one that
//! keeps a database elsewhere than at its path has to be asked for its journals too. So while a
//! database is open on another base, its path is remembered here, and every path that begins with
//! it (`-journal`, `-wal`, a super-journal's `-mj...`) goes to the same base.

use crate::Error;
use crate::options::Options;
use crate::sqlite::Sqlite;
use crate::sqlite::abi::{SQLITE_ERROR, sqlite3_vfs};
use parking_lot::Mutex;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The VFS that `options` names as base.
pub fn find(sqlite: &Sqlite, options: &Options) -> Result<NonNull<sqlite3_vfs>, Error> {
    let name = options.base.as_c_str();
    let error = |text: &str| {
        let text = format!("option base names the VFS \"{}\"{text}", options.base);
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

/// The open databases that do not lie on the registered base.
pub struct Elsewhere {
    /// How many there are. Nearly always none, and then nobody looks further.
    count: AtomicUsize,
    open: Mutex<Vec<Entry>>,
}

struct Entry {
    path: Box<[u8]>,
    base: NonNull<sqlite3_vfs>,
}

// SAFETY: the pointers are to VFSes on SQLite's list, which any thread may call.
unsafe impl Send for Elsewhere {}
// SAFETY: likewise; the list is behind the mutex.
unsafe impl Sync for Elsewhere {}

impl Elsewhere {
    /// A child forked while another thread held the mutex would wait for ever; it waits this long and
    /// then takes the registered base. The mutex is held for a few hundred instructions.
    const PATIENCE: Duration = Duration::from_secs(1);

    pub const fn new() -> Elsewhere {
        Elsewhere {
            count: AtomicUsize::new(0),
            open: Mutex::new(Vec::new()),
        }
    }

    /// A database was opened on `base`.
    pub fn enter(&self, path: &CStr, base: NonNull<sqlite3_vfs>) {
        if let Some(mut open) = self.open.try_lock_for(Self::PATIENCE) {
            let path = path.to_bytes().into();
            open.push(Entry { path, base });
            self.count.store(open.len(), Ordering::Relaxed);
        }
    }

    /// It was closed.
    pub fn leave(&self, path: &CStr, base: NonNull<sqlite3_vfs>) {
        if let Some(mut open) = self.open.try_lock_for(Self::PATIENCE) {
            let is_it = |e: &Entry| e.base == base && *e.path == *path.to_bytes();
            if let Some(at) = open.iter().position(is_it) {
                open.swap_remove(at);
            }
            self.count.store(open.len(), Ordering::Relaxed);
        }
    }

    /// Whether every open database lies on the registered base.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // Relaxed: who asks for a database's journal has opened the database, in this thread or
        // handed over from the one that did.
        self.count.load(Ordering::Relaxed) == 0
    }

    /// The base of the open database that `path` belongs to, if it is not the registered one.
    #[cold]
    pub fn base_of(&self, path: &CStr) -> Option<NonNull<sqlite3_vfs>> {
        let open = self.open.try_lock_for(Self::PATIENCE)?;
        let belongs = |e: &&Entry| path.to_bytes().starts_with(&e.path);
        // The longest, for the database "a" beside the database "a-journal".
        open.iter()
            .filter(belongs)
            .max_by_key(|e| e.path.len())
            .map(|e| e.base)
    }
}
