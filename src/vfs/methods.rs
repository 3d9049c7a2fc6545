//! The methods of `sqlite3_vfs`, each handed to the base.
//!
//! Invariant: we have a method exactly where the base has it, at the base's own iVersion (at most 3,
//! the newest that we know). A base's method is called with the base's own VFS pointer.

use super::network::{self, Network, paths};
use super::{Shim, explain, open, poison, rim, wal};
use crate::sqlite::abi::*;
use crate::wait::{note, patience};
use nix::errno::Errno;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

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
        xOpen: base.xOpen.and(TABLE.xOpen),
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

/// Hands a method to the registered base, behind the rim.
macro_rules! pass {
    ($vfs:ident, $name:literal, $on_panic:expr, $method:ident($($argument:expr),*)) => {{
        // SAFETY: SQLite calls a VFS's methods with that VFS.
        let shim = unsafe { Shim::of($vfs) };
        pass!(shim, shim.base.as_ptr(), $name, $on_panic, $method($($argument),*))
    }};
    ($shim:expr, $base:expr, $name:literal, $on_panic:expr, $method:ident($($argument:expr),*)) => {{
        let (shim, base) = ($shim, $base);
        rim::guard(&shim.sqlite, $name, $on_panic, || {
            // SAFETY: the base is on SQLite's list, so it stays, and it has the method: `over` gave
            // ours one only where it did. The arguments are SQLite's own for this very method.
            unsafe { (*base).$method.unwrap_unchecked()(base, $($argument),*) }
        })
    }};
}

unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls a VFS's methods with that VFS.
    let shim = unsafe { Shim::of(vfs) };
    // Only a database is wrapped. The others are the base's own files, opened in its szOsFile bytes
    // of our room; but one on another base may need more, and of a WAL the syncs are watched.
    if flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL) == 0 {
        let straight = shim.apart.straight();
        if !straight.is_null() {
            let error = SQLITE_CANTOPEN;
            return pass!(
                shim,
                straight,
                "xOpen",
                error,
                xOpen(name, file, flags, out_flags)
            );
        }
    }
    // SAFETY: the same arguments.
    unsafe { open_ours(vfs, name, file, flags, out_flags) }
}

/// Apart, and with C's calling convention, so that the other files get by with a jump to the base.
#[inline(never)]
unsafe extern "C" fn open_ours(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls a VFS's methods with that VFS; xOpen gets room for our szOsFile.
    let shim = unsafe {
        // SQLite closes a file whose pMethods are set, even if xOpen failed.
        (*file).pMethods = ptr::null();
        Shim::of(vfs)
    };
    rim::guard(&shim.sqlite, "xOpen", SQLITE_CANTOPEN, || {
        let straight = shim.apart.straight();
        if flags & SQLITE_OPEN_MAIN_DB != 0 || straight.is_null() {
            // SAFETY: the arguments of xOpen.
            return unsafe { open::open(shim, name, file, flags, out_flags) };
        }
        // SAFETY: the arguments of xOpen, for the base; what it has opened is its own.
        unsafe {
            let code = wal::open(shim, name, file, flags, out_flags);
            if code == SQLITE_OK && !(*file).pMethods.is_null() {
                poison::watch(shim, file);
            }
            code
        }
    })
}

unsafe extern "C" fn x_delete(vfs: *mut sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite calls a VFS's methods with that VFS.
    let shim = unsafe { Shim::of(vfs) };
    let straight = shim.apart.straight();
    if !straight.is_null() {
        let error = SQLITE_IOERR_DELETE;
        return pass!(shim, straight, "xDelete", error, xDelete(path, sync));
    }
    // SAFETY: the same arguments.
    unsafe { delete_apart(vfs, path, sync) }
}

