//! Which errors pass, call by call, on a file system that other machines can reach.
//!
//! | errno | from | passes |
//! |---|---|---|
//! | EIO | every network file system, for whatever went wrong at the server | yes |
//! | ETIMEDOUT, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENETRESET | the way to the server | yes |
//! | ECONNRESET, ECONNABORTED, ECONNREFUSED, ENOTCONN, ESHUTDOWN, EPIPE | a server that is restarted, a client that was evicted (Lustre: ESHUTDOWN; Gluster: ENOTCONN while a brick is down) | yes |
//! | EREMOTEIO, ECOMM, EPROTO | NFS, SMB: an answer that makes no sense | yes |
//! | EAGAIN, EINTR, ENOMEM, ENOBUFS | the kernel, for now (but EAGAIN of a lock is its answer, and of an unlock that another has it) | yes |
//! | EBUSY | names only: a file that NFS renames instead of deleting it | yes |
//! | ESTALE of a path | NFS: the name leads to a file that is gone; the next look finds the new one | yes |
//! | ESTALE of an open file | it is gone for good | no |
//! | ENOLCK, EDEADLK of a lock | NFS while its lock manager recovers | SQLite's own answer is SQLITE_BUSY (`sqliteErrorFromPosixError`) |
//! | ENOSPC, EDQUOT, EFBIG, EROFS, EACCES, EPERM, EBADF, EINVAL, ENXIO, ENOSYS, … | will be the same next time | no |
//!
//! `unixRead` answers EIO with SQLITE_IOERR_CORRUPTFS, which SQLite then reports as "database disk image is malformed"
//! (`sqlite3ApiExit`): it is an EIO like any other here.

use nix::errno::Errno;
use std::fmt;

/// A call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Open,
    Read,
    Write,
    Truncate,
    Size,
    Sync,
    SyncDirectory,
    Lock,
    Unlock,
    CheckReserved,
    /// A look at a path: is there a journal, is the database still the file at its path?
    Look,
    Delete,
}

impl Call {
    /// Whether it names a file by its path; else it is about an open one.
    fn has_path(self) -> bool {
        use Call::*;
        matches!(self, Open | Look | Delete | SyncDirectory)
    }

    /// Whether it changes what others see, so that it may be made again only if the turn to write is ours.
    pub fn changes(self) -> bool {
        use Call::*;
        matches!(self, Write | Truncate | Sync | Delete)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Open => "open",
            Call::Read => "read",
            Call::Write => "write",
            Call::Truncate => "truncate",
            Call::Size => "fstat",
            Call::Sync => "fsync",
            Call::SyncDirectory => "fsync of the directory",
            Call::Lock => "lock",
            Call::Unlock => "unlock",
            Call::CheckReserved => "look at RESERVED",
            Call::Look => "stat",
            Call::Delete => "unlink",
        })
    }
}

/// Whether `call` may succeed when it is made again after `errno`.
pub fn passes(call: Call, errno: Errno) -> bool {
    use Errno::*;
    match errno {
        EIO | ETIMEDOUT | EHOSTDOWN | EHOSTUNREACH | ENETDOWN | ENETUNREACH | ENETRESET
        | ECONNRESET | ECONNABORTED | ECONNREFUSED | ENOTCONN | ESHUTDOWN | EPIPE | EREMOTEIO
        | ECOMM | EPROTO | EINTR | ENOMEM | ENOBUFS => true,
        EAGAIN => !matches!(call, Call::Lock | Call::Unlock),
        EBUSY | ESTALE => call.has_path(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_table_names_passes() {
        use Call::*;
        for call in [
            Open, Read, Write, Truncate, Size, Sync, Lock, Unlock, Look, Delete,
        ] {
            assert!(passes(call, Errno::EIO) && passes(call, Errno::ENOTCONN));
            for errno in [
                Errno::ENOSPC,
                Errno::EDQUOT,
                Errno::EROFS,
                Errno::EACCES,
                Errno::EBADF,
                Errno::ENOENT,
                Errno::ENOSYS,
                Errno::UnknownErrno,
            ] {
                assert!(!passes(call, errno), "{call} {errno}");
            }
        }
        assert!(passes(Look, Errno::ESTALE) && !passes(Read, Errno::ESTALE));
        assert!(passes(Write, Errno::EAGAIN) && !passes(Lock, Errno::EAGAIN));
    }
}
