//! SQLite's C structures and constants, as `sqlite3.h` lays them out.
//!
//! Written down here and not taken from libsqlite3-sys, because the loadable extension is built
//! without it: naming one of its types would put a second SQLite on the link line. The layouts are
//! SQLite's public ABI and have only ever grown at the end; the tests below compare each
//! size, offset and number with the real header.
#![allow(non_camel_case_types, non_snake_case)]

use std::ffi::{c_char, c_int, c_void};

/// `sqlite3_int64`.
pub type sqlite3_int64 = i64;

/// `sqlite3_syscall_ptr`: a system call in the base's override table.
pub type sqlite3_syscall_ptr = Option<unsafe extern "C" fn()>;

/// An open file. What follows `pMethods` belongs to the VFS that opened it.
#[repr(C)]
pub struct sqlite3_file {
    pub pMethods: *const sqlite3_io_methods,
}

type File = *mut sqlite3_file;

/// The methods of an open file. A member beyond `iVersion` does not exist.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sqlite3_io_methods {
    pub iVersion: c_int,
    pub xClose: Option<unsafe extern "C" fn(File) -> c_int>,
    pub xRead: Option<unsafe extern "C" fn(File, *mut c_void, c_int, sqlite3_int64) -> c_int>,
    pub xWrite: Option<unsafe extern "C" fn(File, *const c_void, c_int, sqlite3_int64) -> c_int>,
    pub xTruncate: Option<unsafe extern "C" fn(File, sqlite3_int64) -> c_int>,
    pub xSync: Option<unsafe extern "C" fn(File, c_int) -> c_int>,
    pub xFileSize: Option<unsafe extern "C" fn(File, *mut sqlite3_int64) -> c_int>,
    pub xLock: Option<unsafe extern "C" fn(File, c_int) -> c_int>,
    pub xUnlock: Option<unsafe extern "C" fn(File, c_int) -> c_int>,
    pub xCheckReservedLock: Option<unsafe extern "C" fn(File, *mut c_int) -> c_int>,
    pub xFileControl: Option<unsafe extern "C" fn(File, c_int, *mut c_void) -> c_int>,
    pub xSectorSize: Option<unsafe extern "C" fn(File) -> c_int>,
    pub xDeviceCharacteristics: Option<unsafe extern "C" fn(File) -> c_int>,
    // iVersion 2: the wal-index
    pub xShmMap: Option<unsafe extern "C" fn(File, c_int, c_int, c_int, *mut *mut c_void) -> c_int>,
    pub xShmLock: Option<unsafe extern "C" fn(File, c_int, c_int, c_int) -> c_int>,
    pub xShmBarrier: Option<unsafe extern "C" fn(File)>,
    pub xShmUnmap: Option<unsafe extern "C" fn(File, c_int) -> c_int>,
    // iVersion 3: memory-mapped I/O
    pub xFetch: Option<unsafe extern "C" fn(File, sqlite3_int64, c_int, *mut *mut c_void) -> c_int>,
    pub xUnfetch: Option<unsafe extern "C" fn(File, sqlite3_int64, *mut c_void) -> c_int>,
}

type Vfs = *mut sqlite3_vfs;

/// A VFS, a member of the list that `sqlite3_vfs_register` keeps.
#[repr(C)]
pub struct sqlite3_vfs {
    pub iVersion: c_int,
    pub szOsFile: c_int,
    pub mxPathname: c_int,
    pub pNext: Vfs,
    pub zName: *const c_char,
    pub pAppData: *mut c_void,
    pub xOpen: Option<unsafe extern "C" fn(Vfs, *const c_char, File, c_int, *mut c_int) -> c_int>,
    pub xDelete: Option<unsafe extern "C" fn(Vfs, *const c_char, c_int) -> c_int>,
    pub xAccess: Option<unsafe extern "C" fn(Vfs, *const c_char, c_int, *mut c_int) -> c_int>,
    pub xFullPathname:
        Option<unsafe extern "C" fn(Vfs, *const c_char, c_int, *mut c_char) -> c_int>,
    pub xDlOpen: Option<unsafe extern "C" fn(Vfs, *const c_char) -> *mut c_void>,
    pub xDlError: Option<unsafe extern "C" fn(Vfs, c_int, *mut c_char)>,
    pub xDlSym:
        Option<unsafe extern "C" fn(Vfs, *mut c_void, *const c_char) -> sqlite3_syscall_ptr>,
    pub xDlClose: Option<unsafe extern "C" fn(Vfs, *mut c_void)>,
    pub xRandomness: Option<unsafe extern "C" fn(Vfs, c_int, *mut c_char) -> c_int>,
    pub xSleep: Option<unsafe extern "C" fn(Vfs, c_int) -> c_int>,
    pub xCurrentTime: Option<unsafe extern "C" fn(Vfs, *mut f64) -> c_int>,
    pub xGetLastError: Option<unsafe extern "C" fn(Vfs, c_int, *mut c_char) -> c_int>,
    // iVersion 2
    pub xCurrentTimeInt64: Option<unsafe extern "C" fn(Vfs, *mut sqlite3_int64) -> c_int>,
    // iVersion 3
    pub xSetSystemCall:
        Option<unsafe extern "C" fn(Vfs, *const c_char, sqlite3_syscall_ptr) -> c_int>,
    pub xGetSystemCall: Option<unsafe extern "C" fn(Vfs, *const c_char) -> sqlite3_syscall_ptr>,
    pub xNextSystemCall: Option<unsafe extern "C" fn(Vfs, *const c_char) -> *const c_char>,
}

