//! Why a database could not be opened, in words.
//!
//! SQLite's own answer is `unable to open database file`. The reason is looked for afterwards, by
//! path: a database file is never opened here, since closing it would drop SQLite's locks on it.

use crate::sqlite::abi::SQLITE_OPEN_CREATE;
use nix::unistd::{AccessFlags, access};
use std::ffi::{CStr, OsStr, c_int};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// One sentence for the log: the file, what is wrong, what to do.
pub fn cannot_open(path: &CStr, flags: c_int) -> String {
    let failure = io::Error::last_os_error();
    format!(
        "cannot open {}: {}",
        shortened(path),
        reason(as_path(path), flags, &failure)
    )
}

/// The same for `xFullPathname`, which follows links and has room for `limit` bytes.
pub fn cannot_resolve(path: &CStr, limit: c_int) -> String {
    let reason = match as_path(path).metadata() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            format!("{error}; check the directories and links on its way")
        }
        _ => format!("it has no full path of less than {limit} bytes; use a shorter one"),
    };
    format!("cannot open {}: {reason}", shortened(path))
}

fn reason(path: &Path, flags: c_int, failure: &io::Error) -> String {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let advice = match path.metadata() {
        Ok(found) if found.is_dir() => "it is a directory; name a file in it",
        Ok(_) if access(path, AccessFlags::R_OK).is_err() => {
            "no permission to read it; ask its owner, or chmod it"
        }
        Ok(_) => return format!("{failure}"),
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return format!("{e}; check its directory");
        }
        Err(_) if !directory.is_dir() => "its directory does not exist; create that first",
        Err(_) if flags & SQLITE_OPEN_CREATE == 0 => {
            "there is no such file; create it first, or open it with mode=rwc"
        }
        Err(_) if access(directory, AccessFlags::W_OK).is_err() => {
            "no permission to create it; make its directory writable"
        }
        Err(_) => return format!("{failure}"),
    };
    advice.to_owned()
}

fn as_path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// A path for a log line, which has room for 209 bytes: of a long one the end, which tells more.
pub fn shortened(path: &CStr) -> String {
    let path = path.to_string_lossy();
    match path.char_indices().rev().nth(79) {
        Some((start, _)) if start > 0 => format!("...{}", &path[start..]),
        _ => path.into_owned(),
    }
}
