//! Why a database could not be opened, in words.
//!
//! SQLite's own answer is `unable to open database file`. The reason is looked for afterwards, by
//! path: a database file is never opened here, since closing it would drop SQLite's locks on it.
//! `errno` stays what the base left, because `sqlite3_system_errno` is asked for it later.

use super::Shim;
use crate::sqlite::abi::{SQLITE_CANTOPEN, SQLITE_OPEN_CREATE};
use crate::text::PathEnd;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, access};
use std::ffi::{CStr, c_int};

/// Logs why the base answered `code` to xOpen. Only CANTOPEN is explained: other codes come with a
/// reason of their own.
pub fn cannot_open(shim: &Shim, code: c_int, path: &CStr, flags: c_int) {
    if code & 0xff == SQLITE_CANTOPEN {
        let left = Errno::last_raw();
        say(shim, code, path, reason(path, flags, Errno::from_raw(left)));
        Errno::set_raw(left);
    }
}

/// Logs why the base answered `code` to xFullPathname, which follows links and has room for `limit` bytes.
pub fn cannot_resolve(shim: &Shim, code: c_int, path: &CStr, limit: c_int) {
    let left = Errno::last_raw();
    match stat(path) {
        Err(error) if error != Errno::ENOENT => {
            let reason = format_args!("{}; check the links and directories in it", error.desc());
            say(shim, code, path, reason);
        }
        _ => {
            let reason = format_args!("it has no full path of less than {limit} bytes");
            say(shim, code, path, reason);
        }
    }
    Errno::set_raw(left);
}

fn say(shim: &Shim, code: c_int, path: &CStr, reason: impl std::fmt::Display) {
    shim.log(
        code,
        format_args!("cannot open {}: {reason}", PathEnd(path)),
    );
}

/// `failure` is what the base's last system call said; nothing, if it made none.
fn reason(path: &CStr, flags: c_int, failure: Errno) -> &'static str {
    let is_directory = |mode| SFlag::from_bits_truncate(mode).contains(SFlag::S_IFDIR);
    let directory = match stat(path) {
        Ok(found) if is_directory(found.st_mode) => return "it is a directory; name a file in it",
        Ok(_) if access(path, AccessFlags::R_OK).is_err() => {
            return "no permission to read it; ask its owner, or chmod it";
        }
        Err(Errno::ENOENT) => parent(path),
        Err(Errno::EACCES) => return "no permission to enter its directory; ask its owner",
        Ok(_) | Err(_) => return failure.desc(),
    };
    if stat(directory).is_err() {
        "its directory does not exist; create that first"
    } else if flags & SQLITE_OPEN_CREATE == 0 {
        "there is no such file; create it first, or open it with mode=rwc"
    } else if access(directory, AccessFlags::W_OK).is_err() {
        "no permission to create it; make its directory writable"
    } else {
        failure.desc()
    }
}

/// The directory of a full path.
fn parent(path: &CStr) -> &[u8] {
    let bytes = path.to_bytes();
    match bytes.iter().rposition(|&b| b == b'/') {
        Some(0) | None => b"/",
        Some(slash) => &bytes[..slash],
    }
}