pub const SQLITE_OK: c_int = 0;
pub const SQLITE_ERROR: c_int = 1;
pub const SQLITE_BUSY: c_int = 5;
pub const SQLITE_LOCKED: c_int = 6;
pub const SQLITE_NOMEM: c_int = 7;
pub const SQLITE_IOERR: c_int = 10;
pub const SQLITE_NOTFOUND: c_int = 12;
pub const SQLITE_CANTOPEN: c_int = 14;
pub const SQLITE_TXN_NONE: c_int = 0;
pub const SQLITE_TXN_READ: c_int = 1;
pub const SQLITE_TXN_WRITE: c_int = 2;
pub const SQLITE_NOTICE: c_int = 27;
pub const SQLITE_WARNING: c_int = 28;

pub const SQLITE_IOERR_READ: c_int = SQLITE_IOERR | 1 << 8;
pub const SQLITE_IOERR_SHORT_READ: c_int = SQLITE_IOERR | 2 << 8;
pub const SQLITE_IOERR_WRITE: c_int = SQLITE_IOERR | 3 << 8;
pub const SQLITE_IOERR_FSYNC: c_int = SQLITE_IOERR | 4 << 8;
pub const SQLITE_IOERR_DIR_FSYNC: c_int = SQLITE_IOERR | 5 << 8;
pub const SQLITE_IOERR_TRUNCATE: c_int = SQLITE_IOERR | 6 << 8;
pub const SQLITE_IOERR_FSTAT: c_int = SQLITE_IOERR | 7 << 8;
pub const SQLITE_IOERR_UNLOCK: c_int = SQLITE_IOERR | 8 << 8;
pub const SQLITE_IOERR_DELETE: c_int = SQLITE_IOERR | 10 << 8;
pub const SQLITE_IOERR_NOMEM: c_int = SQLITE_IOERR | 12 << 8;
pub const SQLITE_IOERR_ACCESS: c_int = SQLITE_IOERR | 13 << 8;
pub const SQLITE_IOERR_CHECKRESERVEDLOCK: c_int = SQLITE_IOERR | 14 << 8;
pub const SQLITE_IOERR_LOCK: c_int = SQLITE_IOERR | 15 << 8;
pub const SQLITE_IOERR_CLOSE: c_int = SQLITE_IOERR | 16 << 8;
pub const SQLITE_IOERR_DELETE_NOENT: c_int = SQLITE_IOERR | 23 << 8;
pub const SQLITE_IOERR_CORRUPTFS: c_int = SQLITE_IOERR | 33 << 8;
pub const SQLITE_IOERR_SHMLOCK: c_int = SQLITE_IOERR | 20 << 8;
pub const SQLITE_IOERR_SHMMAP: c_int = SQLITE_IOERR | 21 << 8;
pub const SQLITE_IOERR_MMAP: c_int = SQLITE_IOERR | 24 << 8;

pub const SQLITE_ACCESS_EXISTS: c_int = 0;

pub const SQLITE_OPEN_READONLY: c_int = 0x0000_0001;
pub const SQLITE_OPEN_READWRITE: c_int = 0x0000_0002;
pub const SQLITE_OPEN_MAIN_JOURNAL: c_int = 0x0000_0800;
pub const SQLITE_OPEN_SUPER_JOURNAL: c_int = 0x0000_4000;
pub const SQLITE_OPEN_PRIVATECACHE: c_int = 0x0004_0000;
pub const SQLITE_OPEN_WAL: c_int = 0x0008_0000;
pub const SQLITE_OPEN_URI: c_int = 0x0000_0040;
pub const SQLITE_OPEN_CREATE: c_int = 0x0000_0004;
pub const SQLITE_OPEN_MEMORY: c_int = 0x0000_0080;
pub const SQLITE_OPEN_MAIN_DB: c_int = 0x0000_0100;

pub const SQLITE_FCNTL_LOCKSTATE: c_int = 1;
pub const SQLITE_FCNTL_LAST_ERRNO: c_int = 4;
pub const SQLITE_FCNTL_SIZE_HINT: c_int = 5;
pub const SQLITE_FCNTL_PRAGMA: c_int = 14;
pub const SQLITE_FCNTL_MMAP_SIZE: c_int = 18;
pub const SQLITE_FCNTL_VFSNAME: c_int = 12;
pub const SQLITE_FCNTL_BUSYHANDLER: c_int = 15;
pub const SQLITE_FCNTL_HAS_MOVED: c_int = 20;
pub const SQLITE_FCNTL_PDB: c_int = 30;

