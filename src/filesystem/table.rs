//! What is known of a file system, and how it is found: by its type, or by its magic number.

use super::Locks;
use super::rows::ROWS;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn home(name: &str) -> Option<Home> {
        by_type(name.as_bytes()).map(|row| row.home)
    }

    #[test]
    fn every_type_of_the_design_has_a_row() {
        let local = "ext2 ext3 ext4 xfs btrfs zfs f2fs tmpfs ramfs bcachefs fuseblk vfat exfat ntfs ntfs3 \
            jfs reiserfs nilfs2 hfs hfsplus udf minix iso9660 squashfs erofs";
        for name in local.split_ascii_whitespace() {
            assert_eq!(home(name), Some(Home::Local), "{name}");
        }
        let network = "nfs nfs4 lustre gpfs wekafs ceph cifs smb3 smb2 beegfs fuse.glusterfs 9p afs pvfs2 \
            panfs vboxsf virtiofs ocfs2 gfs2 fuse.ceph-fuse fuse.mfs fuse.sshfs fuse.s3fs fuse.juicefs \
            fuse.gcsfuse fuse.blobfuse2 fuse.rclone fuse.goofys fuse.portal fuse.bindfs fuse.mergerfs \
            fuse.unionfs fuse.encfs fuse.gocryptfs fuse.fuse-overlayfs fuse.lxcfs fuse fuse.anything fuse.";
        for name in network.split_ascii_whitespace() {
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
