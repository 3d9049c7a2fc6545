//! Randomized exponential backoff, for where no queue can serve.
//!
//! A step doubles from 200 µs to 5 ms (`backoff_us`, `backoff_cap_us`) and is taken at random between half of it and
//! all of it. The cap is low, so that who has waited longest tries as often as who has just come. But a low
//! cap alone is a collapse when there are a thousand: the tries themselves fill the processors. So each sleep is
//! longer by 32 times what the last try came late, if that was more than a millisecond, and at most by a
//! second; it forgets a quarter of that each time. A try comes late on a full machine, and then to all alike and
//! time and again; one that is late by itself (the machine stood still for a moment) adds 40 ms and no more.
//!
//! The measurements that chose this, one of each, 2 s, two processors, ext4, synchronous=FULL, opened for each write
//! (`TURNSTILE_FAIR=off TURNSTILE_BACKOFF_US=200 TURNSTILE_BACKOFF_CAP_US=5000 turnstile bench -n 64 -s 2 --rounds 1
//! --vfs turnstile --timeout-ms 60000 --journal wal`). Writes per second / p99.9 in ms:
//!
//! | first to cap | wal 8 | wal 64 | wal 1000 | delete 8 | delete 64 | delete 1000 |
//! |---|---|---|---|---|---|---|
//! | stock's table | 159 / 54 | 876 / 1836 | 960 / 3466 | 154 / 55 | 658 / 1562 | 580 / 8200 |
//! | 1 ms, constant | 162 / 6 | 1206 / 68 | **2** / 66467 | 156 / 10 | 624 / 298 | |
//! | 0.2 to 1 ms | 160 / 7 | 1201 / 71 | **2** / 65178 | 154 / 10 | 746 / 218 | |
//! | 0.2 to 5 ms | 153 / 6 | 1216 / 53 | **2** / 60444 | 156 / 13 | 852 / 208 | |
//! | 0.2 to 20 ms | 151 / 22 | 1186 / 105 | **4** / 40954 | 156 / 16 | 820 / 485 | |
//! | 1 to 20 ms | 153 / 14 | 1156 / 134 | **3** / 35793 | 155 / 15 | 766 / 337 | |
//! | 0.2 to 100 ms | 162 / 11 | 1139 / 432 | 689 / 2553 | 156 / 20 | 800 / 856 | |
//! | 0.2 to 5 ms, 16 times late, 0.2 s | | 1182 / 114 | 338 / 3959 | | | |
//! | 0.2 to 5 ms, 64 times late, 0.4 s | | 1140 / 464 | 536 / 2901 | | 774 / 528 | 306 / 4450 |
//! | **0.2 to 5 ms, 32 times late, 1 s** | | 1176 / 230 | 662 / 3004 | | 830 / 247 | 269 / 6336 |
//!
//! The bound of 40 ms for the first late try, on another day, 3 s each:
//!
//! | first late try adds | wal 64 | wal 1000 | delete 64 | delete 1000 |
//! |---|---|---|---|---|
//! | up to 1 s | 1195 / 191 | 509 / 4500 | 912 / 222 | 291 / 6800 |
//! | up to 40 ms, then 4 times as much each time | 1192 / 106 | 356 / 4440 | 871 / 201 | 227 / 5770 |
//! | **up to 40 ms, then 16 times as much** | 1213 / 81 | 402 / 4540 | 909 / 210 | 243 / 5340 |
//!
//! A thousand writers want the queue; this is so that they get on without it.

use crate::turn::mapped::random;

/// Steps that double from `first` to `cap`, each at random between half of it and all of it.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Nanoseconds.
    pub first: u64,
    /// Nanoseconds.
    pub cap: u64,
}

impl Backoff {
    /// The sleep before try number `attempt`, in nanoseconds.
    pub fn step(self, attempt: u32) -> u64 {
        let full = self
            .first
            .saturating_mul(1 << attempt.min(30))
            .min(self.cap)
            .max(2);
        full / 2 + u64::from(random()) % (full / 2 + 1)
    }
}

/// What a sleep is to be longer, in nanoseconds, if the last one was `before` longer, and the next try then came
/// `late` after its time.
pub fn crowd(before: u64, late: u64) -> u64 {
    const LATE: u64 = 1_000_000;
    const ONCE: u64 = 40_000_000;
    const AGAIN: u64 = 16;
    const MOST: u64 = 1_000_000_000;
    let now = if late > LATE {
        late.saturating_mul(32).min((before * AGAIN).max(ONCE))
    } else {
        0
    };
    let most = now.max(before - before / 4).min(MOST);
    most / 2 + u64::from(random()) % (most / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_up_to_the_cap_and_are_never_in_step() {
        let backoff = Backoff {
            first: 1_000,
            cap: 64_000,
        };
        for attempt in 0..80 {
            let full = (1_000_u64 << attempt.min(6)).min(64_000);
            let steps: Vec<u64> = (0..50).map(|_| backoff.step(attempt)).collect();
            assert!(
                steps.iter().all(|s| (full / 2..=full).contains(s)),
                "{steps:?}"
            );
            assert!(steps.iter().any(|s| s != &steps[0]));
        }
        assert!(Backoff { first: 0, cap: 0 }.step(9) <= 2);
    }

    #[test]
    fn who_comes_late_stays_away_for_longer_and_forgets_it() {
        assert_eq!(crowd(0, 900_000), 0);
        let mut longer = crowd(0, 2_000_000);
        assert!((20_000_000..=40_000_000).contains(&longer));
        longer = crowd(longer, 20_000_000);
        assert!((160_000_000..=640_000_000).contains(&longer));
        assert!(crowd(longer, u64::MAX) <= 1_000_000_000);
        for _ in 0..100 {
            longer = crowd(longer, 0);
        }
        assert!(longer < 10, "{longer}");
    }
}
