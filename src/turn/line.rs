//! Tickets: take one, wait, tell the head, leave.
//!
//! Invariant: whoever leaves without having held the lock, as the head or having been told, tells the next
//! head (a wake that it may have swallowed is passed on). Whoever arrives at the head tries the lock
//! before it sleeps. So no release is ever missed.

use super::layout::{CAPACITY, Line, MAGIC, Place, State, Word};
use super::machine::Machine;

/// A place in the line, as its owner knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub number: u32,
    pub member: u32,
    /// Whether the owner has tried the lock as the head: from then on it polls.
    pub polls: u32,
    /// How often the owner looked around without having been told.
    pub(super) looks: u32,
}

/// Why there is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTicket {
    /// [`CAPACITY`] are waiting.
    Full,
    /// What is in the sidecar cannot be.
    Garbage,
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Our turn: ask for the lock.
    Try,
    /// The place is lost: we did not answer in time, or somebody mended the sidecar.
    Lapsed,
    /// The time is over; we are still in the line.
    TimeOver,
    /// A signal came, and its handler may have changed what the caller wants; we are still in the line.
    Signalled,
}

/// A head that is not told polls this often, at random between half of it and all of it: first
/// quickly, since the lock may be free any moment; at last every 10 ms, which is how long a holder
/// that died or that uses the stock VFS can hold up the line.
const POLL_FIRST: u64 = 500_000;
const POLL_LAST: u64 = 10_000_000;

/// The present line; `None` if it is garbage.
pub fn line(m: &impl Machine) -> Option<Line> {
    let line = Line::from(m.load(Word::Line));
    (line.is_valid() && m.load(Word::Magic) == MAGIC).then_some(line)
}

/// The place of `ticket`, if it is set up.
pub(super) fn place(m: &impl Machine, ticket: u32) -> Option<Place> {
    Place::of(m.load(Word::Place(ticket)), ticket)
}

/// Joins the line at its end.
pub fn take(m: &impl Machine, member: u32) -> Result<Ticket, NoTicket> {
    loop {
        let line = line(m).ok_or(NoTicket::Garbage)?;
        if line.len() >= CAPACITY {
            super::watch::look_in(m);
            return Err(NoTicket::Full);
        }
        let number = line.tail;
        // Before the place is ours: without it, the place's last owner would make us look dead.
        m.store(Word::Stamp(number), m.now());
        let longer = Line {
            tail: number.wrapping_add(1),
            ..line
        };
        if !m.replace(Word::Line, line.into(), longer.into()) {
            continue;
        }
        crate::inject::kill_point("taken");
        let state = State::Awake;
        let place = Place {
            member,
            ticket: number,
            state,
        };
        m.store(Word::Place(number), place.into());
        crate::inject::kill_point("placed");
        return Ok(Ticket {
            number,
            member,
            polls: 0,
            looks: 0,
        });
    }
}

/// Waits until it is our turn to try, or until `until`. A head that `polls` also tries now and then.
///
/// Call it again after a try that failed; the ticket stays.
pub fn wait(m: &impl Machine, ticket: &mut Ticket, until: u64, polls: bool) -> Outcome {
    // Told by somebody; or, as the head, by the clock.
    let (mut rung, mut told) = (false, false);
    loop {
        let Some(line) = line(m) else {
            return Outcome::Lapsed;
        };
        let Some(position) = line.position(ticket.number) else {
            return Outcome::Lapsed;
        };
        let now = m.now();
        if now >= until && !rung {
            return Outcome::TimeOver;
        }
        let mut wake_at = until;
        // A guest is told behind the head.
        if position == 0 || told {
            let turn = super::quantum::busy_until(m, now);
            if turn <= now && (told || ticket.polls == 0) {
                m.store(Word::Stamp(ticket.number), now);
                ticket.polls += 1;
                super::quantum::want(m, ticket.number);
                crate::inject::kill_point("trying");
                return Outcome::Try;
            }
            if now >= until {
                // Told of a turn that we do not live to see the end of.
                tell_head(m);
                return Outcome::TimeOver;
            }
            if turn > now {
                wake_at = wake_at.min(turn);
            } else if polls {
                let longest = POLL_LAST.min(POLL_FIRST << ticket.polls.min(8));
                let poll = longest / 2 + u64::from(m.random()) % (longest / 2);
                wake_at = wake_at.min(now + poll);
            }
            // To be woken by the clock is as good as to be told.
            told = turn > now || polls;
        } else {
            wake_at = super::watch::next_look(m, ticket, line, now, until);
        }
        match park(m, ticket, State::Parked, wake_at) {
            Parked::Lapsed => return Outcome::Lapsed,
            Parked::Told => (rung, told) = (true, true),
            Parked::Signalled => return Outcome::Signalled,
            Parked::Woken if position > 0 => super::watch::look(m, ticket, line.head, until),
            Parked::Woken => {}
        }
    }
}

pub(super) enum Parked {
    Told,
    Woken,
    Signalled,
    Lapsed,
}

