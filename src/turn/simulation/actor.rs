//! What an actor does: the steps of `wait::waiter` and `vfs::locks` around the real line.

use super::mend::mend;
use super::plan::Habit;
use super::world::{Cpu, MS, NEVER};
use crate::turn::layout::{Line, Word};
use crate::turn::line::{self, NoTicket, Outcome, Ticket};
use crate::turn::machine::Machine;
use crate::turn::quantum::{self, Pace, Turn};
use crate::turn::{admission, knock};

/// A call may end so much later than it was asked to: the steps that it still does.
const MARGIN: u64 = 5 * MS;

pub struct Life {
    m: Cpu,
    habit: Habit,
    quantum: u64,
    garbage: bool,
    ticket: Option<Ticket>,
    turn: Turn,
    due: Option<u32>,
    /// The database was just opened.
    is_new: bool,
    refused: bool,
    /// See `Waiter::told`.
    told: bool,
    /// No line until then.
    troubled: u64,
    /// Transactions of this turn that passed the line.
    barges: u64,
}

impl Life {
    pub fn new(m: Cpu) -> Life {
        let plan = m.world.plan.borrow();
        Life {
            m,
            habit: plan.habits[m.me],
            quantum: plan.quantum,
            garbage: plan.garbage,
            ticket: None,
            turn: Turn::default(),
            due: None,
            is_new: true,
            refused: false,
            told: false,
            troubled: 0,
            barges: 0,
        }
    }

    fn random(&self, end: u64) -> u64 {
        self.m.world.random.below(end)
    }

    fn one_in(&self, n: u64) -> bool {
        n > 0 && self.random(n) == 0
    }

    pub fn live(mut self) {
        let m = self.m;
        m.sleep(self.random(2 * self.habit.think));
        for _ in 0..self.habit.transactions {
            if self.habit.stranger {
                while !m.try_lock() {
                    m.sleep(self.random(MS));
                }
                m.sleep(self.random(self.habit.hold));
                m.unlock();
            } else if self.begin() {
                m.sleep(self.habit.hold / 2 + self.random(self.habit.hold));
                m.unlock();
                self.released();
                self.checkpoint();
            }
            if self.habit.reopens {
                self.close();
            }
            m.sleep(self.random(self.habit.think));
        }
        self.close();
    }

    /// As `Waiter::close`. What is left of the turn is for the next connection.
    fn close(&mut self) {
        self.pass_on();
        self.leave_line();
        self.set_ticket(None);
        (self.due, self.refused, self.is_new) = (None, false, true);
        self.turn = std::mem::take(&mut self.turn)
            .leave(&self.m)
            .unwrap_or_default();
    }

    /// A fresh waiter that comes after all others: served, and the line is empty behind it.
    pub fn visit(mut self) {
        self.habit = Habit::default();
        let m = self.m;
        // Nobody is left who could tell; the line's clocks do.
        self.refused = true;
        self.wait_in_line(NEVER);
        while !self.begin() {
            m.sleep(MS);
        }
        m.unlock();
        self.released();
        let line = Line::from(m.load(Word::Line));
        if line.len() > 0 {
            m.world.fail(format!("{line:?} when all are done"));
        }
    }

    fn has_line(&self) -> bool {
        self.m.now() >= self.troubled
    }

    /// The write turn is wanted. False: given up, the time is over.
    fn begin(&mut self) -> bool {
        let m = self.m;
        let until = self.habit.timeout.map_or(NEVER, |t| m.now() + t);
        if self.is_new {
            self.is_new = false;
            if !self.enter(until) {
                return false;
            }
        }
        if self.habit.own_handler && self.one_in(2) {
            self.knock();
        }
        loop {
            let mut barges = false;
            self.arrive();
            let stands = m.load(Word::Line) as u32 != 0;
            let may = (!self.refused && !stands) || self.may_try(&mut barges);
            if may && m.try_lock() {
                let served = self.ticket.map(|ticket| ticket.number);
                self.got(barges);
                if !self.is_stale(served) {
                    return true;
                }
                continue;
            }
            self.refused = true;
            self.told = false;
            if m.now() >= until || (may && self.one_in(self.habit.gives_up)) {
                self.leave_line();
                return false;
            }
            if self.habit.deserts && self.one_in(4) {
                return false;
            }
            if self.habit.own_handler {
                m.sleep(self.random(2 * MS));
                self.knock();
            } else if !self.wait_in_line(until) {
                m.sleep(self.random(MS));
            }
            if self.habit.only_looks && self.one_in(4) {
                m.sleep(self.random(MS / 10));
                self.pass_on();
                m.sleep(self.random(2 * MS));
            }
        }
    }

