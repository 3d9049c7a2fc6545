//! One connection's waiting: what it wants, its place in the line, its turn, its patience.
//!
//! Invariant: nothing in here touches SQLite's files. It is used by the thread that is inside of the
//! connection, and by `xSleep` on the thread that was refused last; the mutex is for the day when those are two.

mod call;
mod guest;
mod outside;
mod sleep;

use super::attachment::Attachment;
use super::habit;
use super::inheritance::{self, CLAIMS, Claim, LEGACIES, Legacy};
use super::manners::Manners;
use super::patience::Handler;
use crate::sqlite::Sqlite;
use crate::sqlite::abi::{SQLITE_NOTICE, SQLITE_TXN_NONE, SQLITE_TXN_READ};
use crate::text::PathEnd;
use crate::turn::knock;
use crate::turn::layout::Word;
use crate::turn::line::{self, Ticket};
use crate::turn::machine::Machine;
use crate::turn::mapped::{self, Mapped};
use crate::turn::quantum::{self, Turn};
use crate::turn::signal;
use call::Call;
pub use guest::Guest;
use guest::KNOCKS;
use outside::Errand;
use sleep::Deadline;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a lock call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Want {
    /// RESERVED, or the WAL's write lock.
    Turn,
    /// The same, with the WAL's write lock in hand: somebody has written since the snapshot was taken
    /// (SQLITE_BUSY_SNAPSHOT).
    Snapshot,
    /// SHARED, against a writer that commits.
    Shared,
    /// EXCLUSIVE, against readers.
    Drain,
    /// Recovery, a checkpoint.
    Other,
}

/// What SQLite told about a connection through file controls.
#[derive(Clone, Copy, Default)]
pub struct Connection {
    pub handler: Option<Handler>,
    /// `sqlite3**`: SQLITE_FCNTL_PDB.
    pub db: Option<std::ptr::NonNull<*mut c_void>>,
}

impl Connection {
    /// How far it is in a transaction of `database`; see [`Sqlite::transaction`].
    pub fn transaction(&self, sqlite: &Sqlite, database: &CStr) -> c_int {
        // SAFETY: sqlite3BtreeOpen announced the address, which lives as long as the file is open; a
        // lock method is called from inside of the connection.
        let state =
            |db: std::ptr::NonNull<_>| unsafe { sqlite.transaction(*db.as_ptr(), database) };
        self.db.map_or(SQLITE_TXN_NONE, state)
    }
}

pub struct Waiter {
    sqlite: Sqlite,
    manners: Manners,
    /// SQLite keeps it until xClose.
    database: &'static CStr,
    connection: Connection,
    sidecar: Attachment,
    ticket: Option<Ticket>,
    turn: Turn,
    /// Whether another connection of this process was closed just before this one was opened.
    returns: bool,
    /// What other connections left was looked for.
    is_heir: bool,
    errand: Errand,
    want: Option<Want>,
    /// For one that has no place in the line, or stays away from it: once the head has come so far, all who
    /// were there before it have been served.
    due: Option<u32>,
    guest: Guest,
    /// The ticket that got us the lock last.
    served: Option<u32>,
    /// The line has sent us to try and we have not yet: we owe it a try, or [`Waiter::pass_on`].
    told: Option<Call>,
    deadline: Option<Deadline>,
    /// What we owe to the timeout, in nanoseconds: nominal sleeps that ended early.
    debt: u64,
    /// Sleeps since the last success.
    attempt: u32,
    armed: Option<u64>,
    /// What the gate was when SHARED was refused first.
    met: Option<u64>,
    /// Until when the last backoff was to sleep, and what it adds for the crowd; see `backoff`.
    meant: Option<u64>,
    crowd: u64,
}

// SAFETY: the pointers of `connection` are SQLite's, for whoever is inside of the connection; the others
// may go from thread to thread.
unsafe impl Send for Waiter {}

