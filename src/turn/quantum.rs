//! Bounded barging: how long one turn may serve the same connection again.
//!
//! To hand over every transaction strictly is a lock convoy when a transaction is much shorter than
//! a wake-up (6 µs against 50): stock SQLite's speed then falls to a sixth. To never hand over is the
//! starvation that we came to end. So a turn lasts up to a *quantum*, as parking_lot's eventual fairness has it.
//!
//! Only a connection that comes back at once gets one: it is *hot* if its last request came
//! within [`HOT`] of the release before it. For one that thinks between two writes, keeping the turn would only let the
//! lock lie idle.
//!
//! How long? [`TRANSACTIONS`] of them, but at least a quarter of the quantum. The sweep that chose the quarter, two
//! processors, transactions of 4 to 6 µs on tmpfs without sync, the connection kept open, no pause
//! (`cargo bench --bench queue -- --convoy`): throughput against stock's, Jain's index, and the longest wait. Stock's own
//! Jain is .45 to .99 there, and its longest wait 0.5 to 2 s.
//!
//! | a turn | 2 writers | 8 | 64 |
//! |---|---|---|---|
//! | 0 | .17, 1.000, 5 ms | .12, 1.000, 3 ms | .12, 1.000, 11 ms |
//! | 100 µs | .53, 1.000, 4 ms | .62, 1.000, 5 ms | .70, .999, 15 ms |
//! | 250 µs | .83, 1.000, 4 ms | .80, 1.000, 6 ms | .79, .997, 21 ms |
//! | 500 µs | .79, 1.000, 5 ms | .85, 1.000, 5 ms | .86, .996, 36 ms |
//! | **750 µs** | .90, 1.000, 4 ms | .83, .999, 13 ms | .94, .995, 49 ms |
//! | 1 ms | .87, 1.000, 4 ms | .92, 1.000, 8 ms | .96, .989, 60 ms |
//! | 2 ms | .91, 1.000, 4 ms | .91, .998, 16 ms | 1.00, .980, 156 ms |
//!
//! With transactions of 150 µs, on a disk, a turn of 750 µs gave .92, .87 and .93 of stock's throughput with 8, 64 and 250
//! writers, and one of 2.4 ms 1.03, .90 and .98.
//!
//! (To let *newcomers* try while the head is still waking up was measured, too, with 1,000 writers that
//! open the database for every write: up to 13% more throughput on tmpfs and none on disk, for Jain's index
//! .98 instead of .999 and two to four times the longest waits. It is not done.)
//!
//! A process that closes the database after each write and opens it anew at once *returns*: it keeps its turn from one
//! connection to the next, for the whole quantum, since what another process needs is in no cache: its first write costs as
//! much as three. In between the lock of a WAL is free. If that is most of the time, the next one joins it after an eighth of
//! the quantum, and both processors are busy; one that does not come back after all costs the others that eighth. If the
//! lock is held for longer than it is free, as on a disk, nobody joins: they would only wait for each other. Nobody can join
//! the owner of a rollback journal, since who begins to read is in the way of who commits: it keeps its turn only if a
//! transaction takes no more than twice as long as to come back.
//!
//! Throughput against stock's:
//!
//! | writers that return | tmpfs: 2 | 8 | 64 | 250 | a disk: 2 | 8 | 64 | 250 |
//! |---|---|---|---|---|---|---|---|---|
//! | the lock is handed over for each write | | .42 | .41 | .36 | | .76 | .84 | 1.15 |
//! | the ideal queue | .65 | .29 | .25 | .41 | .85 | .87 | .89 | 1.13 |
//! | a turn of 750 µs, which somebody always joins | 1.39 | .71 | .67 | .53 | .83 | .78 | .83 | 1.10 |
//! | like this | 1.33 | .89 | .75 | 1.03 | .74 | .88 | .93 | 1.15 |
//!
//! | a rollback journal | | | | | | | | |
//! |---|---|---|---|---|---|---|---|---|
//! | the lock is handed over for each write | .30 | .46 | .63 | .94 | .80 | .82 | .84 | .89 |
//! | like this | .79 | 1.15 | 1.79 | 2.65 | .88 | .83 | .85 | .92 |
//!
//! What is missing in a WAL with 8 and 64: a processor idles for a quarter of the time while those who were woken stand in
//! the queue of the other one, where they were woken: Linux looks for an idle processor only if the load is low
//! (`select_idle_cpu`), and with two processors that is a fifth. With 2 on a disk: nobody waits attached, so the WAL is torn
//! down and begun anew again and again, and to make a file longer is slower than to write it again. What is missing in a
//! rollback journal on a disk is the way from one to the next, which the ideal queue has, too (.93 to 1.05).
//!
//! Not in a [`CROWD`]: of 1,000 such processes each would wait for 1,000 quanta, many times as long as for 1,000 writes.
//! Where nobody can join, a crowd that waits outside (`admission`) hands over as fast.
//!
//! The owner keeps the quantum by itself and tells the head once in a turn, with the time at
//! which the turn ends; the head sleeps until then. If the owner is refused at the end, it tells
//! the head again: who is refused because its turn is over wakes the head.

