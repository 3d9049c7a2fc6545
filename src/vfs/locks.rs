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
use crate::turn::layout::Word;
use crate::wait::note::{self, Reusable};
use crate::wait::patience::Handler;
use crate::wait::waiter::{Connection, Manners, Waiter, Want};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// `WAL_WRITE_LOCK`, `WAL_CKPT_LOCK`, and the first of the read locks (`WAL_READ_LOCK(0)`).
const WRITE: c_int = 0;
const CHECKPOINT: c_int = 1;
const FIRST_READ: c_int = 3;

const LOCK_EXCLUSIVE: c_int = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
const UNLOCK_EXCLUSIVE: c_int = SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE;
const LOCK_SHARED: c_int = SQLITE_SHM_LOCK | SQLITE_SHM_SHARED;
const UNLOCK_SHARED: c_int = SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED;

/// A WAL's read lock is held.
const READING: u8 = 1;
/// The write lock is held: RESERVED or more, or the WAL's.
const WRITING: u8 = 2;
/// The database has a wal-index.
const WAL: u8 = 4;
/// A lock call was refused, and none that wanted the same has succeeded since.
const REFUSED: u8 = 8;
/// There is to be a line, and this connection has looked for it.
const ATTACHED: u8 = 16;

/// The words of a line that does not exist.
static NOBODY: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// Transactions after which the sidecar's path is looked at again.
const VERIFY: u16 = 4096;

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
            words: Cell::new(NOBODY.as_ptr()),
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
        let line = self.word(Word::Line);
        (line >> 32) as u32 != line as u32
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
        self.words.set(waiter.words().unwrap_or(NOBODY.as_ptr()));
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

/// The write turn is wanted. False: it is somebody else's.
#[cold]
#[inline(never)]
extern "C" fn may_try(file: &File) -> bool {
    rim::guard(&file.shim.sqlite, "may_try", true, || {
        let courtesy = &file.courtesy;
        if !courtesy.is(ATTACHED) {
            // The first write makes the sidecar: a holder that never had to wait would not see that
            // others do.
            courtesy.set(ATTACHED);
            courtesy.with(file, |waiter| waiter.attach(true));
        }
        if courtesy.writes.get() == 0 {
            courtesy.with(file, Waiter::verify);
        }
        if !courtesy.is(REFUSED) && !courtesy.line_stands() {
            return true;
        }
        courtesy.with(file, Waiter::may_try).unwrap_or(true)
    })
}

/// A lock call is answered SQLITE_BUSY.
#[cold]
#[inline(never)]
extern "C" fn refused(file: &File, want: Want) {
    rim::guard(&file.shim.sqlite, "refused", (), || {
        let courtesy = &file.courtesy;
        if courtesy.with(file, |waiter| waiter.refused(want)).is_some() {
            courtesy.set(REFUSED);
            courtesy.waiter.get().map(note::leave);
        }
    });
}

/// A lock call succeeded after one that did not, or while others wait.
#[cold]
#[inline(never)]
extern "C" fn got(file: &File, want: Want) {
    rim::guard(&file.shim.sqlite, "got", (), || {
        if file.courtesy.with(file, |waiter| waiter.got(want)) != Some(true) {
            file.courtesy.clear(REFUSED);
            file.courtesy.waiter.get().map(note::forget);
        }
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

/// Whether a write needs more than a look at the line.
#[inline(always)]
fn counts(courtesy: &Courtesy) -> bool {
    let writes = courtesy.writes.get().wrapping_add(1) % VERIFY;
    courtesy.writes.set(writes);
    writes == 0 || !courtesy.is(ATTACHED) || courtesy.is(REFUSED) || courtesy.line_stands()
}

pub unsafe extern "C" fn x_lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let courtesy = &ours.courtesy;
    if level == SQLITE_LOCK_RESERVED && counts(courtesy) && !may_try(ours) {
        refused(ours, Want::Turn);
        return SQLITE_BUSY;
    }
    if level == SQLITE_LOCK_EXCLUSIVE
        && courtesy.is(WAL)
        && !courtesy.is(WRITING)
        && courtesy.line_stands()
    {
        // A WAL's close (sqlite3WalClose) wants to be the last one, and it is not: those who wait hold
        // SHARED. To ask would raise PENDING until the file is closed, and keep newcomers out.
        return SQLITE_BUSY;
    }
    let code = pass!(file, "xLock", SQLITE_IOERR_LOCK, xLock(level));
    if code != SQLITE_OK {
        if code == SQLITE_BUSY {
            let want = match level {
                SQLITE_LOCK_SHARED => Want::Shared,
                SQLITE_LOCK_RESERVED => Want::Turn,
                _ if courtesy.is(WRITING) => Want::Drain,
                _ => Want::Other,
            };
            refused(ours, want);
        }
        return code;
    }
    if courtesy.is(REFUSED) {
        let want = match level {
            SQLITE_LOCK_SHARED => Want::Shared,
            SQLITE_LOCK_RESERVED => Want::Turn,
            _ => Want::Drain,
        };
        got(ours, want);
    }
    if level >= SQLITE_LOCK_RESERVED {
        courtesy.set(WRITING);
    }
    SQLITE_OK
}

pub unsafe extern "C" fn x_unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let courtesy = &ours.courtesy;
    let code = pass!(file, "xUnlock", SQLITE_IOERR_UNLOCK, xUnlock(level));
    if courtesy.is(WRITING) {
        courtesy.clear(WRITING);
        if courtesy.line_stands() || courtesy.word(Word::Gate) >> 63 != 0 {
            released(ours);
        }
    }
    if courtesy.word(Word::Drain) >> 63 != 0 {
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

pub unsafe extern "C" fn x_shm_lock(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let courtesy = &ours.courtesy;
    let is_turn = offset == WRITE && (courtesy.is(READING) || courtesy.is(WRITING));
    if is_turn && flags == LOCK_EXCLUSIVE && counts(courtesy) && !may_try(ours) {
        refused(ours, Want::Turn);
        return SQLITE_BUSY;
    }
    let code = pass!(
        file,
        "xShmLock",
        SQLITE_IOERR_SHMLOCK,
        xShmLock(offset, count, flags)
    );
    match flags {
        LOCK_SHARED if offset >= FIRST_READ && code == SQLITE_OK => courtesy.set(READING),
        UNLOCK_SHARED if offset >= FIRST_READ => courtesy.clear(READING),
        LOCK_EXCLUSIVE if offset == CHECKPOINT && code == SQLITE_OK => {
            if courtesy.line_stands() {
                checkpoint(ours, true);
            }
        }
        UNLOCK_EXCLUSIVE if offset == CHECKPOINT => {
            if courtesy.line_stands() {
                checkpoint(ours, false);
            }
        }
        LOCK_EXCLUSIVE if code == SQLITE_BUSY => {
            let want = if is_turn { Want::Turn } else { Want::Other };
            refused(ours, want);
        }
        LOCK_EXCLUSIVE if is_turn && code == SQLITE_OK => {
            courtesy.set(WRITING);
            if courtesy.is(REFUSED) {
                got(ours, Want::Turn);
            }
        }
        UNLOCK_EXCLUSIVE if is_turn => {
            courtesy.clear(WRITING);
            if courtesy.line_stands() {
                released(ours);
            }
        }
        _ => {}
    }
    code
}
