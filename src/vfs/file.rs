//! The methods of an open file, each handed to the base's file.
//!
//! Invariant: a file has a method exactly where the base's file has it, at that file's own
//! iVersion. That differs from file to file (`nolock=1` has no `xShmMap`, `unix-dotfile` is of
//! iVersion 1), so a file's method table is cut to measure when it is opened.
//!
//! Only files that need something of us are ours; the others are the base's own (see `open`).
//!
//! ```text
//!   sqlite3_file* ->  | File                      | the base's file, szOsFile bytes |
//!                     | pMethods | room | ...     | pMethods | ...                  |
//!                                    '--------------^
//! ```

use super::courtesy::Courtesy;
use super::locks::{x_lock, x_shm_lock, x_shm_map, x_shm_unmap, x_unlock};
use super::memory::try_box;
use super::network::Network;
use super::open::Room;
use super::poison::sync_failed;
use super::{Shim, rim};
use crate::sqlite::abi::*;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Our part of an open file.
#[repr(C)]
pub struct File {
    /// SQLite's part.
    pub head: sqlite3_file,
    /// The base's file: right behind this one, unless it did not fit there.
    pub room: Room,
    pub shim: &'static Shim,
    /// The base that opened the file.
    pub base: NonNull<sqlite3_vfs>,
    /// The database's path, if it is remembered in `Shim::apart`. SQLite keeps it until xClose.
    pub apart: Option<&'static CStr>,
    /// What the lock methods know.
    pub courtesy: Courtesy,
    /// What is known of a file that other machines can reach.
    pub network: Option<NonNull<Network>>,
}

/// Our methods; [`cut`] takes away those that a base's file does not have.
pub const TABLE: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: Some(x_fetch),
    xUnfetch: Some(x_unfetch),
};

/// Those of `ours` that a file has whose base has `lower`: one table for all files with the same members.
///
/// A table of each file's own would be simpler, but SQLite counts a file's size (three times over) as
/// memory of its page cache; 152 bytes more are enough to show in `SQLITE_DBSTATUS_CACHE_USED`.
///
/// `None` if memory is out.
pub fn over(
    lower: &sqlite3_io_methods,
    ours: &sqlite3_io_methods,
) -> Option<&'static sqlite3_io_methods> {
    let methods = cut(lower, ours);
    let mut head = TABLES.load(Ordering::Acquire);
    loop {
        let mut at = head;
        // SAFETY: a table on the list is complete and never freed.
        while let Some(table) = unsafe { at.as_ref() } {
            if members(&table.methods) == members(&methods) {
                return Some(&table.methods);
            }
            at = table.next;
        }
        let next = head;
        let new = Box::into_raw(try_box(Table { methods, next })?);
        match TABLES.compare_exchange(head, new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: it is on the list now, so it is never freed.
            Ok(_) => return Some(unsafe { &(*new).methods }),
            // SAFETY: nobody else has seen it.
            Err(other) => unsafe {
                drop(Box::from_raw(new));
                head = other;
            },
        }
    }
}

/// A table that has been needed. There are as many as bases have kinds of files: a handful.
struct Table {
    methods: sqlite3_io_methods,
    next: *mut Table,
}

/// All of them. A list that only grows, so that no lock can be left behind by a `fork`.
static TABLES: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());

