//! A word on which some wait for others to be done: readers for the end of a commit (the gate), a
//! writer for the last reader to leave (the drain).
//!
//! Invariant: whoever has [`arm`]ed the word and then found the lock taken is woken by the release
//! of that lock, if the releaser looks here. If it does not (it uses the stock VFS, or it
//! only reads and never had to wait), the sleeper's own clock wakes it.

use super::layout::Word;
use super::machine::Machine;

/// Somebody waits. The lower half of the word is the futex: a generation.
const ARMED: u64 = 1 << 63;

/// Asks to be woken; try the lock once more before you [`wait`].
pub fn arm(m: &impl Machine, word: Word) -> u64 {
    loop {
        let now = m.load(word);
        if now & ARMED != 0 || m.replace(word, now, now | ARMED) {
            crate::inject::kill_point("arming");
            return now | ARMED;
        }
    }
}

/// Sleeps until the word is rung after it was `armed`, or until `until`.
pub fn wait(m: &impl Machine, word: Word, armed: u64, until: u64) {
    m.park(word, armed, until);
}

/// Wakes all who wait.
pub fn ring(m: &impl Machine, word: Word) {
    let now = m.load(word);
    if now & ARMED != 0 {
        let next = u64::from((now as u32).wrapping_add(1));
        if m.replace(word, now, next) {
            crate::inject::kill_point("ringing");
            m.wake(word, i32::MAX as u32);
        }
    }
}