    /// As `Waiter::enter`. False: it does not write after all.
    fn enter(&mut self, until: u64) -> bool {
        let m = self.m;
        let Some(crowd) = self.habit.crowd.filter(|_| self.has_line()) else {
            return true;
        };
        if !self.turn.is_over(&m) {
            return true;
        }
        self.turn.judge(&m);
        let Some(mut ticket) = admission::come(&m, m.me as u32 + 1, crowd) else {
            return true;
        };
        self.set_ticket(Some(ticket));
        let until = until.min(m.now() + 1_000 * MS);
        while admission::wait(&m, &mut ticket, until) == Outcome::Signalled {}
        self.ticket = Some(ticket);
        m.actor().entering.set(true);
        admission::set_out(&m, ticket);
        m.sleep(self.random(MS / 5));
        let strays = self.one_in(self.habit.strays);
        if strays {
            self.leave_line();
            self.set_ticket(None);
        }
        m.actor().entering.set(!strays);
        !strays
    }

    /// As `Waiter::arrive`.
    fn arrive(&mut self) {
        let m = self.m;
        if let Some(ticket) = &mut self.ticket
            && line::line(&m).is_some_and(|line| line.position(ticket.number) == Some(0))
        {
            admission::arrive(&m, ticket);
        }
        m.actor().entering.set(false);
    }

    /// As `Waiter::may_try`.
    fn may_try(&mut self, barges: &mut bool) -> bool {
        let m = self.m;
        if !self.has_line() {
            return true;
        }
        let Some(line) = line::line(&m) else {
            self.reattach();
            return true;
        };
        if self.told {
            return true;
        }
        let is_due =
            |it: &Life| it.due.is_some_and(|due| line.has_come_to(due)) && it.turn.is_free(&m);
        match self.ticket.map(|t| (t.number, line.position(t.number))) {
            Some((_, Some(0))) => return true,
            Some((_, Some(_))) => return is_due(self),
            Some((number, None)) => {
                self.set_ticket(None);
                self.due = Some(number);
            }
            None => {}
        }
        if line.len() == 0 || is_due(self) {
            return true;
        }
        if self.turn.may_barge(&m, self.due.is_some()) {
            *barges = true;
            return true;
        }
        self.barges = 0;
        match self.due {
            Some(due) if line.has_come_to(due) => is_due(self),
            Some(_) => {
                knock::tries_in_vain(&m);
                false
            }
            None => {
                self.due = Some(line.tail);
                false
            }
        }
    }

    /// As `Waiter::refused` and `Waiter::released`, when somebody has written since the snapshot was taken.
    fn is_stale(&mut self, served: Option<u32>) -> bool {
        let m = self.m;
        let is_stale = served.is_some() && self.one_in(self.habit.stale);
        if is_stale {
            m.unlock();
            (self.due, self.refused) = (served, true);
            if m.load(Word::Line) as u32 != 0 && self.has_line() {
                self.turn.keep(&m);
            }
        }
        is_stale
    }

    /// As `Waiter::knock`.
    fn knock(&mut self) {
        let m = self.m;
        let Some(line) = line::line(&m).filter(|line| line.len() > 0) else {
            return;
        };
        let is_early = match self.due {
            Some(due) => !line.has_come_to(due),
            None => self.turn.judge(&m) != Pace::Leaves,
        };
        if is_early || !self.has_line() {
            return;
        }
        let back = self.ticket.and_then(|ticket| line::come_back(&m, ticket));
        let Some(mut ticket) = back.or_else(|| line::take(&m, m.me as u32 + 1).ok()) else {
            return;
        };
        self.set_ticket(Some(ticket));
        let outcome = match self.due {
            Some(_) => knock::knock(&m, &mut ticket),
            None => line::wait(&m, &mut ticket, m.now() + knock::MOMENT, true),
        };
        self.ticket = Some(ticket);
        self.told = outcome == Outcome::Try;
        if self.told {
            self.step_aside(ticket);
            return;
        }
        self.leave_line();
        if self.due.is_none() {
            self.set_ticket(None);
            self.due = Some(ticket.number);
        }
    }

    /// As `Waiter::pass_on`.
    fn pass_on(&mut self) {
        if std::mem::take(&mut self.told) {
            self.leave_line();
            if self.has_line() {
                line::tell_head(&self.m);
            }
        }
    }

