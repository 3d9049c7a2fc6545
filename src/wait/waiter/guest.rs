//! A guest: one that decides by itself how it waits, with a busy handler of its own, or a loop around a connection without
//! any. It knocks, and is turned away, before its transaction takes the first lock; see `turn::knock`.

use super::Waiter;
use super::call::Call;
use crate::turn::knock;
use crate::turn::line::{self, Outcome};
use crate::turn::machine::Machine;
use crate::turn::quantum::Pace;

/// What is known of a guest. With a rollback journal it leaves that to the next connection of its process.
#[derive(Clone, Copy, Default)]
pub struct Guest {
    /// How many of the next transactions are to begin by waiting for a moment.
    pub(super) knocks: u8,
    /// Transactions that began since the last write or refusal, and how many of those before that only read.
    begun: u8,
    reads: u8,
    /// Transactions that began in vain, since it was not due.
    pub(super) tries: u32,
}

impl Guest {
    /// Whether it is to knock.
    pub fn knocks(&self) -> bool {
        self.knocks > 0
    }

    /// It was refused the write lock; for the first time, or `again` by the same statement.
    pub(super) fn refused(&mut self, again: bool) {
        if !again {
            self.has_read();
        }
        (self.knocks, self.begun) = (KNOCKS, 0);
    }

    /// It has the write lock.
    pub(super) fn got(&mut self) {
        self.tries = 0;
        self.has_read();
    }

    fn has_read(&mut self) {
        self.reads = std::mem::take(&mut self.begun).saturating_sub(1);
    }
}

/// One who had to wait and does not wait here begins so many transactions by waiting for a moment. It ends when it
/// meets nobody any more, and sooner if it does not write.
pub(super) const KNOCKS: u8 = 16;
const KNOCKS_FOR_A_READ: u8 = 8;

/// One of so many tries of one who is not due goes on.
const TRIES: u32 = 4;

impl Waiter {
    /// A transaction begins, as for [`Waiter::begins`]. One who does not wait here waits a
    /// moment for its turn: at the door if its turn is due, else at the end of the line. For if it is refused,
    /// it is away for as long as it likes to sleep, and if that is longer than the line, it never gets its share.
    ///
    /// Says whether it is turned away, if it can be.
    pub(super) fn knock(&mut self, is_held: impl Fn() -> bool, can_be_turned_away: bool) -> bool {
        self.guest.begun = self.guest.begun.saturating_add(1);
        if !self.guest.knocks() || !self.is_stranger() {
            return false;
        }
        let Some(m) = self.sidecar.line() else {
            return false;
        };
        let Some(line) = line::line(m) else {
            return false;
        };
        let stands = line.len() > 0;
        match self.due {
            Some(due) if !line.has_come_to(due) => {
                // One whose timeout was over may well come to read.
                return can_be_turned_away && !self.errand.has_waited() && self.is_turned_away();
            }
            _ if self.guest.begun <= self.guest.reads => return false,
            None if self.turn.judge(m) != Pace::Leaves => {
                // In a loop of writes it has a whole quantum for each of its sleeps, and is quick.
                self.guest.knocks = 0;
                return false;
            }
            _ => {}
        }
        if !stands && !is_held() {
            self.guest.knocks -= 1;
            return false;
        }
        let back = self.ticket.and_then(|ticket| line::come_back(m, ticket));
        let Some(mut ticket) = back.or_else(|| line::take(m, m.member()).ok()) else {
            return false;
        };
        let until = m.now() + knock::MOMENT;
        let mut outcome = match self.due {
            Some(_) if stands => knock::knock(m, &mut ticket),
            _ => line::wait(m, &mut ticket, until, true),
        };
        while outcome == Outcome::Try && m.now() < until && is_held() {
            outcome = line::wait(m, &mut ticket, until, true);
        }
        self.ticket = Some(ticket);
        if outcome == Outcome::Try {
            line::step_aside(m, ticket);
            self.told = Some(Call::default());
            self.guest.knocks = self.guest.knocks.saturating_sub(KNOCKS_FOR_A_READ);
        } else {
            line::give_up(m, ticket);
            if self.due.is_none() {
                // From here on it is one who tries by itself.
                (self.ticket, self.due) = (None, Some(ticket.number));
            }
        }
        false
    }

    /// It is not due, and will not get the lock that it wants next. With a rollback journal, to ask for that takes SHARED,
    /// and whoever commits has to wait until that is gone: 16 guests that try each millisecond made each write of
    /// the others a half longer. But nobody says that it came to write. So one of some tries goes on.
    fn is_turned_away(&mut self) -> bool {
        self.guest.tries += 1;
        let is_turned_away = !self.guest.tries.is_multiple_of(TRIES);
        if is_turned_away {
            self.guest.begun = 0;
        }
        is_turned_away
    }

    /// Whether the one who has us wait decides by itself when to give up. Such a one has its place only while it
    /// sleeps here, and its sleep ends early only if it is told: it may count its sleeps.
    pub(super) fn is_stranger(&self) -> bool {
        self.deadline.is_none()
    }
}
