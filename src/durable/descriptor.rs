//! The system calls on a file that SQLite has open, by SQLite's own descriptor.
//!
//! A database is never opened here: whoever closes a descriptor of it gives up all locks that the process holds on it
//! (POSIX). So the descriptor is borrowed.

use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::RawFd;

/// `PENDING_BYTE` in SQLite's file format; the locks lie behind it.
const PENDING: i64 = 0x4000_0000;
const RESERVED: i64 = PENDING + 1;
const SHARED_FIRST: i64 = PENDING + 2;
const SHARED_SIZE: i64 = 510;

/// A time of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

/// Which file it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    device: (u32, u32),
    pub inode: u64,
}

/// What a server says of a file.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub identity: Identity,
    pub links: u32,
    pub size: u64,
    pub modified: Time,
    pub mode: u32,
    /// Perhaps it is not what the server says now: this Linux cannot ask.
    pub is_cached: bool,
}

/// When a file was changed last, and its size: not every change has a time of its own.
pub type Version = (Time, u64);

impl Status {
    pub fn version(&self) -> Version {
        (self.modified, self.size)
    }

    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// What the server says of `path` now, whatever is cached here. A relative one is looked for in `directory`.
pub fn status(directory: RawFd, path: &CStr) -> nix::Result<Status> {
    let flags = libc::AT_STATX_FORCE_SYNC | libc::AT_EMPTY_PATH;
    let mask = libc::STATX_BASIC_STATS;
    // SAFETY: statx is plain data, for which zeros are a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: a terminated string, and a structure to be filled.
        let code = unsafe { libc::statx(directory, path.as_ptr(), flags, mask, &mut found) };
        match Errno::result(code) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            // Linux before 4.11, and containers that know no newer call than that.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let status = old_status(directory, path)?;
                return Ok(Status {
                    is_cached: true,
                    ..status
                });
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(Status {
        identity: Identity {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        },
        links: found.stx_nlink,
        size: found.stx_size,
        modified: Time {
            seconds: found.stx_mtime.tv_sec,
            nanos: found.stx_mtime.tv_nsec,
        },
        mode: u32::from(found.stx_mode),
        is_cached: false,
    })
}

fn old_status(directory: RawFd, path: &CStr) -> nix::Result<Status> {
    // SAFETY: as in `status`.
    let found = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        let code = libc::fstatat(directory, path.as_ptr(), &mut found, libc::AT_EMPTY_PATH);
        Errno::result(code)?;
        found
    };
    Ok(Status {
        identity: Identity {
            device: (libc::major(found.st_dev), libc::minor(found.st_dev)),
            inode: found.st_ino as u64,
        },
        links: found.st_nlink as u32,
        size: found.st_size as u64,
        modified: Time {
            seconds: found.st_mtime as i64,
            nanos: found.st_mtime_nsec as u32,
        },
        mode: found.st_mode as u32,
        is_cached: false,
    })
}

/// What the server says of the file at `path`.
pub fn status_at(path: &CStr) -> nix::Result<Status> {
    status(libc::AT_FDCWD, path)
}

/// What is known here of the file at `path`, perhaps from a cache.
pub fn status_cached(path: &CStr) -> nix::Result<Status> {
    old_status(libc::AT_FDCWD, path)
}

/// Asks for an extended attribute that is not there.
pub fn ask_for_attribute(path: &CStr) -> nix::Result<()> {
    let (name, nowhere) = (c"user.turnstile".as_ptr(), std::ptr::null_mut());
    // SAFETY: terminated strings; nothing is written into no bytes.
    Errno::result(unsafe { libc::lgetxattr(path.as_ptr(), name, nowhere, 0) }).map(|_| ())
}

/// A file that SQLite has open.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor(RawFd);

impl Descriptor {
    /// # Safety
    /// `descriptor` is open as long as this is used.
    pub unsafe fn new(descriptor: RawFd) -> Descriptor {
        Descriptor(descriptor)
    }

    /// What the server says of it.
    pub fn status(self) -> nix::Result<Status> {
        status(self.0, c"")
    }

    /// What is known here of it, perhaps from a cache.
    pub fn status_cached(self) -> nix::Result<Status> {
        old_status(self.0, c"")
    }

