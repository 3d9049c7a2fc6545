//! The lock methods of a file, where the waiting is hooked in.
//!
//! Invariants:
//! - SQLite's own lock decides. Ours is only to answer SQLITE_BUSY, without asking it, to a writer
//!   whose turn it is not.
//! - While nobody waits, a transaction pays for a few loads and no system call. What happens when
//!   somebody does is in functions of its own.
//!
//! Which calls are a writer's turn:
//!
//! | journal | begins | ends |
//! |---|---|---|
//! | rollback | `xLock(RESERVED)` | `xUnlock` to SHARED or NONE |
//! | WAL | `xShmLock(WRITE, EXCLUSIVE)` with a read lock in hand | its unlock |
//!
//! Without a read lock the WAL's write lock is asked for by recovery and by checkpoints, which hold
//! other locks and must not wait for a turn: a refusal would be BUSY_RECOVERY.
//! (`walIndexReadHdr`, `sqlite3WalCheckpoint`)

use super::file::{File, call, pass};
use super::rim;
use crate::sqlite::abi::*;
use crate::turn::knock::MOMENT;
use crate::turn::layout::Word;
use crate::turn::mapped;
use crate::wait::manners::Manners;
use crate::wait::note::{self, Reusable};
use crate::wait::patience::Handler;
use crate::wait::waiter::{Connection, Waiter, Want};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// `WAL_WRITE_LOCK` and `WAL_CKPT_LOCK`.
const WRITE: c_int = 0;
const CHECKPOINT: c_int = 1;

/// A WAL's read lock is held. SQLite's own bit for a lock, so that one becomes the other.
const READING: u8 = SQLITE_SHM_LOCK as u8;
/// RESERVED or more may be held.
const WRITING: u8 = 1;
/// The database has a wal-index.
const WAL: u8 = 4;
/// The WAL's write lock was taken, and nothing was written since.
const FRESH: u8 = 16;
/// A lock call was refused, and none that wanted the same has succeeded since.
const REFUSED: u8 = 8;

/// The words of a line that does not exist.
static NOBODY: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// Those of a line that is not looked for yet: it seems to stand, so that the next write looks.
static UNKNOWN: [AtomicU64; 64] = {
    let mut words = [const { AtomicU64::new(0) }; 64];
    words[Word::Line.index()] = AtomicU64::new(1);
    words
};

/// Added to a counter of 16 bits for each write to a WAL: one of 4,096 looks whether the sidecar is
/// still the one at its path.
const VERIFY: u16 = 16;

/// What the lock methods know about their file. SQLite uses a file in one thread at a time.
pub struct Courtesy {
    /// The line's shared words, or those of [`NOBODY`].
    words: Cell<*const AtomicU64>,
    waiter: Cell<Option<&'static Reusable>>,
    flags: Cell<u8>,
    writes: Cell<u16>,
    manners: Manners,
    connection: Cell<Connection>,
    database: Option<&'static CStr>,
}

impl Courtesy {
    /// `database` is `None` for a file that nobody else can open.
    pub fn new(manners: Manners, database: Option<&'static CStr>) -> Courtesy {
        Courtesy {
            words: Cell::new(UNKNOWN.as_ptr()),
            waiter: Cell::new(None),
            flags: Cell::new(0),
            writes: Cell::new(0),
            manners,
            connection: Cell::new(Connection::default()),
            database,
        }
    }

    #[inline(always)]
    fn is(&self, flags: u8) -> bool {
        self.flags.get() & flags != 0
    }

    #[inline(always)]
    fn set(&self, flags: u8) {
        self.flags.set(self.flags.get() | flags);
    }

    /// The wal-index has a new header: a transaction was written (`walIndexWriteHdr`).
    #[inline(always)]
    pub fn wrote(&self) {
        self.clear(FRESH);
    }

    #[inline(always)]
    fn clear(&self, flags: u8) {
        self.flags.set(self.flags.get() & !flags);
    }

    #[inline(always)]
    fn word(&self, word: Word) -> u64 {
        // SAFETY: a mapping, or NOBODY; both have the words of the header that are asked for here.
        unsafe { (*self.words.get().add(word.index())).load(Ordering::Relaxed) }
    }

    /// Whether a writer waits. No barrier is needed: between a release or a request of SQLite's lock
    /// and this look lies a system call.
    #[inline(always)]
    fn line_stands(&self) -> bool {
        self.word(Word::Line) as u32 != 0
    }

