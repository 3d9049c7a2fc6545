//! Bounded barging: how long one turn may serve the same connection again.
//!
//! To hand over every transaction strictly is a lock convoy when a transaction is much shorter than
//! a wake-up (6 µs against 50): stock SQLite's speed then falls to a sixth. To never hand over is the
//! starvation that we came to end. So a turn lasts a *quantum*, as parking_lot's eventual fairness has it.
//!
//! Only a connection that comes back at once gets one: it is *hot* if its last request came
//! within [`HOT`] of the release before it. For one that opens the database for every write, or that thinks
//! between two writes, keeping the turn would only let the lock lie idle.
//!
//! How long? The sweep that chose 750 µs, two processors, transactions of 4 to 6 µs on tmpfs without sync, the
//! connection kept open, no pause (`cargo bench --bench queue -- --convoy`): throughput against stock's, Jain's
//! index, and the longest wait. Stock's own Jain is .45 to .99 there, and its longest wait 0.5 to 2 s.
//!
//! | quantum | 2 writers | 8 | 64 |
//! |---|---|---|---|
//! | 0 | .17, 1.000, 5 ms | .12, 1.000, 3 ms | .12, 1.000, 11 ms |
//! | 100 µs | .53, 1.000, 4 ms | .62, 1.000, 5 ms | .70, .999, 15 ms |
//! | 250 µs | .83, 1.000, 4 ms | .80, 1.000, 6 ms | .79, .997, 21 ms |
//! | 500 µs | .79, 1.000, 5 ms | .85, 1.000, 5 ms | .86, .996, 36 ms |
//! | **750 µs** | .90, 1.000, 4 ms | .83, .999, 13 ms | .94, .995, 49 ms |
//! | 1 ms | .87, 1.000, 4 ms | .92, 1.000, 8 ms | .96, .989, 60 ms |
//! | 2 ms | .91, 1.000, 4 ms | .91, .998, 16 ms | 1.00, .980, 156 ms |
//!
//! (To let *newcomers* try while the head is still waking up was measured, too, with 1,000 writers that
//! open the database for every write: up to 13% more throughput on tmpfs and none on disk, for Jain's index
//! .98 instead of .999 and two to four times the longest waits. It is not done.)
//!
//! The owner keeps the quantum by itself and tells the head once in a turn, with the time at
//! which the turn ends; the head sleeps until then. If the owner is refused at the end, it tells
//! the head again: who is refused because its turn is over wakes the head.

use super::layout::Word;
use super::line::tell_head;
use super::machine::Machine;

/// A connection that asks again so soon after its release is in a loop of writes.
pub const HOT: u64 = 50_000;

/// No turn is longer, whatever a word in the sidecar says: the most that `quantum_us` allows.
pub const LONGEST: u64 = 1_000_000_000;

/// A checkpoint that takes longer than this no longer keeps the head from trying.
pub const LONGEST_PAUSE: u64 = 100_000_000;

/// A checkpoint begins while a line stands: the head is to wait for its end.
///
/// A checkpoint that writers overtake never reaches the end of the WAL, so the WAL is never begun anew: it grows,
/// and from then on *every* commit is followed by a checkpoint (`sqlite3WalDefaultHook`).
pub fn pause(m: &impl Machine) {
    m.store(Word::Pause, m.now() + LONGEST_PAUSE - 1);
    crate::inject::kill_point("pausing");
}

/// The checkpoint is over.
pub fn resume(m: &impl Machine) {
    crate::inject::kill_point("resuming");
    m.store(Word::Pause, 0);
    tell_head(m);
}

/// One connection's turn, in nanoseconds of [`Machine::now`].
#[derive(Default)]
pub struct Turn {
    /// When it ends; 0 if there is none.
    until: u64,
    /// Whether the head was told of it.
    announced: bool,
    /// The last release while a line stood.
    released: u64,
    hot: bool,
}

impl Turn {
    /// The lock was taken, out of the line or while one stands.
    pub fn begin(&mut self, m: &impl Machine, quantum: u64) {
        self.until = m.now() + quantum;
        self.announced = false;
    }

    /// The lock is wanted while a line stands, for the first time or `again`: may we pass the line?
    pub fn may_barge(&mut self, m: &impl Machine, again: bool) -> bool {
        let now = m.now();
        if !again {
            self.hot = now.saturating_sub(self.released) < HOT;
        }
        if now < self.until {
            m.add(Word::Overtakes, 1);
            return true;
        }
        self.end(m);
        // We may never come to wait, and all who stand there may be dead.
        super::watch::look_in(m);
        false
    }

    /// The lock was released while a line stands.
    pub fn released(&mut self, m: &impl Machine, quantum: u64) {
        crate::inject::kill_point("releasing");
        let now = m.now();
        self.released = now;
        if self.until == 0 {
            // The line formed during this transaction.
            self.until = now + quantum;
        }
        if !self.hot || now >= self.until {
            self.until = 0;
            self.close(m);
            tell_head(m);
        } else if !self.announced {
            self.announced = true;
            m.store(Word::TurnUntil, self.until);
            crate::inject::kill_point("announced");
            tell_head(m);
        }
    }

    /// No more of this turn: the connection is refused, or closed.
    pub fn end(&mut self, m: &impl Machine) {
        if self.until != 0 {
            self.until = 0;
            self.close(m);
            tell_head(m);
        }
    }

    fn close(&mut self, m: &impl Machine) {
        if self.announced {
            self.announced = false;
            m.store(Word::TurnUntil, 0);
        }
    }
}
