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
//! How long? [`TRANSACTIONS`] of them, but no longer than the quantum. If they take microseconds, [`SHORT`] or, in a small
//! line, [`SHORT_TRANSACTIONS`]. The sweep that chose that, two
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
//! (To let *newcomers* try while the head is still waking up was measured, too, with 1,000 writers that
//! open the database for every write: up to 13% more throughput on tmpfs and none on disk, for Jain's index
//! .98 instead of .999 and two to four times the longest waits. It is not done.)
//!
//! A process that closes the database after each write and opens it anew at once *returns*: it keeps its turn from one
//! connection to the next, for the whole quantum, since what another process needs is in no cache: a turn's first five writes
//! cost as much as six. The sweep that chose the quantum (a WAL, no pause, throughput against stock's):
//!
//! | quantum | tmpfs: 2 writers | 8 | 64 | a disk: 2 | 8 | 64 |
//! |---|---|---|---|---|---|---|
//! | 3 ms | 1.15 | .94 | .79 | 1.09 | 1.08 | 1.20 |
//! | 6 ms | 1.14 | .94 | .86 | 1.09 | 1.10 | 1.28 |
//! | **10 ms** | 1.12 | .95 | .88 | 1.11 | 1.12 | 1.29 |
//! | 20 ms | 1.12 | .95 | .92 | 1.17 | 1.18 | 1.31 |
//!
//! In between the lock of a WAL is free. If that is most of the time, the next one joins it after [`JOINS`], and both
//! processors are busy; one that does not come back after all costs the others that. If the
//! lock is held for longer than it is free, as on a disk, nobody joins: they would only wait for each other. Nobody can join
//! the owner of a rollback journal, since who begins to read is in the way of who commits.
//!
//! If the only one who waits for a WAL were let in while the owner is away, it might have closed the database before the
//! owner is back: as the last one it would tear the WAL down, and for the next thousand pages the file grows, which on a
//! disk is slower than to write it again by half. So there the turn ends when its owner is back.
//!
//! | writers that return | tmpfs: 2 | 8 | 64 | 250 | a disk: 2 | 8 | 64 | 250 |
//! |---|---|---|---|---|---|---|---|---|
//! | the lock is handed over for each write | | .42 | .41 | .36 | | .97 | .99 | 1.37 |
//! | the ideal queue | .65 | .29 | .25 | .41 | .89 | .87 | .89 | 1.13 |
//! | a turn of 750 µs, which somebody always joins | 1.39 | .71 | .67 | .53 | | | | |
//! | like this | 1.15 | .97 | 1.02 | 1.35 | 1.10 | 1.13 | 1.22 | 1.28 |
//!
//! | a rollback journal | | | | | | | | |
//! |---|---|---|---|---|---|---|---|---|
//! | the lock is handed over for each write | .30 | .46 | .63 | .94 | .80 | .82 | .84 | .89 |
//! | the ideal queue | .55 | .54 | .77 | | .96 | .92 | .94 | |
//! | like this | .98 | 1.30 | 2.40 | 3.50 | 1.00 | .95 | 1.01 | .99 |
//!
//! Not in a [`CROWD`]: of 1,000 such processes each would wait for 1,000 quanta, many times as long as for 1,000 writes.
//! Where nobody can join, a crowd that waits outside (`admission`) hands over as fast.
//!
//! The owner keeps the quantum by itself and tells the head once in a turn, with the time at
//! which the turn ends; the head sleeps until then. If the owner is refused at the end, it tells
//! the head again: who is refused because its turn is over wakes the head.

use super::layout::{Line, Word};
use super::line::tell_head;
use super::machine::Machine;
use super::{admission, knock};

/// A connection that asks again so soon after its release is in a loop of writes.
pub const HOT: u64 = 50_000;

/// One that closes the database and opens it anew comes back so soon.
pub const AT_ONCE: u64 = 500_000;

/// Nobody can join the owner of a rollback journal. It keeps the lock while it is away for so long, or for as long as it
/// writes. (16 writers that open the database for each write and think 300 µs wrote 2,700 to 3,400 rows in half a second,
/// and 780 to 1,040 when they kept it for up to [`AT_ONCE`].)
const IDLE: u64 = 200_000;

/// Who asks again so soon, and has had nothing meanwhile, still wants the same.
const TRIES_AGAIN: u64 = 100_000_000;

/// Who has to begin a transaction anew in its turn does so within this.
const AGAIN: u64 = 1_000_000;

/// In a line of so many a turn is one transaction for those that return.
const CROWD: u32 = 400;

/// A turn is for so many transactions. To hand it over costs about as much as one that waits for a disk.
const TRANSACTIONS: u64 = 16;