    /// Whether a write needs more than a look at the line; `is_wal` is known where it is asked.
    #[inline(always)]
    fn looks_closer(&self, is_wal: bool) -> bool {
        if !is_wal {
            // A refusal has turned `words` to UNKNOWN: see `answered`.
            return self.line_stands();
        }
        let writes = self.writes.get().wrapping_add(VERIFY);
        self.writes.set(writes);
        writes == 0 || self.is(REFUSED) || self.line_stands()
    }

    /// Whether the line is still to be looked for.
    fn is_unknown(&self) -> bool {
        ptr::eq(self.words.get(), UNKNOWN.as_ptr())
    }

    /// Whether somebody waits for a signal.
    #[inline(always)]
    fn is_armed(&self, word: Word) -> bool {
        self.word(word) >> 63 != 0
    }

    /// What a file control tells about the connection.
    ///
    /// # Safety
    /// `argument` is what `op` has.
    #[cold]
    pub unsafe fn heard(&self, op: c_int, argument: *mut c_void) {
        let mut connection = self.connection.get();
        if op == SQLITE_FCNTL_PDB {
            connection.db = NonNull::new(argument.cast());
        } else if !argument.is_null() {
            // SAFETY: sqlite3PagerSetBusyHandler: the address of the handler, and behind it of its
            // argument.
            connection.handler = unsafe {
                let pair = argument.cast::<*mut c_void>();
                type Call = Option<unsafe extern "C" fn(*mut c_void) -> c_int>;
                let call: Call = std::mem::transmute(*pair);
                call.map(|call| Handler {
                    call,
                    argument: *pair.add(1),
                })
            };
        }
        self.connection.set(connection);
    }

    /// The waiter of this connection, made when it is first needed. `None` if it cannot be had, or if
    /// the file is nobody else's.
    fn waiter(&self, file: &File) -> Option<&'static Reusable> {
        if let Some(waiter) = self.waiter.get() {
            return Some(waiter);
        }
        let sqlite = &file.shim.sqlite;
        let connection = self.connection.get();
        let waiter = Waiter::new(sqlite, self.manners, self.database?, connection)?;
        self.waiter.set(note::give_out(waiter));
        self.waiter.get()
    }

    /// Does something with the waiter, and takes over what words it has then.
    fn with<R>(&self, file: &File, act: impl FnOnce(&mut Waiter) -> R) -> Option<R> {
        let mut waiter = self.waiter(file)?.waiter.lock();
        let result = act(&mut waiter);
        match waiter.words() {
            Some(words) => self.words.set(words),
            None if self.is_unknown() => {}
            None => self.words.set(NOBODY.as_ptr()),
        }
        Some(result)
    }

    pub fn close(&self) {
        if let Some(reusable) = self.waiter.take() {
            self.words.set(NOBODY.as_ptr());
            reusable.waiter.lock().close();
            note::forget(reusable);
            note::take_back(reusable);
        }
    }
}

/// The write turn is wanted. False: it is somebody else's, and SQLite is to be told so.
#[cold]
#[inline(never)]
extern "C" fn may_try(file: &File) -> bool {
    rim::guard(&file.shim.sqlite, "may_try", true, || {
        let courtesy = &file.courtesy;
        if courtesy.is_unknown() {
            // The first write makes the sidecar: a holder that never had to wait would not see that
            // others do.
            courtesy.words.set(NOBODY.as_ptr());
            courtesy.with(file, |waiter| waiter.attach(true));
        }
        if courtesy.writes.get() == 0 {
            courtesy.with(file, Waiter::verify);
        }
        let may = !courtesy.is(REFUSED) && !courtesy.line_stands()
            || courtesy.with(file, Waiter::may_try).unwrap_or(true);
        if !may {
            answered(file, Want::Turn, SQLITE_BUSY);
        }
        may
    })
}

/// A lock call is answered `code` (which this returns, to be called last), and either that is no success, or there is a line or was a refusal.
#[cold]
#[inline(never)]
extern "C" fn answered(file: &File, want: Want, code: c_int) -> c_int {
    rim::guard(&file.shim.sqlite, "answered", (), || {
        let courtesy = &file.courtesy;
        match code {
            SQLITE_BUSY => {
                courtesy.with(file, |waiter| waiter.refused(want));
                if let Some(waiter) = courtesy.waiter.get() {
                    courtesy.set(REFUSED);
                    note::leave(waiter);
                }
            }
            SQLITE_OK => {
                let waits = courtesy.with(file, |waiter| waiter.got(want));
                if waits != Some(true) {
                    courtesy.clear(REFUSED);
                    if let Some(waiter) = courtesy.waiter.get() {
                        note::forget(waiter);
                    }
                } else if !courtesy.is(WAL) {
                    // SHARED, and RESERVED was refused before: it looks closer then.
                    courtesy.words.set(UNKNOWN.as_ptr());
                }
            }
            _ => {}
        }
    });
    code
}

