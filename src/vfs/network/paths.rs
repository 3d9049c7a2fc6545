//! Journals by their names: looking for one, making it, deleting it.
//!
//! The stock VFS takes *any* error of `stat` for "no such file" (`unixAccess`): a hot journal is overlooked then, and
//! half a transaction is read. So names are looked at here. Journals are never SQLite's locked file, so that they may
//! be opened and closed.

use super::{Network, Policy};
use crate::durable::descriptor::{Status, ask_for_attribute, status, status_at, status_cached};
use crate::durable::episode::Episode;
use crate::durable::transient::{Call, passes};
use crate::sqlite::abi::*;
use crate::vfs::Shim;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{AccessFlags, LinkatFlags};
use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// PATH_MAX.
const PATH: usize = 4096;

/// Calls `with` with the path of the journal of the database at `path`.
pub fn of_journal<T>(path: &CStr, with: impl FnOnce(&CStr) -> nix::Result<T>) -> nix::Result<T> {
    beside(path.to_bytes(), b"-journal", with)
}

/// Calls `with` with the path of the WAL of the database at `path`.
pub fn of_wal<T>(path: &CStr, with: impl FnOnce(&CStr) -> nix::Result<T>) -> nix::Result<T> {
    beside(path.to_bytes(), b"-wal", with)
}

/// Calls `with` with the path of the directory of `path`.
pub fn of_directory<T>(path: &CStr, with: impl FnOnce(&CStr) -> nix::Result<T>) -> nix::Result<T> {
    let path = path.to_bytes();
    match path.iter().rposition(|&byte| byte == b'/') {
        None => with(c"."),
        Some(0) => with(c"/"),
        Some(slash) => beside(&path[..slash], b"", with),
    }
}

fn beside<T>(
    path: &[u8],
    suffix: &[u8],
    with: impl FnOnce(&CStr) -> nix::Result<T>,
) -> nix::Result<T> {
    let mut whole = [0; PATH];
    let length = path.len() + suffix.len();
    let place = whole.get_mut(..length).ok_or(Errno::ENAMETOOLONG)?;
    place[..path.len()].copy_from_slice(path);
    place[path.len()..].copy_from_slice(suffix);
    with(CStr::from_bytes_until_nul(&whole).map_err(|_| Errno::ENAMETOOLONG)?)
}

