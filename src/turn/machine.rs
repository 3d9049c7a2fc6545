//! What the line needs of a machine. The library has one made of a mapped file and futexes
//! (`mapped`); the tests have one with virtual time, whose steps a seed decides.

use super::layout::Word;

/// Shared words, a clock, and a way to sleep and to wake.
pub trait Machine {
    /// All accesses are sequentially consistent: who counts himself in and then looks for the
    /// lock must be seen by who frees the lock and then looks for the line.
    fn load(&self, word: Word) -> u64;
    fn store(&self, word: Word, value: u64);
    /// Whether `word` held `old` and holds `new` now.
    fn replace(&self, word: Word, old: u64, new: u64) -> bool;
    fn add(&self, word: Word, value: u64) -> u64;

    /// Nanoseconds of a clock that all waiters share and that never goes back.
    fn now(&self) -> u64;
    /// Sleeps until `until`, a wake, or for no reason; not at all unless the lower half of `word` is
    /// that of `expected`. Says whether a signal has ended it.
    fn park(&self, word: Word, expected: u64, until: u64) -> bool;
    /// Wakes up to `most` of those who sleep on `word`, and says how many there were.
    fn wake(&self, word: Word, most: u32) -> u32;
    /// Whether the member's process lives. If that cannot be told, it does.
    fn is_alive(&self, member: u32) -> bool;
    /// A number that differs from waiter to waiter.
    fn random(&self) -> u32;
}
