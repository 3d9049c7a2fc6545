//! Requests about locks.

use super::locks::{Bytes, Kind, Lock, Owner};
use super::node::Node;
use super::{LockScope, Op};
use fuser::{FileHandle, INodeNo, LockOwner, ReplyEmpty, ReplyLock};
use std::io;

/// `struct flock`, as FUSE has it: both ends are included.
pub struct Flock {
    pub first: u64,
    pub last: u64,
    pub kind: i32,
    pub pid: u32,
}

impl Node {
    pub fn owner(&self, LockOwner(id): LockOwner) -> Owner {
        Owner { node: self.id, id }
    }

    fn lock(&self, FileHandle(handle): FileHandle, owner: LockOwner, flock: &Flock) -> Lock {
        let &Flock {
            first,
            last,
            kind,
            pid,
        } = flock;
        let kind = match kind {
            libc::F_WRLCK => Kind::Write,
            _ => Kind::Read,
        };
        Lock {
            owner: self.owner(owner),
            kind,
            bytes: Bytes { first, last },
            handle,
            pid,
        }
    }

    fn locks_exist(&self) -> io::Result<()> {
        match self.mount.locks {
            LockScope::Nobody => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
            LockScope::Cluster | LockScope::Node => Ok(()),
        }
    }

    pub fn get_lock(
        &self,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        flock: Flock,
        reply: ReplyLock,
    ) {
        let wanted = self.lock(fh, owner, &flock);
        let work = || {
            self.locks_exist()?;
            Ok(self.server.locks.lock().conflict(ino.0, &wanted))
        };
        self.judge(Op::Getlk, ino, None)
            .carry_out(reply, work, move |reply, conflict| match conflict {
                Some(Lock {
                    bytes, kind, pid, ..
                }) => {
                    let kind = match kind {
                        Kind::Read => libc::F_RDLCK,
                        Kind::Write => libc::F_WRLCK,
                    };
                    reply.locked(bytes.first, bytes.last, kind, pid);
                }
                None => reply.locked(flock.first, flock.last, libc::F_UNLCK, 0),
            });
    }

    /// F_SETLKW is refused, or granted in its time: it is not answered late, and its answer is no lie.
    pub fn set_lock(
        &self,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        flock: Flock,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let lock = self.lock(fh, owner, &flock);
        let unlocks = flock.kind == libc::F_UNLCK;
        let op = if unlocks { Op::Unlock } else { Op::Setlk };
        let verdict = self.judge(op, ino, None);
        let locks = &self.server.locks;
        if sleep && !unlocks && verdict.errno.is_none() && self.locks_exist().is_ok() {
            let granted = locks.lock().wait(ino.0, lock, reply);
            return granted.into_iter().for_each(ReplyEmpty::ok);
        }
        let work = || {
            self.locks_exist()?;
            let granted = if unlocks {
                Ok(locks.lock().unlock(ino.0, lock.owner, lock.bytes))
            } else {
                locks.lock().set(ino.0, lock)
            };
            let granted = granted.map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))?;
            granted.into_iter().for_each(ReplyEmpty::ok);
            Ok(())
        };
        verdict.carry_out(reply, work, |reply, ()| reply.ok());
    }
}