/// Opens the journal at `path` if it may be hot, whatever a cache says: there is one, and nobody is at work with it
/// (`hasHotJournal`). Another's is not looked into: on MooseFS that waits for half a minute. For who has SHARED.
pub fn open_hot(network: &Network, path: &CStr) -> nix::Result<Option<OwnedFd>> {
    if is_in_use(network)? {
        return Ok(None);
    }
    match fresh_status(network, path) {
        Ok(status) if status.is_file() && status.size > 0 => {}
        Ok(_) | Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    if network.is_reserved()? {
        return Ok(None);
    }
    let opened = match network.database().is_some_and(|d| d.is_gluster) {
        true => open_synced(path),
        false => open_to_read(path),
    };
    match opened {
        Ok(file) => {
            // See `open::journal`.
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
            Ok(Some(file))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether somebody writes, where that is asked for less than whether there is a journal.
fn is_in_use(network: &Network) -> nix::Result<bool> {
    let is_gluster = network.database().is_some_and(|d| d.is_gluster);
    Ok(is_gluster && !network.has_the_turn() && network.is_reserved()?)
}

/// Whether there is a hot journal at `path`: its first byte is not zero.
pub fn is_hot(network: &Network, path: &CStr) -> nix::Result<bool> {
    let Some(file) = open_hot(network, path)? else {
        return Ok(false);
    };
    let mut first = [0];
    let read = nix::sys::uio::pread(&file, &mut first, 0)?;
    Ok(read == 1 && first[0] != 0)
}

/// What the server says of `path`. "There is none" is not what a cache says; see `durable::coherence`.
pub fn fresh_status(network: &Network, path: &CStr) -> nix::Result<Status> {
    let database = network.database();
    if database.is_some_and(|d| d.is_gluster) {
        return synced_status(path);
    }
    let asks_by_making = database.is_some_and(|d| d.asks_by_making);
    match ask_by_making(path) {
        Err(errno) if passes(Call::Look, errno) => Err(errno),
        // What the question has brought.
        Err(Errno::EEXIST) if asks_by_making => status_cached(path),
        // Said after the name was looked up, of all the things that may be in the way.
        Err(Errno::EXDEV) if asks_by_making => Err(Errno::ENOENT),
        _ => status_at(path),
    }
}

/// The same on GlusterFS. Its client knows of files that are gone, until somebody asks for what it does not keep, and of
/// others what they were: what it has open, it asks the server about.
fn synced_status(path: &CStr) -> nix::Result<Status> {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        match ask_by_making(path) {
            Err(Errno::EEXIST) => {
                let asked = ask_for_attribute(path);
                if matches!(asked, Err(Errno::ENOENT | Errno::ESTALE)) {
                    // Of what had this name before.
                    continue;
                }
            }
            Err(Errno::EXDEV) => return Err(Errno::ENOENT),
            Err(errno) if passes(Call::Look, errno) => return Err(errno),
            _ => return status_at(path),
        }
        match open_synced(path).and_then(|file| status(file.as_raw_fd(), c"")) {
            Err(Errno::ENOENT | Errno::ESTALE) => {}
            status => return status,
        }
    }
    Err(Errno::ESTALE)
}

/// Asks whether there is a name by an attempt to make it, which is never done: a directory has one name only.
fn ask_by_making(path: &CStr) -> nix::Result<()> {
    nix::unistd::linkat(AT_FDCWD, c"/", AT_FDCWD, path, LinkatFlags::empty())
}

fn open_to_read(path: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    nix::fcntl::open(path, flags, Mode::empty())
}

fn open_synced(path: &CStr) -> nix::Result<OwnedFd> {
    let file = open_to_read(path)?;
    nix::unistd::fsync(&file)?;
    Ok(file)
}

/// `xAccess` for a file of the database.
pub fn access(network: &Network, path: &CStr, flags: c_int) -> Result<bool, c_int> {
    let is_journal = path.to_bytes().ends_with(b"-journal") && flags == SQLITE_ACCESS_EXISTS;
    let is_unchanged = network.database().is_some_and(|d| d.is_unchanged.get());
    if is_journal && is_unchanged && network.lock_state() == SQLITE_LOCK_SHARED {
        return Ok(false);
    }
    let found = network.look_at(path, Call::Look, || match flags {
        // SQLite asks next whether somebody writes (`hasHotJournal`), and then it is not hot.
        SQLITE_ACCESS_EXISTS if is_journal && is_in_use(network)? => Ok(true),
        SQLITE_ACCESS_EXISTS if is_journal => is_there_now(network, path),
        SQLITE_ACCESS_EXISTS => is_there(network, path),
        _ => is_there_cached(path, flags),
    });
    judge(found, flags)
}

/// `xAccess` for a file of a database that is not open here, or not by the caller: a super-journal, or the journals that one
/// names.
pub fn access_unowned(shim: &Shim, path: &CStr, flags: c_int) -> Result<bool, c_int> {
    let options = shim.options.with_environment();
    let retry = Policy::of(&options.unwrap_or(shim.options)).retry;
    let mut episode = Episode::new(&shim.sqlite, path, (Call::Look, None), retry);
    let found = super::look(&mut episode, &mut || is_there_cached(path, flags));
    judge(found, flags)
}

/// Whether there is a file at `path`, and not an empty one (`unixAccess`): "no" may be what a cache says.
pub fn is_there(network: &Network, path: &CStr) -> nix::Result<bool> {
    match is_there_cached(path, SQLITE_ACCESS_EXISTS) {
        Ok(true) => is_there_now(network, path),
        Err(Errno::ENOENT) => Ok(false),
        other => other,
    }
}

fn is_there_now(network: &Network, path: &CStr) -> nix::Result<bool> {
    match fresh_status(network, path) {
        Ok(status) => Ok(!status.is_file() || status.size > 0),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn is_there_cached(path: &CStr, flags: c_int) -> nix::Result<bool> {
    if flags != SQLITE_ACCESS_EXISTS {
        let all = AccessFlags::R_OK | AccessFlags::W_OK;
        return nix::unistd::access(path, all).map(|()| true);
    }
    let found = nix::sys::stat::stat(path)?;
    let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
    Ok(kind != SFlag::S_IFREG || found.st_size > 0)
}

fn judge(found: nix::Result<bool>, flags: c_int) -> Result<bool, c_int> {
    match found {
        Ok(there) => Ok(there),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
        Err(Errno::EACCES | Errno::EROFS | Errno::EPERM) if flags != SQLITE_ACCESS_EXISTS => {
            Ok(false)
        }
        Err(errno) => {
            Errno::set(errno);
            Err(SQLITE_IOERR_ACCESS)
        }
    }
}

/// `xDelete` for a file of the database. Of a journal it is the commit.
pub fn delete(network: &Network, path: &CStr, sync: bool) -> c_int {
    if network.stops(Call::Delete) {
        return SQLITE_IOERR_DELETE;
    }
    let mut episode = Episode::new(
        &network.shim.sqlite,
        path,
        (Call::Delete, None),
        network.budget(),
    );
    let mut failed = false;
    loop {
        match nix::unistd::unlink(path) {
            Ok(()) => break,
            Err(Errno::ENOENT) if failed => break,
            Err(Errno::ENOENT) => return SQLITE_IOERR_DELETE_NOENT,
            Err(errno) => {
                failed = true;
                let passes = passes(Call::Delete, errno);
                if !passes {
                    episode.failed("this error does not pass");
                    network.doubt();
                }
                if !passes || network.may_go_on(&mut episode, errno).is_err() {
                    Errno::set(errno);
                    return SQLITE_IOERR_DELETE;
                }
            }
        }
    }
    if failed {
        episode.succeeded();
    }
    if let Some(database) = network
        .database()
        .filter(|_| path.to_bytes().ends_with(b"-journal"))
    {
        database.journal.set(None);
    }
    // After a failure, who knows whether the server remembers.
    if (sync || failed) && sync_directory(network, path).is_err() {
        return SQLITE_IOERR_DIR_FSYNC;
    }
    SQLITE_OK
}

/// Syncs the directory of `path`. Where that cannot be done at all it is not needed either, or stock does not do it.
pub fn sync_directory(network: &Network, path: &CStr) -> nix::Result<()> {
    let synced = of_directory(path, |directory| {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        network.look(Call::SyncDirectory, || {
            let directory = nix::fcntl::open(directory, flags, Mode::empty())?;
            nix::unistd::fsync(&directory)
        })
    });
    match synced {
        Err(errno) if passes(Call::SyncDirectory, errno) => Err(errno),
        _ => Ok(()),
    }
}

/// Whether the database is still the file at its path: SQLITE_FCNTL_HAS_MOVED, where stock takes any error of `stat`
/// for "no" (`fileHasMoved`), and SQLite then for "attempt to write a readonly database".
pub fn has_moved(network: &Network) -> Result<bool, c_int> {
    let Some(inode) = network.database().and_then(|d| d.inode) else {
        return Ok(false);
    };
    let moved = network.look(Call::Look, || match nix::sys::stat::stat(network.path) {
        Err(Errno::ENOENT) => Ok(true),
        there => Ok(there?.st_ino != inode),
    });
    moved.map_err(|errno| {
        Errno::set(errno);
        SQLITE_IOERR_FSTAT
    })
}

/// Fetches the attributes of the database's directory.
pub fn refresh_directory(network: &Network) -> nix::Result<()> {
    match network.database().and_then(|d| d.directory.as_ref()) {
        Some(directory) => status(directory.as_raw_fd(), c"").map(|_| ()),
        None => Ok(()),
    }
}

/// Sees to it that what a client keeps above the kernel's caches is not read any more. GlusterFS' keeps the whole of a
/// file of up to 64 KiB for a second (quick-read), until it hears of another time of its last change: by a look at the
/// file that md-cache does not answer, such as the list of the directory.
pub fn pass_caches(network: &Network) -> nix::Result<()> {
    /// `performance.cache-timeout`, and the time to notice.
    const KEPT: Duration = Duration::from_millis(1_100);
    if !network.database().is_some_and(|d| d.is_gluster) {
        return Ok(());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let listed = of_directory(network.path, |directory| {
        let mut list = nix::dir::Dir::open(directory, flags, Mode::empty())?;
        list.iter().try_for_each(|entry| entry.map(|_| ()))
    });
    match listed {
        Err(Errno::EACCES) => {
            std::thread::sleep(KEPT);
            Ok(())
        }
        listed => listed,
    }
}

/// A descriptor of the directory that only leads to it.
pub fn open_directory(path: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    of_directory(path, |directory| {
        nix::fcntl::open(directory, flags, Mode::empty())
    })
}

/// Whether `path` may be written to, whatever has become of the attempt to open it.
pub fn is_writable(path: &CStr) -> nix::Result<bool> {
    let flags = AtFlags::AT_EACCESS;
    match nix::unistd::faccessat(AT_FDCWD, path, AccessFlags::W_OK, flags) {
        Ok(()) => Ok(true),
        Err(Errno::EACCES | Errno::EROFS | Errno::EPERM | Errno::ENOENT | Errno::ETXTBSY) => {
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}
