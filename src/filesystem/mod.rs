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
//! | `table` | the file systems that are known: whose they are, and what becomes of locks there |
//! | `mountinfo` | the mount that a path is on, its type and its options |
//! | `beegfs` | the one file system that tells about its locks elsewhere |
//! | `pieces` | reading without the heap |
//!
//! On this machine's own file systems one statfs says it all. For the others, and for overlays, the mount is
//! looked up as well.

mod beegfs;
mod mountinfo;
mod pieces;
mod table;

use crate::Fs;
use crate::text::Text;
use mountinfo::{Mount, Sought};
use nix::errno::Errno;
use nix::sys::stat::{major, minor, stat};
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
    let mut ground = match magic_of(database) {
        Ok(magic) => look_at(database, magic),
        Err(Errno::ENOENT) => look_at_directory(database),
        Err(_) => Ground::unknown(),
    };
    match fs {
        Fs::Auto => {}
        Fs::Local => ground.kind = Kind::Local,
        Fs::Network => ground.kind = Kind::Network,
    }
    ground
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
    match table::by_magic(magic) {
        Some(row) if row.home == Home::Local => Ground::named(Kind::Local, row.name),
        _ => judge(magic, mount_of(path, magic), home_of),
    }
}

#[cold]
#[inline(never)]
fn mount_of(path: &CStr, magic: u32) -> Option<Mount> {
    let device = stat(path)
        .ok()
        .map(|file| (major(file.st_dev), minor(file.st_dev)));
    let sought = Sought {
        path: path.to_bytes(),
        device,
        magic,
    };
    let mountinfo = pieces::open(c"/proc/self/mountinfo").ok()?;
    mountinfo::find(mountinfo, &sought)
}

/// Whose the upper directory of an overlay is, and its file system's name. `None` if it cannot be reached.
fn home_of(directory: &CStr) -> Option<(Kind, Text)> {
    let magic = magic_of(directory).ok()?;
    let ground = match table::by_magic(magic) {
        // An overlay cannot be written to through another one.
        Some(row) if row.home != Home::Network => Ground::named(Kind::Local, row.name),
        _ => judge(magic, mount_of(directory, magic), |_| None),
    };
    Some((ground.kind, ground.name))
}