#[cold]
unsafe extern "C" fn delete_apart(
    vfs: *mut sqlite3_vfs,
    path: *const c_char,
    sync: c_int,
) -> c_int {
    by_path(vfs, "xDelete", SQLITE_IOERR_DELETE, path, |owner, path| {
        let base = owner.base;
        if let Some(network) = owner.network {
            return paths::delete(network, path, sync & 1 != 0);
        }
        // SAFETY: the base is on SQLite's list.
        match unsafe { (*base).xDelete } {
            // SAFETY: the arguments are SQLite's own.
            Some(method) => unsafe { method(base, path.as_ptr(), sync) },
            // As sqlite3OsDelete has it: memdb has nothing to delete.
            None => SQLITE_OK,
        }
    })
}

unsafe extern "C" fn x_access(
    vfs: *mut sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls a VFS's methods with that VFS.
    let shim = unsafe { Shim::of(vfs) };
    let straight = shim.apart.straight();
    if !straight.is_null() {
        return pass!(
            shim,
            straight,
            "xAccess",
            SQLITE_IOERR_ACCESS,
            xAccess(path, flags, answer)
        );
    }
    // SAFETY: the same arguments.
    unsafe { access_apart(vfs, path, flags, answer) }
}

#[cold]
unsafe extern "C" fn access_apart(
    vfs: *mut sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    by_path(vfs, "xAccess", SQLITE_IOERR_ACCESS, path, |owner, path| {
        let there = match owner.network {
            Some(network) => paths::access(network, path, flags),
            None if owner.is_network => paths::access_unowned(owner.shim, path, flags),
            None => return base_access(owner.base, path, flags, answer),
        };
        there.map_or_else(
            |code| code,
            |there| {
                // SAFETY: SQLite's own argument.
                unsafe { *answer = c_int::from(there) };
                SQLITE_OK
            },
        )
    })
}

fn base_access(base: *mut sqlite3_vfs, path: &CStr, flags: c_int, answer: *mut c_int) -> c_int {
    // SAFETY: the base is on SQLite's list; the arguments are SQLite's own.
    unsafe {
        match (*base).xAccess {
            Some(method) => method(base, path.as_ptr(), flags, answer),
            None => SQLITE_IOERR_ACCESS,
        }
    }
}

/// The database that a path belongs to; see `apart::Owner`.
struct Found<'a> {
    shim: &'a Shim,
    base: *mut sqlite3_vfs,
    network: Option<&'a Network>,
    is_network: bool,
}

