//! The methods of `sqlite3_vfs`, each handed to the base.
//!
//! Invariant: we have a method exactly where the base has it, at the base's own iVersion (at most 3,
//! the newest that we know). A base's method is called with the base's own VFS pointer.

use super::{Shim, explain, open, rim};
use crate::sqlite::abi::*;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

/// Our methods; [`over`] takes away those that a base does not have.
pub const TABLE: sqlite3_vfs = sqlite3_vfs {
    iVersion: 3,
    szOsFile: 0,
    mxPathname: 0,
    pNext: ptr::null_mut(),
    zName: ptr::null(),
    pAppData: ptr::null_mut(),
    xOpen: Some(x_open),
    xDelete: Some(x_delete),
    xAccess: Some(x_access),
    xFullPathname: Some(x_full_pathname),
    xDlOpen: Some(x_dl_open),
    xDlError: Some(x_dl_error),
    xDlSym: Some(x_dl_sym),
    xDlClose: Some(x_dl_close),
    xRandomness: Some(x_randomness),
    xSleep: Some(x_sleep),
    xCurrentTime: Some(x_current_time),
    xGetLastError: Some(x_get_last_error),
    xCurrentTimeInt64: Some(x_current_time_int64),
    xSetSystemCall: Some(x_set_system_call),
    xGetSystemCall: Some(x_get_system_call),
    xNextSystemCall: Some(x_next_system_call),
};

/// Our VFS as it is over `base`; `zName` and `pAppData` are still to be set.
pub fn over(base: &sqlite3_vfs) -> sqlite3_vfs {
    // Members beyond the base's iVersion do not exist and must not be read.
    let (v2, v3) = (base.iVersion >= 2, base.iVersion >= 3);
    sqlite3_vfs {
        iVersion: base.iVersion.min(TABLE.iVersion),
        szOsFile: open::size_over(base.szOsFile),
        mxPathname: base.mxPathname,
        xDelete: base.xDelete.and(TABLE.xDelete),
        xAccess: base.xAccess.and(TABLE.xAccess),
        xFullPathname: base.xFullPathname.and(TABLE.xFullPathname),
        xDlOpen: base.xDlOpen.and(TABLE.xDlOpen),
        xDlError: base.xDlError.and(TABLE.xDlError),
        xDlSym: base.xDlSym.and(TABLE.xDlSym),
        xDlClose: base.xDlClose.and(TABLE.xDlClose),
        xRandomness: base.xRandomness.and(TABLE.xRandomness),
        xSleep: base.xSleep.and(TABLE.xSleep),
        xCurrentTime: base.xCurrentTime.and(TABLE.xCurrentTime),
        xGetLastError: base.xGetLastError.and(TABLE.xGetLastError),
        xCurrentTimeInt64: TABLE
            .xCurrentTimeInt64
            .filter(|_| v2 && base.xCurrentTimeInt64.is_some()),
        xSetSystemCall: TABLE
            .xSetSystemCall
            .filter(|_| v3 && base.xSetSystemCall.is_some()),
        xGetSystemCall: TABLE
            .xGetSystemCall
            .filter(|_| v3 && base.xGetSystemCall.is_some()),
        xNextSystemCall: TABLE
            .xNextSystemCall
            .filter(|_| v3 && base.xNextSystemCall.is_some()),
        ..TABLE
    }
}

/// Calls a method of the VFS `$base`, or answers `$missing` if it has none.
macro_rules! call {
    ($base:expr, $method:ident($($argument:expr),*), $missing:expr) => {{
        let base = $base.as_ptr();
        // SAFETY: the base is on SQLite's list, so it stays; the arguments are SQLite's own for
        // this very method.
        unsafe {
            match (*base).$method {
                Some(method) => method(base, $($argument),*),
                None => $missing,
            }
        }
    }};
}

/// Runs `$body` with `$shim` behind the rim.
macro_rules! method {
    ($vfs:ident, $name:literal, $on_panic:expr, |$shim:ident| $body:expr) => {{
        // SAFETY: SQLite calls a VFS's methods with that VFS.
        let $shim = unsafe { Shim::of($vfs) };
        rim::guard(&$shim.sqlite, $name, $on_panic, || $body)
    }};
}

unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SQLite closes a file whose pMethods are set, even if xOpen failed.
    // SAFETY: xOpen gets room for our szOsFile.
    unsafe { (*file).pMethods = ptr::null() };
    method!(vfs, "xOpen", SQLITE_CANTOPEN, |shim| {
        // SAFETY: the arguments of xOpen.
        unsafe { open::open(shim, name, file, flags, out_flags) }
    })
}

