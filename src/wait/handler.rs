//! A busy handler of our own: the same wait with an exact deadline, and no need to learn it from SQLite.
//!
//! The handler's argument is the timeout itself, so there is nothing to free when the connection is closed or
//! gets another handler.

use super::backoff::Backoff;
use super::note;
use crate::sqlite::Sqlite;
use crate::turn::mapped;
use crate::vfs::rim;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::time::Duration;

/// Installs the handler on `db`. Zero removes it.
///
/// # Safety
/// `db` is an open connection of `sqlite`.
pub unsafe fn install(sqlite: &Sqlite, db: *mut c_void, timeout: Duration) -> c_int {
    let ms = usize::try_from(timeout.as_millis()).unwrap_or(usize::MAX);
    let handler = (ms > 0).then_some(call as _);
    // SAFETY: the caller's promise; the handler takes its argument for a number.
    unsafe { sqlite.set_busy_handler(db, handler, std::ptr::without_provenance_mut(ms)) }
}

thread_local! {
    /// For a connection that is not ours: when its wait began.
    static BEGAN: Cell<u64> = const { Cell::new(0) };
}

/// For a connection on another VFS, which has no options.
const ELSEWHERE: Backoff = Backoff {
    first: 1_000_000,
    cap: 20_000_000,
};

unsafe extern "C" fn call(timeout: *mut c_void, count: c_int) -> c_int {
    let timeout = (timeout.addr() as u64).saturating_mul(1_000_000);
    let again = rim::quietly(false, || {
        let noted =
            note::find().and_then(|noted| noted.waiter.try_lock()?.handle(timeout, count == 0));
        noted.unwrap_or_else(|| wait_elsewhere(timeout, count))
    });
    c_int::from(again)
}

fn wait_elsewhere(timeout: u64, count: c_int) -> bool {
    let now = mapped::now();
    if count == 0 {
        BEGAN.set(now);
    }
    let left = BEGAN.get().saturating_add(timeout).saturating_sub(now);
    let step = ELSEWHERE.step(u32::try_from(count).unwrap_or(0));
    std::thread::sleep(Duration::from_nanos(step.min(left)));
    left > 0
}

/// `turnstile_busy_handler`; see `c/core.h`.
///
/// # Safety
/// `sqlite` is a complete structure; `db` is an open connection of it.
#[unsafe(no_mangle)]
unsafe extern "C" fn turnstile_core_busy_handler(
    sqlite: *const Sqlite,
    db: *mut c_void,
    ms: c_int,
) -> c_int {
    let timeout = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    // SAFETY: the caller's promise.
    unsafe { install(&*sqlite, db, timeout) }
}
