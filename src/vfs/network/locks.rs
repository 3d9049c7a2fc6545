//! Locking, and what is to be seen under a lock.
//!
//! # Locks that nobody knows of
//! The stock VFS forgets a lock whose end has failed: `posixUnlock` clears its books and answers SQLITE_IOERR_UNLOCK.
//! It never knew of one that it got in an attempt at SHARED that failed then (`unixLock`). Nobody else is let in until the
//! file is closed. So SHARED is had by the books, if that is possible, and given back; if it is not, because a
//! writer of another process waits for exactly that, the lock is given back behind the books' back. (No connection in this
//! process has a lock then, or it would have had SHARED by the books alone. If one gets it before the server
//! has answered, because that writer gives up just then, it loses it.)

use super::{Database, Health, Network, convert, may_pass, open, paths};
use crate::durable::descriptor::{Descriptor, Status};
use crate::durable::transient::{Call, passes};
use crate::sqlite::abi::*;
use crate::text::{PathEnd, Text};
use crate::turn::mapped::now;
use crate::vfs::file::File;
use crate::vfs::{locks, rim};
use crate::wait::backoff::Backoff;
use crate::{Fs, filesystem};
use nix::errno::Errno;
use std::ffi::c_int;
use std::time::Duration;

/// 1 ms, doubled up to 16 ms.
const BACKOFF: Backoff = Backoff {
    first: 1_000_000,
    cap: 16_000_000,
};

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
            Some(network) => network.unlock(unlock),
            None => unlock(),
        }
    })
}

pub unsafe extern "C" fn x_check_reserved_lock(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let error = SQLITE_IOERR_CHECKRESERVEDLOCK;
    rim::guard(
        &ours.shim.sqlite,
        "xCheckReservedLock",
        error,
        || match ours.network() {
            Some(network) => network.attempt(Call::CheckReserved, None, || {
                base!(network, error, xCheckReservedLock(held))
            }),
            None => error,
        },
    )
}

impl Network {
    fn lock(&self, level: c_int, mut lock: impl FnMut() -> c_int) -> c_int {
        let Some(database) = self.database() else {
            return SQLITE_IOERR_LOCK;
        };
        if level > SQLITE_LOCK_SHARED {
            let health = self.health.get();
            if health != Health::Sound {
                self.refuse(Call::Lock, health);
                return SQLITE_IOERR_LOCK;
            }
            if self.stops(Call::Lock) {
                return SQLITE_IOERR_LOCK;
            }
        }
        let before = self.lock_state();
        let mut has_failed = false;
        let mut code = self.attempt(Call::Lock, None, || {
            Errno::clear();
            let code = lock();
            // The end of PENDING has failed, and unixLock answers SQLITE_BUSY all the same: it was refused SHARED.
            let is_silent = code == SQLITE_BUSY && passes(Call::Lock, Errno::last());
            has_failed |= may_pass(code) || is_silent;
            if code != SQLITE_OK {
                self.explain(Errno::last());
            }
            code
        });
        // Not who converts a WAL database: those who have it open stay.
        let is_recovery = level == SQLITE_LOCK_EXCLUSIVE
            && before == SQLITE_LOCK_SHARED
            && convert::options(self.path).is_none();
        if is_recovery && code == SQLITE_BUSY {
            code = self.drain(&mut lock);
        }
        if has_failed && code != SQLITE_OK && self.lock_state() == SQLITE_LOCK_NONE {
            self.give_back(&mut || self.unlock_unknown());
        }
        if level == SQLITE_LOCK_SHARED && before > SQLITE_LOCK_NONE {
            // An unlock has failed before, and the books were never closed.
            database.in_doubt.set(true);
        } else if code == SQLITE_OK && level == SQLITE_LOCK_SHARED {
            // A new transaction.
            self.belief.forget();
            database.version.set(None);
            self.recover();
            code = self.see_the_present();
            if code == SQLITE_OK {
                code = self.leave_wal(&mut lock);
            }
        }
        code
    }

