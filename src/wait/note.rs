//! From the lock call that failed to `xSleep`, which has no file argument: a note for the thread.
//!
//! Invariant: a note never dangles. Waiters are used again, but their memory is never given back
//! (there are as many as there were connections that had to wait at the same time), and a note names the
//! *generation* it was meant for: one that was closed since is not found.

use super::waiter::Waiter;
use crate::vfs::memory::try_box;
use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A waiter that can be given out again and again.
pub struct Reusable {
    /// Odd while it is given out.
    generation: AtomicU64,
    pub waiter: Mutex<Waiter>,
}

thread_local! {
    static NOTE: Cell<Option<(&'static Reusable, u64)>> = const { Cell::new(None) };
}

/// Those that nobody uses. A child that is forked while another thread holds the lock does without.
static IDLE: Mutex<Vec<&'static Reusable>> = Mutex::new(Vec::new());

/// A waiter for a connection. `None` if memory is out.
pub fn give_out(waiter: Waiter) -> Option<&'static Reusable> {
    let idle = IDLE.try_lock().and_then(|mut idle| idle.pop());
    let given = match idle {
        Some(given) => {
            *given.waiter.lock() = waiter;
            given
        }
        None => Box::leak(try_box(Reusable {
            generation: AtomicU64::new(0),
            waiter: Mutex::new(waiter),
        })?),
    };
    given.generation.fetch_add(1, Ordering::SeqCst);
    Some(given)
}

/// Its connection is closed.
pub fn take_back(given: &'static Reusable) {
    given.generation.fetch_add(1, Ordering::SeqCst);
    if let Some(mut idle) = IDLE.try_lock()
        && idle.try_reserve(1).is_ok()
    {
        idle.push(given);
    }
}

/// This thread's last lock call that failed was of this connection.
pub fn leave(given: &'static Reusable) {
    NOTE.set(Some((given, given.generation.load(Ordering::SeqCst))));
}

/// It was answered: nobody waits for it any more.
pub fn forget(given: &'static Reusable) {
    if NOTE
        .get()
        .is_some_and(|(noted, _)| std::ptr::eq(noted, given))
    {
        NOTE.set(None);
    }
}

/// Whose lock call failed last on this thread.
pub fn find() -> Option<&'static Reusable> {
    let (given, generation) = NOTE.get()?;
    (given.generation.load(Ordering::SeqCst) == generation).then_some(given)
}