pub const SQLITE_SYNC_NORMAL: c_int = 2;

pub const SQLITE_LOCK_NONE: c_int = 0;
pub const SQLITE_LOCK_SHARED: c_int = 1;
pub const SQLITE_LOCK_RESERVED: c_int = 2;
pub const SQLITE_LOCK_PENDING: c_int = 3;
pub const SQLITE_LOCK_EXCLUSIVE: c_int = 4;

pub const SQLITE_SHM_LOCK: c_int = 2;
pub const SQLITE_SHM_EXCLUSIVE: c_int = 8;

/// What `sqlite3OsSectorSize` takes for a file that has no `xSectorSize`.
pub const SQLITE_DEFAULT_SECTOR_SIZE: c_int = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use libsqlite3_sys as real;
    use std::mem::{offset_of, size_of};

    macro_rules! same_layout {
        ($type:ident: $($member:ident)*) => {
            assert_eq!(size_of::<$type>(), size_of::<real::$type>(), stringify!($type));
            $(assert_eq!(
                offset_of!($type, $member),
                offset_of!(real::$type, $member),
                stringify!($type.$member)
            );)*
        };
    }

    #[test]
    fn the_structures_are_laid_out_as_in_the_real_header() {
        same_layout!(sqlite3_file: pMethods);
        same_layout!(sqlite3_io_methods: iVersion xClose xRead xWrite xTruncate xSync xFileSize
            xLock xUnlock xCheckReservedLock xFileControl xSectorSize xDeviceCharacteristics
            xShmMap xShmLock xShmBarrier xShmUnmap xFetch xUnfetch);
        same_layout!(sqlite3_vfs: iVersion szOsFile mxPathname pNext zName pAppData xOpen xDelete
            xAccess xFullPathname xDlOpen xDlError xDlSym xDlClose xRandomness xSleep xCurrentTime
            xGetLastError xCurrentTimeInt64 xSetSystemCall xGetSystemCall xNextSystemCall);
    }

    #[test]
    fn the_numbers_are_those_of_the_real_header() {
        macro_rules! same {
            ($($name:ident)*) => { $(assert_eq!($name, real::$name, stringify!($name));)* };
        }
        same!(SQLITE_SYNC_NORMAL SQLITE_LOCKED SQLITE_FCNTL_SIZE_HINT SQLITE_IOERR_SHORT_READ SQLITE_IOERR_DIR_FSYNC SQLITE_IOERR_NOMEM SQLITE_IOERR_DELETE_NOENT SQLITE_IOERR_CORRUPTFS SQLITE_ACCESS_EXISTS SQLITE_OPEN_READONLY SQLITE_OPEN_READWRITE SQLITE_OPEN_MAIN_JOURNAL SQLITE_OPEN_SUPER_JOURNAL SQLITE_OPEN_PRIVATECACHE SQLITE_OPEN_WAL SQLITE_FCNTL_LOCKSTATE SQLITE_FCNTL_LAST_ERRNO SQLITE_FCNTL_PRAGMA SQLITE_FCNTL_MMAP_SIZE SQLITE_LOCK_NONE SQLITE_OK SQLITE_BUSY SQLITE_FCNTL_BUSYHANDLER SQLITE_FCNTL_HAS_MOVED SQLITE_FCNTL_PDB SQLITE_LOCK_SHARED SQLITE_LOCK_RESERVED SQLITE_LOCK_EXCLUSIVE SQLITE_SHM_LOCK SQLITE_SHM_EXCLUSIVE SQLITE_ERROR SQLITE_NOMEM SQLITE_IOERR SQLITE_NOTFOUND SQLITE_CANTOPEN SQLITE_TXN_NONE SQLITE_TXN_READ SQLITE_TXN_WRITE SQLITE_NOTICE SQLITE_WARNING SQLITE_IOERR_READ SQLITE_IOERR_WRITE SQLITE_IOERR_FSYNC SQLITE_IOERR_TRUNCATE SQLITE_IOERR_FSTAT SQLITE_IOERR_UNLOCK SQLITE_IOERR_DELETE SQLITE_IOERR_ACCESS SQLITE_IOERR_CHECKRESERVEDLOCK SQLITE_IOERR_LOCK SQLITE_IOERR_CLOSE SQLITE_IOERR_SHMLOCK SQLITE_IOERR_SHMMAP SQLITE_IOERR_MMAP SQLITE_OPEN_URI SQLITE_OPEN_CREATE SQLITE_OPEN_MAIN_DB SQLITE_FCNTL_VFSNAME);
    }
}
