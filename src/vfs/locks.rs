//! The lock methods of a file, where the waiting is hooked in.
//!
//! Invariants:
//! - SQLite's own lock decides. Ours is only to answer SQLITE_BUSY, without asking it, where SQLite can do without
//!   the lock: to a writer whose turn it is not, and on its way there (`turned_away`); to one that would move a read
//!   mark on the way to its turn (`spares_mark`); and to the last close of a WAL that is not the last (`lock_alone`).
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

use super::courtesy::{self, CHECKPOINTING, FRESH, HAD_WAL, READING, REFUSED, WAL, WRITING, WROTE};
use super::courtesy::{
    answered, enter, may_try, read_ends, reader_left, released, spares_mark, turned_away, unwritten,
};
use super::file::{File, call, pass};
use super::rim;
use crate::sqlite::abi::*;
use crate::turn::knock::MOMENT;
use crate::turn::layout::Word;
use crate::turn::mapped;
use crate::wait::waiter::{Waiter, Want};
use std::ffi::{c_int, c_void};

/// `WAL_WRITE_LOCK`, `WAL_CKPT_LOCK` and `WAL_READ_LOCK(0)`.
const WRITE: c_int = 0;
const CHECKPOINT: c_int = 1;
const READ: c_int = 3;

// The methods are split so that each caller pays for its own case alone, and ends in a jump to the base
// where that is possible.

pub unsafe extern "C" fn x_lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the same arguments.
    unsafe {
        if level < SQLITE_LOCK_RESERVED {
            lock_shared(file, level)
        } else if level == SQLITE_LOCK_RESERVED {
            lock_reserved(file, level)
        } else {
            lock_exclusive(file, level)
        }
    }
}

#[inline(never)]
unsafe extern "C" fn lock_shared(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    if ours.courtesy.is(REFUSED) {
        return lock_shared_again(file);
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
extern "C" fn lock_shared_again(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    enter(ours);
    let is_wal = ours.courtesy.is(WAL);
    match turned_away(ours, || is_reserved(file), !is_wal) {
        Some(want) => answered(ours, want, SQLITE_BUSY),
        None => answered(ours, Want::Shared, lock(file, SQLITE_LOCK_SHARED)),
    }
}

/// Whether somebody else has RESERVED or more.
fn is_reserved(file: *mut sqlite3_file) -> bool {
    let mut held = 0;
    let code = pass!(
        file,
        "xCheckReservedLock",
        SQLITE_IOERR,
        xCheckReservedLock(&mut held)
    );
    code == SQLITE_OK && held != 0
}

#[inline(always)]
fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, "xLock", SQLITE_IOERR_LOCK, xLock(level))
}

#[inline(never)]
unsafe extern "C" fn lock_reserved(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    if ours.courtesy.looks_closer(false) {
        return lock_reserved_in_turn(file, level);
    }
    let code = lock_to_write(ours, file, level);
    if code != SQLITE_OK {
        return answered(ours, Want::Turn, code);
    }
    code
}

#[inline(always)]
fn lock_to_write(ours: &File, file: *mut sqlite3_file, level: c_int) -> c_int {
    let code = lock(file, level);
    // Also if it was refused: then the unlock, which is next, looks for others in vain.
    ours.courtesy.set(WRITING | WROTE);
    code
}

#[cold]
#[inline(never)]
extern "C" fn lock_reserved_in_turn(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    look_closer(ours, || lock_to_write(ours, file, level))
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
        return lock_alone(file, level);
    }
    let code = lock(file, level);
    if code != SQLITE_OK {
        return drain(file, code);
    }
    code
}

/// EXCLUSIVE is refused by readers, who are about to leave: PENDING keeps others out. It keeps *everybody* out,
/// so it is not left to a busy handler of the application's whether we sleep now, and for how long, before
/// we have had a moment to see them leave.
#[cold]
#[inline(never)]
extern "C" fn drain(file: *mut sqlite3_file, first: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let mut code = answered(ours, Want::Drain, first);
    let until = mapped::now() + MOMENT;
    while code == SQLITE_BUSY && mapped::now() < until {
        rim::guard(&ours.shim.sqlite, "drain", (), || {
            let wait = |waiter: &mut Waiter| waiter.wait(Want::Drain, until);
            ours.courtesy.with(ours, wait);
        });
        code = answered(ours, Want::Drain, lock(file, SQLITE_LOCK_EXCLUSIVE));
    }
    code
}

/// EXCLUSIVE without RESERVED: for a hot journal, or by somebody who wants to be alone.
#[cold]
#[inline(never)]
extern "C" fn lock_alone(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let courtesy = &ours.courtesy;
    if courtesy.is(WAL) && courtesy.line_stands() && !courtesy.is_unknown() {
        // A WAL's close (sqlite3WalClose) wants to be the last one, and it is not: those who wait attached hold
        // SHARED. To ask would raise PENDING until the file is closed, and keep newcomers out.
        return SQLITE_BUSY;
    }
    let code = lock(file, level);
    answered(ours, Want::Other, code);
    // Also if it was refused: PENDING may be left.
    courtesy.set(WRITING | WROTE);
    code
}

