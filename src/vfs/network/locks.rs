//! Locking, and what is to be seen under a lock.
//!
//! The stock VFS forgets a lock whose end has failed: `posixUnlock` clears its books and answers
//! SQLITE_IOERR_UNLOCK, and nobody else is let in until the file is closed. So the lock is had again by the books, if
//! that is possible, and given back again; if it is not because a writer waits for exactly that, it is given back
//! behind the books' back.

use super::{Health, Network, may_pass, paths};
use crate::durable::transient::{Call, passes};
use crate::sqlite::abi::*;
use crate::turn::mapped::now;
use crate::vfs::file::File;
use crate::vfs::{locks, rim};
use nix::errno::Errno;
use std::ffi::c_int;
use std::sync::atomic::Ordering;

pub unsafe extern "C" fn x_lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    rim::guard(&ours.shim.sqlite, "xLock", SQLITE_IOERR_LOCK, || {
        // SAFETY: the same arguments.
        let lock = || unsafe { locks::x_lock(file, level) };
        match ours.network() {
            Some(network) => network.lock(level, lock),
            None => lock(),
        }
    })
}

pub unsafe extern "C" fn x_unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    rim::guard(&ours.shim.sqlite, "xUnlock", SQLITE_IOERR_UNLOCK, || {
        // SAFETY: the same arguments.
        let unlock = || unsafe { locks::x_unlock(file, level) };
        match ours.network() {
            Some(network) => network.unlock(level, unlock),
            None => unlock(),
        }
    })
}

pub unsafe extern "C" fn x_check_reserved_lock(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let error = SQLITE_IOERR_CHECKRESERVEDLOCK;
    rim::guard(&ours.shim.sqlite, "xCheckReservedLock", error, || {
        let lower = ours.room.lower;
        // SAFETY: the base's file is open, and every file has this method.
        let check = || unsafe {
            match (*lower)
                .pMethods
                .as_ref()
                .and_then(|m| m.xCheckReservedLock)
            {
                Some(check) => check(lower, held),
                None => error,
            }
        };
        match ours.network() {
            Some(network) => network.attempt(Call::CheckReserved, None, check),
            None => check(),
        }
    })
}

impl Network {
    fn lock(&self, level: c_int, lock: impl FnMut() -> c_int) -> c_int {
        let Some(database) = self.database() else {
            return SQLITE_IOERR_LOCK;
        };
        if level > SQLITE_LOCK_SHARED && self.health.get() != Health::Sound {
            self.refuse(Call::Lock, self.health.get());
            return SQLITE_IOERR_LOCK;
        }
        let mut code = self.attempt(Call::Lock, None, lock);
        if code == SQLITE_OK && level == SQLITE_LOCK_SHARED {
            // A new transaction.
            database.counter.forget();
            database.version.set(None);
            self.recover();
            code = self.see_the_present();
        }
        database.level.store(self.lock_state(), Ordering::Relaxed);
        code
    }

    /// Under SHARED: nothing that is cached is believed; see `durable::coherence`.
    fn see_the_present(&self) -> c_int {
        let (Some(database), Some(descriptor)) = (self.database(), self.descriptor) else {
            return SQLITE_OK;
        };
        let status = self.look(Call::Size, || {
            paths::refresh_directory(self)?;
            descriptor.status()
        });
        match status {
            Ok(status) => {
                database.version.set(Some(status.version()));
                if database.freshness.is_doubtful(status.version(), now()) {
                    descriptor.drop_pages();
                }
                SQLITE_OK
            }
            Err(errno) => {
                self.give_back(&mut || self.unlock_base(SQLITE_LOCK_NONE));
                Errno::set(errno);
                SQLITE_IOERR_FSTAT
            }
        }
    }

    fn unlock(&self, level: c_int, mut unlock: impl FnMut() -> c_int) -> c_int {
        let Some(database) = self.database() else {
            return SQLITE_IOERR_UNLOCK;
        };
        // What is not synced by now is not going to be, and not ours to write any more.
        self.unsynced.borrow_mut().clear();
        database.journal.set(None);
        let code = self.give_back(&mut unlock);
        database.level.store(self.lock_state(), Ordering::Relaxed);
        if level == SQLITE_LOCK_NONE {
            self.recover();
        }
        code
    }

    /// The lock that was lost is given back.
    fn recover(&self) {
        if self.health.get() == Health::Fenced {
            self.health.set(Health::Sound);
        }
    }

    /// Unlocks, whatever it takes.
    fn give_back(&self, unlock: &mut dyn FnMut() -> c_int) -> c_int {
        let mut code = unlock();
        if !may_pass(code) {
            return code;
        }
        let mut episode = self.episode(Call::Unlock, None);
        let mut errno = self.errno();
        loop {
            if !passes(Call::Unlock, errno) || !episode.goes_on(errno) {
                episode.failed("others wait until the connection is closed");
                return code;
            }
            code = match self.lock_state() {
                // By the books there is nothing to unlock any more.
                SQLITE_LOCK_NONE => self.unlock_again(),
                _ => unlock(),
            };
            if !may_pass(code) {
                episode.succeeded();
                return code;
            }
            errno = self.errno();
        }
    }

    /// Ends a lock of which the base knows nothing any more.
    fn unlock_again(&self) -> c_int {
        match self.lock_base(SQLITE_LOCK_SHARED) {
            SQLITE_OK => self.unlock_base(SQLITE_LOCK_NONE),
            // Somebody's PENDING keeps us from SHARED, and our forgotten lock keeps him from EXCLUSIVE. It was
            // refused by the system and not by the books, so nobody in this process has a lock.
            SQLITE_BUSY => match self.descriptor.map(|descriptor| descriptor.unlock()) {
                Some(Err(_)) => SQLITE_IOERR_UNLOCK,
                _ => SQLITE_OK,
            },
            code => code,
        }
    }

    fn lock_base(&self, level: c_int) -> c_int {
        // SAFETY: the base's file is open as long as ours is.
        unsafe {
            match (*self.lower).pMethods.as_ref().and_then(|m| m.xLock) {
                Some(x_lock) => x_lock(self.lower, level),
                None => SQLITE_IOERR_LOCK,
            }
        }
    }

    fn unlock_base(&self, level: c_int) -> c_int {
        // SAFETY: the base's file is open as long as ours is.
        unsafe {
            match (*self.lower).pMethods.as_ref().and_then(|m| m.xUnlock) {
                Some(x_unlock) => x_unlock(self.lower, level),
                None => SQLITE_IOERR_UNLOCK,
            }
        }
    }
}
