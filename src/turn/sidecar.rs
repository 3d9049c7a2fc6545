//! The file `<database>-turnstile`: found or made, and mended where its content cannot be.
//!
//! Invariant: it is never truncated and never written through a link. It stays when the last
//! connection closes, because nobody can tell that no other process is about to open it (SQLite
//! can remove its `-shm` only because it holds a lock on the *database* meanwhile); it may be deleted while
//! nobody has the database open.
//!
//! Its bytes are allocated when it is made: a page that gets its room only when it is first written is
//! a SIGBUS on a full disk.

use super::layout::{Line, MAGIC, WORDS, Word};
use super::machine::Machine;
use super::mapped::Mapped;
use super::sigbus::LENGTH;
use libc::c_short;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, stat};
use nix::unistd::{Gid, Uid, fchown, geteuid};
use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

/// Behind the database's path.
const SUFFIX: &[u8] = b"-turnstile\0";

/// Why there is no line for a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A system call failed.
    System(&'static str, Errno),
    /// What lies there is no plain file, or has a second name.
    Strange,
    /// The kernel refused the mapping, or the process has too many.
    NoMapping,
    /// Somebody else has been mending it for too long.
    Locked,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::System(what, error) => write!(f, "{what}: {}", error.desc()),
            Trouble::Strange => f.write_str("it is not a plain file of its own; delete it"),
            Trouble::NoMapping => f.write_str("it cannot be mapped into memory"),
            Trouble::Locked => f.write_str("somebody holds it locked"),
        }
    }
}

fn failed(what: &'static str) -> impl Fn(Errno) -> Trouble {
    move |error| Trouble::System(what, error)
}

/// The sidecar's path. `None` if memory is out.
pub fn path_of(database: &CStr) -> Option<Vec<u8>> {
    let mut path = Vec::new();
    path.try_reserve_exact(database.count_bytes() + SUFFIX.len())
        .ok()?;
    path.extend_from_slice(database.to_bytes());
    path.extend_from_slice(SUFFIX);
    Some(path)
}

/// Whether the file that is open is (still) the one at `path`.
pub fn is_at(mapped: &Mapped, path: &CStr) -> bool {
    stat(path).is_ok_and(|there| (there.st_dev, there.st_ino) == mapped.identity())
}

/// Opens the sidecar at `path`, which belongs to `database`; makes it if `create`.
///
/// `Ok(None)`: there is none.
pub fn attach(path: &CStr, database: &CStr, create: bool) -> Result<Option<Mapped>, Trouble> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match open(path, flags, Mode::empty()) {
        Err(Errno::ENOENT) if create => make(path, database, flags)?,
        Err(Errno::ENOENT) => return Ok(None),
        found => found.map_err(failed("open"))?,
    };
    let status = fstat(&file).map_err(failed("fstat"))?;
    let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFREG || status.st_nlink > 1 {
        return Err(Trouble::Strange);
    }
    if status.st_size < LENGTH as i64 {
        let _lock = Mending::of(&file)?;
        allocate(&file)?;
    }
    let identity = (status.st_dev, status.st_ino);
    let mapped = Mapped::new(file, identity).ok_or(Trouble::NoMapping)?;
    if super::line::line(&mapped).is_none() {
        mend(&mapped)?;
    }
    Ok(Some(mapped))
}

fn make(path: &CStr, database: &CStr, flags: OFlag) -> Result<OwnedFd, Trouble> {
    let owner = stat(database).map_err(failed("stat of the database"))?;
    let mode = Mode::from_bits_truncate(owner.st_mode & 0o666);
    crate::inject::kill_point("making");
    match open(path, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode) {
        Ok(file) => {
            crate::inject::kill_point("made");
            resemble(&file, &owner, mode);
            Ok(file)
        }
        // Another process was quicker.
        Err(Errno::EEXIST) => open(path, flags, Mode::empty()).map_err(failed("open")),
        Err(error) => Err(Trouble::System("create", error)),
    }
}

