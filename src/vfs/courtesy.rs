//! What a file knows about those who wait for its locks, and what happens when somebody does.
//!
//! Invariant: a [`Courtesy`] is looked at without a lock and without a branch to somewhere else; all that is done
//! for those who wait is done in the cold functions below, behind the rim, and none of them asks for a lock
//! of SQLite's.

use super::file::File;
use super::rim;
use crate::sqlite::abi::*;
use crate::turn::layout::Word;
use crate::turn::mapped;
use crate::wait::manners::Manners;
use crate::wait::note::{self, Reusable};
use crate::wait::patience::Handler;
use crate::wait::waiter::{Connection, Waiter, Want};
use crate::wait::{habit, inheritance};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// A WAL's read lock is held. SQLite's own bit for a lock, so that one becomes the other.
pub const READING: u8 = SQLITE_SHM_LOCK as u8;
/// RESERVED or more may be held.
pub const WRITING: u8 = 1;
/// The same, for those who look when it is over.
pub const WROTE: u8 = 64;
/// The database has a wal-index.
pub const WAL: u8 = 4;
/// It had one.
pub const HAD_WAL: u8 = 128;
/// The WAL's write lock was taken, and nothing was written since.
pub const FRESH: u8 = 16;
/// The checkpointer's lock is held.
pub const CHECKPOINTING: u8 = 32;
/// A lock call was refused, and none that wanted the same has succeeded since, but for the first SHARED after the gate. Or
/// something is expected of the connection (`habit`), and its first lock is to be looked at.
pub const REFUSED: u8 = 8;

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

/// 65 µs, in bits of nanoseconds.
const MOMENTS: u32 = 16;

fn moment() -> u32 {
    (mapped::now() >> MOMENTS) as u32
}

/// What the lock methods know about their file. SQLite uses a file in one thread at a time.
pub struct Courtesy {
    /// The line's shared words, or those of [`NOBODY`].
    words: Cell<*const AtomicU64>,
    waiter: Cell<Option<&'static Reusable>>,
    flags: Cell<u8>,
    /// When it was opened, or had attached to the WAL; in units that make it small: see [`MOMENTS`].
    begun: Cell<u32>,
    writes: Cell<u16>,
    manners: Manners,
    connection: Cell<Connection>,
    database: Option<&'static CStr>,
}

impl Courtesy {
    /// `database` is `None` for a file that nobody else can open.
    pub fn new(manners: Manners, database: Option<&'static CStr>) -> Courtesy {
        Courtesy {
            begun: Cell::new(moment()),
            words: Cell::new(UNKNOWN.as_ptr()),
            waiter: Cell::new(None),
            flags: Cell::new(
                match habit::may_be_expected() || inheritance::is_claimed() {
                    true => REFUSED,
                    false => 0,
                },
            ),
            writes: Cell::new(0),
            manners,
            connection: Cell::new(Connection::default()),
            database,
        }
    }