use super::admission;
use super::layout::{Line, Word};
use super::line::tell_head;
use super::machine::Machine;

/// A connection that asks again so soon after its release is in a loop of writes.
pub const HOT: u64 = 50_000;

/// One that closes the database and opens it anew comes back so soon.
pub const AT_ONCE: u64 = 500_000;

/// Who has to begin a transaction anew in its turn does so within this.
const AGAIN: u64 = 1_000_000;

/// In a line of so many a turn is one transaction for those that return.
const CROWD: u32 = 400;

/// A turn is for so many transactions. To hand it over costs about as much as one that waits for a disk.
const TRANSACTIONS: u64 = 16;

/// What a guest's try (see `knock`) costs the others is taken off its turn, if that is a whole quantum. Of 32 writers that
/// return with a rollback journal, half of them guests that try each millisecond, the others got .98 to 1.1 of what they
/// get alone, and the guests .48 to .57 of a fair share; with 75 µs 1.13 to 1.29, and .29 to .35.
const TRY: u64 = 30_000;

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

/// Until when the head is to wait, whoever has told it to try: a turn that lasts, or a checkpoint. 0: not at all.
pub fn busy_until(m: &impl Machine, now: u64) -> u64 {
    // Within bounds: the words may be garbage, or of a clock that runs ahead.
    let bounded = |word, longest| Some(m.load(word)).filter(|&at| at < now + longest);
    let turn = bounded(Word::TurnUntil, LONGEST);
    let pause = bounded(Word::Pause, LONGEST_PAUSE);
    turn.max(pause).filter(|&at| at > now).unwrap_or(0)
}

/// The checkpoint is over.
pub fn resume(m: &impl Machine) {
    crate::inject::kill_point("resuming");
    m.store(Word::Pause, 0);
    tell_head(m);
}

fn wish(ticket: u32) -> u64 {
    1 << 63 | u64::from(ticket)
}

/// Said before a try: if it is refused, the next release is told of, even one that would have been silent.
pub fn want(m: &impl Machine, ticket: u32) {
    m.store(Word::Wanted, wish(ticket));
}

/// The try has succeeded.
pub fn want_no_more(m: &impl Machine, ticket: u32) {
    m.replace(Word::Wanted, wish(ticket), 0);
}

fn is_wanted(m: &impl Machine) -> bool {
    let wanted = m.load(Word::Wanted);
    wanted != 0 && m.replace(Word::Wanted, wanted, 0)
}

fn waiting(m: &impl Machine) -> u32 {
    Line::from(m.load(Word::Line)).len()
}

/// What the owner of a turn does after a transaction, judged by the last time.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Pace {
    /// It goes away, or thinks.
    #[default]
    Leaves,
    /// It begins the next one at once.
    Stays,
    /// It closes the database and opens it anew at once.
    Returns,
}

/// One connection's turn, in nanoseconds of [`Machine::now`]. It may be left to the next connection of the process.
#[derive(Clone, Copy, Default)]
pub struct Turn {
    /// When it ends; 0 if there is none.
    until: u64,
    /// From when on the head may try, if it was told of that; else 0.
    announced: u64,
    /// The last release while a line stood.
    released: u64,
    /// When the lock was asked for after that, and how much later that was.
    asked: u64,
    away: u64,
    /// How long the last transaction took from there.
    took: u64,
    pace: Pace,
    /// It was another connection's before.
    inherited: bool,
}

impl Turn {
    /// The lock was taken, out of the line or while one stands. Before that, so many `tries` were in vain.
    pub fn begin(&mut self, m: &impl Machine, quantum: u64, tries: u32) {
        self.asked = m.now();
        let length = self.length(m, quantum);
        let spent = match self.pace {
            Pace::Returns => u64::from(tries) * TRY,
            _ => 0,
        };
        self.until = self.asked + length.saturating_sub(spent).max(length / 4);
        self.announce_no_more(m);
    }

