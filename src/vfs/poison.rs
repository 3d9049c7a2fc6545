//! After a sync that has failed, nothing more is written to that file until it is closed.
//!
//! Linux takes the pages for clean whose write-back has failed: the next sync says yes, and what was written is gone. On
//! this machine's own file systems that is a broken disk, and nothing is tried again; but SQLite itself would sync
//! once more and believe it.
//!
//! | file | who sees its sync fail |
//! |---|---|
//! | database | `x_sync` in `file` |
//! | WAL | [`watch`]: the file is the base's own, with one method of ours |
//! | rollback journal | nobody: each transaction writes it anew, from its beginning |
//!
//! The first sync of a WAL tells [`wal`], too, that its directory is synced.
//!
//! A file is poisoned by exchanging its table of methods, so that the others pay nothing. With `retry_ms=0` all is as in
//! stock SQLite; that of a WAL, whose name has no URI, is the environment's or the program's. Files that other machines
//! can reach have rules of their own: see `network`.

use super::file::{self, File};
use super::memory::try_box;
use super::{Shim, wal};
use crate::sqlite::abi::*;
use crate::text::PathEnd;
use crate::vfs::rim;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

const SAY: &str =
    "a sync failed, and what it would have saved may be lost: nothing more is written, reopen it";

/// The base's sync of a database has answered `code`, which is no success.
#[cold]
#[inline(never)]
pub extern "C" fn sync_failed(file: *mut sqlite3_file, code: c_int) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    rim::guard(&ours.shim.sqlite, "poison", (), || {
        if !ours.courtesy.is_poisonable() {
            return;
        }
        // SAFETY: the base's file is open.
        let lower = unsafe { (*ours.room.lower).pMethods.as_ref() };
        if let Some(methods) = lower.and_then(|lower| file::over(lower, &POISONED)) {
            // SAFETY: SQLite's part of the file, which SQLite does not look at while we are called.
            unsafe { (*file).pMethods = methods };
        }
        let path = PathEnd(ours.courtesy.database().unwrap_or_default());
        ours.shim.log(code, format_args!("{path}: {SAY}"));
    });
    std::hint::black_box(code)
}

const POISONED: sqlite3_io_methods = sqlite3_io_methods {
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xLock: Some(x_lock),
    ..file::TABLE
};

unsafe extern "C" fn x_write(
    _: *mut sqlite3_file,
    _: *const c_void,
    _: c_int,
    _: sqlite3_int64,
) -> c_int {
    SQLITE_IOERR_WRITE
}

unsafe extern "C" fn x_truncate(_: *mut sqlite3_file, _: sqlite3_int64) -> c_int {
    SQLITE_IOERR_TRUNCATE
}

unsafe extern "C" fn x_sync(_: *mut sqlite3_file, _: c_int) -> c_int {
    SQLITE_IOERR_FSYNC
}

unsafe extern "C" fn x_lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    if level > SQLITE_LOCK_SHARED {
        // SAFETY: SQLite calls a file's methods with that file.
        let ours = unsafe { File::of(file) };
        rim::guard(&ours.shim.sqlite, "xLock", (), || {
            let path = PathEnd(ours.courtesy.database().unwrap_or_default());
            ours.shim
                .log(SQLITE_IOERR_LOCK, format_args!("{path}: {SAY}"));
        });
        return SQLITE_IOERR_LOCK;
    }
    // SAFETY: the same arguments.
    unsafe { super::locks::x_lock(file, level) }
}

/// The methods of a base's WALs, with ours among them. As many as there are bases; never freed.
#[repr(C)]
struct Watch {
    /// First, so that a file's methods lead here.
    watched: sqlite3_io_methods,
    /// Until the first sync, of a WAL that `wal` is to hear of.
    unsynced: sqlite3_io_methods,
    poisoned: sqlite3_io_methods,
    /// The base's.
    x_sync: unsafe extern "C" fn(*mut sqlite3_file, c_int) -> c_int,
    base: *const sqlite3_io_methods,
    shim: &'static Shim,
    next: *mut Watch,
}