    /// Where the database is, if others can open it.
    pub fn database(&self) -> Option<&'static CStr> {
        self.database
    }

    /// Whether it is to be written to no more once a sync has failed.
    pub fn is_poisonable(&self) -> bool {
        self.manners.retries
    }

    #[inline(always)]
    pub fn is(&self, flags: u8) -> bool {
        self.flags.get() & flags != 0
    }

    #[inline(always)]
    pub fn set(&self, flags: u8) {
        self.flags.set(self.flags.get() | flags);
    }

    /// A WAL's read lock is wanted ([`READING`]), or given back (0). Says what the flags were.
    #[inline(always)]
    pub fn reads(&self, reading: u8) -> u8 {
        let now = self.flags.get();
        self.flags.set(now & !READING | reading);
        now
    }

    /// The wal-index has a new header: a transaction was written (`walIndexWriteHdr`).
    #[inline(always)]
    pub fn wrote(&self) {
        self.clear(FRESH);
    }

    #[inline(always)]
    pub fn clear(&self, flags: u8) {
        self.flags.set(self.flags.get() & !flags);
    }

    #[inline(always)]
    pub fn word(&self, word: Word) -> u64 {
        // SAFETY: a mapping, or NOBODY; both have the words of the header that are asked for here.
        unsafe { (*self.words.get().add(word.index())).load(Ordering::Relaxed) }
    }

    /// Whether a writer waits. No barrier is needed: between a release or a request of SQLite's lock
    /// and this look lies a system call.
    #[inline(always)]
    pub fn line_stands(&self) -> bool {
        self.word(Word::Line) as u32 != 0
    }

    /// Whether a line stands, or somebody waits for a signal.
    #[inline(always)]
    pub fn is_awaited(&self) -> bool {
        let signals = self.word(Word::Gate) | self.word(Word::Drain);
        signals >> 63 != 0 || self.line_stands()
    }

    /// Whether a write needs more than a look at the line; `is_wal` is known where it is asked.
    #[inline(always)]
    pub fn looks_closer(&self, is_wal: bool) -> bool {
        if !is_wal {
            // A refusal has turned `words` to UNKNOWN: see `answered`.
            return self.line_stands();
        }
        self.writes.set(self.writes.get().wrapping_add(VERIFY));
        self.is_to_verify() || self.is(REFUSED) || self.line_stands()
    }

    #[inline(always)]
    fn is_to_verify(&self) -> bool {
        self.writes.get() == 0
    }

    /// Whether the line is still to be looked for.
    pub fn is_unknown(&self) -> bool {
        ptr::eq(self.words.get(), UNKNOWN.as_ptr())
    }

    /// Whether somebody waits for a signal.
    #[inline(always)]
    pub fn is_armed(&self, word: Word) -> bool {
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

    /// It has attached to the WAL. A thousand processes that begin at once take 100 ms for that, whatever they came for: as
    /// root SQLite gives the `-wal` and the `-shm` to the database's owner each time (`robustFchown`), and that waits for
    /// whoever is in the middle of writing to them.
    pub fn attached(&self) {
        if !self.is(WAL) {
            self.set(WAL);
            self.begun.set(moment());
        }
    }

    /// When it began, to a moment.
    fn begun(&self) -> u64 {
        let ago = moment().wrapping_sub(self.begun.get());
        mapped::now().saturating_sub(u64::from(ago) << MOMENTS)
    }

    /// The waiter of this connection, made when it is first needed. `None` if it cannot be had, or if
    /// the file is nobody else's.
    fn waiter(&self, file: &File) -> Option<&'static Reusable> {
        if let Some(waiter) = self.waiter.get() {
            return Some(waiter);
        }
        let sqlite = &file.shim.sqlite;
        let connection = self.connection.get();
        let waiter = Waiter::new(
            sqlite,
            self.manners,
            self.database?,
            connection,
            self.begun(),
        )?;
        self.waiter.set(note::give_out(waiter));
        self.waiter.get()
    }

    /// Does something with the waiter, and takes over what words it has then.
    pub fn with<R>(&self, file: &File, act: impl FnOnce(&mut Waiter) -> R) -> Option<R> {
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
            let (came_to_write, had_wal) = (self.is(WROTE), self.is(WAL | HAD_WAL));
            reusable.waiter.lock().close(came_to_write, had_wal);
            note::forget(reusable);
            note::take_back(reusable);
        }
    }
}

