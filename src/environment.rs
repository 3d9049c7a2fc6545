//! The environment's variables of ours, in one pass.
//!
//! Programs that open a database for every write pay for this at every write: nine calls of
//! `getenv` were most of what an open through turnstile cost more than one through `unix`.

use crate::text::utf8;
use std::ffi::{CStr, c_char};

const PREFIX: &[u8] = b"TURNSTILE_";

/// Calls `each` with every variable `TURNSTILE_<name>` and its value, until it fails.
pub fn each_variable<E>(mut each: impl FnMut(&str, &str) -> Result<(), E>) -> Result<(), E> {
    // SAFETY: environ is libc's, a list that ends in NULL (or NULL itself, after clearenv) of
    // terminated strings. A thread that changes the environment meanwhile would be at fault, as it
    // is with getenv, which SQLite itself calls.
    unsafe {
        let mut next = libc::environ.cast_const().cast::<*const c_char>();
        while !next.is_null() && !(*next).is_null() {
            if let Some((name, value)) = ours(*next) {
                each(name, value)?;
            }
            next = next.add(1);
        }
    }
    Ok(())
}

/// The name behind the prefix, and the value, if the variable is ours.
///
/// # Safety
/// `variable` is terminated, and lives as long as the answer is used.
#[inline]
unsafe fn ours<'a>(variable: *const c_char) -> Option<(&'a str, &'a str)> {
    // SAFETY: nothing is read beyond the first byte that differs, so nothing beyond the terminator.
    let rest = unsafe {
        for (at, &byte) in PREFIX.iter().enumerate() {
            if *variable.add(at) as u8 != byte {
                return None;
            }
        }
        CStr::from_ptr(variable.add(PREFIX.len())).to_bytes()
    };
    let equals = rest.iter().position(|&byte| byte == b'=')?;
    Some((utf8(&rest[..equals]), utf8(&rest[equals + 1..])))
}
