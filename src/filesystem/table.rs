//! The file systems that are known: whose they are, and what becomes of byte-range locks there.
//!
//! Magic numbers are from include/uapi/linux/magic.h unless a row says otherwise; `S_MAGIC_*` are
//! coreutils' (src/stat.c). What is not in here counts as shared with other machines.
//!
//! Locks are fcntl's; SQLite uses no others. "No `.lock`" in a row means that the driver's
//! `file_operations` have none: then the kernel keeps the locks, on this machine only. FUSE does the
//! same if the daemon does not implement them (libfuse, include/fuse_lowlevel.h, at `setlk`). So a
//! lock that is not passed on is no error that anybody sees: fcntl says yes.

use super::{Flaw, Locks, beegfs};
use std::ffi::CStr;

pub struct Row {
    /// What it is called where no more than its magic number is known.
    pub name: &'static str,
    /// In /proc/self/mountinfo; `fuse.` stands for any subtype that has no row of its own.
    pub types: &'static [&'static str],
    /// `f_type` of statfs. The first row that has it stands for the others, if no more is known.
    pub magics: &'static [u32],
    pub home: Home,
    /// The first that holds decides; if none does, all nodes see the locks.
    pub rules: &'static [Rule],
    /// The mount option whose value is the path of what decides: see [`Home::Upper`], [`When::Told`].
    pub path: &'static str,
}

/// Who can reach the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// This machine only.
    Local,
    /// Other machines, too.
    Network,
    /// Whoever can reach the directory that takes the writes.
    Upper,
}

pub struct Rule {
    pub when: When,
    pub locks: Locks,
}

pub enum When {
    /// The file system is mounted with this option.
    Has(&'static str),
    /// It is mounted without it.
    Lacks(&'static str),
    /// The file that the mount option names says so.
    Told(fn(&CStr) -> bool),
    Always,
}

/// More rules than any row has.
pub const RULES: usize = 8;

/// The row of a type in /proc/self/mountinfo.
pub fn by_type(name: &[u8]) -> Option<&'static Row> {
    let row = |name: &[u8]| {
        let named = |row: &&Row| row.types.iter().any(|t| t.as_bytes() == name);
        ROWS.iter().find(named)
    };
    row(name).or_else(|| name.starts_with(b"fuse.").then(|| row(b"fuse."))?)
}

/// The row that stands for a magic number.
pub fn by_magic(magic: u32) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.magics.contains(&magic))
}

const fn local(name: &'static str, types: &'static [&'static str], magics: &'static [u32]) -> Row {
    Row {
        name,
        types,
        magics,
        home: Home::Local,
        rules: &[],
        path: "",
    }
}

const fn network(
    name: &'static str,
    types: &'static [&'static str],
    magics: &'static [u32],
    rules: &'static [Rule],
) -> Row {
    Row {
        name,
        types,
        magics,
        home: Home::Network,
        rules,
        path: "",
    }
}

const fn shared(when: When) -> Rule {
    Rule {
        when,
        locks: Locks::Shared,
    }
}

const fn node_local(when: When, because: &'static str, remedy: &'static str) -> Rule {
    Rule {
        when,
        locks: Locks::NodeLocal(Flaw { because, remedy }),
    }
}

const fn missing(when: When, because: &'static str, remedy: &'static str) -> Rule {
    Rule {
        when,
        locks: Locks::Missing(Flaw { because, remedy }),
    }
}

const FUSE: u32 = 0x6573_5546; // FUSE_SUPER_MAGIC, fs/fuse/inode.c
const ONE_MACHINE: &str = "let one machine only use the database";