static WATCHES: AtomicPtr<Watch> = AtomicPtr::new(ptr::null_mut());

/// Sees to it that a WAL, which the base has just opened, is poisoned if a sync of it fails. If memory is out, or if
/// the base is none of SQLite's own, it is not.
///
/// # Safety
/// `wal` had the registered base open `file`.
pub unsafe fn watch(shim: &'static Shim, file: *mut sqlite3_file) {
    // SAFETY: the file is open.
    let base = unsafe { (*file).pMethods };
    let may = |o: crate::Options| o.retry_ms != Some(0);
    if !shim.is_over_unix() || !shim.options.with_environment().is_ok_and(may) {
        return;
    }
    let mut head = WATCHES.load(Ordering::Acquire);
    loop {
        let mut at = head;
        // SAFETY: what is on the list is complete and never freed.
        while let Some(watch) = unsafe { at.as_ref() } {
            if ptr::eq(watch.base, base) && ptr::eq(watch.shim, shim) {
                // SAFETY: as above; the file's methods are the same but for xSync.
                unsafe {
                    (*file).pMethods = match wal::is_synced(shim, file) {
                        true => &raw const (*at).watched,
                        false => &raw const (*at).unsynced,
                    }
                };
                return;
            }
            at = watch.next;
        }
        // SAFETY: the file is open, so its methods are complete.
        let lower = unsafe { *base };
        let watched = sqlite3_io_methods {
            iVersion: lower.iVersion.min(3),
            xSync: Some(x_sync_watched),
            ..lower
        };
        let unsynced = sqlite3_io_methods {
            xSync: Some(x_sync_first),
            ..watched
        };
        let poisoned = sqlite3_io_methods {
            xWrite: Some(x_write),
            xTruncate: Some(x_truncate),
            xSync: Some(x_sync),
            ..watched
        };
        let next = head;
        let Some(x_sync) = lower.xSync else {
            return;
        };
        let Some(new) = try_box(Watch {
            watched,
            unsynced,
            poisoned,
            x_sync,
            base,
            shim,
            next,
        }) else {
            return;
        };
        let new = Box::into_raw(new);
        match WATCHES.compare_exchange(head, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => head = new,
            Err(other) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                head = other;
            }
        }
    }
}

unsafe extern "C" fn x_sync_watched(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: only `watch` hands this method out, in a Watch that it is the first member of. The file is the base's
    // own, and its method the base's.
    let code = unsafe {
        let watch = &*(*file).pMethods.cast::<Watch>();
        (watch.x_sync)(file, flags)
    };
    if code != SQLITE_OK {
        return watched_sync_failed(file, code);
    }
    code
}

unsafe extern "C" fn x_sync_first(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: only `watch` hands this method out, in the `unsynced` of a Watch.
    let watch = unsafe {
        let methods = (*file).pMethods.cast::<u8>();
        &*methods.sub(offset_of!(Watch, unsynced)).cast::<Watch>()
    };
    // SAFETY: as in `x_sync_watched`; nobody looks at SQLite's part of the file while we are called.
    let code = unsafe {
        (*file).pMethods = &raw const watch.watched;
        x_sync_watched(file, flags)
    };
    if code == SQLITE_OK {
        rim::guard(&watch.shim.sqlite, "xSync", (), || {
            // SAFETY: only what `wal` has opened is watched.
            unsafe { wal::synced(watch.shim, file) };
        });
    }
    code
}

#[cold]
#[inline(never)]
extern "C" fn watched_sync_failed(file: *mut sqlite3_file, code: c_int) -> c_int {
    // SAFETY: as in `x_sync_watched`; nobody looks at SQLite's part of the file while we are called.
    let watch = unsafe { &*(*file).pMethods.cast::<Watch>() };
    // SAFETY: as above.
    unsafe { (*file).pMethods = &raw const watch.poisoned };
    rim::guard(&watch.shim.sqlite, "poison", (), || {
        watch
            .shim
            .log(code, format_args!("the WAL of the line before: {SAY}"));
    });
    std::hint::black_box(code)
}
