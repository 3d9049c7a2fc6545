//! The backing directory's inodes, as far as a kernel knows them.
//!
//! An inode is held by a descriptor (`O_PATH`), not by a path: it outlives renames and its last name,
//! and its number does not become another file's while anybody knows it. Everything that is done to it
//! goes through `/proc/self/fd`, so that std's functions will do.

use fuser::{FileAttr, FileType, INodeNo};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const ROOT: u64 = 1;

#[derive(Debug)]
pub struct Inode {
    /// The backing file's own, but for the root.
    pub number: u64,
    file: File,
}

/// A descriptor's path: it leads to the open file itself.
pub fn link(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

impl Inode {
    fn open(path: &Path, flags: i32) -> io::Result<Inode> {
        let flags = libc::O_PATH | flags;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        let number = file.metadata()?.ino();
        Ok(Inode { number, file })
    }

    pub fn link(&self) -> PathBuf {
        link(&self.file)
    }

    /// What lies under `name` in this directory.
    pub fn child(&self, name: &OsStr) -> PathBuf {
        self.link().join(name)
    }

    /// Where it is now, or was when it was deleted.
    pub fn path(&self) -> PathBuf {
        const DELETED: &[u8] = b" (deleted)";
        let mut path = std::fs::read_link(self.link())
            .unwrap_or_default()
            .into_os_string()
            .into_vec();
        if path.ends_with(DELETED) {
            path.truncate(path.len() - DELETED.len());
        }
        OsStr::from_bytes(&path).into()
    }

    /// For reading and writing, whatever it is that the caller may: the kernel sees to permissions.
    pub fn reopen(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.link())
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    pub fn attributes(&self) -> io::Result<FileAttr> {
        let data = self.metadata()?;
        let changed = Duration::new(data.ctime() as u64, data.ctime_nsec() as u32);
        Ok(FileAttr {
            ino: INodeNo(self.number),
            size: data.len(),
            blocks: data.blocks(),
            atime: data.accessed()?,
            mtime: data.modified()?,
            ctime: UNIX_EPOCH + changed,
            kind: FileType::from_std(data.file_type()).ok_or(io::ErrorKind::Unsupported)?,
            perm: (data.mode() & 0o7777) as u16,
            nlink: data.nlink() as u32,
            uid: data.uid(),
            gid: data.gid(),
            rdev: data.rdev() as u32,
            blksize: data.blksize() as u32,
            ..nothing()
        })
    }
}

/// The attributes of a file that is not there: inode 0 under a name is how FUSE says so for some time.
pub fn nothing() -> FileAttr {
    let time: SystemTime = UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

#[derive(Debug)]
struct Known {
    inode: Arc<Inode>,
    /// By node: how often its kernel has been told of it, less what it has forgotten.
    lookups: Vec<u64>,
}

#[derive(Debug)]
pub struct Inodes {
    root: Arc<Inode>,
    nodes: usize,
    known: Mutex<HashMap<u64, Known>>,
}

impl Inodes {
    pub fn new(backing: &Path, nodes: usize) -> io::Result<Inodes> {
        let mut root = Inode::open(backing, 0)?;
        root.number = ROOT;
        Ok(Inodes {
            root: Arc::new(root),
            nodes,
            known: Mutex::default(),
        })
    }

    pub fn get(&self, number: u64) -> io::Result<Arc<Inode>> {
        if number == ROOT {
            return Ok(self.root.clone());
        }
        let known = self.known.lock();
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        Ok(known.get(&number).ok_or_else(stale)?.inode.clone())
    }

    /// The inode that a name leads to. No kernel knows it yet: see [`Inodes::remember`].
    pub fn look_up(&self, parent: &Inode, name: &OsStr) -> io::Result<Arc<Inode>> {
        Inode::open(&parent.child(name), libc::O_NOFOLLOW).map(|inode| self.unique(inode))
    }

    /// The inode of an open file.
    pub fn of(&self, file: &File) -> io::Result<Arc<Inode>> {
        Inode::open(&link(file), 0).map(|inode| self.unique(inode))
    }

    fn unique(&self, inode: Inode) -> Arc<Inode> {
        let known = self.known.lock();
        let same = known.get(&inode.number);
        same.map_or_else(|| Arc::new(inode), |same| same.inode.clone())
    }

    /// This node's kernel is told of it, now.
    pub fn remember(&self, node: usize, inode: &Arc<Inode>) {
        let mut known = self.known.lock();
        let known = known.entry(inode.number).or_insert_with(|| Known {
            inode: inode.clone(),
            lookups: vec![0; self.nodes],
        });
        known.lookups[node] += 1;
    }

    /// This node's kernel has dropped it from its cache. Returns it when that was the last one.
    pub fn forget(&self, node: usize, number: u64, lookups: u64) -> Option<Arc<Inode>> {
        let mut all = self.known.lock();
        let known = all.get_mut(&number)?;
        known.lookups[node] = known.lookups[node].saturating_sub(lookups);
        if known.lookups.iter().any(|&n| n > 0) {
            return None;
        }
        all.remove(&number).map(|known| known.inode)
    }

    /// All that some kernel knows.
    pub fn numbers(&self) -> Vec<u64> {
        let known = self.known.lock();
        std::iter::once(ROOT).chain(known.keys().copied()).collect()
    }
}