/// The turns of a whole line take no longer, all together: somebody may wait with a timeout of 5 s.
const LINE: u64 = 1_000_000_000;

/// A turn of transactions of microseconds, at least.
const SHORT: u64 = 750_000;

/// The same in a small line, as long as all turns of the line together take no more than [`SHORT_LINE`]: so many
/// transactions. While guests are about (`knock`), who only get one of some turns, so many nanoseconds.
const SHORT_TRANSACTIONS: u64 = 500;
const SHORT_FOR_GUESTS: u64 = 2_000_000;
const SHORT_LINE: u64 = 48_000_000;

/// In a turn of one that returns the next one joins it after so long, or an eighth of a shorter turn.
const JOINS: u64 = 375_000;

/// What a guest's try (see `knock`) costs the others is taken off its turn, if that is a whole quantum; no more than three
/// quarters. Its first turn, when nothing is known of it, is a quarter. Of 32 writers that return with a rollback journal,
/// half of them guests that try each millisecond, the others got .99 to 1.16 of what they get alone, and the guests .56 to
/// .63 of a fair share; with 45 µs .98 to 1.1, and .66 to .74; with 30 µs .9 to .96, and .8 to .89.
const TRY: u64 = 60_000;

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

/// How long something usually takes, in nanoseconds: once in a while it takes much longer.
#[derive(Clone, Copy, Default, PartialEq, PartialOrd)]
struct Usual(u64);

impl Usual {
    fn learn(&mut self, last: u64) {
        self.0 = match self.0 {
            0 => last,
            usual => usual - usual / 4 + last / 4,
        };
    }
}

/// One connection's turn, in nanoseconds of [`Machine::now`]. It may be left to the next connection of the process.
#[derive(Clone, Copy, Default)]
pub struct Turn {
    /// When it ends; 0 if there is none.
    until: u64,
    /// From when on the next one may join it, if one can.
    shared: u64,
    /// From when on it ends if the next one is a guest's.
    yields: u64,
    /// When it ends if its owner, of whom nothing is known, comes back at once; else 0.
    rest: u64,
    /// From when on the head may try, if it was told of that; else 0.
    announced: u64,
    /// The last release while a line stood.
    released: u64,
    /// When the lock was asked for after that.
    asked: u64,
    /// How long a transaction takes from there.
    took: Usual,
    /// How long one that returns is away.
    away: Usual,
    pace: Pace,
    /// It was another connection's before.
    inherited: bool,
    /// Of the last release.
    is_wal: bool,
}

impl Turn {
    /// The lock was taken, out of the line or while one stands. Before that, so many `tries` were in vain.
    pub fn begin(&mut self, m: &impl Machine, quantum: u64, tries: u32) {
        self.asked = m.now();
        // Others show in a first turn of one transaction that they come back. A guest would wait for the whole line, and for
        // as many guests, until that is of use.
        let is_unknown = tries > 0 && self.released == 0 && !self.is_crowded(m);
        if is_unknown {
            self.pace = Pace::Returns;
        }
        let length = self.length(m, quantum);
        let spent = match self.pace {
            Pace::Returns => u64::from(tries) * TRY,
            _ => 0,
        };
        let length = match is_unknown {
            true => length / 4,
            false => length.saturating_sub(spent).max(length / 4),
        };
        self.last(self.asked, length);
        self.rest = if is_unknown { self.until } else { 0 };
        self.announce_no_more(m);
    }

    fn last(&mut self, from: u64, length: u64) {
        self.until = from + length;
        self.shared = from + JOINS.min(length / 8);
        self.yields = match length > knock::MOMENT {
            true => self.until - length / 4,
            false => self.until,
        };
    }

    /// The lock was given back, and is wanted again at once: nobody is to pass meanwhile.
    pub fn keep(&mut self, m: &impl Machine) {
        self.announce(m, m.now() + AGAIN);
        // Should we not come back, its clock wakes it.
        tell_head(m);
    }

    /// The head may try from then on.
    fn announce(&mut self, m: &impl Machine, from: u64) {
        self.announced = from;
        m.store(Word::TurnUntil, from);
    }

    /// The checkpoint is over. It does not count as being away.
    pub fn resume(&mut self, m: &impl Machine) {
        crate::inject::kill_point("resuming");
        if self.released != 0 {
            self.released = m.now();
        }
        m.store(Word::Pause, 0);
        tell_head(m);
    }

    fn announce_no_more(&mut self, m: &impl Machine) {
        let announced = std::mem::take(&mut self.announced);
        if announced != 0 {
            m.replace(Word::TurnUntil, announced, 0);
        }
    }

