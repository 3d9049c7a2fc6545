//! Waiting outside: in a crowd, one that is about to write waits before it attaches to the database.
//!
//! Linux keeps a file's locks in a list that each lock, unlock and close walks (`posix_lock_inode`), with a spin
//! lock held. Whoever waits for the WAL's write lock holds two of them, so with a thousand waiters a walk is
//! 12 µs, and a connection that is opened for one write makes eleven. But if all waited outside, nearly every close
//! would be the last one, and the WAL would be torn down and built anew each time. So one of [`INSIDE`] waits
//! attached.
//!
//! Who waits outside is called in [`AHEAD`] of its turn: it attaches while those before it commit. Until it asks for
//! the lock it is *entering*: it is told nothing, and if its turn comes and it does not, it is passed over soon.
//! That may be one who has read the schema and does something else first. (It may still try when it comes.)
//!
//! Measured, 1,000 processes that open the database for each write, two processors, against the ideal queue: on
//! tmpfs .82 of its writes and 2.0 times its processor time with all attached; .99 and 1.4 with one called in, 1.08 to
//! 1.17 and 1.4 with two, 1.0 and 1.6 with three. On a disk .83 and 2.0 with all attached, .97 to .99 and 1.5 with two.

use super::layout::{State, Word};
use super::line::{self, Outcome, Parked, Ticket};
use super::machine::Machine;

/// A line of so many is one.
pub const CROWD: u32 = 64;

/// One of so many waits attached.
const INSIDE: u32 = 16;

/// So many are on their way in.
const AHEAD: u32 = 2;

/// Takes a place for one that is not attached yet, if there is a crowd.
pub fn come(m: &impl Machine, member: u32, crowd: u32) -> Option<Ticket> {
    line::line(m).filter(|line| line.len() >= crowd)?;
    line::take(m, member).ok()
}

/// Waits to be called in, at most until `until`. Whatever comes of it, the place is still ours, unless it lapsed.
pub fn wait(m: &impl Machine, ticket: &mut Ticket, until: u64) -> Outcome {
    if ticket.number.is_multiple_of(INSIDE) {
        return Outcome::Try;
    }
    loop {
        let place = line::line(m).and_then(|line| Some((line, line.position(ticket.number)?)));
        let Some((line, position)) = place else {
            return Outcome::Lapsed;
        };
        let now = m.now();
        if position < AHEAD {
            return Outcome::Try;
        }
        if now >= until {
            return Outcome::TimeOver;
        }
        let wake_at = super::watch::next_look(m, ticket, line, now, until);
        match line::park(m, ticket, State::Outside, wake_at) {
            Parked::Told => return Outcome::Try,
            Parked::Lapsed => return Outcome::Lapsed,
            Parked::Signalled => return Outcome::Signalled,
            Parked::Woken => super::watch::look(m, ticket, line.head, until),
        }
    }
}

/// It goes in.
pub fn set_out(m: &impl Machine, ticket: Ticket) {
    let word = Word::Place(ticket.number);
    m.store(Word::Stamp(ticket.number), m.now());
    while let Some(place) = line::place(m, ticket.number).filter(|p| p.member == ticket.member) {
        let entering = place.with(State::Entering);
        if place.state == State::Gone || m.replace(word, place.into(), entering.into()) {
            break;
        }
    }
    crate::inject::kill_point("entering");
}

/// It is the head, and is about to ask for the lock, or was refused SHARED on the way there.
pub fn arrive(m: &impl Machine, ticket: &mut Ticket) {
    let place = line::place(m, ticket.number).filter(|p| p.member == ticket.member);
    if let Some(place) = place.filter(|place| place.state == State::Entering) {
        let word = Word::Place(ticket.number);
        m.store(Word::Stamp(ticket.number), m.now());
        // From here on it is to be told.
        m.replace(word, place.into(), place.with(State::Awake).into());
        super::quantum::want(m, ticket.number);
        ticket.polls = ticket.polls.max(1);
        crate::inject::kill_point("arrived");
    }
}

/// It was called in and nobody slept there: stopped, or between two instructions, and then it says so.
pub fn missed(m: &impl Machine, ticket: u32) {
    let made_old = m.now().saturating_sub(super::watch::ABSENT);
    m.store(Word::Stamp(ticket), made_old);
}

/// Calls in those who come next, if they are outside.
pub(super) fn call(m: &impl Machine) {
    let Some(line) = line::line(m) else { return };
    for next in (0..AHEAD.min(line.len())).map(|at| line.head.wrapping_add(at)) {
        let place = line::place(m, next).filter(|place| place.state == State::Outside);
        if let Some(place) = place {
            let word = Word::Place(next);
            m.store(Word::Stamp(next), m.now());
            if m.replace(word, place.into(), place.with(State::Entering).into()) {
                crate::inject::kill_point("calling");
                if m.wake(word, 1) == 0 {
                    missed(m, next);
                }
            }
        }
    }
}
