//! What a database lies on, and what is safe there.
//!
//! Memory that is mapped from a file is the same memory for everybody only if the file system is
//! this machine's own. Anything that is not known to be counts as shared with other machines.

use crate::Fs;
use nix::sys::statfs::statfs;
use std::ffi::CStr;

/// `f_type` of the local file systems, from Linux's include/uapi/linux/magic.h (XFS, ZFS and F2FS
/// from their own headers). An overlay's upper directory is on a local file system in every container.
const LOCAL: [i64; 9] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x2fc1_2fc1, // zfs
    0xf2f5_2010, // f2fs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlay
    0xca45_1a4e, // bcachefs
];

/// Whether processes that have `database` open can share memory mapped from a file beside it.
///
/// Looks at the path's file system; the database itself is never opened.
pub fn can_share_memory(database: &CStr, fs: Fs) -> bool {
    match fs {
        Fs::Local => true,
        Fs::Network => false,
        Fs::Auto => statfs(database).is_ok_and(|s| LOCAL.contains(&s.filesystem_type().0)),
    }
}
