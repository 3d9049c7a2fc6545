//! What a database lies on, and what is safe there.
//!
//! Invariants:
//! - **The database is never opened.** Whoever closes a descriptor of it gives up all the locks that SQLite
//!   holds on it in this process. It is looked at by its path only.
//! - **Nothing is local that is not known to be.** Memory that is mapped from a file is the same memory for
//!   everybody only if the file system is this machine's own.
//! - Nothing allocates and nothing panics, whatever /proc/self/mountinfo says.
//!
//! | file | idea |
//! |---|---|
//! | `rows` | the file systems that are known: whose they are, and what becomes of locks there |
//! | `table` | how they are found |
//! | `mountinfo` | the mount that a path is on, its type and its options |
//! | `beegfs` | the one file system that tells about its locks elsewhere |
//! | `known` | what need not be asked twice |
//! | `pieces` | reading without the heap |
//!
//! **statfs is not enough**: FUSE has one magic number for all its file systems, and 9p shows the number of
//! the file system at the server, ext4 say (`v9fs_statfs`, with QEMU's server). A disk of this machine is told
//! by its device number, which then has a major; for all else the mount is looked up.

mod beegfs;
mod known;
mod mountinfo;
mod pieces;
mod rows;
mod table;

use crate::Fs;
use crate::text::Text;
use mountinfo::{Mount, Sought};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, major, minor, stat};
use nix::sys::statfs::statfs;
use std::ffi::CStr;
use std::fmt;
use table::Home;

/// Who can reach the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This machine only: memory can be shared.
    Local,
    /// Other machines, too, for all that is known.
    Network,
}

/// What becomes of byte-range locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    /// All nodes see them; nothing is known to the contrary.
    Shared,
    /// Only this node sees them: a warning, since others may write meanwhile.
    NodeLocal(Flaw),
    /// They fail, or they exclude nobody: an error.
    Missing(Flaw),
}

/// What is wrong with the locks, as parts of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The file system "is mounted with ...".
    pub because: &'static str,
    pub remedy: &'static str,
}

/// What a database lies on. Shown, it is one sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    pub kind: Kind,
    pub locks: Locks,
    /// The file system: its type in /proc/self/mountinfo, such as `nfs4` or `fuse.sshfs`, or what its
    /// magic number stands for.
    pub name: Text,
    /// `None` if it was not looked up, or not found.
    pub mount_point: Option<Text>,
    /// Whether it has a device of its own, or its mount was looked up. Without /proc, or without a free descriptor, what the
    /// magic number says must be enough.
    pub is_sure: bool,
}

/// Whether processes that have `database` open can share memory mapped from a file beside it.
pub fn can_share_memory(database: &CStr, fs: Fs) -> bool {
    match fs {
        Fs::Local => true,
        Fs::Network => false,
        Fs::Auto => look(database, fs).kind == Kind::Local,
    }
}

/// What `database` lies on, or will, if it does not exist yet. `fs` overrides the kind, nothing else.
pub fn look(database: &CStr, fs: Fs) -> Ground {
    let number = known::number_of(database);
    let known = number.and_then(known::recall);
    let mut ground = known.unwrap_or_else(|| {
        let ground = look_around(database);
        // Another one may have been mounted there meanwhile.
        let is_there = || known::number_of(database) == number;
        if let Some(number) = number.filter(|_| known::is_memorable(&ground) && is_there()) {
            known::remember(number, &ground);
        }
        ground
    });
    match fs {
        Fs::Auto => {}
        Fs::Local => ground.kind = Kind::Local,
        Fs::Network => ground.kind = Kind::Network,
    }
    ground
}

fn look_around(database: &CStr) -> Ground {
    match magic_of(database) {
        Ok(magic) => look_at(database, magic),
        Err(Errno::ENOENT) => look_at_directory(database),
        Err(_) => Ground::unknown(),
    }
}

fn magic_of(path: &CStr) -> nix::Result<u32> {
    // FUSE and NFS can be interrupted.
    loop {
        match statfs(path) {
            Err(Errno::EINTR) => {}
            // Its type has another width and sign on each platform; the numbers have 32 bits.
            result => return result.map(|found| found.filesystem_type().0 as u32),
        }
    }
}

/// `file` does not exist.
#[cold]
#[inline(never)]
fn look_at_directory(file: &CStr) -> Ground {
    let mut directory = pieces::Field::<4096>::new();
    let file = file.to_bytes();
    let slash = file.iter().rposition(|&byte| byte == b'/');
    let name: &[u8] = match slash {
        None => b".",
        Some(0) => b"/",
        Some(slash) => &file[..slash],
    };
    name.iter().for_each(|&byte| directory.push(byte));
    match directory.as_c_str().map(|path| (path, magic_of(path))) {
        Some((path, Ok(magic))) => look_at(path, magic),
        _ => Ground::unknown(),
    }
}

