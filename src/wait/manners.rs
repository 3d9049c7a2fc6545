//! How one database is waited for: what its options say. Small, since each open file carries it: SQLite
//! counts the size of a file as memory of its page cache (SQLITE_DBSTATUS_CACHE_USED).

use super::backoff::Backoff;
use crate::Fs;
use crate::options::Options;

/// How one database is waited for.
#[derive(Clone, Copy)]
pub struct Manners {
    quantum_us: u32,
    first_us: u32,
    cap_us: u32,
    pub fair: bool,
    pub fs: Fs,
    /// `retry_ms` is not 0: errors are not treated as stock SQLite does.
    pub retries: bool,
}

impl Manners {
    /// The backoff's defaults; see `backoff` for the measurements that chose them.
    const FIRST_US: u32 = 200;
    const CAP_US: u32 = 5_000;

    pub fn of(options: &Options) -> Manners {
        let first_us = options.backoff_us.unwrap_or(Self::FIRST_US);
        Manners {
            quantum_us: options.quantum_us,
            first_us,
            cap_us: options.backoff_cap_us.unwrap_or(Self::CAP_US).max(first_us),
            fair: options.fair,
            fs: options.fs,
            retries: options.retry_ms != Some(0),
        }
    }

    /// In nanoseconds.
    pub fn quantum(&self) -> u64 {
        ns(self.quantum_us)
    }

    pub fn backoff(&self) -> Backoff {
        Backoff {
            first: ns(self.first_us),
            cap: ns(self.cap_us),
        }
    }
}

fn ns(us: u32) -> u64 {
    u64::from(us) * 1_000
}