/// Whoever may use the database may use its sidecar. As in `robustFchown` and `robust_open`: the
/// umask must not matter, and root's files go to the database's owner.
fn resemble(file: &OwnedFd, owner: &FileStat, mode: Mode) {
    // Failing is no harm: others then wait without the line.
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        let _ = fchown(file.as_fd(), Some(uid), Some(gid));
    }
    let _ = fchmod(file.as_fd(), mode);
}

fn allocate(file: &OwnedFd) -> Result<(), Trouble> {
    crate::inject::kill_point("allocating");
    match fallocate(file, FallocateFlags::empty(), 0, LENGTH as i64) {
        Err(Errno::EOPNOTSUPP) => {}
        done => return done.map_err(failed("allocate")),
    }
    // The file was shorter than a sidecar, so nobody's line can be in it.
    let zeros = [0; 4096];
    for at in (0..LENGTH).step_by(zeros.len()) {
        let chunk = &zeros[..zeros.len().min(LENGTH - at)];
        nix::sys::uio::pwrite(file, chunk, at as i64).map_err(failed("allocate"))?;
    }
    Ok(())
}

/// Makes an empty line out of whatever is there. Those who wait in it find their tickets gone and
/// take new ones.
pub fn mend(mapped: &Mapped) -> Result<(), Trouble> {
    let _lock = Mending::of(mapped.file())?;
    if super::line::line(mapped).is_some() {
        return Ok(());
    }
    mapped.store(Word::Magic, 0);
    crate::inject::kill_point("mending");
    // Not where tickets of the old line are.
    let line = Line::from(mapped.load(Word::Line));
    let next = line.tail.wrapping_add(super::layout::CAPACITY);
    mapped.store(
        Word::Line,
        Line {
            head: next,
            tail: next,
        }
        .into(),
    );
    for word in [
        Word::TurnUntil,
        Word::Pause,
        Word::Watch,
        Word::Gate,
        Word::Herd,
        Word::Drain,
    ] {
        mapped.store(word, 0);
    }
    for door in 0..super::layout::DOORS {
        mapped.store(Word::Knock(door), 0);
    }
    for place in 0..super::layout::CAPACITY {
        mapped.store(Word::Stamp(place), 0);
        // Somebody may sleep there.
        if mapped.load(Word::Place(place)) != 0 {
            mapped.store(Word::Place(place), 0);
            mapped.wake(Word::Place(place), 1);
        }
    }
    crate::inject::kill_point("mended");
    mapped.store(Word::Magic, MAGIC);
    Ok(())
}

/// The sidecar at our path is another one by now: sends all who have this one to look for it.
pub fn retire(mapped: &Mapped) {
    mapped.store(Word::Magic, 0);
    mapped.store(Word::Line, Line { head: 0, tail: 1 }.into());
    for place in 0..super::layout::CAPACITY {
        mapped.store(Word::Place(place), 0);
        mapped.wake(Word::Place(place), 1);
    }
}

/// The lock on the sidecar's first byte: one at a time makes or mends it.
struct Mending<'a>(&'a OwnedFd);

impl Mending<'_> {
    /// Never waits long: whoever has it may be stopped.
    fn of(file: &OwnedFd) -> Result<Mending<'_>, Trouble> {
        for _ in 0..4 {
            match fcntl(
                file.as_fd(),
                FcntlArg::F_OFD_SETLK(&first_byte(libc::F_WRLCK)),
            ) {
                Ok(_) => return Ok(Mending(file)),
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(error) => return Err(Trouble::System("lock", error)),
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err(Trouble::Locked)
    }
}

impl Drop for Mending<'_> {
    fn drop(&mut self) {
        let _ = fcntl(
            self.0.as_fd(),
            FcntlArg::F_OFD_SETLK(&first_byte(libc::F_UNLCK)),
        );
    }
}

fn first_byte(kind: i32) -> libc::flock {
    // SAFETY: a plain structure of numbers; all zero is the file's first byte but for the length.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as c_short;
    lock.l_len = 1;
    lock
}

const _: () = assert!(LENGTH == WORDS * 8);