    /// As `Waiter::got`. Our order: nobody who was there before us still waits.
    fn got(&mut self, barges: bool) {
        let m = self.m;
        let was_due = self.due.take().is_some();
        self.refused = false;
        self.told = false;
        if barges {
            self.barges += 1;
            let most = self.quantum / (self.habit.hold / 2).max(1) + 2;
            if self.quantum == 0 || self.barges > most {
                let fact = format!("{} barged {} times in a turn", m.me, self.barges);
                m.world.fail(fact);
            }
        }
        let Some(ticket) = self.ticket else {
            if was_due {
                knock::served(&m);
                self.turn.begin(&m, self.quantum, 1);
                self.barges = 0;
            }
            return;
        };
        // A guest is not served as the head.
        let is_guest = Line::from(m.world.get(Word::Line)).head != ticket.number;
        if !self.garbage && !m.actor().lapsed.get() && !is_guest {
            for (at, other) in m.world.actors.iter().enumerate() {
                let older = other
                    .ticket
                    .get()
                    .filter(|t| (t.wrapping_sub(ticket.number) as i32) < 0);
                if let Some(older) = older
                    && !other.lapsed.get()
                    && !other.killed.get()
                {
                    let number = ticket.number;
                    m.world
                        .fail(format!("{number} is served before {older} of {at}"));
                }
            }
        }
        // From here on it counts as served: to advance is its own affair.
        self.set_ticket(None);
        line::served(&m, ticket);
        self.turn.begin(&m, self.quantum, 0);
        self.barges = 0;
    }

    /// As `Waiter::released`.
    fn released(&mut self) {
        let m = self.m;
        if m.load(Word::Line) as u32 == 0 || !self.has_line() {
            return;
        }
        match line::line(&m) {
            Some(line) if line.len() > 0 => self.turn.released(&m, self.quantum, true),
            Some(_) => {}
            None => self.reattach(),
        }
    }

    /// As `Waiter::checkpoint`, at its begin and at its end.
    fn checkpoint(&mut self) {
        let m = self.m;
        let stands = || m.load(Word::Line) as u32 != 0;
        if self.one_in(self.habit.checkpoints) && self.has_line() {
            if stands() {
                quantum::pause(&m);
            }
            m.sleep(self.random(2 * self.habit.hold));
            if stands() {
                self.turn.resume(&m);
            }
        }
    }

    /// As `Waiter::wait_in_line`.
    fn wait_in_line(&mut self, until: u64) -> bool {
        let m = self.m;
        for attempt in 0..16 {
            if !self.has_line() || attempt > 0 && m.now() >= until {
                return false;
            }
            let back = self.ticket.and_then(|ticket| line::come_back(&m, ticket));
            if let (Some(lost), None) = (self.ticket, back) {
                self.set_ticket(None);
                self.due = Some(lost.number);
            }
            let mut ticket = match back {
                Some(ticket) => ticket,
                None => match line::take(&m, m.me as u32 + 1) {
                    Ok(ticket) => ticket,
                    Err(NoTicket::Full) => return false,
                    Err(NoTicket::Garbage) => {
                        self.reattach();
                        continue;
                    }
                },
            };
            self.set_ticket(Some(ticket));
            let called = m.now();
            let outcome = loop {
                match line::wait(&m, &mut ticket, until, true) {
                    Outcome::Signalled => {}
                    outcome => break outcome,
                }
            };
            self.ticket = Some(ticket);
            // One that was stopped is late; garbage is no excuse.
            let stopped = match m.world.plan.borrow().scribble {
                0 => m.world.disturbed.get(),
                _ => 0,
            };
            let late = m.now().saturating_sub(until.max(called).max(stopped));
            if late > MARGIN {
                m.world.fail(format!("{} waited {late} ns too long", m.me));
            }
            match outcome {
                Outcome::Try => {
                    self.told = true;
                    return true;
                }
                Outcome::TimeOver => {
                    self.leave_line();
                    return true;
                }
                Outcome::Lapsed | Outcome::Signalled => {
                    self.set_ticket(None);
                    if line::line(&m).is_none() {
                        self.reattach();
                    }
                }
            }
        }
        false
    }

    /// As `Waiter::leave_line`: the ticket stays, but nobody need care for it.
    fn leave_line(&mut self) {
        if let Some(ticket) = self.ticket {
            self.depart();
            line::give_up(&self.m, ticket);
        }
    }

    fn step_aside(&mut self, ticket: Ticket) {
        self.depart();
        line::step_aside(&self.m, ticket);
    }

    /// From here on it may be passed over, even if it comes back.
    fn depart(&self) {
        self.m.actor().ticket.set(None);
        self.m.actor().returned.set(true);
    }

    fn set_ticket(&mut self, ticket: Option<Ticket>) {
        let number = ticket.map(|t| t.number);
        if self.ticket.map(|t| t.number) != number {
            self.m.actor().lapsed.set(false);
            self.m.actor().returned.set(false);
        }
        self.m.actor().ticket.set(number);
        self.ticket = ticket;
    }

    /// As `Waiter::reattach`, with `sidecar::mend`.
    fn reattach(&mut self) {
        let m = self.m;
        self.set_ticket(None);
        if line::line(&m).is_some() {
            return;
        }
        for _ in 0..20 {
            m.step();
            if m.world.mender.get().is_none() {
                m.world.mender.set(Some(m.me));
                mend(&m);
                m.step();
                m.world.mender.set(None);
                return;
            }
            m.sleep(MS);
        }
        self.troubled = m.now() + 1_000 * MS;
    }
}