/// Our table without what `lower` does not have.
fn cut(lower: &sqlite3_io_methods, ours: &sqlite3_io_methods) -> sqlite3_io_methods {
    // Members beyond the base's iVersion do not exist and must not be read.
    let (v2, v3) = (lower.iVersion >= 2, lower.iVersion >= 3);
    sqlite3_io_methods {
        iVersion: lower.iVersion.min(ours.iVersion),
        xClose: lower.xClose.and(ours.xClose),
        xRead: lower.xRead.and(ours.xRead),
        xWrite: lower.xWrite.and(ours.xWrite),
        xTruncate: lower.xTruncate.and(ours.xTruncate),
        xSync: lower.xSync.and(ours.xSync),
        xFileSize: lower.xFileSize.and(ours.xFileSize),
        xLock: lower.xLock.and(ours.xLock),
        xUnlock: lower.xUnlock.and(ours.xUnlock),
        xCheckReservedLock: lower.xCheckReservedLock.and(ours.xCheckReservedLock),
        xFileControl: lower.xFileControl.and(ours.xFileControl),
        xSectorSize: lower.xSectorSize.and(ours.xSectorSize),
        xDeviceCharacteristics: lower
            .xDeviceCharacteristics
            .and(ours.xDeviceCharacteristics),
        xShmMap: ours.xShmMap.filter(|_| v2 && lower.xShmMap.is_some()),
        xShmLock: ours.xShmLock.filter(|_| v2 && lower.xShmLock.is_some()),
        xShmBarrier: TABLE
            .xShmBarrier
            .filter(|_| v2 && lower.xShmBarrier.is_some()),
        xShmUnmap: ours.xShmUnmap.filter(|_| v2 && lower.xShmUnmap.is_some()),
        xFetch: ours.xFetch.filter(|_| v3 && lower.xFetch.is_some()),
        xUnfetch: ours.xUnfetch.filter(|_| v3 && lower.xUnfetch.is_some()),
    }
}

/// What a table has, to be compared.
fn members(methods: &sqlite3_io_methods) -> [usize; 19] {
    let m = methods;
    macro_rules! addresses {
        ($($member:ident)*) => {
            [m.iVersion as usize, $(m.$member.map_or(0, |method| method as usize)),*]
        };
    }
    addresses!(xClose xRead xWrite xTruncate xSync xFileSize xLock xUnlock xCheckReservedLock xFileControl
        xSectorSize xDeviceCharacteristics xShmMap xShmLock xShmBarrier xShmUnmap xFetch xUnfetch)
}

impl File {
    /// Our part of a file that SQLite calls us with.
    ///
    /// # Safety
    /// `file` was opened by our `xOpen` and is not closed.
    #[inline(always)]
    pub unsafe fn of<'a>(file: *mut sqlite3_file) -> &'a File {
        // SAFETY: the caller's promise.
        unsafe { &*file.cast::<File>() }
    }

    /// What is known of it, if other machines can reach it.
    pub fn network(&self) -> Option<&Network> {
        // SAFETY: it is freed by xClose.
        self.network.map(|network| unsafe { network.as_ref() })
    }
}

/// Calls a method of the base's file.
macro_rules! call {
    ($file:expr, $method:ident($($argument:expr),*)) => {{
        let lower = $file.room.lower;
        // SAFETY: the base's file is open as long as ours is, and it has the method: `over` gave ours
        // one only where it did. The arguments are SQLite's own for this very method.
        unsafe { (*(*lower).pMethods).$method.unwrap_unchecked()(lower, $($argument),*) }
    }};
}

pub(super) use call;

/// Hands a method to the base's file, behind the rim.
macro_rules! pass {
    ($file:ident, $name:literal, $error:expr, $method:ident($($argument:expr),*)) => {{
        // SAFETY: SQLite calls a file's methods with that file.
        let file = unsafe { File::of($file) };
        rim::guard(&file.shim.sqlite, $name, $error, || call!(file, $method($($argument),*)))
    }};
}
pub(super) use pass;

/// The base's file is closed even if something of ours panics: its descriptor holds locks.
unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file, once.
    let file = unsafe { File::of(file) };
    let mut left = true;
    let ours = rim::guard(&file.shim.sqlite, "xClose", SQLITE_IOERR_CLOSE, || {
        if let Some(path) = file.apart {
            left = file.shim.apart.leave(path);
        }
        SQLITE_OK
    });
    let code = call!(file, xClose());
    // Only now: the next in line shall find the locks gone.
    rim::guard(&file.shim.sqlite, "leave", (), || file.courtesy.close());
    // SAFETY: the base's file is closed, and SQLite calls us with this one no more.
    unsafe {
        file.room.free();
        if let Some(network) = file.network.filter(|_| left) {
            rim::guard(&file.shim.sqlite, "free", (), || Network::free(network));
        }
    }
    if code == SQLITE_OK { ours } else { code }
}

