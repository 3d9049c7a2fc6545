//! How one connection waits, and for how long.

use super::call::Call;
use super::{Waiter, Want};
use crate::turn::knock::MOMENT;
use crate::turn::layout::Word;
use crate::turn::line::{self, NoTicket, Outcome, Ticket};
use crate::turn::machine::Machine;
use crate::turn::mapped::{self, Mapped};
use crate::turn::{signal, watch};
use crate::wait::backoff::{Backoff, crowd};
use crate::wait::patience;
use std::ffi::c_int;

/// The end of a wait, once it is known.
#[derive(Clone, Copy)]
pub struct Deadline {
    at: u64,
    steps: u32,
    /// When `xSleep` returned last. SQLite asks again at once; who comes much later is another
    /// statement.
    returned: u64,
}

/// How often a wait looks up whether SQLite is to be interrupted.
const LOOK: u64 = 80_000_000;

/// The same in a process of one thread, where only a signal's handler can call `sqlite3_interrupt`; and a
/// signal wakes us, unless it comes between the look and the sleep. (A wake-up costs 40 µs when a thousand wait:
/// with two of them for each write, a sixth of all that a write costs.)
const LOOK_ALONE: u64 = 1_000_000_000;

/// How often to look in a wait of `longest`.
pub(super) fn look_every(longest: u64) -> u64 {
    // proc_task_getattr: a directory for each thread, and two more links.
    let task = || nix::sys::stat::stat(c"/proc/self/task");
    match longest > LOOK && task().is_ok_and(|task| task.st_nlink == 3) {
        true => LOOK_ALONE,
        false => LOOK,
    }
}

pub(super) const AT_ONCE: u64 = 100_000_000;

/// A stranger that was woken too early so often, in steps of its own, sleeps first.
const MOST_DEBT: u64 = 4;

/// Nobody's busy handler asks `xSleep` for more (SQLite's own without usleep asks for a second): that is a
/// pause of the application's, by `sqlite3_sleep`.
const LONGEST: c_int = 1_000_000;

impl Waiter {
    /// `xSleep`, called for what was refused last. Says how long it slept, in microseconds; `None` if it did
    /// not.
    pub fn sleep(&mut self, asked: c_int) -> Option<c_int> {
        let longest = match self.want? {
            Want::Snapshot => patience::FIRST,
            _ => LONGEST,
        };
        let want = self.want.filter(|_| asked <= longest)?;
        let knocks = std::mem::take(&mut self.guest.knocks);
        let started = mapped::now();
        let nominal = u64::try_from(asked).unwrap_or(0) * 1_000;
        let until = match self.patience(asked, started) {
            Some(until) => until,
            None => return Some(asked),
        };
        let is_on_its_way = matches!(want, Want::Turn | Want::Shared) && knocks > 0;
        if self.is_stranger() && is_on_its_way && nominal <= MOMENT {
            // It would lose its place in the line again and again. It knocks when it comes back.
            self.guest.knocks = knocks;
            sleep_until(until);
        } else if self.debt > MOST_DEBT * nominal {
            self.leave_line();
            sleep_until(until);
        } else {
            self.wait(want, until);
        }
        let ended = mapped::now();
        match &mut self.deadline {
            Some(deadline) => deadline.returned = ended,
            None => {
                self.debt = (self.debt + nominal).saturating_sub(ended - started);
                if let Some(m) = self.sidecar.line() {
                    watch::look_in(m);
                }
            }
        }
        Some(asked)
    }