/// Hands a method with a path to the database that the path belongs to; see `apart`.
fn by_path(
    vfs: *mut sqlite3_vfs,
    name: &str,
    error: c_int,
    path: *const c_char,
    call: impl FnOnce(Found<'_>, &CStr) -> c_int,
) -> c_int {
    // SAFETY: SQLite calls a VFS's methods with that VFS, and its path is terminated.
    let (shim, path) = unsafe { (Shim::of(vfs), CStr::from_ptr(path)) };
    rim::guard(&shim.sqlite, name, error, || {
        match shim.apart.owner_of(path) {
            Some(owner) => {
                let found = Found {
                    shim,
                    base: owner.base.as_ptr(),
                    // SAFETY: it is that of the caller's own connection; see `apart`.
                    network: owner.network.map(|network| unsafe { network.as_ref() }),
                    is_network: owner.is_network,
                };
                call(found, path)
            }
            None => error,
        }
    })
}

unsafe extern "C" fn x_full_pathname(
    vfs: *mut sqlite3_vfs,
    path: *const c_char,
    size: c_int,
    full: *mut c_char,
) -> c_int {
    Errno::clear();
    let code = pass!(
        vfs,
        "xFullPathname",
        SQLITE_CANTOPEN,
        xFullPathname(path, size, full)
    );
    // SQLITE_OK_SYMLINK is a success, too.
    if code & 0xff == SQLITE_OK {
        return code;
    }
    // SAFETY: the same arguments.
    unsafe { full_pathname_again(vfs, code, path, size, full) }
}

/// The stock VFS looks at each part of the path, and at the directory that we are in (`unixFullPathname`).
#[cold]
unsafe extern "C" fn full_pathname_again(
    vfs: *mut sqlite3_vfs,
    first: c_int,
    path: *const c_char,
    size: c_int,
    full: *mut c_char,
) -> c_int {
    let errno = Errno::last();
    // SAFETY: SQLite calls a VFS's methods with that VFS, and its path is terminated.
    let (shim, name) = unsafe { (Shim::of(vfs), CStr::from_ptr(path)) };
    rim::guard(&shim.sqlite, "explain", first, || {
        let code = network::open::resolve(shim, name, errno, first, || {
            pass!(
                vfs,
                "xFullPathname",
                SQLITE_CANTOPEN,
                xFullPathname(path, size, full)
            )
        });
        if code & 0xff != SQLITE_OK {
            explain::cannot_resolve(shim, code, name, size);
        }
        code
    })
}

unsafe extern "C" fn x_dl_open(vfs: *mut sqlite3_vfs, path: *const c_char) -> *mut c_void {
    pass!(vfs, "xDlOpen", ptr::null_mut(), xDlOpen(path))
}

unsafe extern "C" fn x_dl_error(vfs: *mut sqlite3_vfs, size: c_int, message: *mut c_char) {
    pass!(vfs, "xDlError", (), xDlError(size, message))
}

unsafe extern "C" fn x_dl_sym(
    vfs: *mut sqlite3_vfs,
    library: *mut c_void,
    symbol: *const c_char,
) -> sqlite3_syscall_ptr {
    pass!(vfs, "xDlSym", None, xDlSym(library, symbol))
}

unsafe extern "C" fn x_dl_close(vfs: *mut sqlite3_vfs, library: *mut c_void) {
    pass!(vfs, "xDlClose", (), xDlClose(library))
}

unsafe extern "C" fn x_randomness(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    pass!(vfs, "xRandomness", 0, xRandomness(size, out))
}

/// Where SQLite's busy timeout waits, and we instead; see `wait`.
unsafe extern "C" fn x_sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    if patience::record(microseconds) {
        return microseconds;
    }
    // walTryBeginRead sleeps in other amounts than busy handlers, which count in milliseconds.
    if microseconds % 1_000 == 0
        && let Some(reusable) = note::find()
    {
        // SAFETY: SQLite calls a VFS's methods with that VFS.
        let shim = unsafe { Shim::of(vfs) };
        let slept = rim::guard(&shim.sqlite, "xSleep", None, || {
            reusable.waiter.try_lock()?.sleep(microseconds)
        });
        if let Some(slept) = slept {
            return slept;
        }
    }
    pass!(vfs, "xSleep", 0, xSleep(microseconds))
}

unsafe extern "C" fn x_current_time(vfs: *mut sqlite3_vfs, day: *mut f64) -> c_int {
    pass!(vfs, "xCurrentTime", SQLITE_ERROR, xCurrentTime(day))
}

unsafe extern "C" fn x_get_last_error(
    vfs: *mut sqlite3_vfs,
    size: c_int,
    message: *mut c_char,
) -> c_int {
    pass!(vfs, "xGetLastError", 0, xGetLastError(size, message))
}

unsafe extern "C" fn x_current_time_int64(vfs: *mut sqlite3_vfs, ms: *mut sqlite3_int64) -> c_int {
    pass!(
        vfs,
        "xCurrentTimeInt64",
        SQLITE_ERROR,
        xCurrentTimeInt64(ms)
    )
}

unsafe extern "C" fn x_set_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    call: sqlite3_syscall_ptr,
) -> c_int {
    pass!(
        vfs,
        "xSetSystemCall",
        SQLITE_NOTFOUND,
        xSetSystemCall(name, call)
    )
}

unsafe extern "C" fn x_get_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
) -> sqlite3_syscall_ptr {
    pass!(vfs, "xGetSystemCall", None, xGetSystemCall(name))
}

unsafe extern "C" fn x_next_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
) -> *const c_char {
    pass!(vfs, "xNextSystemCall", ptr::null(), xNextSystemCall(name))
}
