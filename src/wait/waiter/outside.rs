//! Waiting before the database is attached; see `turn::admission`.
//!
//! With a rollback journal all wait here, and however short the line is: nothing is torn down if nobody is attached, and
//! whoever reads the schema is in the way of the one who commits. So does one that starves at the gate (`turn::signal`) and may
//! not have read the schema yet: in the line, that read would be the end of its turn.
//!
//! Invariant: what is expected of a connection decides when its first lock is asked for, never whether. Its timeout is
//! that of one statement, whether that waits outside, attached, or both.

use super::Waiter;
use super::sleep::{AT_ONCE, look_every};
use crate::turn::admission;
use crate::turn::line::{self, Outcome};
use crate::turn::machine::Machine;
use crate::turn::mapped;
use crate::wait::habit::{self, Habit};

/// How far a connection is in what it was let in for.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    /// Nothing was expected.
    Free,
    /// It was let in to write, and may read so often before.
    Entered(u8),
    /// It has asked for the write lock.
    Writes,
    /// It has had it. From here on it is free.
    Done,
}

/// The schema; and `walTryBeginRead` gives a read lock back and begins anew if somebody commits meanwhile.
const READS: u8 = 4;

/// The schema. Of one that starves nothing is known but that it has just come.
const SCHEMA: u8 = 1;

/// One that was opened so lately may not have read the schema yet. (Of a thousand that are, most have to wait for a
/// processor before they do.)
const NEW: u64 = 1_000_000_000;

/// What is expected of a connection, and what it does.
pub struct Errand {
    habit: Habit,
    step: Step,
    /// When it was opened, or went in after it had waited at the gate or outside; and how long outside.
    let_in: u64,
    outside: u64,
    /// Whether it then wanted to write at once; `None`: it has not yet.
    is_prompt: Option<bool>,
    /// Whether it may not have read the schema when it was refused SHARED first. (Not when it starves: in a herd that may be
    /// much later.)
    is_new: bool,
    /// Transactions that only read, as far as they were seen, since it was opened or wrote.
    reads: u8,
    /// What its timeout was when it last had to wait attached.
    timeout: Option<u64>,
    /// Whether what it has written, or came to write, was a WAL.
    wrote: Option<bool>,
}

impl Errand {
    pub fn new(opened: u64) -> Errand {
        Errand {
            habit: Habit::default(),
            step: Step::Free,
            let_in: opened,
            outside: 0,
            is_prompt: None,
            is_new: false,
            reads: 0,
            timeout: None,
            wrote: None,
        }
    }

    /// What others of this process were used to do.
    pub fn inherit(&mut self, habit: Habit) {
        self.habit = habit;
    }

    /// A transaction ends while a line stands.
    pub fn ends(&mut self, is_wal: bool) {
        self.wrote = Some(is_wal);
    }

    /// The connection is closed, and it came to write to a rollback journal, whether anybody waited or not.
    pub fn came_for_journal(&mut self) {
        self.wrote.get_or_insert(false);
    }

    /// A statement begins to wait for up to `timeout`: says until when. It may have begun outside.
    pub fn begin_wait(&mut self, timeout: u64, now: u64) -> u64 {
        self.timeout = Some(timeout);
        let outside = std::mem::take(&mut self.outside);
        match now < self.let_in + AT_ONCE {
            true => now + timeout.saturating_sub(outside),
            false => now + timeout,
        }
    }

    /// A transaction ends, and it has only read.
    pub fn has_read(&mut self) {
        self.reads = self.reads.saturating_add(1);
    }

    /// Whether it comes to read: it has read the schema, and something else; or the last connection came to read.
    pub fn is_reader(&self) -> bool {
        self.reads > SCHEMA || self.habit.reads
    }

    /// SHARED was refused, and is had now. Says whether it is still to be seen whether it came to write.
    pub fn passes_gate(&mut self) -> bool {
        self.let_in = mapped::now();
        self.is_prompt.is_none()
    }

    /// Whether it ever had a timeout to wait for.
    pub fn has_waited(&self) -> bool {
        self.timeout.is_some()
    }

    /// It has the write lock. Says whether it was let in for that.
    pub fn is_done(&mut self) -> bool {
        (self.outside, self.reads, self.habit.reads) = (0, 0, false);
        let expected = matches!(self.step, Step::Entered(_) | Step::Writes);
        if expected {
            self.step = Step::Done;
        }
        expected
    }

    /// What to expect of the next connection, when this one is closed.
    pub fn habit_left(&self) -> Habit {
        let has_strayed = match self.step {
            Step::Entered(_) => true,
            // One whose own time is over has done what it could.
            Step::Writes => self.timeout.is_none(),
            Step::Free | Step::Done => false,
        };
        if has_strayed {
            self.habit.disappoints();
            return Habit::none(self.has_only_read());
        }
        let others = (self.step == Step::Done).then_some(self.habit.timeout);
        match (self.wrote, self.timeout.or(others)) {
            (Some(is_wal), Some(timeout)) if self.is_prompt == Some(true) => {
                self.habit.again(is_wal, timeout, self.timeout.is_none())
            }
            // In a turn of its own, or if nobody stood in the line, it has not learnt anything.
            (Some(_), None) if self.is_prompt != Some(false) => self.habit,
            _ => Habit::none(self.has_only_read()),
        }
    }