/// Neither this machine's own by its magic number alone, nor known not to be.
fn judge(
    magic: u32,
    mount: Option<Mount>,
    home_of: impl FnOnce(&CStr) -> Option<(Kind, Text)>,
) -> Ground {
    let Some(mut mount) = mount else {
        return match table::by_magic(magic) {
            Some(row) if row.home == Home::Upper => Ground::named(Kind::Local, row.name),
            Some(row) => Ground::named(Kind::Network, row.name),
            None => Ground::named(Kind::Network, format_args!("type {magic:#010x}")),
        };
    };
    let mut ground = Ground {
        kind: Kind::Network,
        locks: mount.locks(),
        name: mount.name.clone(),
        mount_point: mount.point.clone(),
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
            Some(point) => write!(f, "{point} ({})", self.name)?,
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

#[cfg(test)]
mod tests {
    use super::*;

    const FUSE: u32 = 0x6573_5546;
    const LUSTRE: u32 = 0x0bd0_0bd0;
    const NFS: u32 = 0x6969;
    const OVERLAY: u32 = 0x794c_7630;

    /// What becomes of a database in /d, if that is mounted like this.
    fn judged(magic: u32, mounted: &str, upper: Option<(Kind, &str)>) -> Ground {
        let text = format!(
            "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
             60 27 0:58 / /d rw,nosuid,nodev,relatime shared:604 - {mounted}\n"
        );
        let sought = Sought {
            path: b"/d/a.db",
            device: Some((0, 58)),
            magic,
        };
        let mount = mountinfo::find(text.as_bytes(), &sought);
        assert!(mount.is_some(), "{mounted}");
        judge(magic, mount, |directory| {
            assert!(directory.to_bytes().starts_with(b"/"));
            upper.map(|(kind, name)| (kind, Text::new(name)))
        })
    }

    /// The first letter of the kind and of the locks, and the sentence.
    fn said(ground: &Ground) -> (char, char, String) {
        let kind = match ground.kind {
            Kind::Local => 'l',
            Kind::Network => 'n',
        };
        let locks = match ground.locks {
            Locks::Shared => 's',
            Locks::NodeLocal(_) => 'n',
            Locks::Missing(_) => 'm',
        };
        (kind, locks, ground.to_string())
    }

    #[test]
    fn mounts_as_they_are_in_the_field() {
        let network = "can be shared with other machines";
        let here = "locks hold on this node only";
        let none = "locks do not work";
        for (magic, mounted, kind, locks, sentence) in [
            // Lustre 2.12, 2.15, and what each shows for the three modes.
            (
                LUSTRE,
                "lustre 10.0.0.1@tcp:/scratch rw,flock,user_xattr,lazystatfs",
                'n',
                's',
                format!("/d (lustre) {network}"),
            ),
            (
                LUSTRE,
                "lustre 10.0.0.1@o2ib:10.0.0.2@o2ib:/scratch rw,checksum,flock,nouser_xattr,lruresize,lazystatfs,nouser_fid2path,verbose,noencrypt",
                'n',
                's',
                format!("/d (lustre) {network}"),
            ),
            (
                LUSTRE,
                "lustre 10.0.0.1@tcp:/scratch rw,localflock,lazystatfs",
                'n',
                'n',
                format!("/d (lustre) is mounted with localflock: {here}; remount with -o flock"),
            ),
            (
                LUSTRE,
                "lustre 10.0.0.1@tcp:/scratch rw,checksum,localflock,nouser_xattr,lruresize",
                'n',
                'n',
                format!("/d (lustre) is mounted with localflock: {here}; remount with -o flock"),
            ),
            (
                LUSTRE,
                "lustre 10.0.0.1@tcp:/scratch rw,checksum,noflock,nouser_xattr,lruresize",
                'n',
                'm',
                format!("/d (lustre) is mounted with noflock: {none}; remount with -o flock"),
            ),
            (
                LUSTRE,
                "lustre 10.0.0.1@tcp:/scratch rw,lazystatfs",
                'n',
                'm',
                format!("/d (lustre) is mounted without flock: {none}; remount with -o flock"),
            ),
            (
                LUSTRE,
                "lustre 10.0.0.1@tcp:/scratch rw",
                'n',
                'm',
                format!("/d (lustre) is mounted without flock: {none}; remount with -o flock"),
            ),
            (
                NFS,
                "nfs nas:/d rw,vers=3,rsize=131072,wsize=131072,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=192.168.56.10,mountvers=3,mountport=20048,mountproto=udp,local_lock=none,addr=192.168.56.10",
                'n',
                's',
                format!("/d (nfs) {network}"),
            ),
            (
                NFS,
                "nfs nas:/d rw,vers=3,rsize=131072,wsize=131072,namlen=255,hard,nolock,proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=192.168.56.10,mountvers=3,mountproto=udp,local_lock=all,addr=192.168.56.10",
                'n',
                'n',
                format!("/d (nfs) is mounted with nolock: {here}; remount without it"),
            ),
            (
                NFS,
                "nfs nas:/d rw,vers=3,hard,proto=tcp,sec=sys,local_lock=posix,addr=192.168.56.10",
                'n',
                'n',
                format!(
                    "/d (nfs) is mounted with local_lock=posix: {here}; remount with local_lock=none"
                ),
            ),
            (
                NFS,
                "nfs nas:/d rw,vers=3,hard,proto=tcp,sec=sys,local_lock=all,addr=192.168.56.10",
                'n',
                'n',
                format!(
                    "/d (nfs) is mounted with local_lock=all: {here}; remount with local_lock=none"
                ),
            ),
            (
                NFS,
                "nfs nas:/d rw,vers=3,hard,proto=tcp,sec=sys,local_lock=flock,addr=192.168.56.10",
                'n',
                's',
                format!("/d (nfs) {network}"),
            ),
            (
                NFS,
                "nfs4 127.0.0.1:/foo rw,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,clientaddr=127.0.0.1,local_lock=none,addr=127.0.0.1",
                'n',
                's',
                format!("/d (nfs4) {network}"),
            ),
            (
                0x4750_4653,
                "gpfs gpfs0 rw",
                'n',
                's',
                format!("/d (gpfs) {network}"),
            ),
            (
                0x1803_1977,
                "wekafs 10.108.97.126/default rw,writecache,inode_bits=auto,readahead_kb=32768,dentry_max_age_positive=1000,dentry_max_age_negative=0,container_name=client",
                'n',
                's',
                format!("/d (wekafs) {network}"),
            ),
            (
                0x00c3_6400,
                "ceph 10.0.0.1:6789,10.0.0.2:6789:/ rw,name=admin,secret=<hidden>,acl,mon_addr=10.0.0.1:6789",
                'n',
                's',
                format!("/d (ceph) {network}"),
            ),
            (
                0xfe53_4d42,
                "cifs //nas/d rw,vers=3.1.1,cache=strict,username=u,uid=0,noforceuid,gid=0,noforcegid,addr=10.0.0.5,file_mode=0755,dir_mode=0755,soft,nounix,serverino,mapposix,rsize=4194304",
                'n',
                's',
                format!("/d (cifs) {network}"),
            ),
            (
                0xff53_4d42,
                "cifs //nas/d rw,vers=1.0,cache=strict,unix,posixpaths,serverino,mapposix,nobrl,acl",
                'n',
                'n',
                format!("/d (cifs) is mounted with nobrl: {here}; remount without it"),
            ),
            (
                0x1983_0326,
                "beegfs beegfs_nodev rw,cfgFile=/nonexistent/beegfs-client.conf",
                'n',
                'n',
                format!(
                    "/d (beegfs) is not known to have tuneUseGlobalFileLocks=true: {here}; set it to true in beegfs-client.conf on every node and remount"
                ),
            ),
            (
                0x0102_1997,
                "9p share rw,sync,dirsync,access=client,trans=virtio",
                'n',
                's',
                format!("/d (9p) {network}"),
            ),
            // A number that the server made up.
            (
                0x0000_001a,
                "9p share rw,access=client,trans=virtio,version=9p2000.u",
                'n',
                'm',
                format!(
                    "/d (9p) is mounted with version=9p2000.u: {none}; remount with version=9p2000.L"
                ),
            ),
            (
                0x5346_414f,
                "afs AFS rw",
                'n',
                'n',
                format!(
                    "/d (afs) is mounted without flock=write: {here}; remount with it, or let one machine only use the database"
                ),
            ),
            (
                0x6b41_4653,
                "afs #grand.central.org:root.cell. rw,flock=write",
                'n',
                's',
                format!("/d (afs) {network}"),
            ),
            (
                0x2003_0528,
                "pvfs2 tcp://server:3334/orangefs rw",
                'n',
                'm',
                format!(
                    "/d (pvfs2) is mounted without local_lock: {none}; remount with it, and let one machine only use the database"
                ),
            ),
            (
                0x2003_0528,
                "pvfs2 tcp://server:3334/orangefs rw,local_lock",
                'n',
                'n',
                format!(
                    "/d (pvfs2) is mounted with local_lock: {here}; let one machine only use the database"
                ),
            ),
            (
                0x7461_636f,
                "ocfs2 /dev/sdb rw,_netdev,heartbeat=local,nointr,data=ordered,errors=remount-ro,atime_quantum=60",
                'n',
                'n',
                format!("/d (ocfs2) runs on the cluster stack o2cb: {here}; use the stack pcmk"),
            ),
            (
                0x7461_636f,
                "ocfs2 /dev/sdb rw,heartbeat=none,nointr,data=ordered,cluster_stack=pcmk",
                'n',
                's',
                format!("/d (ocfs2) {network}"),
            ),
            (
                0x0116_1970,
                "gfs2 /dev/vg/lv rw,localflocks",
                'n',
                'n',
                format!(
                    "/d (gfs2) is mounted with localflocks: {here}; remount without it, with lockproto=lock_dlm"
                ),
            ),
            (
                0x786f_4256,
                "vboxsf share rw,iocharset=utf8",
                'n',
                'n',
                format!(
                    "/d (vboxsf) passes no locks to the host: {here}; let one machine only use the database"
                ),
            ),
            (
                FUSE,
                "virtiofs share rw",
                'n',
                'n',
                format!(
                    "/d (virtiofs) passes no locks to the host by default: {here}; let one machine only use the database"
                ),
            ),
            (
                FUSE,
                "fuse.glusterfs server:/volume rw,user_id=0,group_id=0,default_permissions,allow_other,max_read=131072",
                'n',
                's',
                format!("/d (fuse.glusterfs) {network}"),
            ),
            (
                FUSE,
                "fuse.sshfs u@host:/d rw,user_id=1000,group_id=1000",
                'n',
                'n',
                format!(
                    "/d (fuse.sshfs) passes no locks to the server: {here}; let one machine only use the database"
                ),
            ),
            (
                FUSE,
                "fuse.s3fs s3fs rw,user_id=0,group_id=0,allow_other",
                'n',
                'n',
                format!(
                    "/d (fuse.s3fs) passes no locks to the store: {here}; let one machine only use the database"
                ),
            ),
            (
                FUSE,
                "fuse.juicefs JuiceFS:vol rw,user_id=0,group_id=0",
                'n',
                's',
                format!("/d (fuse.juicefs) {network}"),
            ),
            (
                FUSE,
                "fuse.mfs mfsmaster:9421 rw,user_id=0,group_id=0,allow_other",
                'n',
                's',
                format!("/d (fuse.mfs) {network}"),
            ),
            (
                FUSE,
                "fuse.somebodys x rw,user_id=0,group_id=0",
                'n',
                's',
                format!("/d (fuse.somebodys) {network}"),
            ),
            (
                FUSE,
                "fuse x rw,user_id=0,group_id=0",
                'n',
                's',
                format!("/d (fuse) {network}"),
            ),
            (
                FUSE,
                "fuseblk /dev/sdb1 rw,user_id=0,group_id=0,allow_other,blksize=4096",
                'l',
                's',
                "/d (fuseblk) is this machine's own".into(),
            ),
            (
                0x1357_9bdf,
                "newfs x rw,nolock,localflock",
                'n',
                's',
                format!("/d (newfs) {network}"),
            ),
        ] {
            let found = said(&judged(magic, mounted, None));
            assert_eq!(found, (kind, locks, sentence), "{mounted}");
        }
    }

    #[test]
    fn an_overlay_is_as_its_upper_directory() {
        let nfs = Some((Kind::Network, "nfs4"));
        let ext4 = Some((Kind::Local, "ext4"));
        let docker =
            "overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/var/lib/docker/x/diff,workdir=/w";
        let local = "/d (overlay) is this machine's own";
        for (mounted, upper, kind, sentence) in [
            (
                docker,
                nfs,
                'n',
                "/d (overlay on nfs4) can be shared with other machines",
            ),
            (docker, ext4, 'l', local),
            // In a container.
            (docker, None, 'l', local),
            ("overlay overlay ro,lowerdir=/a:/b", nfs, 'l', local),
            // It means something else here than where it was mounted.
            (
                "overlay overlay rw,lowerdir=a,upperdir=b,workdir=c",
                nfs,
                'l',
                local,
            ),
            ("overlay overlay rw,upperdir=", nfs, 'l', local),
        ] {
            let found = said(&judged(OVERLAY, mounted, upper));
            assert_eq!(found, (kind, 's', sentence.into()), "{mounted}");
        }
    }

    #[test]
    fn without_proc_the_magic_number_decides() {
        for (magic, kind, sentence) in [
            (
                LUSTRE,
                'n',
                "the file system (lustre) can be shared with other machines",
            ),
            (
                FUSE,
                'n',
                "the file system (fuse) can be shared with other machines",
            ),
            (
                0x5346_414f,
                'n',
                "the file system (afs) can be shared with other machines",
            ),
            (
                OVERLAY,
                'l',
                "the file system (overlay) is this machine's own",
            ),
            (
                0xabc,
                'n',
                "the file system (type 0x00000abc) can be shared with other machines",
            ),
        ] {
            let ground = judge(magic, None, |_| unreachable!());
            assert_eq!(said(&ground), (kind, 's', sentence.into()));
        }
    }
}