    /// Until when to wait; `None` if the time is over.
    fn patience(&mut self, asked: c_int, now: u64) -> Option<u64> {
        let nominal = u64::try_from(asked).unwrap_or(0) * 1_000;
        let stranger = now + nominal + self.debt;
        let handler = self.connection.handler;
        let Some(handler) = handler.filter(|_| asked == patience::FIRST) else {
            self.deadline = None;
            return Some(stranger);
        };
        let known = self.deadline.filter(|d| now < d.returned + AT_ONCE);
        if let Some(deadline) = known.filter(|deadline| now >= deadline.at) {
            self.deadline = None;
            self.meant = None;
            self.leave_line();
            // SAFETY: xSleep was asked by this handler: it asks for the first step, as `learn` left it.
            unsafe { patience::exhaust(handler, deadline.steps) };
            return None;
        }
        // SAFETY: xSleep was called right after this connection's lock call failed, with the table's first
        // amount; `learn` stops at the first step that is not in the table.
        let learnt = unsafe { patience::learn(handler) };
        match learnt {
            Some(learnt) => {
                let at = match known {
                    Some(known) => known.at,
                    None => self.errand.begin_wait(learnt.left, now),
                };
                let steps = learnt.steps;
                self.deadline = Some(Deadline {
                    at,
                    steps,
                    returned: now,
                });
                Some(at)
            }
            None => {
                self.connection.handler = None;
                self.deadline = None;
                Some(stranger)
            }
        }
    }

    /// `turnstile_busy_handler`'s part of the wait: false if the time is over.
    pub fn handle(&mut self, timeout: u64, is_first: bool) -> Option<bool> {
        let want = self.want?;
        let now = mapped::now();
        let at = match self.deadline.filter(|_| !is_first) {
            Some(deadline) => deadline.at,
            None => self.errand.begin_wait(timeout, now),
        };
        if now >= at {
            self.deadline = None;
            self.meant = None;
            self.leave_line();
            return Some(false);
        }
        let (steps, returned) = (0, now);
        self.deadline = Some(Deadline {
            at,
            steps,
            returned,
        });
        self.wait(want, at);
        Some(true)
    }

    /// Whether somebody has called `sqlite3_interrupt`; `None` if this SQLite cannot tell.
    pub(super) fn is_interrupted(&self) -> Option<bool> {
        let db = self.connection.db?;
        // SAFETY: as for `is_upgrade`: a busy handler is called from inside of the connection.
        unsafe { self.sqlite.is_interrupted(*db.as_ptr()) }
    }

    /// Waits for `want` until it may be worth to ask again, at most until `until`.
    pub fn wait(&mut self, want: Want, until: u64) {
        self.attempt += 1;
        match want {
            // At once: we are due. But once only.
            Want::Snapshot if self.due.is_some() && self.ticket.is_none() => {
                self.want = Some(Want::Turn);
            }
            Want::Turn if self.has_a_moment() => spin(),
            Want::Turn | Want::Snapshot => {
                if self.wait_in_line(until) {
                    self.meant = None;
                } else {
                    self.back_off(until);
                }
            }
            Want::Shared if self.waits_to_write(until) => {}
            Want::Shared if self.starves() && self.wait_in_line(until) => {}
            Want::Shared => self.wait_for_signal(Word::Gate, GATE, until),
            Want::Drain => self.wait_for_signal(Word::Drain, DRAIN, until),
            Want::Other => self.back_off(until),
        }
    }

    /// Whether it is woken by each commit and never there before the next one; see [`signal::starves`].
    pub(super) fn starves(&self) -> bool {
        let gate = self.sidecar.line().zip(self.met);
        !self.errand.is_reader() && gate.is_some_and(|(m, met)| signal::starves(m, met))
    }

    /// Whether our turn is not over and the lock is somebody's who has joined us in it; see `quantum`.
    fn has_a_moment(&self) -> bool {
        let line = self.sidecar.line();
        !self.is_stranger() && line.is_some_and(|m| self.turn.lasts(m))
    }

    fn back_off(&mut self, until: u64) {
        let now = mapped::now();
        let meant = self.meant.take().filter(|_| !self.is_stranger());
        self.crowd = crowd(
            self.crowd,
            meant.map_or(0, |meant| now.saturating_sub(meant)),
        );
        let step = self.manners.backoff().step(self.attempt - 1);
        let end = until.min(now + step + self.crowd);
        self.meant = Some(end);
        loop {
            let slice = match self.is_interrupted() {
                Some(true) if !self.is_stranger() => return self.is_over(),
                Some(_) => end.min(mapped::now() + LOOK),
                None => end,
            };
            sleep_until(slice);
            if slice == end {
                return;
            }
        }
    }

