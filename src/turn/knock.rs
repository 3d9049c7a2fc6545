//! A guest at the door: one that has no place in the line, because its busy handler is its own or because it has
//! none and tries again by itself.
//!
//! It may try once all who were there before it have been served. But when it comes, somebody mostly has the lock,
//! and then it is away again for as long as it likes to sleep: a connection that tries once in a millisecond
//! would get a twentieth of its share. So a guest that is due waits at the door for a moment, and one of the next
//! turns is its. It does not stand there for as long as a turn may last: a long one ends a little sooner if the next one
//! is a guest's and a guest is there ([`is_next`]).
//!
//! A few can knock at the same time. Their tickets make the line stand, but are not the head.
//!
//! Invariant: the next turn has one owner. A turn that lasts (`quantum`) is announced to whom the next one belongs, and
//! told again at its end: to the same (only a turn that begins changes whose it is), who therefore stands at the door
//! until it tries. One who does not answer (stopped, killed) is told no third time. A turn that a guest would not live to
//! see the end of is announced to the head, until when it lasts at most: it ends before that for a guest.

use super::layout::{DOORS, Place, State, Word};
use super::line::{self, Outcome, Ticket};
use super::machine::Machine;
use super::quantum;

/// Of so many turns one is a guest's, if others wait. Of 32 writers that return with a rollback journal, half of them guests
/// that sleep 5 ms after each try, the guests got .46 to .59 of a fair share, and with every fourth turn .29; the others more
/// than they get alone with either.
const GUESTS: u64 = 3;

/// How long a guest waits. It asked for an answer at once.
pub const MOMENT: u64 = 2_000_000;

/// Guests are about if one has tried in vain within this.
const ABOUT: u64 = 100_000_000;

/// One that has no place in the line tries again before it is due.
pub fn tries_in_vain(m: &impl Machine) {
    m.store(Word::Guest, m.now());
}

/// Whether a turn is to be short, for the sake of those who try in between.
pub fn are_guests_about(m: &impl Machine) -> bool {
    // A time to come is garbage.
    m.now().wrapping_sub(m.load(Word::Guest)) < ABOUT
}

fn word(ticket: Ticket) -> u64 {
    1 << 63 | u64::from(ticket.number)
}

/// In a door's word: its guest was told once.
const TOLD: u64 = 1 << 62;

/// Waits a moment to be told before the head.
pub fn knock(m: &impl Machine, ticket: &mut Ticket) -> Outcome {
    let mine = word(*ticket);
    let mut doors = (0..DOORS).map(Word::Knock);
    let Some(door) = doors.find(|&door| m.load(door) == 0 && m.replace(door, 0, mine)) else {
        return Outcome::TimeOver;
    };
    crate::inject::kill_point("knocking");
    let outcome = line::wait(m, ticket, m.now() + MOMENT, false);
    if !m.replace(door, mine, 0) {
        m.replace(door, mine | TOLD, 0);
    }
    outcome
}

/// A guest has the lock in hand.
pub fn served(m: &impl Machine) {
    m.add(Word::Turns, 1);
}

/// Whether the next turn is a guest's, and one waits for it.
pub fn is_next(m: &impl Machine) -> bool {
    m.load(Word::Turns).is_multiple_of(GUESTS)
        && (0..DOORS).any(|door| m.load(Word::Knock(door)) != 0)
}

/// Tells the guest who came first that it is its turn, if one waits.
pub(super) fn answer(m: &impl Machine) -> bool {
    let now = m.now();
    if !is_next(m) || quantum::busy_until(m, now) > now + MOMENT {
        return false;
    }
    for _ in 0..2 * DOORS {
        let knocking = (0..DOORS).map(|at| (Word::Knock(at), m.load(Word::Knock(at))));
        let knocking = knocking.filter(|(_, word)| *word != 0);
        let Some((door, word)) = knocking.min_by_key(|(_, word)| word & !TOLD) else {
            return false;
        };
        let next = if word & TOLD == 0 { word | TOLD } else { 0 };
        if m.replace(door, word, next) && tell(m, word as u32) {
            return true;
        }
    }
    false
}

fn tell(m: &impl Machine, ticket: u32) -> bool {
    let stands = line::line(m).is_some_and(|line| line.position(ticket).is_some());
    let Some(place) = Place::of(m.load(Word::Place(ticket)), ticket).filter(|_| stands) else {
        return false;
    };
    let told = place.with(State::Told);
    let asleep = match place.state {
        State::Awake => false,
        State::Parked => true,
        State::Told | State::Called => return true,
        State::Gone | State::Outside | State::Entering => return false,
    };
    let word = Word::Place(ticket);
    m.replace(word, place.into(), told.into()) && (!asleep || m.wake(word, 1) > 0)
}