unsafe extern "C" fn x_read(
    file: *mut sqlite3_file,
    out: *mut c_void,
    size: c_int,
    at: sqlite3_int64,
) -> c_int {
    pass!(file, "xRead", SQLITE_IOERR_READ, xRead(out, size, at))
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    data: *const c_void,
    size: c_int,
    at: sqlite3_int64,
) -> c_int {
    pass!(file, "xWrite", SQLITE_IOERR_WRITE, xWrite(data, size, at))
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    pass!(file, "xTruncate", SQLITE_IOERR_TRUNCATE, xTruncate(size))
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let code = pass!(file, "xSync", SQLITE_IOERR_FSYNC, xSync(flags));
    if code != SQLITE_OK {
        return sync_failed(file, code);
    }
    code
}

unsafe extern "C" fn x_file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    pass!(file, "xFileSize", SQLITE_IOERR_FSTAT, xFileSize(size))
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    pass!(
        file,
        "xCheckReservedLock",
        SQLITE_IOERR_CHECKRESERVEDLOCK,
        xCheckReservedLock(held)
    )
}

pub unsafe extern "C" fn x_file_control(
    file: *mut sqlite3_file,
    op: c_int,
    argument: *mut c_void,
) -> c_int {
    // What each commit sends goes straight to the base: SYNC, COMMIT_PHASETWO, HAS_MOVED.
    if !(SQLITE_FCNTL_HAS_MOVED..SQLITE_FCNTL_PDB).contains(&op) {
        // SAFETY: the same arguments.
        return unsafe { file_control_of_ours(file, op, argument) };
    }
    pass!(
        file,
        "xFileControl",
        SQLITE_IOERR,
        xFileControl(op, argument)
    )
}

#[inline(never)]
unsafe extern "C" fn file_control_of_ours(
    file: *mut sqlite3_file,
    op: c_int,
    argument: *mut c_void,
) -> c_int {
    match op {
        // SAFETY: the argument is a char**.
        SQLITE_FCNTL_VFSNAME => return unsafe { vfs_name(file, argument.cast()) },
        // SAFETY: SQLite calls a file's methods with that file; the argument is what `op` has.
        SQLITE_FCNTL_BUSYHANDLER | SQLITE_FCNTL_PDB => unsafe {
            File::of(file).courtesy.heard(op, argument);
        },
        _ => {}
    }
    pass!(
        file,
        "xFileControl",
        SQLITE_IOERR,
        xFileControl(op, argument)
    )
}

/// SQLITE_FCNTL_VFSNAME: our name, and behind it what the base says.
///
/// # Safety
/// The file is open, and `answer` is what that file control takes.
#[cold]
unsafe fn vfs_name(file: *mut sqlite3_file, answer: *mut *mut c_char) -> c_int {
    // SAFETY: the caller's promise.
    let file = unsafe { File::of(file) };
    rim::guard(&file.shim.sqlite, "xFileControl", SQLITE_IOERR, || {
        call!(file, xFileControl(SQLITE_FCNTL_VFSNAME, answer.cast()));
        // SAFETY: the caller's promise.
        unsafe { file.shim.sqlite.prefix_vfs_name(answer, super::NAME) };
        SQLITE_OK
    })
}

unsafe extern "C" fn x_sector_size(file: *mut sqlite3_file) -> c_int {
    pass!(
        file,
        "xSectorSize",
        SQLITE_DEFAULT_SECTOR_SIZE,
        xSectorSize()
    )
}

unsafe extern "C" fn x_device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass!(file, "xDeviceCharacteristics", 0, xDeviceCharacteristics())
}

/// The barrier cannot fail, so it is raised even if something of ours panics.
unsafe extern "C" fn x_shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: SQLite calls a file's methods with that file.
    let file = unsafe { File::of(file) };
    rim::guard(&file.shim.sqlite, "xShmBarrier", (), || ());
    file.courtesy.wrote();
    call!(file, xShmBarrier());
}

unsafe extern "C" fn x_fetch(
    file: *mut sqlite3_file,
    at: sqlite3_int64,
    size: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass!(file, "xFetch", SQLITE_IOERR_MMAP, xFetch(at, size, out))
}

unsafe extern "C" fn x_unfetch(
    file: *mut sqlite3_file,
    at: sqlite3_int64,
    page: *mut c_void,
) -> c_int {
    pass!(file, "xUnfetch", SQLITE_IOERR_MMAP, xUnfetch(at, page))
}