/// The last lock is given back while somebody waits. Returns `code`, to be called last.
#[cold]
#[inline(never)]
extern "C" fn left(ours: &File, code: c_int) -> c_int {
    let has_written = ours.courtesy.is(WROTE);
    ours.courtesy.clear(WROTE);
    match has_written {
        true => released(ours),
        false => reader_left(ours),
    }
    std::hint::black_box(code)
}

pub unsafe extern "C" fn x_unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    match level {
        // SAFETY: the same file.
        SQLITE_LOCK_NONE => unsafe { unlock_all(file) },
        // Nobody is told yet: whoever came now would find us reading, and have PENDING in hand while it waits for that.
        _ => unlock(file, level),
    }
}

#[inline(always)]
fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, "xUnlock", SQLITE_IOERR_UNLOCK, xUnlock(level))
}

#[inline(never)]
unsafe extern "C" fn unlock_all(file: *mut sqlite3_file) -> c_int {
    let code = unlock(file, SQLITE_LOCK_NONE);
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let courtesy = &ours.courtesy;
    if courtesy.is(WRITING | REFUSED) {
        courtesy.clear(WRITING);
        if courtesy.is_awaited() {
            return left(ours, code);
        }
    } else if courtesy.is_armed(Word::Drain) {
        return left(ours, code);
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
    let code = pass!(
        file,
        "xShmMap",
        SQLITE_IOERR_SHMMAP,
        xShmMap(region, size, extend, out)
    );
    // SAFETY: SQLite calls a file's methods with that file.
    unsafe { File::of(file) }.courtesy.attached();
    code
}

pub unsafe extern "C" fn x_shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let courtesy = unsafe { &File::of(file).courtesy };
    if courtesy.is(WAL) {
        courtesy.clear(WAL);
        courtesy.set(HAD_WAL);
    }
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
        if courtesy.reads(reading) & REFUSED != 0 {
            return shm_lock_again(file, offset, count, flags);
        }
        return shm_lock(file, offset, count, flags);
    }
    // SAFETY: the same arguments.
    unsafe {
        match flags & SQLITE_SHM_LOCK != 0 {
            true if offset == WRITE && courtesy.is(READING) => {
                lock_write(file, offset, count, flags)
            }
            true => lock_other(file, offset, count, flags),
            false if offset == WRITE => unlock_write(file, offset, count, flags),
            false if offset == CHECKPOINT => unlock_checkpoint(file, offset, count, flags),
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

/// A read lock, or the end of one, after a refusal.
#[cold]
#[inline(never)]
extern "C" fn shm_lock_again(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    if flags & SQLITE_SHM_LOCK == 0 {
        read_ends(ours);
        crate::inject::kill_point("anew");
    } else {
        turned_away(ours, || false, false);
        crate::inject::kill_point("reading");
    }
    shm_lock(file, offset, count, flags)
}

/// The WAL's write lock for a transaction.
#[inline(never)]
unsafe extern "C" fn lock_write(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    ours.courtesy.set(FRESH);
    if ours.courtesy.looks_closer(true) {
        return lock_write_in_turn(file, offset, count, flags);
    }
    let code = shm_lock(file, offset, count, flags);
    if code != SQLITE_OK {
        return answered(ours, Want::Turn, code);
    }
    code
}

#[cold]
#[inline(never)]
extern "C" fn lock_write_in_turn(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    look_closer(ours, || shm_lock(file, offset, count, flags))
}

/// The checkpointer's lock, and those for which recovery and checkpoints wait.
#[inline(never)]
unsafe extern "C" fn lock_other(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let courtesy = &ours.courtesy;
    if offset > READ && !courtesy.is(CHECKPOINTING) {
        // A read mark is to be moved; nobody waits for that.
        if courtesy.is(REFUSED) && count == 1 && spares_mark(ours) {
            return SQLITE_BUSY;
        }
        return shm_lock(file, offset, count, flags);
    }
    let code = shm_lock(file, offset, count, flags);
    if code != SQLITE_OK || courtesy.is(REFUSED) {
        answered(ours, Want::Other, code);
    }
    if code == SQLITE_OK && offset == CHECKPOINT {
        courtesy.set(CHECKPOINTING);
        if courtesy.line_stands() {
            courtesy::checkpoint(ours, true);
        }
    }
    code
}

/// The write lock is free.
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
    if ours.courtesy.is(FRESH) {
        unwritten(ours);
    }
    if ours.courtesy.line_stands() {
        released(ours);
    }
    code
}

/// The checkpointer's lock is free.
#[inline(never)]
unsafe extern "C" fn unlock_checkpoint(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let code = shm_lock(file, offset, count, flags);
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    ours.courtesy.clear(CHECKPOINTING);
    if ours.courtesy.line_stands() {
        courtesy::checkpoint(ours, false);
    }
    code
}