/// A transaction begins after one that was refused.
#[cold]
#[inline(never)]
extern "C" fn knock(file: &File) {
    rim::guard(&file.shim.sqlite, "knock", (), || {
        file.courtesy.with(file, Waiter::knock);
    });
}

/// The write lock is free, and somebody waits for that.
#[cold]
#[inline(never)]
extern "C" fn released(file: &File) {
    rim::guard(&file.shim.sqlite, "released", (), || {
        file.courtesy.with(file, Waiter::released);
    });
}

/// A checkpoint begins or ends while writers wait.
#[cold]
#[inline(never)]
extern "C" fn checkpoint(file: &File, begins: bool) {
    rim::guard(&file.shim.sqlite, "checkpoint", (), || {
        let courtesy = &file.courtesy;
        courtesy.with(file, |waiter| waiter.checkpoint(begins));
    });
}

/// The last lock is gone, and a writer waits for readers.
#[cold]
#[inline(never)]
extern "C" fn reader_left(file: &File) {
    rim::guard(&file.shim.sqlite, "reader_left", (), || {
        file.courtesy.with(file, |waiter| waiter.reader_left());
    });
}

// The methods are split so that each caller pays for its own case alone, and ends in a jump to the base
// where that is possible.

pub unsafe extern "C" fn x_lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    if level != SQLITE_LOCK_SHARED {
        // SAFETY: the same arguments.
        return unsafe {
            match level {
                SQLITE_LOCK_RESERVED => lock_reserved(file),
                _ => lock_exclusive(file, level),
            }
        };
    }
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    if ours.courtesy.is(REFUSED) {
        return lock_shared_again(ours, file);
    }
    let code = lock(file, level);
    if code != SQLITE_OK {
        return answered(ours, Want::Shared, code);
    }
    code
}

/// SHARED, after a refusal.
#[cold]
#[inline(never)]
extern "C" fn lock_shared_again(ours: &File, file: *mut sqlite3_file) -> c_int {
    knock(ours);
    answered(ours, Want::Shared, lock(file, SQLITE_LOCK_SHARED))
}

#[inline(always)]
fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, "xLock", SQLITE_IOERR_LOCK, xLock(level))
}

#[inline(never)]
unsafe extern "C" fn lock_reserved(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    if ours.courtesy.looks_closer(false) {
        return look_closer(ours, || lock_to_write(ours, file));
    }
    let code = lock_to_write(ours, file);
    if code != SQLITE_OK {
        return answered(ours, Want::Turn, code);
    }
    code
}

#[inline(always)]
fn lock_to_write(ours: &File, file: *mut sqlite3_file) -> c_int {
    let code = lock(file, SQLITE_LOCK_RESERVED);
    // Also if it was refused: then the unlock, which is next, looks for others in vain.
    ours.courtesy.set(WRITING);
    code
}

/// Asks for the write lock by `lock`, if it is our turn.
#[cold]
#[inline(never)]
fn look_closer(ours: &File, lock: impl FnOnce() -> c_int) -> c_int {
    if !may_try(ours) {
        return SQLITE_BUSY;
    }
    answered(ours, Want::Turn, lock())
}

#[inline(never)]
unsafe extern "C" fn lock_exclusive(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let courtesy = &ours.courtesy;
    if !courtesy.is(WRITING) {
        return lock_alone(ours, file, level);
    }
    let code = lock(file, level);
    if code != SQLITE_OK {
        return drain(ours, file, level, code);
    }
    code
}

/// EXCLUSIVE is refused by readers, who are about to leave: PENDING keeps others out. It keeps *everybody* out,
/// so it is not left to a busy handler of the application's whether we sleep now, and for how long, before
/// we have had a moment to see them leave.
#[cold]
#[inline(never)]
extern "C" fn drain(ours: &File, file: *mut sqlite3_file, level: c_int, first: c_int) -> c_int {
    let mut code = answered(ours, Want::Drain, first);
    let until = mapped::now() + MOMENT;
    while code == SQLITE_BUSY && mapped::now() < until {
        rim::guard(&ours.shim.sqlite, "drain", (), || {
            ours.courtesy
                .with(ours, |waiter| waiter.wait(Want::Drain, until));
        });
        code = answered(ours, Want::Drain, lock(file, level));
    }
    code
}

