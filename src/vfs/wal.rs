//! A WAL that is there is not opened as a new one.
//!
//! SQLite opens each WAL with SQLITE_OPEN_CREATE (`sqlite3WalOpen`), and its VFS does for each what a new file needs
//! (`unixOpen`). For a process that opens the database anew for each write that is dear:
//!
//! - *Its directory is synced* with the first commit, so that a power failure does not take the file away from under it
//!   (`unixSync`, UNIXFILE_DIRSYNC): a second flush of the disk, on ext4 a fifth of all that such a write takes. A connection
//!   that stays open does so once (and not again if it failed, which `unixSync` tells nobody), and relies on it from then on.
//!   So may the next connection of the same process, if the WAL is still that very file.
//! - *Root gives it to the database's owner* (`robustFchown`), and waits for whoever is in the middle of writing to it.
//!   Among a thousand processes on two processors that one may have to wait for 100 ms until it may go on, and then all of
//!   them stand in the kernel, one behind the other. So nothing is given to whom it belongs already: it is opened as a
//!   super-journal, which is the same but for that.
//!
//! Invariant: only what this process has seen counts, and nothing from the sidecar. "That very file" is what the kernel says it is
//! (`name_to_handle_at`: the inode and its generation), since the last connection to close removes the WAL, and ext4 gives its
//! inode's number to the next one at once. Where there are no such handles (some file systems, some containers), or when in
//! doubt, or on a base that is none of SQLite's own, all is as in stock SQLite.

use super::Shim;
use super::file::File;
use crate::sqlite::abi::*;
use crate::wait::inheritance::Inheritance;
use nix::errno::Errno;
use nix::sys::stat::stat;
use nix::unistd::geteuid;
use std::ffi::{CStr, c_char, c_int};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::mem::offset_of;

/// The WALs whose directory this process has synced since they were there.
static SYNCED: Inheritance<Handle, 4> = Inheritance::new();

/// The longest handle that is remembered; ext4's has 8 bytes, that of XFS or tmpfs 12, that of btrfs 20.
const LONGEST: usize = 32;

/// What names one file of a mount, as long as the file system lives.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Handle {
    length: u32,
    kind: c_int,
    bytes: [u8; LONGEST],
    mount: c_int,
}

const _: () = assert!(offset_of!(Handle, bytes) == offset_of!(libc::file_handle, f_handle));

impl Handle {
    /// Of the file at `path`: ENOENT if there is none, another error if it has no handle.
    fn at(path: &CStr) -> nix::Result<Handle> {
        let mut handle = Handle {
            length: LONGEST as u32,
            kind: 0,
            bytes: [0; LONGEST],
            mount: 0,
        };
        let mut mount = 0;
        // SAFETY: a terminated path, and what the kernel takes for its `file_handle`, with as many bytes as it says.
        let code = unsafe {
            let handle = (&raw mut handle).cast();
            libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), handle, &mut mount, 0)
        };
        handle.mount = mount;
        Errno::result(code).map(|_| handle)
    }
}

/// A WAL that was not synced yet since it was opened: when it is, the base syncs its directory, too.
struct Unsynced {
    path: u64,
    handle: Handle,
}

/// What lies behind a WAL of the base's, where a database would have the rest of its `File`.
type Room = Option<Unsynced>;

const _: () = assert!(size_of::<Room>() + align_of::<Room>() <= size_of::<File>());

/// # Safety
/// `file` has room for our szOsFile.
unsafe fn room(shim: &Shim, file: *mut sqlite3_file) -> *mut Room {
    // SAFETY: the base is on SQLite's list.
    let lower = unsafe { shim.base.as_ref().szOsFile } as usize;
    let at = lower.next_multiple_of(align_of::<Room>());
    // SAFETY: the caller's promise, and the assertion above.
    unsafe { file.cast::<u8>().add(at).cast() }
}

/// Has the base open a WAL.
///
/// # Safety
/// The arguments are those of `xOpen`.
pub unsafe fn open(
    shim: &Shim,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let base = shim.base.as_ptr();
    // SAFETY: the caller's promise; the base is on SQLite's list.
    let open = |flags| unsafe {
        match (*base).xOpen {
            Some(x_open) => x_open(base, name, file, flags, out_flags),
            None => SQLITE_CANTOPEN,
        }
    };
    // SAFETY: a name is NULL or terminated.
    let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
    let name = name.filter(|_| shim.is_over_unix());
    let path = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
    // Nobody removes it meanwhile: who opens a WAL holds SHARED, and for that it takes EXCLUSIVE (`sqlite3WalClose`).
    let before = name.map_or(Err(Errno::EOPNOTSUPP), Handle::at);
    let is_synced = before.is_ok_and(|handle| SYNCED.has(path, &handle));
    let belongs = before.is_ok() && geteuid().is_root() && name.is_some_and(is_the_owners);
    let as_it_is = match belongs {
        true => flags & !SQLITE_OPEN_WAL | SQLITE_OPEN_SUPER_JOURNAL,
        false => flags,
    };
    if is_synced && open(as_it_is & !SQLITE_OPEN_CREATE) == SQLITE_OK {
        // SAFETY: the caller's promise.
        unsafe { room(shim, file).write(None) };
        return SQLITE_OK;
    }
    let code = open(as_it_is);
    let handle = match (before, name) {
        (Err(Errno::ENOENT), Some(name)) => Handle::at(name),
        _ => before,
    };
    let unsynced = handle.ok().map(|handle| Unsynced { path, handle });
    // SAFETY: the caller's promise.
    unsafe { room(shim, file).write(unsynced) };
    code
}

/// Whether the WAL `name` belongs to the database's owner.
fn is_the_owners(name: &CStr) -> bool {
    let owner = |path: &[u8]| stat(path).map(|found| (found.st_uid, found.st_gid));
    let database = name.to_bytes().strip_suffix(b"-wal").map(owner);
    database.is_some_and(|database| database.is_ok() && database == owner(name.to_bytes()))
}

/// Whether nothing is to be heard of its first sync.
///
/// # Safety
/// [`open`] has opened it.
pub unsafe fn is_synced(shim: &Shim, file: *mut sqlite3_file) -> bool {
    // SAFETY: `open` wrote it.
    unsafe { (*room(shim, file)).is_none() }
}

/// A WAL was synced for the first time since it was opened.
///
/// # Safety
/// [`open`] has opened it.
pub unsafe fn synced(shim: &Shim, file: *mut sqlite3_file) {
    // SAFETY: `open` wrote it, and SQLite calls us with this file from one thread at a time.
    if let Some(Unsynced { path, handle }) = unsafe { (*room(shim, file)).take() } {
        SYNCED.leave(path, handle);
    }
}