impl Waiter {
    /// `None` if memory is out.
    pub fn new(
        sqlite: &Sqlite,
        manners: Manners,
        database: &'static CStr,
        connection: Connection,
        opened: u64,
    ) -> Option<Waiter> {
        Some(Waiter {
            sqlite: *sqlite,
            manners,
            database,
            connection,
            sidecar: Attachment::new(sqlite, manners, database)?,
            ticket: None,
            turn: Turn::default(),
            returns: false,
            is_heir: false,
            errand: Errand::new(opened),
            want: None,
            due: None,
            guest: Guest::default(),
            served: None,
            told: None,
            deadline: None,
            debt: 0,
            attempt: 0,
            armed: None,
            met: None,
            meant: None,
            crowd: 0,
        })
    }

    /// The words that the lock methods look at; `None` if there is no line.
    pub fn words(&self) -> Option<*const AtomicU64> {
        self.sidecar.line().map(Mapped::words)
    }

    /// Looks for the sidecar, or whether it is still there; makes it if that is possible and allowed here.
    pub fn find(&mut self) {
        self.inherit();
        match self.sidecar.line() {
            Some(_) => self.verify(),
            None => self.sidecar.attach(true),
        }
    }

    fn inherit(&mut self) {
        if std::mem::replace(&mut self.is_heir, true) {
            return;
        }
        if let Some(claim) = CLAIMS.oldest(self.sidecar.hash()) {
            (self.due, self.guest) = (claim.due, claim.guest);
        }
        let Some(legacy) = LEGACIES.newest(self.sidecar.hash()) else {
            return;
        };
        let now = mapped::now();
        self.returns = legacy.is_fresh(now);
        let turn = legacy.turn.unwrap_or_default();
        // What a guest was used to do is still so when it comes from its sleep.
        self.turn = match self.returns || self.guest.knocks() {
            true => turn,
            false => turn.lapse(),
        };
        if habit::is_recent(legacy.closed, now) {
            self.errand.inherit(legacy.habit);
            self.sidecar.keep(legacy.sidecar);
        }
    }

    /// The sidecar is not what it was: deleted, replaced, or full of garbage. Looks for it anew.
    fn reattach(&mut self) {
        self.ticket = None;
        self.armed = None;
        self.sidecar.renew();
    }

    /// Whether the sidecar is still the one at its path; asked every few thousand transactions, or after a refusal.
    pub fn verify(&mut self) {
        if self.sidecar.is_elsewhere() {
            self.reattach();
        }
    }

    /// The write turn is wanted: may SQLite's lock be asked for? Called only if a line stands, or if
    /// this connection has been refused something.
    pub fn may_try(&mut self) -> bool {
        self.arrive();
        let Some(m) = self.sidecar.line() else {
            return true;
        };
        let Some(line) = line::line(m) else {
            self.reattach();
            return true;
        };
        if self.told.is_some() {
            return true;
        }
        // Whoever still waits came later. But a turn that lasts is somebody's: one who took the lock in the middle of it
        // would have a turn of its own, and both would be in each other's way.
        let has_come_to = |due| line.has_come_to(due);
        let is_due = |it: &Waiter| it.due.is_some_and(has_come_to) && it.turn.is_free(m);
        match self.ticket.map(|t| (t.number, line.position(t.number))) {
            Some((_, Some(0))) => return quantum::busy_until(m, m.now()) == 0,
            // It knocked, or asks earlier than its place.
            Some((_, Some(_))) => return is_due(self) || self.is_upgrade(),
            Some((number, None)) => {
                // It was not there when its turn came.
                self.ticket = None;
                self.due = Some(number);
            }
            None => {}
        }
        if line.len() == 0 || is_due(self) || self.turn.may_barge(m, self.due.is_some()) {
            return true;
        }
        // One who was refused and did not come to wait has no place in the line: it has a handler of its own, or
        // none, or cannot wait in the middle of a transaction. It may try when those who were there before it
        // have been served.
        if self.is_upgrade() {
            // It cannot come to wait at all, and SQLite would let it try.
            m.add(Word::Overtakes, 1);
            return true;
        }
        match self.due {
            Some(due) if !line.has_come_to(due) => knock::tries_in_vain(m),
            Some(_) => {}
            None => self.due = Some(line.tail),
        }
        is_due(self)
    }