const ROWS: &[Row] = &[
    // This machine's own: the first magic numbers that are looked at, since most databases lie here.
    local("ext2/ext3/ext4", &["ext4", "ext3", "ext2"], &[0xef53]),
    local("xfs", &["xfs"], &[0x5846_5342]),
    local("btrfs", &["btrfs"], &[0x9123_683e]),
    local("tmpfs", &["tmpfs", "devtmpfs"], &[0x0102_1994]),
    local("ramfs", &["ramfs"], &[0x8584_58f6]),
    local("f2fs", &["f2fs"], &[0xf2f5_2010]),
    // ZFS_SUPER_MAGIC, OpenZFS' include/sys/fs/zfs.h.
    local("zfs", &["zfs"], &[0x2fc1_2fc1]),
    // BCACHEFS_STATFS_MAGIC, fs/bcachefs/bcachefs_format.h.
    local("bcachefs", &["bcachefs"], &[0xca45_1a4e]),
    // All that is written goes to the upper directory, whose pages a mapping shows, too. A network's is
    // possible since Linux 5.7 ("ovl: allow remote upper"). The locks are on the overlay's own inodes
    // (no `.lock`), and nobody else may use the upper directory meanwhile (filesystems/overlayfs.rst).
    Row {
        name: "overlay",
        types: &["overlay"],
        magics: &[0x794c_7630],
        home: Home::Upper,
        rules: &[],
        path: "upperdir=",
    },
    // fs/nfs/super.c: what `nolock` does is shown as local_lock=all by kernels since 2.6.37, and both
    // are shown only if they are in force, so never for NFSv4. local_lock=flock is not about fcntl.
    network(
        "nfs",
        &["nfs", "nfs4"],
        &[0x6969],
        &[
            node_local(
                When::Has("nolock"),
                "is mounted with nolock",
                "remount without it",
            ),
            node_local(
                When::Has("local_lock=all"),
                "is mounted with local_lock=all",
                "remount with local_lock=none",
            ),
            node_local(
                When::Has("local_lock=posix"),
                "is mounted with local_lock=posix",
                "remount with local_lock=none",
            ),
        ],
    ),
    // LL_SUPER_MAGIC, lustre_idl.h. mount.lustre(8), and ll_show_options in llite/llite_lib.c: flock,
    // localflock or neither is in force; for neither some versions show noflock and some nothing. Then fcntl
    // fails with ENOSYS (ll_file_noflock). Clients since 2.13 are mounted with flock by default.
    network(
        "lustre",
        &["lustre"],
        &[0x0bd0_0bd0],
        &[
            node_local(
                When::Has("localflock"),
                "is mounted with localflock",
                "remount with -o flock",
            ),
            missing(
                When::Has("noflock"),
                "is mounted with noflock",
                "remount with -o flock",
            ),
            missing(
                When::Lacks("flock"),
                "is mounted without flock",
                "remount with -o flock",
            ),
        ],
    ),
    // S_MAGIC_GPFS. IBM Storage Scale has fcntl's locks cluster-wide (mmchconfig: maxFcntlRangesPerFile).
    network("gpfs", &["gpfs"], &[0x4750_4653], &[]),
    // WEKAFS_SUPER_MAGIC, libfuse's util/fusermount.c.
    network("wekafs", &["wekafs"], &[0x1803_1977], &[]),
    // CEPH_SUPER_MAGIC, include/linux/ceph/ceph_fs.h. Locks go to the MDS (fs/ceph/locks.c).
    network("ceph", &["ceph"], &[0x00c3_6400], &[]),
    // cifs and SMB2 or later have magic numbers of their own, smbfs had a third. mount.cifs(8): nobrl.
    network(
        "cifs",
        &["cifs", "smb3", "smb2", "smbfs"],
        &[0xff53_4d42, 0xfe53_4d42, 0x517b],
        &[node_local(
            When::Has("nobrl"),
            "is mounted with nobrl",
            "remount without it",
        )],
    ),
    // BEEGFS_MAGIC, client_module's FhgfsOpsSuper.h.
    Row {
        name: "beegfs",
        types: &["beegfs", "fhgfs"],
        magics: &[0x1983_0326],
        home: Home::Network,
        rules: &[
            shared(When::Told(beegfs::shares_locks)),
            node_local(
                When::Always,
                "is not known to have tuneUseGlobalFileLocks=true",
                "set it to true in beegfs-client.conf on every node and remount",
            ),
        ],
        path: "cfgFile=",
    },
    // V9FS_MAGIC, though with 9P2000.L a server may send any number. fs/9p/vfs_file.c: with older
    // protocols v9fs_file_lock says yes and locks nothing; with 9P2000.L, the default, which is not
    // shown, the server is asked.
    network(
        "9p",
        &["9p"],
        &[0x0102_1997],
        &[
            missing(
                When::Has("version=9p2000.u"),
                "is mounted with version=9p2000.u",
                "remount with version=9p2000.L",
            ),
            missing(
                When::Has("version=9p2000"),
                "is mounted with version=9p2000",
                "remount with version=9p2000.L",
            ),
            missing(
                When::Has("noextend"),
                "is mounted with noextend",
                "remount with version=9p2000.L",
            ),
        ],
    ),
    // AFS_SUPER_MAGIC (OpenAFS) and AFS_FS_MAGIC (kAFS). AFS has locks of whole files only. fs/afs/flock.c:
    // parts are locked at the server with flock=strict and flock=write, and here otherwise; OpenAFS locks
    // them here.
    network(
        "afs",
        &["afs"],
        &[0x5346_414f, 0x6b41_4653],
        &[
            shared(When::Has("flock=strict")),
            shared(When::Has("flock=write")),
            node_local(
                When::Always,
                "is mounted without flock=write",
                "remount with it, or let one machine only use the database",
            ),
        ],
    ),
    // ORANGEFS_SUPER_MAGIC. fs/orangefs/file.c: EINVAL unless it is mounted with local_lock.
    network(
        "orangefs",
        &["pvfs2", "orangefs"],
        &[0x2003_0528],
        &[
            node_local(
                When::Has("local_lock"),
                "is mounted with local_lock",
                ONE_MACHINE,
            ),
            missing(
                When::Always,
                "is mounted without local_lock",
                "remount with it, and let one machine only use the database",
            ),
        ],
    ),
    // S_MAGIC_PANFS.
    network("panfs", &["panfs"], &[0xaad7_aaea], &[]),
    // VBOXSF_SUPER_MAGIC, fs/vboxsf/super.c. No `.lock`.
    network(
        "vboxsf",
        &["vboxsf"],
        &[0x786f_4256],
        &[node_local(
            When::Always,
            "passes no locks to the host",
            ONE_MACHINE,
        )],
    ),
    // OCFS2_SUPER_MAGIC. fs/ocfs2/inode.c: locks are clustered unless localflocks is given, and if the cluster
    // stack can; o2cb, which is the one with a heartbeat of its own, cannot (stack_o2cb.c has no `.plock`).
    network(
        "ocfs2",
        &["ocfs2"],
        &[0x7461_636f],
        &[
            node_local(
                When::Has("localflocks"),
                "is mounted with localflocks",
                "remount without it",
            ),
            node_local(
                When::Has("heartbeat=local"),
                "runs on the cluster stack o2cb",
                "use the stack pcmk",
            ),
            node_local(
                When::Has("heartbeat=global"),
                "runs on the cluster stack o2cb",
                "use the stack pcmk",
            ),
        ],
    ),
    // GFS2_MAGIC, include/uapi/linux/gfs2_ondisk.h. fs/gfs2/super.c shows localflocks, which
    // lock_nolock implies.
    network(
        "gfs2",
        &["gfs2"],
        &[0x0116_1970],
        &[node_local(
            When::Has("localflocks"),
            "is mounted with localflocks",
            "remount without it, with lockproto=lock_dlm",
        )],
    ),
    // Any FUSE: what the program behind it does is not known. This row stands for those below.
    network("fuse", &["fuse", "fuse."], &[FUSE], &[]),
    // A program on a block device, which the kernel opens for this mount alone (get_tree_bdev in
    // fs/fuse/inode.c): ntfs-3g and the like. No other FUSE is known to be local.
    local("fuse", &["fuseblk"], &[FUSE]),
    // Locks are guests' own unless virtiofsd is told otherwise, which cannot be seen from here
    // (virtiofsd's README).
    network(
        "virtiofs",
        &["virtiofs"],
        &[FUSE],
        &[node_local(
            When::Always,
            "passes no locks to the host by default",
            ONE_MACHINE,
        )],
    ),
    // ceph-fuse, a client of its own.
    network("ceph", &["fuse.ceph", "fuse.ceph-fuse"], &[FUSE], &[]),
    // Gluster's translator features/locks is part of every volume.
    network("glusterfs", &["fuse.glusterfs"], &[FUSE], &[]),
    // mfsmount(8): POSIX locks are global unless mfsnoposixlocks is given, which is not shown.
    network("moosefs", &["fuse.mfs"], &[FUSE], &[]),
    // JuiceFS' manual: fcntl's locks are kept in the metadata engine.
    network("juicefs", &["fuse.juicefs"], &[FUSE], &[]),
    // sshfs.c implements no locks.
    network(
        "sshfs",
        &["fuse.sshfs"],
        &[FUSE],
        &[node_local(
            When::Always,
            "passes no locks to the server",
            ONE_MACHINE,
        )],
    ),
    // s3fs' README, Limitations: clients that mount the same bucket are not coordinated.
    network(
        "s3fs",
        &["fuse.s3fs"],
        &[FUSE],
        &[node_local(
            When::Always,
            "passes no locks to the store",
            ONE_MACHINE,
        )],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn home(name: &str) -> Option<Home> {
        by_type(name.as_bytes()).map(|row| row.home)
    }

    #[test]
    fn every_type_of_the_design_has_a_row() {
        for name in "ext2 ext3 ext4 xfs btrfs zfs f2fs tmpfs ramfs bcachefs fuseblk".split(' ') {
            assert_eq!(home(name), Some(Home::Local), "{name}");
        }
        for name in "nfs nfs4 lustre gpfs wekafs ceph cifs smb3 smb2 beegfs fuse.glusterfs 9p afs \
            pvfs2 panfs vboxsf virtiofs ocfs2 gfs2 fuse.mfs fuse.sshfs fuse.s3fs fuse.juicefs fuse \
            fuse.anything fuse."
            .split_ascii_whitespace()
        {
            assert_eq!(home(name), Some(Home::Network), "{name}");
        }
        assert_eq!(home("overlay"), Some(Home::Upper));
        for name in [
            "", "ext", "ext4x", "btrfsx", "fusectl", "fuse.\0", "autofs", "ecryptfs",
        ] {
            assert!(!matches!(home(name), Some(Home::Local)), "{name}");
        }
    }

    #[test]
    fn rows_do_not_contradict_each_other() {
        let mut types: Vec<_> = ROWS.iter().flat_map(|row| row.types).collect();
        types.sort();
        let all = types.len();
        types.dedup();
        assert_eq!(types.len(), all, "one row for a type");
        for row in ROWS {
            assert!(row.rules.len() <= RULES, "{}", row.name);
            assert!(
                !row.magics.is_empty(),
                "{}: found by its number, too",
                row.name
            );
            for &magic in row.magics {
                let first = by_magic(magic).unwrap();
                assert!(
                    first.home == row.home || first.home == Home::Network,
                    "{}: its number must not say more than is known",
                    row.name
                );
                assert!(
                    first.types == row.types
                        || first.rules.is_empty() && first.home == Home::Network,
                    "{}: the row for its number judges locks of others",
                    row.name
                );
            }
            let speaks_of_a_path = row.home == Home::Upper
                || row.rules.iter().any(|r| matches!(r.when, When::Told(_)));
            assert_eq!(speaks_of_a_path, !row.path.is_empty(), "{}", row.name);
        }
    }
}
