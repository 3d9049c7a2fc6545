//! Reading, writing and syncing a database or a journal that other machines can reach.

use super::controls::x_file_control;
use super::locks::{x_check_reserved_lock, x_lock, x_unlock};
use super::proof::GivenUp;
use super::{Health, Network, Role, may_pass, paths};
use crate::durable::episode::Episode;
use crate::durable::fence::{Belief, Proof};
use crate::durable::transient::{Call, passes};
use crate::durable::unsynced::Change;
use crate::sqlite::abi::*;
use crate::text::PathEnd;
use crate::turn::mapped::now;
use crate::vfs::file::{self, File};
use crate::vfs::rim;
use nix::errno::Errno;
use std::ffi::{c_int, c_void};
use std::slice;

/// So much sqlite3BtreeOpen reads without a lock, to know the size of a page. It asks again under the first one (lockBtree),
/// so it is told that there is nothing yet.
const HEADER: usize = 100;

/// Our methods for a file whose base has `lower`; `None` if memory is out.
pub fn over(lower: &sqlite3_io_methods) -> Option<&'static sqlite3_io_methods> {
    file::over(
        &sqlite3_io_methods {
            iVersion: 1,
            ..*lower
        },
        &TABLE,
    )
}

const TABLE: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    ..file::TABLE
};

/// Runs a method of a file that has a [`Network`].
macro_rules! method {
    ($file:ident, $name:literal, $error:expr, |$network:ident| $body:expr) => {{
        // SAFETY: SQLite calls a file's methods with that file.
        let file = unsafe { File::of($file) };
        rim::guard(&file.shim.sqlite, $name, $error, || match file.network() {
            Some($network) => $body,
            None => $error,
        })
    }};
}

unsafe extern "C" fn x_read(
    file: *mut sqlite3_file,
    out: *mut c_void,
    size: c_int,
    at: sqlite3_int64,
) -> c_int {
    method!(file, "xRead", SQLITE_IOERR_READ, |network| {
        // SAFETY: SQLite's own buffer.
        let into =
            unsafe { slice::from_raw_parts_mut(out.cast(), usize::try_from(size).unwrap_or(0)) };
        network.read(into, at)
    })
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    data: *const c_void,
    size: c_int,
    at: sqlite3_int64,
) -> c_int {
    method!(file, "xWrite", SQLITE_IOERR_WRITE, |network| {
        // SAFETY: SQLite's own data.
        let data =
            unsafe { slice::from_raw_parts(data.cast(), usize::try_from(size).unwrap_or(0)) };
        network.write(at, data)
    })
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    method!(file, "xTruncate", SQLITE_IOERR_TRUNCATE, |network| {
        network.truncate(size)
    })
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    method!(file, "xSync", SQLITE_IOERR_FSYNC, |network| network
        .sync(flags))
}

unsafe extern "C" fn x_file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    method!(file, "xFileSize", SQLITE_IOERR_FSTAT, |network| {
        if let Some(known) = network.known_size() {
            // SAFETY: SQLite's own argument.
            unsafe { *size = known };
            return SQLITE_OK;
        }
        let ask = || base!(network, SQLITE_IOERR_FSTAT, xFileSize(size));
        network.attempt(Call::Size, None, ask)
    })
}

impl Network {
    fn read(&self, into: &mut [u8], at: i64) -> c_int {
        if self.stops(Call::Read) {
            return SQLITE_IOERR_READ;
        }
        match self.reads_without_lock() {
            false => {
                let code = self.read_base(into, at);
                if code == SQLITE_OK {
                    self.database()
                        .inspect(|database| database.is_looked_after.set(true));
                }
                code
            }
            true if (at, into.len()) == (0, HEADER) => {
                into.fill(0);
                SQLITE_IOERR_SHORT_READ
            }
            // SQLCipher's salt.
            true => self.under_shared(|| self.read_base(into, at)),
        }
    }