    fn has_only_read(&self) -> bool {
        self.wrote.is_none() && self.reads > 0
    }
}

impl Waiter {
    /// The connection's first lock is wanted. In a crowd, one that is expected to write waits for its turn here.
    pub fn enter(&mut self) {
        if self.is_heir || self.want.is_some() {
            return;
        }
        self.inherit();
        let patience = self.errand.habit.patience();
        if patience.is_some() || self.guest.knocks() {
            self.sidecar.attach(false);
        }
        let Some(patience) = patience else { return };
        let has_turn = |m| !self.turn.is_over(m);
        if self.sidecar.line().is_none_or(has_turn) {
            return;
        }
        let crowd = match self.errand.habit.is_wal {
            true => crate::inject::crowd(admission::CROWD),
            // To read the schema first would be in the way of whoever is the head now.
            false => 1,
        };
        let started = mapped::now();
        if self.wait_outside(crowd, started + patience, READS) {
            self.errand.outside = self.errand.let_in - started;
        }
    }

    /// SHARED is refused to one that waits at most until `until`. If it was just opened and is expected to write to a
    /// rollback journal, it waits for its turn to do that: false if it is not, or there is no line.
    ///
    /// Otherwise two that open the database for each write would meet here each time, and never in the line.
    ///
    /// So does one that has just come and starves there, whatever it came for.
    pub(super) fn waits_to_write(&mut self, until: u64) -> bool {
        let Errand {
            habit,
            step,
            let_in,
            ..
        } = self.errand;
        let now = mapped::now();
        if self.attempt == 1 {
            self.errand.is_new = self.errand.reads == 0 && now < let_in + NEW;
        }
        let is_expected = habit.patience().is_some();
        let waits = match step {
            Step::Free if self.ticket.is_some() => false,
            Step::Free => {
                is_expected && habit::is_prompt(let_in, now) || self.errand.is_new && self.starves()
            }
            // Somebody's turn is not over. With a thousand at the gate each commit would wake all of them.
            Step::Entered(_) => self.ticket.is_some(),
            Step::Writes | Step::Done => false,
        };
        if !waits || habit.is_wal || self.is_stranger() {
            return false;
        }
        self.is_to_be_told();
        let reads = if is_expected { READS } else { SCHEMA };
        self.wait_outside(0, until.min(now + habit::LONGEST), reads)
    }

    /// False if there is no line of so many.
    fn wait_outside(&mut self, crowd: u32, until: u64, reads: u8) -> bool {
        let Some(m) = self.sidecar.line() else {
            return false;
        };
        let mut ticket = match self.ticket {
            Some(ticket) => ticket,
            None => {
                // It may have come back at once.
                self.turn.judge(m);
                let Some(ticket) = admission::come(m, m.member(), crowd) else {
                    return false;
                };
                ticket
            }
        };
        let every = look_every(until.saturating_sub(m.now()));
        let mut is_interrupted = false;
        while !is_interrupted {
            let look = until.min(m.now() + every);
            let outcome = match self.errand.habit.is_wal {
                true => admission::wait(m, &mut ticket, look),
                false => line::wait(m, &mut ticket, look, true),
            };
            match outcome {
                Outcome::Signalled => {}
                Outcome::TimeOver if look < until => {}
                Outcome::Lapsed if self.ticket.is_some() => {
                    (self.ticket, self.due) = (None, Some(ticket.number));
                    return false;
                }
                _ => break,
            }
            is_interrupted = self.is_interrupted() == Some(true);
        }
        admission::set_out(m, ticket);
        self.errand.let_in = m.now();
        self.errand.step = Step::Entered(reads);
        self.ticket = Some(ticket);
        if is_interrupted {
            self.is_over();
        }
        true
    }

    /// The write lock is wanted.
    pub(super) fn arrive(&mut self) {
        let errand = &mut self.errand;
        if matches!(errand.step, Step::Entered(_)) {
            errand.step = Step::Writes;
        }
        errand
            .is_prompt
            .get_or_insert_with(|| habit::is_prompt(errand.let_in, mapped::now()));
        self.is_to_be_told();
    }

    /// If it is the head, it is to be told from here on.
    fn is_to_be_told(&mut self) {
        if let (Some(m), Some(ticket)) = (self.sidecar.line(), &mut self.ticket)
            && line::line(m).is_some_and(|line| line.position(ticket.number) == Some(0))
        {
            admission::arrive(m, ticket);
        }
    }

    /// It may have come to read, and the line is not to wait long for it.
    fn is_missed(&mut self) {
        if let (Some(m), Some(ticket)) = (self.sidecar.line(), self.ticket)
            && self.errand.habit.patience().is_none()
        {
            admission::missed(m, ticket.number);
        }
    }

    /// It has read, and has not asked for the write lock.
    pub(super) fn strays(&mut self) {
        match self.errand.step {
            Step::Entered(reads) if reads > 0 => {
                self.errand.step = Step::Entered(reads - 1);
                self.is_missed();
            }
            Step::Entered(_) => {
                self.errand.habit.disappoints();
                (self.errand.step, self.errand.outside) = (Step::Free, 0);
                self.leave_line();
                self.ticket = None;
            }
            _ => {}
        }
    }
}
