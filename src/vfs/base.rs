//! Which VFS is underneath, if a URI (or the environment, later on) names another than the
//! registered one.

use crate::Error;
use crate::options::Options;
use crate::sqlite::Sqlite;
use crate::sqlite::abi::{SQLITE_ERROR, sqlite3_vfs};
use std::ffi::CStr;
use std::ptr::NonNull;

/// The VFS that `options` names as base.
pub fn find(sqlite: &Sqlite, options: &Options) -> Result<NonNull<sqlite3_vfs>, Error> {
    let name = options.base.as_c_str();
    let error = |text: &str| {
        let text = format_args!("option base names the VFS \"{}\"{text}", options.base);
        Err(Error::new(SQLITE_ERROR, text))
    };
    if name == super::NAME {
        return error(", which cannot lie on itself; name another, for example unix");
    }
    match sqlite.find(Some(name)) {
        Some(base) => Ok(base),
        None => error(", which is not registered; register it first, or use unix"),
    }
}

/// Whether `base` keeps a database in the file that its path names. `memdb` does not, and the locks of
/// `unix-none` are nobody's.
pub fn has_files(base: NonNull<sqlite3_vfs>) -> bool {
    // SAFETY: a VFS on SQLite's list, whose name is terminated.
    let name = unsafe { CStr::from_ptr(base.as_ref().zName) };
    ![c"memdb", c"unix-none"].contains(&name)
}
