//! Under a lock, see what the last owner wrote.
//!
//! A client's caches are not emptied by a lock that changes hands. What helps, under SHARED and before anything
//! is believed:
//!
//! - The database's attributes are fetched from the server (`AT_STATX_FORCE_SYNC`): if size or time differ, FUSE
//!   (`fuse_change_attributes`) and NFS (`nfs_update_inode`) drop its pages.
//! - The *time* is only as fine as the server's clock ticks: two commits in one tick look like one. So pages that
//!   were read while the time was young are not believed: they are dropped with `posix_fadvise`, which asks nobody.
//!   That is [`Freshness`]. Where nothing has changed for longer than a tick, nothing has been written, and there
//!   is no journal to look for either: one that has become hot since the last look changes nothing.
//! - A commit of ours gives the file a time of its own, to the nanosecond: so everybody's cache sees it, and whoever made it
//!   knows when somebody else has written. (That is another time than the server's by as much as the clocks differ.)
//! - The directory's attributes are fetched, too: NFS keeps "there is no such file" for up to a minute, until the
//!   directory has changed (`nfs_neg_need_reval`).
//! - FUSE and SMB keep it for a time, whatever the directory says. There a name is looked up afresh if somebody is
//!   about to *make* it (`LOOKUP_EXCL`: `fuse_dentry_revalidate`, `cifs_d_revalidate`). So the question is put as an
//!   attempt that cannot succeed, to link a directory there: EEXIST is "yes".
//! - Nothing is read without a lock, not even the header (`sqlite3BtreeOpen`): a read that is under way when the lock changes
//!   hands brings old pages back into a cache that has just been emptied.
//! - GlusterFS' client has a cache of its own (md-cache), which answers all that; but not fsync, whose answer brings the
//!   attributes. So there even a journal is opened and synced to be looked at. And one of whole files (quick-read), which
//!   is emptied by a list of the directory.

use super::descriptor::Version;
use std::cell::Cell;

/// So long after a change its time may still be that of the next one: Linux stamps files with the time of the last timer
/// interrupt, of which there are 100 to 1000 in a second (`current_time`; since 6.13 finer).
const TICK: u64 = 11_000_000;

/// Where times have no fractions: ext3's have seconds, FAT's are even.
const LONG_TICK: u64 = 2_000_000_000;

/// Whether the pages of a file that the kernel keeps can be believed.
#[derive(Default)]
pub struct Freshness {
    /// The time of the last change that was seen, and the file's size.
    version: Cell<Option<Version>>,
    /// When that was first seen.
    since: Cell<u64>,
    /// When it was looked at last: what was read since, the kernel keeps.
    looked: Cell<u64>,
}

impl Freshness {
    /// The next look is doubtful.
    pub fn forget(&self) {
        self.version.set(None);
    }

    /// We have made this version, `now`, with a time that no clock's tick has.
    pub fn is_own(&self, version: Version, now: u64) {
        self.version.set(Some(version));
        self.since.set(0);
        self.looked.set(now);
    }

    /// The file's present version is this, `now` (nanoseconds). True: the pages are to be dropped.
    pub fn is_doubtful(&self, version: Version, now: u64) -> bool {
        let looked = self.looked.replace(now);
        if self.version.replace(Some(version)) != Some(version) {
            self.since.set(now);
            return true;
        }
        let tick = match version.0.nanos {
            0 => LONG_TICK,
            _ => TICK,
        };
        looked.saturating_sub(self.since.get()) < tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::descriptor::Time;

    #[test]
    fn pages_are_believed_once_the_clock_has_ticked() {
        let freshness = Freshness::default();
        let version = |seconds| (Time { seconds, nanos: 0 }, 4096);
        let s = 1_000_000_000;
        assert!(freshness.is_doubtful(version(1), 0));
        // What was read just now may have been written twice since its time was taken.
        assert!(freshness.is_doubtful(version(1), s));
        assert!(freshness.is_doubtful(version(1), 3 * s));
        // What was read at 3 s was read when a new change would have had a new time.
        assert!(!freshness.is_doubtful(version(1), 4 * s));
        assert!(!freshness.is_doubtful(version(1), 5 * s));
        assert!(freshness.is_doubtful(version(2), 6 * s));
        assert!(freshness.is_doubtful(version(2), 7 * s));
        // A finer clock.
        let version = (
            Time {
                seconds: 3,
                nanos: 5,
            },
            4096,
        );
        let ms = 1_000_000;
        assert!(freshness.is_doubtful(version, 10 * s));
        assert!(freshness.is_doubtful(version, 10 * s + 11 * ms));
        assert!(!freshness.is_doubtful(version, 10 * s + 12 * ms));
    }
}