    /// For ourselves, who look for no journal before.
    pub fn read_base(&self, into: &mut [u8], at: i64) -> c_int {
        let code = self.attempt(Call::Read, Some(at), || {
            let (out, size) = (into.as_mut_ptr().cast(), into.len() as c_int);
            base!(self, SQLITE_IOERR_READ, xRead(out, size, at))
        });
        match code {
            SQLITE_OK => {
                self.belief.read(at, into);
                code
            }
            // Not "database disk image is malformed".
            SQLITE_IOERR_CORRUPTFS => SQLITE_IOERR_READ,
            code => code,
        }
    }

    fn reads_without_lock(&self) -> bool {
        let has_locks = self.database().is_some_and(|database| database.has_locks);
        has_locks && self.lock_state() == SQLITE_LOCK_NONE
    }

    /// Says why nothing is done.
    pub fn refuse(&self, call: Call, health: Health) {
        let why = match health {
            Health::Sound => return,
            Health::Fenced => "its lock was lost; roll back",
            Health::Poisoned => "a sync failed before; reopen the connection",
        };
        let path = PathEnd(self.path);
        self.shim.log(
            SQLITE_IOERR,
            format_args!("{call} of {path} refused: {why}"),
        );
    }

    /// Under a lock, and if we have not written since it was asked for. (unixFileSize says 0 for 1.)
    fn known_size(&self) -> Option<i64> {
        let (_, size) = self.database()?.version.get()?;
        i64::try_from(size)
            .ok()
            .map(|size| if size == 1 { 0 } else { size })
    }

    fn write(&self, at: i64, data: &[u8]) -> c_int {
        if self.stops(Call::Write) {
            return SQLITE_IOERR_WRITE;
        }
        self.learn_counter();
        self.believe().writes(at, data);
        let code = self.attempt(Call::Write, Some(at), || self.write_base(at, data));
        if code == SQLITE_OK {
            self.unsynced.borrow_mut().wrote(at, data);
        }
        code
    }

    pub fn truncate(&self, size: i64) -> c_int {
        if self.stops(Call::Truncate) {
            return SQLITE_IOERR_TRUNCATE;
        }
        self.believe().truncates(size);
        let code = self.attempt(Call::Truncate, Some(size), || self.truncate_base(size));
        if code == SQLITE_OK {
            self.unsynced.borrow_mut().truncated(size);
        }
        code
    }

    /// Who plays a journal back writes before it has read anything.
    fn learn_counter(&self) {
        if let (Role::Database(_), Some(descriptor)) = (&self.role, self.descriptor)
            && self.belief.is_blank()
            && let Ok(now) = self.belief.now(descriptor, &mut Default::default())
        {
            self.belief.learn(now);
        }
    }

    /// The file is about to be changed.
    fn believe(&self) -> &Belief {
        if let Role::Database(database) = &self.role {
            database.version.set(None);
            // If it is not synced in the end, the kernel keeps pages that the server does not have.
            database.freshness.forget();
        }
        &self.belief
    }

    fn sync(&self, flags: c_int) -> c_int {
        if self.stops(Call::Sync) {
            return SQLITE_IOERR_FSYNC;
        }
        // unixSync syncs the directory of a new journal, too, and takes no notice of an error.
        Errno::clear();
        let mut code = self.sync_base(flags);
        let left = Errno::last();
        if may_pass(code) && self.policy.retry > 0 {
            code = self.sync_again(flags, code);
        }
        if code == SQLITE_OK {
            self.unsynced.borrow_mut().clear();
            self.believe().synced();
            self.learn_version();
            code = self.sync_name(left);
        }
        code
    }

    /// What comes next is the commit. If that is in doubt, whoever has rolled it back meanwhile has written, and may well
    /// have counted up to the same change counter: but not at this time. (If it cannot be known, the commit is proved by
    /// less, or not at all.)
    fn learn_version(&self) {
        let (Role::Database(database), Some(descriptor)) = (&self.role, self.descriptor) else {
            return;
        };
        let time = descriptor.stamp();
        let status = self.look(Call::Size, || match time {
            // The server has answered with it.
            Ok(_) => descriptor.status_cached(),
            Err(_) => descriptor.status(),
        });
        let version = status.ok().map(|status| status.version());
        database.version.set(version);
        if let Some(version) = version.filter(|version| time == Ok(version.0)) {
            database.freshness.is_own(version, now());
        }
    }

