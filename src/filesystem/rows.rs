//! The file systems that are known: whose they are, and what becomes of byte-range locks there, each with
//! its source.
//!
//! Magic numbers are from include/uapi/linux/magic.h unless a row says otherwise; `S_MAGIC_*` are
//! coreutils' (src/stat.c). What is not in here counts as shared with other machines; so do file systems that
//! lie on others without saying on which: ecryptfs, aufs and the like.
//!
//! Locks are fcntl's; SQLite uses no others. "No `.lock`" in a row means that the driver's
//! `file_operations` have none: then the kernel keeps the locks, on this machine only. FUSE does the
//! same if the daemon does not implement them (libfuse, include/fuse_lowlevel.h, at `setlk`). So a
//! lock that is not passed on is no error that anybody sees: fcntl says yes.

use super::table::{Home, Row, Rule, When};
use super::{Flaw, Locks, beegfs};

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
const ONE_MACHINE: &str = "use the database on one machine only";

pub const ROWS: &[Row] = &[
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
    local("vfat", &["vfat", "msdos"], &[0x4d44]),
    local("exfat", &["exfat"], &[0x2011_bab0]),
    // fs/ntfs3/super.c, which registers the name ntfs, too; NTFS_SB_MAGIC, fs/ntfs/ntfs.h. Paragon's ufsd has
    // the latter in its lower half (libfuse's fusermount.c).
    local(
        "ntfs",
        &["ntfs3", "ntfs", "ufsd"],
        &[0x7366_746e, 0x5346_544e],
    ),
    // JFS_SUPER_MAGIC, fs/jfs/jfs_superblock.h.
    local("jfs", &["jfs"], &[0x3153_464a]),
    local("reiserfs", &["reiserfs"], &[0x5265_4973]),
    local("nilfs2", &["nilfs2"], &[0x3434]),
    // HFS_SUPER_MAGIC, fs/hfs/hfs.h; HFSPLUS_SUPER_MAGIC, fs/hfsplus/hfsplus_raw.h.
    local("hfs", &["hfs"], &[0x4244]),
    local("hfsplus", &["hfsplus"], &[0x482b]),
    // UBIFS_SUPER_MAGIC, fs/ubifs/ubifs.h.
    local("ubifs", &["ubifs"], &[0x2405_1905]),
    local("jffs2", &["jffs2"], &[0x72b6]),
    local("udf", &["udf"], &[0x1501_3346]),
    local(
        "minix",
        &["minix"],
        &[0x137f, 0x138f, 0x2468, 0x2478, 0x4d5a],
    ),
    // For reading only.
    local("iso9660", &["iso9660"], &[0x9660]),
    local("squashfs", &["squashfs"], &[0x7371_7368]),
    local("erofs", &["erofs"], &[0xe0f5_e1e2]),
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
    // fails with ENOSYS (ll_file_noflock). Clients since 2.12.3 are mounted with flock by default.
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
                "is not known to set tuneUseGlobalFileLocks",
                "set it to true on all nodes, and remount",
            ),
        ],
        path: "cfgFile=",
    },
    // V9FS_MAGIC, though with 9P2000.L the server sends the number (v9fs_statfs), and QEMU's sends that of
    // the file system there. WSL's drvfs is one of them. fs/9p/vfs_file.c: with older protocols
    // v9fs_file_lock says yes and locks nothing; with 9P2000.L, the default, which is not shown
    // (p9_show_client_options), the server is asked.
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
                "remount with it, or use the database on one machine only",
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
                "remount with it, and use the database on one machine only",
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
    // Any FUSE: what the program behind it does is not known. This row stands for those below. Many lie on
    // a local disk (mergerfs, bindfs, gocryptfs, encfs, unionfs, fuse-overlayfs, lxcfs), but as well on a
    // network's, which cannot be seen; and what mmap shows is the program's affair.
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
    // JuiceFS' manual, POSIX compatibility: fcntl's locks are kept in the metadata engine, but not those of
    // open file descriptions (F_OFD_SETLK).
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
    // Object stores, of which none has locks. s3fs' README, Limitations: clients that mount the same bucket
    // are not coordinated. BlobFuse's known issues: lock and flock are unsupported. The libraries of the
    // others answer FUSE_INIT without FUSE_POSIX_LOCKS unless asked for it (bazil, cgofuse, jacobsa).
    network(
        "object store",
        &[
            "fuse.s3fs",
            "fuse.gcsfuse",
            "fuse.blobfuse",
            "fuse.blobfuse2",
            "fuse.goofys",
            "fuse.rclone",
        ],
        &[FUSE],
        &[node_local(
            When::Always,
            "passes no locks to the store",
            ONE_MACHINE,
        )],
    ),
    // xdg-desktop-portal's document-portal-fuse.c: xdp_fuse_setlk calls F_SETLK itself, for whoever asks, so
    // that all programs are one owner; before there was that, fcntl failed with ENOSYS (its issue 1117).
    network(
        "portal",
        &["fuse.portal"],
        &[FUSE],
        &[missing(
            When::Always,
            "does not tell programs' locks apart",
            "use the database elsewhere",
        )],
    ),
];