    /// EXCLUSIVE is wanted to play a hot journal back, and readers are in the way. SQLite gives up at once then; where a look
    /// at a journal takes its time, some twenty who all want to play it back never see the others gone. So one of them
    /// takes PENDING, which keeps newcomers out, and waits for those who are there: they are about to leave, for the
    /// same journal.
    ///
    /// PENDING is a courtesy among SQLites, too: EXCLUSIVE does not need it, and `unixUnlock` gives it back with EXCLUSIVE.
    /// (Older `unixLock`s take it here themselves. RESERVED would tell others that the journal is not hot.)
    fn drain(&self, lock: &mut dyn FnMut() -> c_int) -> c_int {
        const MOMENT: u64 = 1_000_000_000;
        let until = now() + MOMENT.min(self.budget());
        let Some(descriptor) = self.descriptor else {
            return SQLITE_BUSY;
        };
        let is_ours = self.lock_state() == SQLITE_LOCK_SHARED;
        if is_ours && descriptor.lock_pending().is_err() {
            return SQLITE_BUSY;
        }
        let mut code = SQLITE_BUSY;
        let mut attempt = 0;
        while code == SQLITE_BUSY && now() < until {
            std::thread::sleep(Duration::from_nanos(BACKOFF.step(attempt)));
            attempt += 1;
            code = self.attempt(Call::Lock, None, &mut *lock);
        }
        if is_ours && code != SQLITE_OK {
            let _ = descriptor.unlock_pending();
        }
        code
    }

    /// A lock call has failed. If that is because there are no locks, it is said, once.
    fn explain(&self, errno: Errno) {
        // ENOLCK: NFS without its lock manager. `sqliteErrorFromPosixError` makes it SQLITE_BUSY.
        if !matches!(errno, Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENOLCK) {
            return;
        }
        let ground = filesystem::look(self.path, Fs::Network);
        let point = ground
            .mount_point
            .unwrap_or_else(|| Text::new("its file system"));
        let name = ground.name;
        let line = Text::new(format_args!(
            "{point} ({name}) has no locks ({errno:?}): mount it with locks, or let one connection alone use {}",
            PathEnd(self.path)
        ));
        if open::is_news(&line) {
            self.shim.log(SQLITE_IOERR_LOCK, line);
        }
    }

    /// Under the first SHARED: a database in WAL mode is turned into a rollback database, and locked again.
    fn leave_wal(&self, lock: &mut dyn FnMut() -> c_int) -> c_int {
        let Some(pending) = self.database().and_then(|d| d.pending.take()) else {
            return SQLITE_OK;
        };
        let mut code = self.is_no_wal();
        if code == SQLITE_BUSY {
            code = convert::convert(self, &pending);
            if code == SQLITE_OK {
                code = self.attempt(Call::Lock, None, lock);
            }
            if code == SQLITE_OK {
                self.belief.forget();
                code = self.see_the_present();
            }
            if code == SQLITE_OK {
                code = self.is_no_wal();
            }
        }
        if code != SQLITE_OK
            && let Some(database) = self.database()
        {
            database.pending.replace(Some(pending));
        }
        code
    }

    /// SQLITE_BUSY if the database is in WAL mode. Then, as after an error, SHARED is given back.
    fn is_no_wal(&self) -> c_int {
        let code = match convert::is_wal(self) {
            Ok(false) => return SQLITE_OK,
            Ok(true) => SQLITE_BUSY,
            Err(code) => code,
        };
        self.give_back(&mut || self.unlock_base(SQLITE_LOCK_NONE));
        code
    }

    /// Under SHARED: nothing that is cached is believed; see `durable::coherence`.
    fn see_the_present(&self) -> c_int {
        let (Some(database), Some(descriptor)) = (self.database(), self.descriptor) else {
            return SQLITE_OK;
        };
        let status = self.look(Call::Size, || {
            paths::refresh_directory(self)?;
            self.fresh_status(descriptor)
        });
        match status.and_then(|status| self.weigh(database, descriptor, status)) {
            Ok(()) => SQLITE_OK,
            Err(errno) => {
                self.give_back(&mut || self.unlock_base(SQLITE_LOCK_NONE));
                database.freshness.forget();
                Errno::set(errno);
                SQLITE_IOERR_FSTAT
            }
        }
    }