    /// A transaction begins after a refusal, and holds no lock yet. `is_held` says whether somebody writes; where that
    /// cannot be asked, that nobody does. Says what it is refused, if it is turned away.
    pub fn begins(&mut self, is_held: impl Fn() -> bool, guests_can_be: bool) -> Option<Want> {
        if self.knock(&is_held, guests_can_be) {
            return Some(Want::Shared);
        }
        // The head looks whether the lock is free. With SHARED in hand it would be in the way of whoever has it and
        // commits; and if it were stopped there, for as long as that lasts.
        let looks = self.told.is_some() && !self.is_stranger();
        (looks && is_held()).then_some(Want::Turn)
    }

    fn transaction(&self) -> c_int {
        self.connection.transaction(&self.sqlite, self.database)
    }

    /// Whether this is a write in a transaction that has begun by reading. SQLite does not wait for
    /// it (`btreeBeginTrans`): the one who has the lock may wait for our read lock to go.
    fn is_upgrade(&self) -> bool {
        self.transaction() > SQLITE_TXN_NONE
    }

    /// A lock call was refused, by SQLite's lock or by [`Waiter::may_try`].
    pub fn refused(&mut self, want: Want) {
        let is_upgrade = match want {
            Want::Turn => self.is_upgrade(),
            Want::Snapshot => self.transaction() == SQLITE_TXN_READ,
            _ => false,
        };
        if is_upgrade {
            self.leave_line();
            self.explain_upgrade();
        }
        if self.want != Some(want) {
            self.armed = None;
            self.met = None;
            self.attempt = 0;
        }
        if want == Want::Snapshot && self.served.is_some() {
            // Our turn came when somebody was about to commit, and led to nothing: it is still ours.
            self.due = self.served.take();
        }
        let again = self.want.replace(want) == Some(want);
        if want == Want::Shared {
            // It may have come back at once.
            self.inherit();
            if let Some(m) = self.sidecar.line() {
                self.turn.judge(m);
            }
        }
        if matches!(want, Want::Turn | Want::Snapshot) {
            self.told = None;
            self.guest.refused(again);
        }
    }

    /// A WAL's read lock is given back. That is the end of a transaction; or somebody has committed meanwhile and
    /// `walTryBeginRead` begins anew, and then our turn is still ours. Says whether there is something that we still
    /// wait for.
    pub fn read_ends(&mut self) -> bool {
        let waits = !self.is_stranger();
        let told = self.told.as_mut().filter(|_| waits);
        if !told.is_some_and(Call::reads_anew) {
            self.pass_on();
        }
        self.want.is_some() || self.waits()
    }

    fn waits(&self) -> bool {
        self.ticket.is_some() || self.guest.knocks()
    }

    /// A transaction ends. If it came to its end without a try for which the line has sent us, the next
    /// head is told instead.
    pub fn pass_on(&mut self) {
        self.strays();
        if self.told.take().is_some() {
            self.leave_line();
            if let Some(m) = self.sidecar.line() {
                line::tell_head(m);
            }
        }
    }

    /// Whether a read mark is not to be moved now.
    pub fn spares_mark(&mut self) -> bool {
        let told = self.told.as_mut();
        self.want == Some(Want::Turn) && told.is_some_and(Call::spares_mark)
    }

    /// Counted, and explained once in the life of a process.
    fn explain_upgrade(&self) {
        static EXPLAINED: AtomicBool = AtomicBool::new(false);
        if let Some(m) = self.sidecar.line() {
            m.add(Word::Upgrades, 1);
        }
        if !EXPLAINED.swap(true, Ordering::Relaxed) {
            let path = PathEnd(self.database);
            self.sqlite.log(SQLITE_NOTICE, format_args!(
                "turnstile: a transaction on {path} began by reading and cannot write now: SQLite does not \
                 wait there, whatever the timeout. Use BEGIN IMMEDIATE"
            ));
        }
    }