    /// Nothing more is to be waited for.
    pub(super) fn is_over(&mut self) {
        if let Some(deadline) = &mut self.deadline {
            deadline.at = deadline.at.min(mapped::now());
        }
    }

    /// False if there is no line to wait in.
    fn wait_in_line(&mut self, until: u64) -> bool {
        for attempt in 0..16 {
            // To mend a sidecar takes time.
            if attempt > 0 && mapped::now() >= until {
                return false;
            }
            let Some(m) = self.sidecar.line() else {
                self.sidecar.attach(true);
                if self.sidecar.line().is_none() {
                    if self.sidecar.is_at_work() {
                        // That we come late says nothing of a crowd.
                        self.meant = None;
                    }
                    return false;
                }
                continue;
            };
            let back = self.ticket.and_then(|ticket| line::come_back(m, ticket));
            if let (Some(lost), None) = (self.ticket.take(), back) {
                self.due = Some(lost.number);
            }
            let mut ticket = match back {
                Some(ticket) => ticket,
                None => match line::take(m, m.member()) {
                    Ok(ticket) => ticket,
                    Err(NoTicket::Full) => return false,
                    Err(NoTicket::Garbage) => {
                        self.reattach();
                        continue;
                    }
                },
            };
            let outcome = self.wait_with(m, &mut ticket, until);
            self.ticket = Some(ticket);
            match outcome {
                Outcome::Try => {
                    self.told = Some(Call::default());
                    if self.is_stranger() {
                        line::step_aside(m, ticket);
                    }
                    return true;
                }
                Outcome::TimeOver => {
                    self.leave_line();
                    self.is_over();
                    return true;
                }
                Outcome::Lapsed | Outcome::Signalled => {
                    self.ticket = None;
                    if line::line(m).is_none() {
                        self.reattach();
                    }
                }
            }
        }
        false
    }

    /// [`line::wait`], looking up from time to time whether SQLite is to be interrupted.
    fn wait_with(&self, m: &Mapped, ticket: &mut Ticket, until: u64) -> Outcome {
        let mut every = None;
        loop {
            let look = match self.is_interrupted() {
                Some(true) => return Outcome::TimeOver,
                Some(false) => {
                    let now = m.now();
                    until.min(
                        now + *every.get_or_insert_with(|| look_every(until.saturating_sub(now))),
                    )
                }
                None => until,
            };
            match line::wait(m, ticket, look, !self.is_stranger()) {
                Outcome::TimeOver if look < until => {}
                Outcome::Signalled => {}
                outcome => return outcome,
            }
        }
    }

    /// The first time it only asks to be woken: the lock may have been freed before that.
    fn wait_for_signal(&mut self, word: Word, poll: Backoff, until: u64) {
        self.sidecar.attach(false);
        let Some(m) = self.sidecar.line() else {
            return self.back_off(until);
        };
        self.meant = None;
        match self.armed.take() {
            Some(armed) => {
                let step = poll.step(self.attempt - 1);
                signal::wait(m, word, armed, until.min(m.now() + step));
            }
            None => {
                let armed = signal::arm(m, word);
                self.met.get_or_insert(armed);
                self.armed = Some(armed);
            }
        }
    }
}

/// In case that the writer who commits does not wake us: it uses the stock VFS, or it died. Many wait
/// here at the same time.
const GATE: Backoff = Backoff {
    first: 1_000_000,
    cap: 50_000_000,
};

/// In case that the last reader does not wake us: readers that never had to wait do not know of the
/// line. Everybody else waits for the one who waits here.
const DRAIN: Backoff = Backoff {
    first: 100_000,
    cap: 1_000_000,
};

/// As long as a short transaction takes to write.
fn spin() {
    std::thread::yield_now();
    let until = mapped::now() + 15_000;
    while mapped::now() < until {
        std::hint::spin_loop();
    }
}

fn sleep_until(until: u64) {
    let left = until.saturating_sub(mapped::now());
    std::thread::sleep(std::time::Duration::from_nanos(left));
}
