//! A node, and the way of each of its requests: it is counted, the plan decides, it is done and answered.
//!
//! Whatever the kernel will later give back (an inode, an open file) is entered in the tables with the
//! answer and not before: an answer that is an error, even a lie, hands out nothing.

use super::faults::Verdict;
use super::inodes::Inode;
use super::{Mount, Op, Pages, Server};
use fuser::*;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::Path;
use std::sync::Arc;

/// An open file or directory. The latter is as it was when it was opened.
#[derive(Debug)]
pub enum Handle {
    File(Arc<Inode>, File),
    Directory(Vec<(INodeNo, FileType, OsString)>),
}

/// The open files of all nodes.
#[derive(Debug, Default)]
pub struct Handles(Mutex<(u64, HashMap<u64, Arc<Handle>>)>);

impl Handles {
    pub fn insert(&self, handle: Handle) -> FileHandle {
        let (last, handles) = &mut *self.0.lock();
        *last += 1;
        handles.insert(*last, Arc::new(handle));
        FileHandle(*last)
    }

    pub fn get(&self, FileHandle(number): FileHandle) -> io::Result<Arc<Handle>> {
        let handle = self.0.lock().1.get(&number).cloned();
        handle.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    pub fn remove(&self, FileHandle(number): FileHandle) {
        self.0.lock().1.remove(&number);
    }
}

/// One mount, as fuser serves it. A clone is the same one.
#[derive(Clone)]
pub struct Node {
    pub server: Arc<Server>,
    pub id: usize,
    pub mount: Mount,
}

/// Any answer of fuser's.
pub trait Answer: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! answers {
    ($($reply:ty)*) => {
        $(impl Answer for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

answers! {
    ReplyAttr ReplyCreate ReplyData ReplyDirectory ReplyEmpty ReplyEntry ReplyLock ReplyOpen ReplyStatfs
    ReplyWrite
}

impl Verdict {
    /// Does it and answers, as the verdict has it.
    pub fn carry_out<T: Send + 'static, A: Answer>(
        self,
        reply: A,
        work: impl FnOnce() -> io::Result<T>,
        answer: impl FnOnce(A, T) + Send + 'static,
    ) {
        let result = if self.refuses() {
            None
        } else {
            Some(work().map_err(Errno::from))
        };
        let send = move || match (self.errno, result) {
            (None, Some(Ok(value))) => answer(reply, value),
            (None, Some(Err(errno))) | (Some(errno), _) => reply.refuse(errno),
            (None, None) => unreachable!("only an error refuses"),
        };
        if self.late.is_zero() {
            send();
        } else {
            std::thread::spawn(move || {
                std::thread::sleep(self.late);
                send();
            });
        }
    }
}

impl Node {
    /// Counts the request and asks the plan. With a name it is about that entry of the directory `ino`.
    pub fn judge(&self, op: Op, ino: INodeNo, name: Option<&OsStr>) -> Verdict {
        self.server.requests.add(self.id, op);
        let path = || {
            let path = self.inode(ino).map(|inode| inode.path());
            let path = path.unwrap_or_default();
            name.map(|name| path.join(name)).unwrap_or(path)
        };
        let struck = self.server.plan.lock().strike(self.id, op, path);
        let mut verdict = struck.unwrap_or_default();
        if struck.is_some() {
            self.server.injected.add(self.id, op);
        }
        verdict.done |= op.always_done();
        verdict
    }

    pub fn inode(&self, INodeNo(number): INodeNo) -> io::Result<Arc<Inode>> {
        self.server.inodes.get(number)
    }

    /// An open file, or else the inode, opened.
    pub fn opened<T>(
        &self,
        ino: INodeNo,
        fh: Option<FileHandle>,
        with: impl FnOnce(&Arc<Inode>, &File) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(fh) = fh else {
            let inode = self.inode(ino)?;
            return with(&inode, &inode.reopen()?);
        };
        match &*self.server.handles.get(fh)? {
            Handle::File(inode, file) => with(inode, file),
            Handle::Directory(_) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        }
    }

    pub fn attributes(&self, inode: &Inode) -> io::Result<FileAttr> {
        let mut attributes = inode.attributes()?;
        if let Some((size, modified)) = self.server.store.attributes(inode.number) {
            (attributes.size, attributes.mtime) = (size, modified);
        }
        Ok(attributes)
    }

    /// An entry of a directory, as it is answered.
    pub fn entry(&self, parent: INodeNo, name: &OsStr) -> io::Result<(Arc<Inode>, FileAttr)> {
        let parent = self.inode(parent)?;
        let inode = self.server.inodes.look_up(&parent, name)?;
        let attributes = self.attributes(&inode)?;
        Ok((inode, attributes))
    }

    pub fn hand_out(self, reply: ReplyEntry, (inode, attributes): (Arc<Inode>, FileAttr)) {
        self.server.inodes.remember(self.id, &inode);
        let Mount {
            attributes: ttl,
            entries,
            ..
        } = self.mount;
        reply.entry_with_ttls(&ttl, &entries, &attributes, Generation(0));
    }

    /// Makes a new entry with `make`, which belongs to who asked, and answers it.
    pub fn make(
        &self,
        op: Op,
        req: &Request,
        (parent, name): (INodeNo, &OsStr),
        reply: ReplyEntry,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) {
        let work = || {
            let path = self.inode(parent)?.child(name);
            make(&path)?;
            lchown(&path, Some(req.uid()), Some(req.gid()))?;
            self.entry(parent, name)
        };
        let node = self.clone();
        self.judge(op, parent, Some(name))
            .carry_out(reply, work, move |reply, entry| node.hand_out(reply, entry));
    }

    /// The flags with which a file is opened.
    pub fn caching(&self) -> FopenFlags {
        match self.mount.pages {
            Pages::Direct | Pages::DirectMapped => FopenFlags::FOPEN_DIRECT_IO,
            Pages::UntilOpened => FopenFlags::empty(),
            Pages::Kept => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }
}

/// Opens or creates a file as `open(O_CREAT)` does.
pub fn create(path: &Path, mode: u32, flags: i32, req: &Request) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).mode(mode);
    match options.clone().create_new(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && flags & libc::O_EXCL == 0 => {
            options.custom_flags(libc::O_NOFOLLOW).open(path)
        }
        Ok(file) => {
            // Our own umask has nothing to do with it.
            file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
            fchown(&file, Some(req.uid()), Some(req.gid()))?;
            Ok(file)
        }
        other => other,
    }
}
