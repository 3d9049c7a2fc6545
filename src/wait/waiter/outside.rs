//! Waiting before the database is attached; see `turn::admission`.

use super::Waiter;
use crate::turn::admission;
use crate::turn::line::{self, Outcome};
use crate::turn::machine::Machine;
use crate::turn::mapped;
use crate::wait::habit::{self, Habit};

/// What is expected of a connection.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Errand {
    /// Nothing is known: it has not locked anything yet, or it is free to do what it likes.
    #[default]
    Unknown,
    /// It was let in to write, and has read so often since.
    Entered(u8),
    /// It has asked for the write lock.
    Writes,
}

/// The schema; and `walTryBeginRead` gives a read lock back and begins anew if somebody commits meanwhile.
const READS: u8 = 4;

impl Waiter {
    /// The connection's first lock is wanted. In a crowd, one that is expected to write waits for its turn here.
    pub fn enter(&mut self) {
        if self.is_heir || self.want.is_some() {
            return;
        }
        self.inherit();
        let Some(patience) = self.habit.patience() else {
            return;
        };
        self.sidecar.attach(false);
        let Some(m) = self.sidecar.line() else { return };
        if !self.turn.is_over(m) {
            return;
        }
        let started = m.now();
        let crowd = crate::inject::crowd(admission::CROWD);
        let Some(mut ticket) = admission::come(m, m.member(), crowd) else {
            return;
        };
        let until = started + patience;
        while self.is_interrupted() != Some(true) {
            let look = until.min(m.now() + super::sleep::look_every(patience));
            match admission::wait(m, &mut ticket, look) {
                Outcome::Signalled => {}
                Outcome::TimeOver if look < until => {}
                _ => break,
            }
        }
        admission::set_out(m, ticket);
        self.let_in = m.now();
        self.outside = self.let_in - started;
        self.ticket = Some(ticket);
        self.errand = Errand::Entered(0);
    }

    /// The write lock is wanted.
    pub(super) fn arrive(&mut self) {
        if matches!(self.errand, Errand::Entered(_)) {
            self.errand = Errand::Writes;
        }
        if self.is_prompt.is_none() {
            self.is_prompt = Some(habit::is_prompt(self.let_in, mapped::now()));
        }
        if let (Some(m), Some(ticket)) = (self.sidecar.line(), &mut self.ticket)
            && line::line(m).is_some_and(|line| line.position(ticket.number) == Some(0))
        {
            admission::arrive(m, ticket);
        }
    }

    /// It has the write lock. Says whether it was expected to want it.
    pub(super) fn has_done_its_errand(&mut self) -> bool {
        let expected = std::mem::take(&mut self.errand) != Errand::Unknown;
        if expected && self.timeout.is_none() {
            (self.timeout, self.is_unconfirmed) = (Some(self.habit.timeout), true);
        }
        expected
    }

    /// What to expect of the next connection, when this one is closed.
    pub(super) fn habit_left(&self) -> Habit {
        match self.timeout {
            Some(timeout) if self.in_crowd && self.is_prompt == Some(true) => {
                return self.habit.again(timeout, self.is_unconfirmed);
            }
            _ if matches!(self.errand, Errand::Entered(_)) => habit::stray(),
            // One whose own time is over has done what it could.
            None if self.errand == Errand::Writes => habit::stray(),
            _ => {}
        }
        Habit::default()
    }

    /// It has read, and has not asked for the write lock.
    pub(super) fn strays(&mut self) {
        match self.errand {
            Errand::Entered(reads) if reads < READS => self.errand = Errand::Entered(reads + 1),
            Errand::Entered(_) => {
                habit::stray();
                self.errand = Errand::Unknown;
                self.leave_line();
                (self.ticket, self.outside) = (None, 0);
            }
            _ => {}
        }
    }
}
