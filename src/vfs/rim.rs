//! The line that no panic crosses.
//!
//! Invariant: every method that C can call runs its Rust inside [`guard`], except for code that
//! cannot panic. In an uncontended pass-through the compiler sees that a call through an
//! `extern "C"` pointer does not unwind and leaves nothing of the guard.

use crate::sqlite::Sqlite;
use crate::sqlite::abi::SQLITE_IOERR;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; if it panics, logs that and answers `on_panic`.
///
/// Nothing that `body` borrows is used after a panic but by SQLite, which is told of an error.
#[inline(always)]
pub fn guard<R>(sqlite: &Sqlite, method: &str, on_panic: R, body: impl FnOnce() -> R) -> R {
    let body = || {
        crate::inject::point(method);
        body()
    };
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(answer) => answer,
        Err(payload) => {
            report(sqlite, method, payload);
            on_panic
        }
    }
}

/// The same where there is no SQLite to tell.
pub fn quietly<R>(on_panic: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        std::mem::forget(payload);
        on_panic
    })
}

#[cold]
fn report(sqlite: &Sqlite, method: &str, payload: Box<dyn Any + Send>) {
    let reason = match (
        payload.downcast_ref::<&str>(),
        payload.downcast_ref::<String>(),
    ) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no message",
    };
    sqlite.log(
        SQLITE_IOERR,
        format_args!("turnstile: {method} panicked, please report this bug: {reason}"),
    );
    // Dropping a payload runs code that we do not know, outside of any guard.
    std::mem::forget(payload);
}