    /// A lock call succeeded. Says whether there is something that we still wait for, or that is to be seen next.
    pub fn got(&mut self, want: Want) -> bool {
        if want == Want::Turn {
            self.told = None;
            let (due, ticket) = (self.due.take(), self.ticket.take());
            self.served = ticket.map(|ticket| ticket.number);
            let waited = ticket.is_some() || due.is_some();
            let expected = self.errand.is_done();
            if let Some(m) = self.sidecar.line() {
                match ticket {
                    Some(ticket) => line::served(m, ticket),
                    None if waited => knock::served(m),
                    None => {}
                }
                if waited {
                    self.turn.begin(m, self.manners.quantum(), self.guest.tries);
                }
            }
            self.guest.got();
            self.guest.knocks = match self.is_stranger() {
                true if waited && !expected => KNOCKS,
                true => self.guest.knocks,
                false => 0,
            };
        } else if self.want == Some(Want::Turn) {
            // SHARED, on the way to RESERVED.
            return true;
        }
        let passed_gate = self.want == Some(Want::Shared) && self.errand.passes_gate();
        // Should the same statement have to wait once more, it gets its whole time again: rather that
        // than too little for the next one.
        self.deadline = None;
        self.debt = 0;
        self.want = None;
        self.armed = None;
        self.met = None;
        self.meant = None;
        self.crowd = 0;
        self.attempt = 0;
        self.waits() || passed_gate
    }

    /// The locks of a transaction were released while a line stands, or somebody waits at the gate.
    pub fn released(&mut self, is_wal: bool) {
        self.errand.ends(is_wal);
        self.pass_on();
        let Some(m) = self.sidecar.line() else { return };
        if self.want == Some(Want::Snapshot) && self.due.is_some() && !self.is_upgrade() {
            return self.turn.keep(m);
        }
        signal::ring(m, Word::Drain);
        if self.ticket.is_some() || matches!(self.want, Some(Want::Turn | Want::Shared)) {
            // It was refused the lock and waits itself: as the head it would tell itself, without end.
            return;
        }
        signal::open_gate(m);
        match line::line(m) {
            Some(line) if line.len() > 0 => {
                self.turn.released(m, self.manners.quantum(), is_wal);
            }
            Some(_) => {}
            None => self.reattach(),
        }
    }

    /// This connection begins or ends a checkpoint while a line stands.
    pub fn checkpoint(&mut self, begins: bool) {
        match self.sidecar.line() {
            Some(m) if begins => quantum::pause(m),
            Some(m) => self.turn.resume(m),
            None => {}
        }
    }

    /// A reader left. A writer may wait for that; and it may have had a turn for it.
    pub fn reader_left(&mut self) {
        // One that was refused SHARED has not read, and one that was refused its turn came to write.
        let has_read = match self.want {
            None => true,
            Some(Want::Turn) => self.told.is_some(),
            Some(_) => false,
        };
        if has_read {
            self.errand.has_read();
        }
        self.pass_on();
        if let Some(m) = self.sidecar.line() {
            signal::ring(m, Word::Drain);
        }
    }

    /// The connection is closed. `came_to_write` says whether it has asked for RESERVED or more, `had_wal` what that means:
    /// a WAL's last close asks for EXCLUSIVE, too.
    pub fn close(&mut self, came_to_write: bool, had_wal: bool) {
        self.pass_on();
        if came_to_write && !had_wal {
            self.errand.came_for_journal();
        }
        let is_guest = self.is_stranger() && !self.errand.has_waited();
        let has_line = self.sidecar.line().is_some();
        let knocks = !had_wal && is_guest && has_line && self.guest.knocks();
        if knocks || self.due.is_some() {
            let guest = match knocks {
                true => self.guest,
                false => Guest::default(),
            };
            let due = self.due;
            inheritance::claim(self.sidecar.hash(), Claim { due, guest });
        }
        let habit = self.errand.habit_left();
        let Some(m) = self.sidecar.detach() else {
            return;
        };
        crate::inject::kill_point("closing");
        if let Some(ticket) = self.ticket.take() {
            line::give_up(&m, ticket);
        }
        let turn = std::mem::take(&mut self.turn).leave(&m);
        // A WAL's last close asks for EXCLUSIVE, and PENDING stays until the file is closed.
        signal::open_gate(&m);
        signal::ring(&m, Word::Drain);
        let closed = mapped::now();
        let sidecar = (self.returns || knocks || habit.patience().is_some()).then_some(m);
        let legacy = Legacy {
            closed,
            turn,
            sidecar,
            habit,
        };
        LEGACIES.leave(self.sidecar.hash(), legacy);
    }

    /// Holds up nobody any more. The ticket stays: who asks again goes on from its old place.
    fn leave_line(&self) {
        if let (Some(m), Some(ticket)) = (self.sidecar.line(), self.ticket) {
            line::give_up(m, ticket);
        }
    }
}