    /// The lock was given back, and is wanted again at once: nobody is to pass meanwhile.
    pub fn keep(&mut self, m: &impl Machine) {
        self.announced = m.now() + AGAIN;
        m.store(Word::TurnUntil, self.announced);
        // Should we not come back, its clock wakes it.
        tell_head(m);
    }

    fn announce_no_more(&mut self, m: &impl Machine) {
        let announced = std::mem::take(&mut self.announced);
        if announced != 0 {
            m.replace(Word::TurnUntil, announced, 0);
        }
    }

    /// The next transaction begins, for the first time.
    pub fn judge(&mut self, m: &impl Machine) -> Pace {
        self.asked = m.now();
        self.away = self.asked.saturating_sub(self.released);
        self.pace = match self.inherited {
            true if self.away < AT_ONCE && !self.is_crowded(m) => Pace::Returns,
            false if self.away < HOT => Pace::Stays,
            _ => Pace::Leaves,
        };
        self.pace
    }

    fn is_crowded(&self, m: &impl Machine) -> bool {
        waiting(m)
            >= match self.can_share() {
                true => CROWD,
                false => admission::CROWD,
            }
    }

    /// Whether the lock is free for longer than we hold it, judged by the last transaction.
    fn can_share(&self) -> bool {
        self.took < self.away
    }

    /// How long it is to be.
    fn length(&self, m: &impl Machine, quantum: u64) -> u64 {
        match self.pace {
            Pace::Returns => quantum,
            _ if waiting(m) >= CROWD => quantum / 4,
            _ => self
                .took
                .saturating_mul(TRANSACTIONS)
                .clamp(quantum / 4, quantum),
        }
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self, m: &impl Machine) -> bool {
        m.now() >= self.until
    }

    /// The lock is wanted while a line stands, for the first time or `again`: may we pass the line?
    pub fn may_barge(&mut self, m: &impl Machine, again: bool) -> bool {
        if !again {
            self.judge(m);
        }
        if m.now() < self.until && m.load(Word::Pause) == 0 {
            m.add(Word::Overtakes, 1);
            return true;
        }
        self.end(m);
        // We may never come to wait, and all who stand there may be dead.
        super::watch::look_in(m);
        false
    }

    /// Whether somebody has joined us, and we may still pass the line: whoever has the lock will be done in a moment.
    pub fn lasts(&self, m: &impl Machine) -> bool {
        self.pace == Pace::Returns && m.now() < self.until
    }

    /// The lock was released while a line stands.
    pub fn released(&mut self, m: &impl Machine, quantum: u64, is_wal: bool) {
        crate::inject::kill_point("releasing");
        let now = m.now();
        // By the one before: the first of a turn takes longer, since what it needs is in the other's cache.
        let can_share = self.can_share();
        if self.asked > self.released {
            self.took = now.saturating_sub(self.asked);
        }
        self.released = now;
        if self.until == 0 {
            // The line formed during this transaction.
            self.until = now + self.length(m, quantum);
        }
        if self.pace == Pace::Returns && !is_wal && self.took / 2 > self.away {
            self.pace = Pace::Leaves;
        }
        let joins = match self.pace {
            Pace::Returns if can_share && is_wal => self.until.saturating_sub(quantum / 8 * 7),
            _ => self.until,
        };
        if self.pace == Pace::Leaves || now >= self.until {
            self.end(m);
        } else if self.announced == 0 {
            self.announced = joins.max(now);
            m.store(Word::TurnUntil, self.announced);
            crate::inject::kill_point("announced");
            tell_head(m);
        } else if is_wanted(m) {
            tell_head(m);
        }
    }

    /// No more of this turn: the connection is refused, or closed.
    pub fn end(&mut self, m: &impl Machine) {
        if self.until == 0 {
            return;
        }
        self.until = 0;
        let announced = self.announced;
        let has_joined = self.pace == Pace::Returns && announced != 0 && m.now() >= announced;
        self.announce_no_more(m);
        // One who has joined us tells the next head; it takes two to keep two processors busy.
        if !has_joined || is_wanted(m) {
            tell_head(m);
        }
    }

    /// The connection is closed. What is left of its turn is for the next one of this process.
    pub fn leave(mut self, m: &impl Machine) -> Option<Turn> {
        if self.pace != Pace::Returns || m.now() >= self.until {
            self.end(m);
        }
        self.inherited = true;
        (self.released != 0).then_some(self)
    }
}
