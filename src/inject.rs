//! Named points where a test can make the library panic. Built only with the feature `inject`.
//!
//! A point is armed for the whole process, by [`arm`] or by the environment variable
//! `TURNSTILE_INJECT_PANIC` at registration, and stays armed until it is disarmed.

use parking_lot::RwLock;

static ARMED: RwLock<Option<String>> = RwLock::new(None);

/// Makes the point `name` panic from now on; `None` disarms.
pub fn arm(name: Option<&str>) {
    *ARMED.write() = name.map(str::to_owned);
}

/// Arms what the environment names, for a test that has no other way in.
pub(crate) fn arm_from_environment() {
    if let Ok(name) = std::env::var("TURNSTILE_INJECT_PANIC") {
        arm(Some(&name));
    }
}

/// Panics if this point is armed.
pub(crate) fn point(name: &str) {
    if ARMED.read().as_deref() == Some(name) {
        panic!("injected into {name}");
    }
}
