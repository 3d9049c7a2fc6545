//! How long the application's busy timeout lets us wait.
//!
//! `xSleep` is told one step of SQLite's delay table (1, 2, 5 ... 100 ms), not the timeout. Waking up
//! for every step costs a refused transaction each: a third of the throughput with a thousand waiters. So the
//! handler, which `SQLITE_FCNTL_BUSYHANDLER` announced when the database was opened, is called from inside of
//! `xSleep`, again and again, until it says that the time is over. Our `xSleep`, called by it, only
//! notes the amount. The sum is the timeout, to the millisecond.
//!
//! What that does to `sqlite3InvokeBusyHandler`'s counter `nBusy`: the handler's 0 sets it to -1,
//! and the call that is still under way then counts it up to 0: the timeout starts anew. That is what we
//! want, as the deadline is ours now: SQLite goes on asking until we say that it is over. Then, with
//! the counter at 0, the handler is called one time less than the table has steps; the next time that
//! SQLite asks, it gets the 0.
//!
//! Nothing else calls `xSleep` just so: a wait begins with the table's first step, and the amounts that
//! follow are checked against the table. A handler of the application's own that calls `sqlite3_sleep`
//! (which comes here if we are the default VFS) is not called at all unless it begins with 1 ms; then it
//! gives itself away at the first difference. It gets no more than the sleeps that it asked for. So
//! does a library without usleep, which asks for whole seconds.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

/// The busy handler of a connection, as the file control hands it over.
#[derive(Clone, Copy)]
pub struct Handler {
    pub call: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub argument: *mut c_void,
}

/// A timeout that was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// What is left of it, in nanoseconds.
    pub left: u64,
    /// How many steps the table takes. 0 if it was not walked to its end.
    pub steps: u32,
}

/// `delays` of `sqliteDefaultBusyCallback`, in microseconds.
const TABLE: [c_int; 12] = [
    1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 25_000, 25_000, 25_000, 50_000, 50_000, 100_000,
];

/// What a walk through the table stands at after `steps` steps, in microseconds.
fn delay(step: u32) -> c_int {
    TABLE[(step as usize).min(TABLE.len() - 1)]
}

/// Steps to go at most: nearly three hours, walked in about a millisecond. A longer timeout is taken
/// in portions of that.
const MOST: u32 = 100_000;

#[derive(Clone, Copy)]
struct Record {
    calls: u32,
    last: c_int,
}

thread_local! {
    static RECORD: Cell<Option<Record>> = const { Cell::new(None) };
}

/// For `xSleep`: whether it was called by a handler that we called. Then there is nothing to do.
pub fn record(microseconds: c_int) -> bool {
    let Some(record) = RECORD.get() else {
        return false;
    };
    RECORD.set(Some(Record {
        calls: record.calls + 1,
        last: microseconds,
    }));
    true
}

/// What SQLite's default handler asks `xSleep` for when a wait begins.
pub const FIRST: c_int = TABLE[0];

/// Walks the handler to its end. `None`: it is not SQLite's default handler.
///
/// # Safety
/// We are inside of a call of this very handler, which asked for [`FIRST`].
pub unsafe fn learn(handler: Handler) -> Option<Learnt> {
    let (mut sum, mut ended) = (0, false);
    // SAFETY: the caller's promise.
    let walk = unsafe {
        walk(handler, MOST, |step, amount| {
            let full = delay(step);
            let fits = !ended && (1..=full).contains(&amount);
            // The timeout cuts the last step.
            ended = amount < full;
            sum += u64::try_from(amount).unwrap_or(0);
            fits
        })
    };
    match walk {
        Walk::Strange => None,
        Walk::Over(steps) => Some(Learnt {
            left: sum * 1_000,
            steps,
        }),
        Walk::Long => Some(Learnt {
            left: sum * 1_000,
            steps: 0,
        }),
    }
}

/// Makes the handler say no when SQLite asks it next: `steps` is what [`learn`] found.
///
/// # Safety
/// We are inside of a call of this very handler, and it is at its first step.
pub unsafe fn exhaust(handler: Handler, steps: u32) {
    // SAFETY: the caller's promise.
    unsafe { walk(handler, steps.saturating_sub(1), |_, _| true) };
}

enum Walk {
    /// The handler said that the time is over, after so many steps.
    Over(u32),
    Long,
    Strange,
}

unsafe fn walk(handler: Handler, most: u32, mut fits: impl FnMut(u32, c_int) -> bool) -> Walk {
    let before = RECORD.replace(Some(Record { calls: 0, last: 0 }));
    let mut end = Walk::Long;
    for step in 0..most {
        // SAFETY: the caller's promise.
        let goes_on = unsafe { (handler.call)(handler.argument) } != 0;
        let Some(record) = RECORD.get() else { break };
        if !goes_on && record.calls == step {
            end = Walk::Over(step);
            break;
        }
        if record.calls != step + 1 || !fits(step, record.last) {
            end = Walk::Strange;
            break;
        }
    }
    RECORD.set(before);
    end
}
