//! Time as all processes of a round share it, and what a process has used.
//!
//! `std::time::Instant` cannot be handed to another process; `CLOCK_MONOTONIC` counts from the
//! same zero for everybody, so the gate's opening and the deadline are plain numbers.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn now() -> u64 {
    // It cannot fail: every Linux has this clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| u64::try_from(t.num_nanoseconds()).unwrap_or(0))
}

/// How often this process has given up the processor because it had to wait for something.
pub fn waits() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        u64::try_from(usage.voluntary_context_switches()).unwrap_or(0)
    })
}

/// CPU time that this process has used, user and system.
pub fn cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    })
}