/// Sleeps on our place, `Parked` or `Outside`, until we are told, or until `until`.
pub(super) fn park(m: &impl Machine, ticket: &Ticket, asleep: State, until: u64) -> Parked {
    let word = Word::Place(ticket.number);
    let awake = Place {
        member: ticket.member,
        ticket: ticket.number,
        state: State::Awake,
    };
    let parked = awake.with(asleep);
    if m.replace(word, awake.into(), parked.into()) {
        crate::inject::kill_point("parked");
        let signalled = m.park(word, parked.into(), until);
        crate::inject::kill_point("unparked");
        // One that is awake by an old stamp would look stopped.
        m.store(Word::Stamp(ticket.number), m.now());
        if m.replace(word, parked.into(), awake.into()) {
            return match signalled {
                true => Parked::Signalled,
                false => Parked::Woken,
            };
        }
    }
    // Told; or passed over and overwritten by somebody's else ticket.
    let Some(place) = place(m, ticket.number).filter(|p| p.member == ticket.member) else {
        return Parked::Lapsed;
    };
    match place.state {
        State::Told | State::Called => {
            m.store(Word::Stamp(ticket.number), m.now());
            if m.replace(word, place.into(), awake.into()) {
                crate::inject::kill_point("told");
                return Parked::Told;
            }
            // Called while we looked, or passed over: the next round tells.
            Parked::Woken
        }
        // Called in.
        State::Entering if asleep == State::Outside => Parked::Told,
        State::Awake | State::Parked | State::Outside | State::Entering => {
            m.replace(word, place.into(), awake.into());
            Parked::Woken
        }
        State::Gone => Parked::Lapsed,
    }
}

/// Tells the head that it is its turn, passing over the dead and the departed; or before it, a guest.
///
/// Says whether anybody was told.
pub fn tell_head(m: &impl Machine) -> bool {
    if super::knock::answer(m) {
        return true;
    }
    // Every round passes over one place, and new ones come in by their owners' doing: an end is sure.
    for _ in 0..2 * CAPACITY {
        let Some(line) = line(m).filter(|line| line.len() > 0) else {
            return false;
        };
        // Not set up yet: its owner tries the lock before it sleeps.
        let Some(place) = place(m, line.head) else {
            return true;
        };
        let word = Word::Place(line.head);
        match place.state {
            State::Gone => {
                advance(m, line.head);
            }
            // One that enters tries by itself.
            State::Told | State::Called | State::Entering => return true,
            State::Awake => {
                m.store(Word::Stamp(line.head), m.now());
                if m.replace(word, place.into(), place.with(State::Told).into()) {
                    return true;
                }
            }
            State::Parked | State::Outside => {
                m.store(Word::Stamp(line.head), m.now());
                let told = place.with(match place.state {
                    State::Outside => State::Entering,
                    _ => State::Told,
                });
                if !m.replace(word, place.into(), told.into()) {
                    continue;
                }
                crate::inject::kill_point("telling");
                if m.wake(word, 1) > 0 {
                    return true;
                }
                // Between its last look and its sleep; or stopped; or dead.
                match told.state {
                    State::Told => {
                        m.replace(word, told.into(), place.with(State::Called).into());
                    }
                    _ => super::admission::missed(m, line.head),
                }
                crate::inject::kill_point("called");
                if m.is_alive(place.member) {
                    return true;
                }
                advance(m, line.head);
            }
        }
    }
    true
}

/// Moves the head behind `ticket`, if it is the head. Whoever is the head then is told nothing.
pub(super) fn advance(m: &impl Machine, ticket: u32) -> bool {
    while let Some(line) = line(m) {
        if line.head != ticket || line.len() == 0 {
            return false;
        }
        let shorter = Line {
            head: ticket.wrapping_add(1),
            ..line
        };
        if m.replace(Word::Line, line.into(), shorter.into()) {
            crate::inject::kill_point("advanced");
            super::watch::hand_on(m, shorter);
            return true;
        }
    }
    false
}

/// Leaves the line with the lock in hand.
pub fn served(m: &impl Machine, ticket: Ticket) {
    crate::inject::kill_point("served");
    m.add(Word::Turns, 1);
    super::quantum::want_no_more(m, ticket.number);
    leave_place(m, ticket);
    super::admission::call(m);
}

/// Leaves the line without the lock: whoever comes behind may pass. While nobody has, one can
/// [`come_back`].
pub fn give_up(m: &impl Machine, ticket: Ticket) {
    crate::inject::kill_point("giving up");
    let left = leave_place(m, ticket);
    if left.was_head || left.was_told {
        tell_head(m);
    }
}

/// Leaves the line to try the lock, in answer to [`Outcome::Try`], for one who may not wait here again: it
/// holds up nobody. Should it be refused, whoever has the lock tells the next head; should it not even
/// try, it owes the next head a [`tell_head`].
pub fn step_aside(m: &impl Machine, ticket: Ticket) {
    if leave_place(m, ticket).was_told {
        tell_head(m);
    }
}

/// Takes the place again that was given up. `None`: the line has passed it.
///
/// (Somebody who saw the place empty just before may still pass it. We find out at our next look, which is
/// soon, as only the head's place is passed.)
pub fn come_back(m: &impl Machine, ticket: Ticket) -> Option<Ticket> {
    line(m)?.position(ticket.number)?;
    let place = place(m, ticket.number).filter(|p| p.member == ticket.member)?;
    if place.state != State::Gone {
        return Some(ticket);
    }
    m.store(Word::Stamp(ticket.number), m.now());
    let awake = place.with(State::Awake);
    let back = m.replace(Word::Place(ticket.number), place.into(), awake.into());
    crate::inject::kill_point("back");
    back.then_some(ticket)
}

/// What a place was when its owner left it.
struct Left {
    was_head: bool,
    /// A guest is told behind the head.
    was_told: bool,
}

fn leave_place(m: &impl Machine, ticket: Ticket) -> Left {
    let word = Word::Place(ticket.number);
    let mut was_told = true;
    while let Some(place) = place(m, ticket.number).filter(|p| p.member == ticket.member) {
        if m.replace(word, place.into(), place.with(State::Gone).into()) {
            was_told = matches!(place.state, State::Told | State::Called);
            break;
        }
    }
    crate::inject::kill_point("gone");
    super::watch::resign(m, ticket);
    let was_head = advance(m, ticket.number);
    Left { was_head, was_told }
}