/// The write turn is wanted. False: it is somebody else's, and SQLite is to be told so.
#[cold]
#[inline(never)]
pub extern "C" fn may_try(file: &File) -> bool {
    rim::guard(&file.shim.sqlite, "may_try", true, || {
        let courtesy = &file.courtesy;
        if courtesy.is_unknown() {
            // The first write makes the sidecar: a holder that never had to wait would not see that
            // others do.
            courtesy.words.set(NOBODY.as_ptr());
            courtesy.with(file, Waiter::find);
        } else if courtesy.is(WAL) && courtesy.is_to_verify() {
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
pub extern "C" fn answered(file: &File, want: Want, code: c_int) -> c_int {
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
                    // SHARED, and RESERVED was refused before, or may be what it came for: it looks closer then.
                    courtesy.words.set(UNKNOWN.as_ptr());
                }
            }
            _ => {}
        }
    });
    // Callers end in a jump to this, as long as the compiler does not see that they know the answer.
    std::hint::black_box(code)
}

/// The first lock of a connection that may be about to write.
#[cold]
#[inline(never)]
pub fn enter(file: &File) {
    rim::guard(&file.shim.sqlite, "enter", (), || {
        file.courtesy.with(file, Waiter::enter);
    });
}

/// A transaction begins after one that had to wait. `is_held` says whether somebody writes. Says what it is refused if it
/// is turned away; a guest is only where SQLite can do without.
#[cold]
#[inline(never)]
pub fn turned_away(file: &File, is_held: impl Fn() -> bool, guests_can_be: bool) -> Option<Want> {
    rim::guard(&file.shim.sqlite, "turned_away", None, || {
        let begins = |waiter: &mut Waiter| waiter.begins(is_held, guests_can_be);
        file.courtesy.with(file, begins).flatten()
    })
}

/// A WAL's read lock is given back after a refusal.
#[cold]
#[inline(never)]
pub extern "C" fn read_ends(file: &File) {
    rim::guard(&file.shim.sqlite, "read_ends", (), || {
        let courtesy = &file.courtesy;
        if courtesy.with(file, Waiter::read_ends) == Some(false) {
            courtesy.clear(REFUSED);
        }
    });
}

/// The WAL's write lock is given back, and nothing was written.
///
/// That is `sqlite3WalBeginWriteTransaction`: somebody has written since our snapshot was taken. Next time our turn comes
/// first, and the snapshot then. Or it is a transaction that had nothing to write.
#[cold]
#[inline(never)]
pub extern "C" fn unwritten(file: &File) {
    rim::guard(&file.shim.sqlite, "unwritten", (), || {
        let courtesy = &file.courtesy;
        courtesy.clear(FRESH);
        let (connection, sqlite) = (courtesy.connection.get(), &file.shim.sqlite);
        let state = courtesy
            .database
            .map(|at| connection.transaction(sqlite, at));
        if state.is_some_and(|state| state < SQLITE_TXN_WRITE) {
            answered(file, Want::Snapshot, SQLITE_BUSY);
        }
    });
}

/// A reader wants to move a read mark.
#[cold]
#[inline(never)]
pub extern "C" fn spares_mark(file: &File) -> bool {
    rim::guard(&file.shim.sqlite, "spares_mark", false, || {
        let spares = file.courtesy.with(file, Waiter::spares_mark);
        spares.unwrap_or(false)
    })
}

/// The write lock is free, and somebody waits for that.
#[cold]
#[inline(never)]
pub extern "C" fn released(file: &File) {
    rim::guard(&file.shim.sqlite, "released", (), || {
        let is_wal = file.courtesy.is(WAL);
        file.courtesy.with(file, |waiter| waiter.released(is_wal));
    });
}

/// A checkpoint begins or ends while writers wait.
#[cold]
#[inline(never)]
pub extern "C" fn checkpoint(file: &File, begins: bool) {
    rim::guard(&file.shim.sqlite, "checkpoint", (), || {
        let courtesy = &file.courtesy;
        courtesy.with(file, |waiter| waiter.checkpoint(begins));
    });
}

/// The last lock is gone of one who has not written, and a writer waits for readers, or it had to wait itself.
#[cold]
#[inline(never)]
pub extern "C" fn reader_left(file: &File) {
    rim::guard(&file.shim.sqlite, "reader_left", (), || {
        file.courtesy.with(file, Waiter::reader_left);
    });
}