/// EXCLUSIVE without RESERVED: for a hot journal, or by somebody who wants to be alone.
#[cold]
#[inline(never)]
extern "C" fn lock_alone(ours: &File, file: *mut sqlite3_file, level: c_int) -> c_int {
    let courtesy = &ours.courtesy;
    if courtesy.is(WAL) && courtesy.line_stands() && !courtesy.is_unknown() {
        // A WAL's close (sqlite3WalClose) wants to be the last one, and it is not: those who wait hold
        // SHARED. To ask would raise PENDING until the file is closed, and keep newcomers out.
        return SQLITE_BUSY;
    }
    let code = lock(file, level);
    answered(ours, Want::Other, code);
    // Also if it was refused: PENDING may be left.
    courtesy.set(WRITING);
    code
}

pub unsafe extern "C" fn x_unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    let code = pass!(file, "xUnlock", SQLITE_IOERR_UNLOCK, xUnlock(level));
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let courtesy = &ours.courtesy;
    if courtesy.is(WRITING) {
        courtesy.clear(WRITING);
        if courtesy.line_stands() || courtesy.is_armed(Word::Gate) {
            released(ours);
        }
    } else if courtesy.is_armed(Word::Drain) {
        reader_left(ours);
    }
    code
}

pub unsafe extern "C" fn x_shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    unsafe { File::of(file) }.courtesy.set(WAL);
    pass!(
        file,
        "xShmMap",
        SQLITE_IOERR_SHMMAP,
        xShmMap(region, size, extend, out)
    )
}

pub unsafe extern "C" fn x_shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    unsafe { File::of(file) }.courtesy.clear(WAL);
    pass!(file, "xShmUnmap", SQLITE_IOERR_SHMMAP, xShmUnmap(delete))
}

pub unsafe extern "C" fn x_shm_lock(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let courtesy = unsafe { &File::of(file).courtesy };
    if flags & SQLITE_SHM_EXCLUSIVE == 0 {
        // A read lock, or the end of one. (If it is refused, recovery by this connection may be sent
        // away while a line stands, until the next read lock; the line's head recovers then.)
        let reading = (flags & SQLITE_SHM_LOCK) as u8;
        let now = courtesy.flags.get();
        courtesy.flags.set(now & !READING | reading);
        if now & REFUSED != 0 && reading != 0 {
            // SAFETY: as above.
            knock(unsafe { File::of(file) });
        }
        return shm_lock(file, offset, count, flags);
    }
    // SAFETY: the same arguments.
    unsafe {
        match flags & SQLITE_SHM_LOCK != 0 {
            true if offset == WRITE && courtesy.is(READING) => lock_write(file, count, flags),
            true => lock_other(file, offset, count, flags),
            false if offset <= CHECKPOINT => unlock_write(file, offset, count, flags),
            false => shm_lock(file, offset, count, flags),
        }
    }
}

#[inline(always)]
fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    pass!(
        file,
        "xShmLock",
        SQLITE_IOERR_SHMLOCK,
        xShmLock(offset, count, flags)
    )
}

/// The WAL's write lock for a transaction.
#[inline(never)]
unsafe extern "C" fn lock_write(file: *mut sqlite3_file, count: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    ours.courtesy.set(FRESH);
    if ours.courtesy.looks_closer(true) {
        return look_closer(ours, || shm_lock(file, WRITE, count, flags));
    }
    let code = shm_lock(file, WRITE, count, flags);
    if code != SQLITE_OK {
        return answered(ours, Want::Turn, code);
    }
    code
}

/// The checkpointer's lock, and those for which recovery and checkpoints wait.
#[inline(never)]
unsafe extern "C" fn lock_other(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let code = shm_lock(file, offset, count, flags);
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    if code != SQLITE_OK || ours.courtesy.is(REFUSED) {
        answered(ours, Want::Other, code);
    }
    if code == SQLITE_OK && offset == CHECKPOINT && ours.courtesy.line_stands() {
        checkpoint(ours, true);
    }
    code
}

/// The write lock is free, or the checkpointer's.
#[inline(never)]
unsafe extern "C" fn unlock_write(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let code = shm_lock(file, offset, count, flags);
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    if ours.courtesy.is(FRESH) && offset == WRITE {
        // sqlite3WalBeginWriteTransaction: somebody may have written since our snapshot was taken. Next time
        // our turn comes first, and the snapshot then.
        answered(ours, Want::Snapshot, SQLITE_BUSY);
    }
    if ours.courtesy.line_stands() {
        match offset {
            WRITE => released(ours),
            _ => checkpoint(ours, false),
        }
    }
    code
}