    /// What was written since the last sync is written again before each further one.
    #[cold]
    fn sync_again(&self, flags: c_int, mut code: c_int) -> c_int {
        let mut episode = self.episode(Call::Sync, None);
        loop {
            let errno = self.errno();
            let given_up = if self.unsynced.borrow().overflowed() {
                Some("more is unsynced than resync_kb")
            } else if !passes(Call::Sync, errno) {
                Some("this error does not pass")
            } else {
                None
            };
            if let Some(why) = given_up {
                episode.failed(why);
                self.give_up_sync(errno);
                return code;
            }
            let written = self
                .may_go_on(&mut episode, errno)
                .and_then(|()| self.write_again(&mut episode));
            code = match written {
                Ok(SQLITE_OK) => self.sync_base(flags),
                Ok(code) => code,
                Err(GivenUp::TimeOver) => {
                    self.give_up_sync(errno);
                    return code;
                }
                Err(GivenUp::LockLost) => return code,
            };
            if code == SQLITE_OK {
                episode.succeeded();
                return code;
            }
            if !may_pass(code) {
                self.give_up_sync(self.errno());
                return code;
            }
        }
    }

    /// A sync of this file has failed for good. If it is a journal of which nothing was needed yet, it is emptied, as
    /// far as that can be done: what it held before it was last cut may be there again, and hot.
    fn give_up_sync(&self, errno: Errno) {
        let is_untouched = |d: &super::Database| d.version.get().is_some();
        let owner = self.owner().and_then(Network::database);
        if matches!(self.role, Role::Journal(_))
            && owner.is_some_and(is_untouched)
            && self.prove(Call::Truncate) == Proof::Ours
        {
            self.truncate_base(0);
            self.sync_base(SQLITE_SYNC_NORMAL);
        }
        self.poison(errno);
    }

    /// Each change is made again until it succeeds: only a sync that fails takes back what was made before.
    fn write_again(&self, episode: &mut Episode<'_>) -> Result<c_int, GivenUp> {
        for change in self.unsynced.borrow().changes() {
            loop {
                let (call, code) = match change {
                    Change::Write { at, data } => (Call::Write, self.write_base(at, data)),
                    Change::Truncate { size } => (Call::Truncate, self.truncate_base(size)),
                };
                if code == SQLITE_OK {
                    break;
                }
                let errno = self.errno();
                if !may_pass(code) || !passes(call, errno) {
                    return Ok(code);
                }
                self.may_go_on(episode, errno)?;
            }
        }
        Ok(SQLITE_OK)
    }

    /// The name of a new journal is to be there after a crash, too. `errno`: what the base's sync has left.
    fn sync_name(&self, errno: Errno) -> c_int {
        let Role::Journal(journal) = &self.role else {
            return SQLITE_OK;
        };
        if !journal.is_new.replace(false) || !passes(Call::SyncDirectory, errno) {
            return SQLITE_OK;
        }
        match paths::sync_directory(self, self.path) {
            Ok(()) => SQLITE_OK,
            Err(errno) => {
                journal.is_new.set(true);
                Errno::set(errno);
                SQLITE_IOERR_DIR_FSYNC
            }
        }
    }

    fn write_base(&self, at: i64, data: &[u8]) -> c_int {
        let size = data.len() as c_int;
        let data = data.as_ptr().cast();
        base!(self, SQLITE_IOERR_WRITE, xWrite(data, size, at))
    }

    fn truncate_base(&self, size: i64) -> c_int {
        base!(self, SQLITE_IOERR_TRUNCATE, xTruncate(size))
    }

    fn sync_base(&self, flags: c_int) -> c_int {
        base!(self, SQLITE_IOERR_FSYNC, xSync(flags))
    }
}
