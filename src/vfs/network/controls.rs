//! File controls of a database that other machines can reach: what is not offered here.

use super::Network;
use super::paths::has_moved;
use crate::sqlite::abi::*;
use crate::text::utf8;
use crate::vfs::file::{File, x_file_control as pass_on};
use crate::vfs::rim;
use std::ffi::{CStr, c_char, c_int, c_void};

pub unsafe extern "C" fn x_file_control(
    file: *mut sqlite3_file,
    op: c_int,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: SQLite calls a file's methods with that file.
    let ours = unsafe { File::of(file) };
    let answer = rim::guard(
        &ours.shim.sqlite,
        "xFileControl",
        Some(SQLITE_IOERR),
        || {
            let network = ours.network()?;
            // SAFETY: the argument is what `op` has.
            unsafe { answer(network, op, argument) }
        },
    );
    // SAFETY: the same arguments.
    answer.unwrap_or_else(|| unsafe { pass_on(file, op, argument) })
}

/// What is answered here and not by the base.
///
/// # Safety
/// `argument` is what `op` has.
unsafe fn answer(network: &Network, op: c_int, argument: *mut c_void) -> Option<c_int> {
    let database = network.database()?;
    match op {
        // It may make the file longer (fcntlSizeHint).
        SQLITE_FCNTL_SIZE_HINT => {
            database.version.set(None);
            None
        }
        SQLITE_FCNTL_MMAP_SIZE => {
            // SAFETY: the caller's promise: an sqlite3_int64.
            unsafe { *argument.cast::<sqlite3_int64>() = 0 };
            Some(SQLITE_OK)
        }
        SQLITE_FCNTL_HAS_MOVED => Some(match has_moved(network) {
            // SAFETY: the caller's promise: an int.
            Ok(moved) => unsafe {
                *argument.cast::<c_int>() = c_int::from(moved);
                SQLITE_OK
            },
            Err(code) => code,
        }),
        SQLITE_FCNTL_PRAGMA => {
            // SAFETY: the caller's promise: a result, the name and perhaps a value, each terminated.
            unsafe { refuse_wal(argument.cast()) };
            None
        }
        _ => None,
    }
}

/// `PRAGMA journal_mode=wal` is to answer the present mode, as it does of itself without `xShmMap`; but in
/// `locking_mode=EXCLUSIVE` SQLite has a WAL without shared memory (`sqlite3PagerWalSupported`), and leaves a database
/// behind that others cannot open. A mode that it does not know is a question (`sqlite3Pragma`), so the value is
/// made one.
///
/// # Safety
/// `pragma` is the argument of SQLITE_FCNTL_PRAGMA.
unsafe fn refuse_wal(pragma: *mut *mut c_char) {
    // SAFETY: the caller's promise; the value is SQLite's own copy (sqlite3NameFromToken).
    unsafe {
        let (name, value) = (*pragma.add(1), *pragma.add(2));
        if name.is_null() || value.is_null() {
            return;
        }
        let text = |string| utf8(CStr::from_ptr(string).to_bytes());
        // As sqlite3Pragma compares: so many characters as there are.
        let wanted = text(value);
        let is_wal = !wanted.is_empty()
            && "wal"
                .get(..wanted.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(wanted));
        if text(name).eq_ignore_ascii_case("journal_mode") && is_wal {
            *value = b'?' as c_char;
        }
    }
}