    /// What the caches have of a database of that status, is believed or dropped.
    fn weigh(
        &self,
        database: &Database,
        descriptor: Descriptor,
        status: Status,
    ) -> nix::Result<()> {
        database.version.set(Some(status.version()));
        if status.is_cached {
            database.freshness.forget();
            database.version.set(None);
        }
        let is_doubtful = database.freshness.is_doubtful(status.version(), now());
        if is_doubtful {
            database.is_looked_after.set(false);
        }
        let is_looked_after = database.is_looked_after.get();
        database
            .is_unchanged
            .set(is_looked_after && database.stamps_writes);
        if is_doubtful {
            self.look(Call::Look, || paths::pass_caches(self))?;
            descriptor.drop_pages();
        }
        Ok(())
    }

    /// Calls `read` under SHARED, if that is to be had.
    pub fn under_shared(&self, read: impl FnOnce() -> c_int) -> c_int {
        let locked = self.lock_base(SQLITE_LOCK_SHARED) == SQLITE_OK;
        let code = match locked {
            true => self.see_the_present(),
            false => SQLITE_OK,
        };
        if code != SQLITE_OK {
            return code;
        }
        let code = read();
        if locked {
            self.give_back(&mut || self.unlock_base(SQLITE_LOCK_NONE));
            self.database()
                .inspect(|database| database.version.set(None));
        } else {
            self.descriptor
                .inspect(|descriptor| descriptor.drop_pages());
        }
        code
    }

    fn unlock(&self, mut unlock: impl FnMut() -> c_int) -> c_int {
        let Some(database) = self.database() else {
            return SQLITE_IOERR_UNLOCK;
        };
        // What is not synced by now is not going to be, and not ours to write any more.
        self.unsynced.borrow_mut().clear();
        if database.open_journal.get().is_none() {
            database.journal.set(None);
        }
        let code = self.give_back(&mut unlock);
        if self.lock_state() == SQLITE_LOCK_NONE {
            database.version.set(None);
            self.recover();
        }
        code
    }

    /// The lock that was lost is given back.
    fn recover(&self) {
        if let Some(database) = self.database() {
            database.in_doubt.set(false);
        }
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
                SQLITE_LOCK_NONE => self.unlock_unknown(),
                _ => unlock(),
            };
            if !may_pass(code) {
                episode.succeeded();
                // If only SHARED was to be kept, it may have been lost meanwhile.
                self.doubt();
                return code;
            }
            errno = self.errno();
        }
    }

    /// Ends a lock of which the base does not know.
    fn unlock_unknown(&self) -> c_int {
        let code = self.lock_base(SQLITE_LOCK_SHARED);
        let Some(descriptor) = self.descriptor.filter(|_| code == SQLITE_BUSY) else {
            return match code {
                SQLITE_OK => self.unlock_base(SQLITE_LOCK_NONE),
                SQLITE_BUSY => SQLITE_OK,
                code => code,
            };
        };
        // If it is a connection of this process that keeps us out, the locks are its own.
        let unlocked = match descriptor.is_kept_out() {
            Ok(true) => descriptor.unlock(),
            other => other.map(|_| ()),
        };
        match unlocked {
            Ok(()) => SQLITE_OK,
            Err(_) => SQLITE_IOERR_UNLOCK,
        }
    }

    /// Whether somebody has RESERVED, also in this process, which F_GETLK would not tell.
    pub fn is_reserved(&self) -> nix::Result<bool> {
        let mut held: c_int = 0;
        match base!(self, SQLITE_IOERR, xCheckReservedLock(&raw mut held)) {
            SQLITE_OK => Ok(held != 0),
            _ => Err(Errno::EIO),
        }
    }

    fn lock_base(&self, level: c_int) -> c_int {
        base!(self, SQLITE_IOERR_LOCK, xLock(level))
    }

    fn unlock_base(&self, level: c_int) -> c_int {
        base!(self, SQLITE_IOERR_UNLOCK, xUnlock(level))
    }
}
