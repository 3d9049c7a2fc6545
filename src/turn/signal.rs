//! A word on which some wait for others to be done: readers for the end of a commit (the gate), a
//! writer for the last reader to leave (the drain).
//!
//! Invariant: whoever has [`arm`]ed the word and then found the lock taken is woken by the release
//! of that lock, if the releaser looks here. If it does not (it uses the stock VFS, or it
//! only reads and never had to wait), the sleeper's own clock wakes it.
//!
//! At the gate nobody is let in: who was woken asks for SHARED, and the next writer for PENDING. On a machine that has other
//! things to do, one that is woken by each commit may find the next one under way each time; and if there are hundreds of
//! them, each commit lasts as long as it takes all of them to find that out. (1,000 processes that begin to write to a
//! rollback journal on a disk at the same moment, all on one processor: 2 to 13 writes in a second, and one waited for 41 s.
//! The ideal queue writes 740, and is 1.5 s long.) So in a herd one that [`starves`] takes a place in the line.
//! Whoever is in the line is told when nobody else commits: then 420 to 680, and 1.5 to 2.6 s.
//!
//! Whoever comes to read waits for the whole line there, and the line for it. So a herd is what costs each commit much
//! ([`HERD`]), or is not much shorter than the line ([`SHARE`]); and one that is known to read stays at the gate
//! (`wait::waiter::outside`). With `SHARE` (without it), 32 writers on one processor write 700 to 800 rows in a second (430 to
//! 750), kept open 740 to 900 (570 to 670). If all who read took places, two writers among 40 readers who pause for 10 ms wrote
//! 387 instead of 1,130.

use super::layout::{Line, Word};
use super::machine::Machine;

/// Somebody waits. The lower half of the word is the futex: a generation.
const ARMED: u64 = 1 << 63;

/// So many are a herd.
const HERD: u32 = 32;

/// So are those who are this part of the line.
const SHARE: u64 = 3;

/// To be woken so often in vain is too often.
const RINGS: u32 = 2;

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

/// Wakes all who wait. Says how many there were.
pub fn ring(m: &impl Machine, word: Word) -> u32 {
    let now = m.load(word);
    if now & ARMED != 0 {
        let next = u64::from((now as u32).wrapping_add(1));
        if m.replace(word, now, next) {
            crate::inject::kill_point("ringing");
            return m.wake(word, i32::MAX as u32);
        }
    }
    0
}

/// Wakes all who wait for the end of a commit.
pub fn open_gate(m: &impl Machine) {
    let herd = ring(m, Word::Gate);
    if herd > 0 {
        m.store(Word::Herd, herd.into());
    }
}

/// Whether one that found the gate `met` when it came has been woken in vain too often, as one of too many. (A connection
/// that is closed rings, too.)
pub fn starves(m: &impl Machine, met: u64) -> bool {
    let rings = (m.load(Word::Gate) as u32).wrapping_sub(met as u32);
    let line = Line::from(m.load(Word::Line)).len();
    let woken = m.load(Word::Herd);
    let is_herd =
        woken >= crate::inject::herd(HERD).into() || woken.saturating_mul(SHARE) >= line.into();
    rings >= RINGS && is_herd
}
