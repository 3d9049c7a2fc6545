//! Named points where a test can make the library panic, or kill the process. They do something only
//! with the feature `inject`.
//!
//! A point that panics is armed for the whole process, by [`arm`] or by the environment variable
//! `TURNSTILE_INJECT_PANIC` at registration, and stays armed until it is disarmed. A point that kills
//! is named by `TURNSTILE_INJECT_KILL`; `stop a, stop b` names points that stop the process, once each, in this order.

#[cfg(feature = "inject")]
use parking_lot::RwLock;

#[cfg(feature = "inject")]
static ARMED: RwLock<Option<String>> = RwLock::new(None);
#[cfg(feature = "inject")]
static DEADLY: RwLock<Option<String>> = RwLock::new(None);

/// Makes the point `name` panic from now on; `None` disarms.
#[cfg(feature = "inject")]
pub fn arm(name: Option<&str>) {
    *ARMED.write() = name.map(str::to_owned);
}

/// Makes the point `name` of the queue kill the process with SIGKILL, or `stop name` stop it there with SIGSTOP; `None`
/// disarms.
#[cfg(feature = "inject")]
pub fn arm_kill(name: Option<&str>) {
    *DEADLY.write() = name.map(str::to_owned);
}

/// Arms what the environment names, for a test that has no other way in.
#[cfg(feature = "inject")]
pub(crate) fn arm_from_environment() {
    if let Ok(name) = std::env::var("TURNSTILE_INJECT_PANIC") {
        arm(Some(&name));
    }
    if let Ok(name) = std::env::var("TURNSTILE_INJECT_KILL") {
        arm_kill(Some(&name));
    }
}

/// Panics if this point is armed.
#[inline(always)]
pub(crate) fn point(_name: &str) {
    #[cfg(feature = "inject")]
    if ARMED.read().as_deref() == Some(_name) {
        panic!("injected into {_name}");
    }
}

/// Dies or stops if this point is armed.
#[inline(always)]
pub(crate) fn kill_point(_name: &str) {
    #[cfg(feature = "inject")]
    {
        let Some(armed) = DEADLY.read().clone() else {
            return;
        };
        let (next, then) = armed.split_once(", ").unwrap_or((&armed, ""));
        let signal = match next.strip_prefix("stop ") {
            Some(point) if point == _name => libc::SIGSTOP,
            None if next == _name => libc::SIGKILL,
            _ => return,
        };
        arm_kill(Some(then));
        // To this very thread: another one would let us go on for a few instructions.
        // SAFETY: no memory is involved.
        unsafe { libc::raise(signal) };
    }
}

/// How many are a crowd.
#[inline(always)]
pub(crate) fn crowd(many: u32) -> u32 {
    few("TURNSTILE_INJECT_CROWD", many)
}

/// How many are a herd.
#[inline(always)]
pub(crate) fn herd(many: u32) -> u32 {
    few("TURNSTILE_INJECT_HERD", many)
}

#[inline(always)]
fn few(_variable: &str, many: u32) -> u32 {
    #[cfg(feature = "inject")]
    if let Ok(few) = std::env::var(_variable) {
        return few.parse().unwrap_or(many);
    }
    many
}

/// Whether a test wants to see what happens without the fence.
#[inline(always)]
pub(crate) fn no_fence() -> bool {
    #[cfg(feature = "inject")]
    return std::env::var_os("TURNSTILE_INJECT_NO_FENCE").is_some();
    #[cfg(not(feature = "inject"))]
    false
}
