//! How one database is waited for: what its options say.

use super::backoff::Backoff;
use crate::options::Options;

/// How one database is waited for: what its options say.
#[derive(Clone, Copy)]
pub struct Manners {
    pub fair: bool,
    /// Nanoseconds.
    pub quantum: u64,
    pub backoff: Backoff,
    pub fs: crate::Fs,
}

impl Manners {
    /// The backoff's defaults; see `backoff` for the measurements that chose them.
    const FIRST_US: u32 = 200;
    const CAP_US: u32 = 5_000;

    pub fn of(options: &Options) -> Manners {
        let ns = |us: u32| u64::from(us) * 1_000;
        let first = ns(options.backoff_us.unwrap_or(Self::FIRST_US));
        Manners {
            fair: options.fair,
            quantum: ns(options.quantum_us),
            backoff: Backoff {
                first,
                cap: ns(options.backoff_cap_us.unwrap_or(Self::CAP_US)).max(first),
            },
            fs: options.fs,
        }
    }
}
