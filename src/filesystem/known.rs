//! The mounts that were found to be this machine's own: who opens the database for each write asks once, and
//! /proc/self/mountinfo is not read each time (25 µs, half of what a write to a tmpfs or an overlay costs).
//!
//! Invariant: what is remembered is a mount, by a number that no other mount gets until the machine starts anew
//! (`STATX_MNT_ID_UNIQUE`, Linux 6.8). Before that there is only the device's number, which may be the next one's at once:
//! with it the magic number must be the same.

use super::{Ground, Kind, Locks};
use nix::errno::Errno;
use parking_lot::Mutex;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A child that is forked while another thread holds the lock does without.
static MOUNTS: Mutex<[Option<(u64, Ground)>; 4]> = Mutex::new([const { None }; 4]);

/// Whether mounts have no such numbers here: an older kernel, or a filter of system calls, is asked once.
static CANNOT: AtomicBool = AtomicBool::new(false);

/// The number of the mount that `path` is on. `None` if it cannot be told.
pub fn number_of(path: &CStr) -> Option<u64> {
    if CANNOT.load(Relaxed) {
        return None;
    }
    // SAFETY: numbers, all of them.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // Of the file itself nothing is asked, and no server.
    let (flags, mask) = (libc::AT_STATX_DONT_SYNC, libc::STATX_MNT_ID_UNIQUE);
    // SAFETY: a terminated path, and room for the answer.
    let code = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, &mut found) };
    let can = match Errno::result(code) {
        Ok(_) => found.stx_mask & mask != 0,
        Err(errno) => !matches!(errno, Errno::ENOSYS | Errno::EPERM | Errno::EINVAL),
    };
    CANNOT.store(!can, Relaxed);
    (can && code == 0).then_some(found.stx_mnt_id)
}

/// What the mount with this number was found to be.
pub fn recall(number: u64) -> Option<Ground> {
    let mounts = MOUNTS.try_lock()?;
    let known = mounts.iter().flatten().find(|known| known.0 == number);
    known.map(|(_, ground)| ground.clone())
}

/// Whether `ground` is sure, and nothing of it can change as long as it is mounted.
pub fn is_memorable(ground: &Ground) -> bool {
    ground.is_sure && (ground.kind, ground.locks) == (Kind::Local, Locks::Shared)
}

/// Remembers a ground that [`is_memorable`].
pub fn remember(number: u64, ground: &Ground) {
    if let Some(mut mounts) = MOUNTS.try_lock() {
        mounts.rotate_right(1);
        mounts[0] = Some((number, ground.clone()));
    }
}

/// The last of those without a device of their own.
static DEVICE: AtomicU64 = AtomicU64::new(0);

/// Minor numbers have 20 bits, major ones 12; no magic number is 0.
fn key((major, minor): (u64, u64), magic: u32) -> u64 {
    u64::from(magic) << 32 | (major & 0xfff) << 20 | minor & 0xf_ffff
}

/// Whether `device` was found to be this machine's own, where mounts have no numbers.
pub fn is_device(device: (u64, u64), magic: u32) -> bool {
    magic != 0 && CANNOT.load(Relaxed) && DEVICE.load(Relaxed) == key(device, magic)
}

/// Remembers that `device` is this machine's own.
pub fn remember_device(device: (u64, u64), magic: u32) {
    DEVICE.store(key(device, magic), Relaxed);
}