fn look_at(path: &CStr, magic: u32) -> Ground {
    survey(path, magic, home_of)
}

/// Whose the upper directory of an overlay is, and its file system's name. `None` if it cannot be reached.
fn home_of(directory: &CStr) -> Option<(Kind, Text)> {
    let magic = magic_of(directory).ok()?;
    // An overlay cannot be written to through another one.
    let ground = survey(directory, magic, |_| None);
    Some((ground.kind, ground.name))
}

fn survey(path: &CStr, magic: u32, home_of: HomeOf) -> Ground {
    let numbers = |file: FileStat| (major(file.st_dev), minor(file.st_dev));
    let sought = Sought {
        path: path.to_bytes(),
        device: stat(path).ok().map(numbers),
        magic,
    };
    match (table::by_magic(magic), sought.device) {
        // What has no device of its own has major 0 (Documentation/admin-guide/devices.txt).
        (Some(row), Some((1.., _))) if row.home == Home::Local => Ground {
            is_sure: true,
            ..Ground::named(Kind::Local, row.name)
        },
        (Some(row), Some(device)) if row.home == Home::Local => {
            if known::is_device(device, magic) {
                return Ground::named(Kind::Local, row.name);
            }
            let ground = judge(magic, mount_of(&sought), home_of);
            if known::is_memorable(&ground) {
                known::remember_device(device, magic);
            }
            ground
        }
        _ => judge(magic, mount_of(&sought), home_of),
    }
}

type HomeOf = fn(&CStr) -> Option<(Kind, Text)>;

#[cold]
#[inline(never)]
fn mount_of(sought: &Sought<'_>) -> Option<Mount> {
    let mountinfo = pieces::open(c"/proc/self/mountinfo").ok()?;
    mountinfo::find(mountinfo, sought)
}

/// What the magic number and the mount say together.
fn judge(
    magic: u32,
    mount: Option<Mount>,
    home_of: impl FnOnce(&CStr) -> Option<(Kind, Text)>,
) -> Ground {
    let Some(mut mount) = mount else {
        return match table::by_magic(magic) {
            Some(row) if row.home == Home::Network => Ground::named(Kind::Network, row.name),
            Some(row) => Ground::named(Kind::Local, row.name),
            None => Ground::named(Kind::Network, format_args!("type {magic:#010x}")),
        };
    };
    let mut ground = Ground {
        kind: Kind::Network,
        locks: mount.locks(),
        name: mount.name.clone(),
        mount_point: mount.point.clone(),
        is_sure: true,
    };
    match mount.row.map(|row| row.home) {
        None | Some(Home::Network) => {}
        Some(Home::Local) => ground.kind = Kind::Local,
        // In a container the directory cannot be reached. There it is a disk of the host's: without xattrs,
        // whiteouts and the like, which networks' file systems do not have, there is no writing (see
        // filesystems/overlayfs.rst).
        Some(Home::Upper) => {
            let directory = mount.path.as_c_str();
            let absolute = directory.filter(|path| path.to_bytes().starts_with(b"/"));
            match absolute.and_then(home_of) {
                Some((Kind::Network, below)) => {
                    ground.name = Text::new(format_args!("{} on {below}", mount.name));
                }
                _ => ground.kind = Kind::Local,
            }
        }
    }
    ground
}

impl Ground {
    fn named(kind: Kind, name: impl fmt::Display) -> Ground {
        Ground {
            kind,
            locks: Locks::Shared,
            name: Text::new(name),
            mount_point: None,
            is_sure: false,
        }
    }

    /// It cannot even be looked at.
    fn unknown() -> Ground {
        Ground::named(Kind::Network, "of unknown type")
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mount_point {
            Some(point) => write!(f, "{} ({})", End(point.as_str()), self.name)?,
            None => write!(f, "the file system ({})", self.name)?,
        }
        match (self.locks, self.kind) {
            (Locks::Shared, Kind::Local) => f.write_str(" is this machine's own"),
            (Locks::Shared, Kind::Network) => f.write_str(" can be shared with other machines"),
            (Locks::NodeLocal(Flaw { because, remedy }), _) => {
                write!(f, " {because}: locks hold on this node only; {remedy}")
            }
            (Locks::Missing(Flaw { because, remedy }), _) => {
                write!(f, " {because}: locks do not work; {remedy}")
            }
        }
    }
}

/// The end of a mount point. SQLite cuts a log line at 209 bytes, and the remedy, which comes last, must be
/// seen, whatever is logged before the sentence (up to 40 bytes: see `tests`).
struct End<'a>(&'a str);

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.0.len().saturating_sub(40);
        let boundary = (start..).find(|&at| self.0.is_char_boundary(at));
        if start > 0 {
            f.write_str("...")?;
        }
        f.write_str(boundary.and_then(|at| self.0.get(at..)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