/// The base for a path: see `base`.
///
/// # Safety
/// `path` is terminated.
#[inline(always)]
unsafe fn base_of(shim: &Shim, path: *const c_char) -> NonNull<sqlite3_vfs> {
    if shim.elsewhere.is_empty() {
        return shim.base;
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    shim.elsewhere.base_of(path).unwrap_or(shim.base)
}

unsafe extern "C" fn x_delete(vfs: *mut sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    method!(vfs, "xDelete", SQLITE_IOERR_DELETE, |shim| {
        // SAFETY: a path of SQLite's.
        let base = unsafe { base_of(shim, path) };
        call!(base, xDelete(path, sync), SQLITE_IOERR_DELETE)
    })
}

unsafe extern "C" fn x_access(
    vfs: *mut sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    method!(vfs, "xAccess", SQLITE_IOERR_ACCESS, |shim| {
        // SAFETY: a path of SQLite's.
        let base = unsafe { base_of(shim, path) };
        call!(base, xAccess(path, flags, answer), SQLITE_IOERR_ACCESS)
    })
}

unsafe extern "C" fn x_full_pathname(
    vfs: *mut sqlite3_vfs,
    path: *const c_char,
    size: c_int,
    full: *mut c_char,
) -> c_int {
    method!(vfs, "xFullPathname", SQLITE_CANTOPEN, |shim| {
        let code = call!(shim.base, xFullPathname(path, size, full), SQLITE_CANTOPEN);
        // SQLITE_OK_SYMLINK is a success, too.
        if code & 0xff != SQLITE_OK {
            // SAFETY: a path of SQLite's.
            let path = unsafe { CStr::from_ptr(path) };
            shim.log(code, explain::cannot_resolve(path, size));
        }
        code
    })
}

unsafe extern "C" fn x_dl_open(vfs: *mut sqlite3_vfs, path: *const c_char) -> *mut c_void {
    method!(vfs, "xDlOpen", ptr::null_mut(), |shim| {
        call!(shim.base, xDlOpen(path), ptr::null_mut())
    })
}

unsafe extern "C" fn x_dl_error(vfs: *mut sqlite3_vfs, size: c_int, message: *mut c_char) {
    method!(vfs, "xDlError", (), |shim| call!(
        shim.base,
        xDlError(size, message),
        ()
    ))
}

unsafe extern "C" fn x_dl_sym(
    vfs: *mut sqlite3_vfs,
    library: *mut c_void,
    symbol: *const c_char,
) -> sqlite3_syscall_ptr {
    method!(vfs, "xDlSym", None, |shim| call!(
        shim.base,
        xDlSym(library, symbol),
        None
    ))
}

unsafe extern "C" fn x_dl_close(vfs: *mut sqlite3_vfs, library: *mut c_void) {
    method!(vfs, "xDlClose", (), |shim| call!(
        shim.base,
        xDlClose(library),
        ()
    ))
}

unsafe extern "C" fn x_randomness(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    method!(vfs, "xRandomness", 0, |shim| call!(
        shim.base,
        xRandomness(size, out),
        0
    ))
}

unsafe extern "C" fn x_sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    method!(vfs, "xSleep", 0, |shim| call!(
        shim.base,
        xSleep(microseconds),
        0
    ))
}

unsafe extern "C" fn x_current_time(vfs: *mut sqlite3_vfs, day: *mut f64) -> c_int {
    method!(vfs, "xCurrentTime", SQLITE_ERROR, |shim| {
        call!(shim.base, xCurrentTime(day), SQLITE_ERROR)
    })
}

unsafe extern "C" fn x_get_last_error(
    vfs: *mut sqlite3_vfs,
    size: c_int,
    message: *mut c_char,
) -> c_int {
    method!(vfs, "xGetLastError", 0, |shim| call!(
        shim.base,
        xGetLastError(size, message),
        0
    ))
}

unsafe extern "C" fn x_current_time_int64(vfs: *mut sqlite3_vfs, ms: *mut sqlite3_int64) -> c_int {
    method!(vfs, "xCurrentTimeInt64", SQLITE_ERROR, |shim| {
        call!(shim.base, xCurrentTimeInt64(ms), SQLITE_ERROR)
    })
}

unsafe extern "C" fn x_set_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    call: sqlite3_syscall_ptr,
) -> c_int {
    method!(vfs, "xSetSystemCall", SQLITE_NOTFOUND, |shim| {
        call!(shim.base, xSetSystemCall(name, call), SQLITE_NOTFOUND)
    })
}

unsafe extern "C" fn x_get_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
) -> sqlite3_syscall_ptr {
    method!(vfs, "xGetSystemCall", None, |shim| call!(
        shim.base,
        xGetSystemCall(name),
        None
    ))
}

unsafe extern "C" fn x_next_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
) -> *const c_char {
    method!(vfs, "xNextSystemCall", ptr::null(), |shim| {
        call!(shim.base, xNextSystemCall(name), ptr::null())
    })
}
