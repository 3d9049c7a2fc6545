//! What a kernel asks for, request by request.

use super::inodes::{Inode, nothing};
use super::locking::Flock;
use super::locks::Lock;
use super::node::{Handle, Node, create};
use super::{LockScope, Op, Pages};
use fuser::*;
use std::ffi::OsStr;
use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Node {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without PARALLEL_DIROPS a late lookup would hold up the others in its directory.
        let mut wanted = InitFlags::FUSE_AUTO_INVAL_DATA | InitFlags::FUSE_PARALLEL_DIROPS;
        if self.mount.locks != LockScope::Node {
            wanted |= InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS;
        }
        if self.mount.pages == Pages::DirectMapped {
            wanted |= InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        }
        config
            .add_capabilities(wanted)
            .map_err(|missing| io::Error::other(format!("the kernel lacks {missing:?}")))
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let work = || match self.entry(parent, name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            entry => entry.map(Some),
        };
        let node = self.clone();
        self.judge(Op::Lookup, parent, Some(name))
            .carry_out(reply, work, move |reply, entry| match entry {
                Some(entry) => node.hand_out(reply, entry),
                None => {
                    let absent = node.mount.absences;
                    reply.entry_with_ttls(&absent, &absent, &nothing(), Generation(0));
                }
            });
    }

    fn forget(&self, _req: &Request, INodeNo(number): INodeNo, lookups: u64) {
        let gone = self.server.inodes.forget(self.id, number, lookups);
        let deleted = |inode: &Arc<Inode>| inode.attributes().is_ok_and(|a| a.nlink == 0);
        if gone.as_ref().is_some_and(deleted) {
            self.server.store.lose(number);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let ttl = self.mount.attributes;
        let work = || self.attributes(&*self.inode(ino)?);
        self.judge(Op::Getattr, ino, None)
            .carry_out(reply, work, move |reply, attr| reply.attr(&ttl, &attr));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let work = || {
            let inode = self.inode(ino)?;
            if let Some(mode) = mode {
                std::fs::set_permissions(inode.link(), Permissions::from_mode(mode & 0o7777))?;
            }
            if uid.is_some() || gid.is_some() {
                chown(inode.link(), uid, gid)?;
            }
            if let Some(size) = size {
                let store = &self.server.store;
                self.opened(ino, fh, |inode, file| store.truncate(inode, file, size))?;
            }
            if atime.is_some() || mtime.is_some() {
                let mut times = FileTimes::new();
                times = atime.map_or(times, |t| times.set_accessed(time(t)));
                times = mtime.map_or(times, |t| times.set_modified(time(t)));
                File::open(inode.link())?.set_times(times)?;
            }
            self.attributes(&inode)
        };
        let ttl = self.mount.attributes;
        let op = size.map_or(Op::Setattr, |_| Op::Truncate);
        self.judge(op, ino, None)
            .carry_out(reply, work, move |reply, attr| reply.attr(&ttl, &attr));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let work = || std::fs::read_link(self.inode(ino)?.path());
        self.judge(Op::Readlink, ino, None)
            .carry_out(reply, work, |reply, target| {
                reply.data(target.as_os_str().as_bytes());
            });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        use nix::sys::stat::{Mode, SFlag, mknod};
        let (kind, bits) = (SFlag::from_bits_truncate(mode), mode & 0o7777);
        self.make(Op::Mknod, req, (parent, name), reply, |path| {
            mknod(path, kind, Mode::from_bits_truncate(bits), rdev.into())?;
            std::fs::set_permissions(path, Permissions::from_mode(bits))
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.make(Op::Mkdir, req, (parent, name), reply, |path| {
            std::fs::create_dir(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.make(Op::Symlink, req, (parent, name), reply, |path| {
            symlink(target, path)
        });
    }

    fn link(&self, _req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let work = || {
            let from = self.inode(ino)?.path();
            std::fs::hard_link(from, self.inode(parent)?.child(name))?;
            self.entry(parent, name)
        };
        let node = self.clone();
        self.judge(Op::Link, parent, Some(name))
            .carry_out(reply, work, move |reply, entry| node.hand_out(reply, entry));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let work = || std::fs::remove_file(self.inode(parent)?.child(name));
        self.judge(Op::Unlink, parent, Some(name))
            .carry_out(reply, work, |reply, ()| reply.ok());
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let work = || std::fs::remove_dir(self.inode(parent)?.child(name));
        self.judge(Op::Rmdir, parent, Some(name))
            .carry_out(reply, work, |reply, ()| reply.ok());
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let work = || {
            if !flags.is_empty() {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            let from = self.inode(parent)?.child(name);
            std::fs::rename(from, self.inode(new_parent)?.child(new_name))
        };
        self.judge(Op::Rename, parent, Some(name))
            .carry_out(reply, work, |reply, ()| reply.ok());
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let work = || {
            let inode = self.inode(ino)?;
            inode.reopen().map(|file| Handle::File(inode, file))
        };
        let node = self.clone();
        self.judge(Op::Open, ino, None)
            .carry_out(reply, work, move |reply, handle| {
                reply.opened(node.server.handles.insert(handle), node.caching());
            });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let work = || {
            let file = create(&self.inode(parent)?.child(name), mode, flags, req)?;
            let inode = self.server.inodes.of(&file)?;
            if flags & libc::O_TRUNC != 0 {
                self.server.store.truncate(&inode, &file, 0)?;
            }
            let attributes = self.attributes(&inode)?;
            Ok((inode, file, attributes))
        };
        let node = self.clone();
        self.judge(Op::Create, parent, Some(name)).carry_out(
            reply,
            work,
            move |reply, (inode, file, attributes)| {
                node.server.inodes.remember(node.id, &inode);
                let fh = node.server.handles.insert(Handle::File(inode, file));
                // One time for both.
                let ttl = Duration::min(node.mount.attributes, node.mount.entries);
                reply.created(&ttl, &attributes, Generation(0), fh, node.caching());
            },
        );
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let store = &self.server.store;
        let work = || {
            self.opened(ino, Some(fh), |inode, file| {
                store.read(inode.number, file, offset, size as usize)
            })
        };
        self.judge(Op::Read, ino, None)
            .carry_out(reply, work, |reply, data| reply.data(&data));
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let verdict = self.judge(Op::Write, ino, None);
        let data = &data[..verdict.short.unwrap_or(usize::MAX).min(data.len())];
        let store = &self.server.store;
        let work = || {
            self.opened(ino, Some(fh), |inode, file| {
                store.write(inode, file, offset, data)
            })?;
            Ok(data.len() as u32)
        };
        verdict.carry_out(reply, work, |reply, written| reply.written(written));
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let verdict = self.judge(Op::Fsync, ino, None);
        let store = &self.server.store;
        if verdict.refuses() {
            store.lose(ino.0);
        }
        let work = || self.opened(ino, Some(fh), |inode, file| store.sync(inode.number, file));
        verdict.carry_out(reply, work, |reply, ()| reply.ok());
    }

    /// Somebody closes a descriptor: with it his POSIX locks on the file go, as POSIX has it.
    fn flush(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let owner = self.owner(lock_owner);
        let work = || {
            let his = |file, lock: &Lock| file == ino.0 && lock.owner == owner;
            self.server.drop_locks(his);
            Ok(())
        };
        self.judge(Op::Flush, ino, None)
            .carry_out(reply, work, |reply, ()| reply.ok());
    }

    /// Nobody has the open file any more: with it its OFD locks go.
    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let work = || {
            self.server.drop_locks(|_, lock| lock.handle == fh.0);
            self.server.handles.remove(fh);
            Ok(())
        };
        self.judge(Op::Release, ino, None)
            .carry_out(reply, work, |reply, ()| reply.ok());
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let work = || {
            let here = |name: &str| (ino, FileType::Directory, name.into());
            let mut entries = vec![here("."), here("..")];
            for entry in std::fs::read_dir(self.inode(ino)?.link())? {
                let entry = entry?;
                let kind = FileType::from_std(entry.file_type()?);
                let kind = kind.unwrap_or(FileType::RegularFile);
                entries.push((INodeNo(entry.ino()), kind, entry.file_name()));
            }
            Ok(Handle::Directory(entries))
        };
        let node = self.clone();
        self.judge(Op::Opendir, ino, None)
            .carry_out(reply, work, move |reply, handle| {
                let fh = node.server.handles.insert(handle);
                reply.opened(fh, FopenFlags::empty());
            });
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let work = || self.server.handles.get(fh);
        self.judge(Op::Readdir, ino, None)
            .carry_out(reply, work, move |mut reply, handle| {
                if let Handle::Directory(entries) = &*handle {
                    for (next, (ino, kind, name)) in (1..).zip(entries).skip(offset as usize) {
                        if reply.add(*ino, next, *kind, name) {
                            break;
                        }
                    }
                }
                reply.ok();
            });
    }

    fn releasedir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let work = || {
            self.server.handles.remove(fh);
            Ok(())
        };
        self.judge(Op::Releasedir, ino, None)
            .carry_out(reply, work, |reply, ()| reply.ok());
    }

    /// Names are durable at once.
    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.judge(Op::Fsyncdir, ino, None)
            .carry_out(reply, || Ok(()), |reply, ()| reply.ok());
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let work = || {
            let inode = self.inode(ino)?;
            Ok(nix::sys::statvfs::statvfs(&inode.link())?)
        };
        self.judge(Op::Statfs, ino, None)
            .carry_out(reply, work, |reply, s| {
                let (block, name) = (s.block_size() as u32, s.name_max() as u32);
                let (blocks, free, available) = (s.blocks(), s.blocks_free(), s.blocks_available());
                let (files, spare, fragment) =
                    (s.files(), s.files_free(), s.fragment_size() as u32);
                reply.statfs(blocks, free, available, files, spare, block, name, fragment);
            });
    }

    fn getlk(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        first: u64,
        last: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let flock = Flock {
            first,
            last,
            kind,
            pid,
        };
        self.get_lock(ino, fh, owner, flock, reply);
    }

    fn setlk(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        first: u64,
        last: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let flock = Flock {
            first,
            last,
            kind,
            pid,
        };
        self.set_lock(ino, fh, owner, flock, sleep, reply);
    }
}
