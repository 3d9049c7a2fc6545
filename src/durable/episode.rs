//! Trying again: how often, how long, and what is said of it.
//!
//! A call that fails with an error that passes is made again after randomized exponential backoff, until it succeeds
//! or the time is over (`retry_ms`, for each call anew). The first steps are short, since many errors pass at once;
//! the cap keeps thousands of clients of one server from being what keeps it busy.
//!
//! Each episode is two lines in `sqlite3_log`: one when it begins and one when it ends.

use super::transient::Call;
use crate::sqlite::Sqlite;
use crate::sqlite::abi::{SQLITE_NOTICE, SQLITE_WARNING};
use crate::text::PathEnd;
use crate::turn::mapped::now;
use crate::wait::backoff::Backoff;
use nix::errno::Errno;
use std::ffi::CStr;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// 1 ms, doubled up to 250 ms.
const BACKOFF: Backoff = Backoff {
    first: 1_000_000,
    cap: 250_000_000,
};

/// What happened in this process so far.
pub static COUNTERS: Counters = Counters {
    episodes: AtomicU64::new(0),
    attempts: AtomicU64::new(0),
    given_up: AtomicU64::new(0),
};

/// What happened in this process so far.
pub struct Counters {
    /// Calls that failed with an error that passes.
    pub episodes: AtomicU64,
    /// How often one was made again.
    pub attempts: AtomicU64,
    /// Those that failed in the end.
    pub given_up: AtomicU64,
}

/// One call that failed, and what became of it.
pub struct Episode<'a> {
    sqlite: &'a Sqlite,
    path: &'a CStr,
    call: Call,
    /// Of a read, write or truncate.
    at: Option<i64>,
    began: u64,
    until: u64,
    attempts: u32,
    last: Errno,
}

impl<'a> Episode<'a> {
    /// `budget`: nanoseconds.
    pub fn new(
        sqlite: &'a Sqlite,
        path: &'a CStr,
        (call, at): (Call, Option<i64>),
        budget: u64,
    ) -> Episode<'a> {
        let began = now();
        Episode {
            sqlite,
            path,
            call,
            at,
            began,
            until: began.saturating_add(budget),
            attempts: 0,
            last: Errno::from_raw(0),
        }
    }

    pub fn call(&self) -> Call {
        self.call
    }

    /// The call failed. True: it is to be made again, now.
    pub fn goes_on(&mut self, errno: Errno) -> bool {
        self.last = errno;
        let now = now();
        if now >= self.until {
            return false;
        }
        if self.attempts == 0 {
            self.begin(errno);
        }
        let step = BACKOFF.step(self.attempts);
        self.attempts += 1;
        COUNTERS.attempts.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_nanos(step.min(self.until - now)));
        true
    }

    #[cold]
    fn begin(&mut self, errno: Errno) {
        COUNTERS.episodes.fetch_add(1, Relaxed);
        let seconds = Seconds(self.until - self.began);
        self.say(
            SQLITE_WARNING,
            format_args!("failed with {errno:?}; trying again for up to {seconds}"),
        );
    }

    /// Whether the call has failed at all.
    pub fn has_begun(&self) -> bool {
        self.attempts > 0
    }

    /// It has succeeded.
    pub fn succeeded(&self) {
        if self.has_begun() {
            let (attempts, time) = (self.attempts, Seconds(now() - self.began));
            self.say(
                SQLITE_NOTICE,
                format_args!("succeeded at attempt {} after {time}", attempts + 1),
            );
        }
    }

    /// It failed for good.
    pub fn failed(&self, why: impl fmt::Display) {
        if self.has_begun() {
            COUNTERS.given_up.fetch_add(1, Relaxed);
            let (attempts, time) = (self.attempts, Seconds(now() - self.began));
            self.say(
                SQLITE_WARNING,
                format_args!(
                    "given up ({:?}) after {} attempts, {time}: {why}",
                    self.last,
                    attempts + 1
                ),
            );
        }
    }

    fn say(&self, code: std::ffi::c_int, what: fmt::Arguments<'_>) {
        let (call, path) = (self.call, PathEnd(self.path));
        match self.at {
            Some(at) => self.sqlite.log(
                code,
                format_args!("turnstile: {call} at {at} of {path} {what}"),
            ),
            None => self
                .sqlite
                .log(code, format_args!("turnstile: {call} of {path} {what}")),
        }
    }
}

struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 / 1_000_000 {
            ms @ 0..1000 => write!(f, "{ms} ms"),
            ms => write!(f, "{}.{} s", ms / 1000, ms % 1000 / 100),
        }
    }
}