    /// fsync, for what it brings back from the server.
    pub fn sync(self) -> nix::Result<()> {
        // SAFETY: no memory is involved.
        Errno::result(unsafe { libc::fsync(self.0) }).map(|_| ())
    }

    /// Drops the pages that the kernel keeps of it. Pages that are not written back stay.
    pub fn drop_pages(self) {
        // SAFETY: no memory is involved.
        unsafe { libc::posix_fadvise(self.0, 0, 0, libc::POSIX_FADV_DONTNEED) };
    }

    /// Reads until `into` is full or the file ends; says how much.
    pub fn read_at(self, into: &mut [u8], at: i64) -> nix::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            let rest = &mut into[done..];
            // SAFETY: `rest` has room for so many bytes.
            let read = unsafe {
                libc::pread(
                    self.0,
                    rest.as_mut_ptr().cast(),
                    rest.len(),
                    at + done as i64,
                )
            };
            match Errno::result(read) {
                Ok(0) => break,
                Ok(more) => done += more as usize,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Makes the present moment the time of the file's last change, to the nanosecond. Only its owner may.
    pub fn stamp(self) -> nix::Result<Time> {
        // SAFETY: structures that are filled, and that the calls take; this clock exists on every Linux.
        let time = unsafe {
            let mut time: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_REALTIME, &mut time);
            // An even second could be that of a clock that knows no fractions.
            time.tv_nsec = time.tv_nsec.max(1);
            let mut omit = time;
            omit.tv_nsec = libc::UTIME_OMIT;
            Errno::result(libc::futimens(self.0, [omit, time].as_ptr()))?;
            time
        };
        Ok(Time {
            seconds: time.tv_sec as i64,
            nanos: time.tv_nsec as u32,
        })
    }

    /// Asks once more for the locks that `level` (SQLITE_LOCK_*) means for the stock VFS: see `unixLock`.
    pub fn lock_again(self, level: i32) -> nix::Result<()> {
        use crate::sqlite::abi::*;
        if level >= SQLITE_LOCK_PENDING {
            self.lock(libc::F_WRLCK, PENDING, 1)?;
        }
        if level >= SQLITE_LOCK_RESERVED {
            self.lock(libc::F_WRLCK, RESERVED, 1)?;
        }
        let kind = match level {
            SQLITE_LOCK_EXCLUSIVE => libc::F_WRLCK,
            _ => libc::F_RDLCK,
        };
        self.lock(kind, SHARED_FIRST, SHARED_SIZE)
    }

    /// Asks for PENDING.
    pub fn lock_pending(self) -> nix::Result<()> {
        self.lock(libc::F_WRLCK, PENDING, 1)
    }

    /// Gives up PENDING.
    pub fn unlock_pending(self) -> nix::Result<()> {
        self.lock(libc::F_UNLCK, PENDING, 1)
    }

    /// Gives up all locks of the process on the file, as `posixUnlock` does.
    pub fn unlock(self) -> nix::Result<()> {
        self.lock(libc::F_UNLCK, 0, 0)
    }

    /// Whether another process holds what keeps us from SHARED.
    pub fn is_kept_out(self) -> nix::Result<bool> {
        for (start, length) in [(PENDING, 1), (SHARED_FIRST, SHARED_SIZE)] {
            let mut lock = flock(libc::F_RDLCK, start, length);
            self.control(libc::F_GETLK, &mut lock)?;
            if lock.l_type != libc::F_UNLCK as libc::c_short {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn lock(self, kind: libc::c_int, start: i64, length: i64) -> nix::Result<()> {
        self.control(libc::F_SETLK, &mut flock(kind, start, length))
    }

    fn control(self, command: libc::c_int, lock: &mut libc::flock) -> nix::Result<()> {
        loop {
            // SAFETY: the structure that these commands take.
            match Errno::result(unsafe { libc::fcntl(self.0, command, &raw mut *lock) }) {
                Err(Errno::EINTR) => {}
                result => return result.map(|_| ()),
            }
        }
    }
}

fn flock(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    // SAFETY: plain data, for which zeros are a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start;
    lock.l_len = length;
    lock
}