    /// The next transaction begins. With a rollback journal it may have tried before, and met a commit on the way.
    pub fn judge(&mut self, m: &impl Machine) -> Pace {
        let before = std::mem::replace(&mut self.asked, m.now());
        // With a WAL nobody meets a commit before the lock itself is refused, and `may_barge` is told that.
        if !self.is_wal && before > self.released && self.asked < before + TRIES_AGAIN {
            return self.pace;
        }
        let away = self.asked.saturating_sub(self.released);
        let returns = self.inherited && away < AT_ONCE;
        if returns {
            self.away.learn(away);
        }
        self.pace = match self.inherited {
            true if returns && !self.lies_idle() && !self.is_crowded(m) => Pace::Returns,
            false if away < HOT => Pace::Stays,
            _ => Pace::Leaves,
        };
        let rest = std::mem::take(&mut self.rest);
        if rest != 0 && self.pace != Pace::Leaves && self.asked < self.until {
            self.until = rest;
            self.announce_no_more(m);
        }
        self.pace
    }

    /// Whether to keep the lock of a rollback journal while the owner is away costs more than to hand it over.
    fn lies_idle(&self) -> bool {
        !self.is_wal && self.away.0 > IDLE.max(self.took.0)
    }

    fn is_crowded(&self, m: &impl Machine) -> bool {
        waiting(m)
            >= match self.can_share() {
                true => CROWD,
                false => admission::CROWD,
            }
    }

    /// Whether the lock is free for longer than we hold it.
    fn can_share(&self) -> bool {
        self.took < self.away
    }

    /// How long it is to be.
    fn length(&self, m: &impl Machine, quantum: u64) -> u64 {
        let others = u64::from(waiting(m).max(1));
        let quantum = quantum.min(LINE / others);
        let turn_of = |transactions| self.took.0.saturating_mul(transactions);
        let short = match knock::are_guests_about(m) {
            true => SHORT_FOR_GUESTS,
            false => turn_of(SHORT_TRANSACTIONS),
        };
        match self.pace {
            Pace::Returns => quantum,
            _ => turn_of(TRANSACTIONS)
                .max(short.min(SHORT_LINE / others))
                .max(SHORT)
                .min(quantum),
        }
    }

    /// Whether no turn lasts but this one.
    pub fn is_free(&self, m: &impl Machine) -> bool {
        let until = busy_until(m, m.now());
        until == 0 || until == self.announced
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self, m: &impl Machine) -> bool {
        m.now() >= self.until
    }

    /// The lock is wanted while a line stands, for the first time or `again`: may we pass the line?
    pub fn may_barge(&mut self, m: &impl Machine, again: bool) -> bool {
        match again {
            true => self.asked = m.now(),
            false => _ = self.judge(m),
        }
        if self.asked < self.until && m.load(Word::Pause) == 0 {
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
        if self.asked > self.released {
            self.took.learn(now.saturating_sub(self.asked));
        }
        self.released = now;
        self.is_wal = is_wal;
        if self.until == 0 {
            // The line formed during this transaction.
            self.last(now, self.length(m, quantum));
        }
        if self.rest != 0 {
            self.until = self.until.min(now + AT_ONCE);
        }
        let returns = is_wal && self.pace == Pace::Returns;
        let joins = returns && self.can_share();
        let lingers = returns && !joins && waiting(m) == 1;
        let next = match self.until {
            _ if joins => self.shared,
            // Should we not come back, its clock wakes it.
            until if lingers => until.max(now) + AT_ONCE,
            until => until,
        };
        let is_over = now >= self.until;
        // Where the next one joins it, that one may be a guest.
        let yields = !joins && now >= self.yields && knock::is_next(m);
        if self.pace == Pace::Leaves || yields || is_over && !lingers {
            return self.end(m);
        }
        let is_news = self.announced == 0;
        if is_news || is_over {
            self.announce(m, next.max(now));
            crate::inject::kill_point("announced");
        }
        if is_news || is_wanted(m) {
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

    /// The owner comes late: nothing is left of it but its announcement, which ends when the lock is wanted, and not by the
    /// head's clock.
    pub fn lapse(self) -> Turn {
        Turn {
            until: self.until.min(1),
            announced: self.announced,
            ..Turn::default()
        }
    }

    /// The connection is closed. What is left of its turn is for the next one of this process.
    pub fn leave(mut self, m: &impl Machine) -> Option<Turn> {
        if self.pace != Pace::Returns || m.now() >= self.until.max(self.announced) {
            self.end(m);
        }
        self.inherited = true;
        (self.released != 0).then_some(self)
    }
}

#[cfg(test)]
mod tests;
