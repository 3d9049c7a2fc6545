//! The watcher: one waiter of the line that looks every few milliseconds whether the head moves.
//!
//! The head cannot do it: a waiter that sleeps far back becomes the head without being woken
//! (that is what makes a turn cost one wake), so it does not know. And if all did it, a thousand waiters would wake
//! a thousand times in each of these few milliseconds.
//!
//! Invariant: a line of two or more has a watcher that is not its head, or gets one when somebody leaves
//! it, and within [`BACKSTOP`] even if nobody does. (The head cannot watch itself: if it dies between
//! being told and being served, it is for the watcher to notice.)

use super::layout::{Line, Place, State, Watch, Word};
use super::line::{Ticket, advance, line, place, tell_head};
use super::machine::Machine;

/// The watcher looks this often. A holder that dies costs the others about that much.
const TICK: u64 = 20_000_000;

/// Everybody looks around this often, at random between half of it and all of it, in case the watcher is
/// gone.
const BACKSTOP: u64 = 1_000_000_000;

/// A watcher that has not looked for so long is gone.
const STALE_MS: u32 = 60;

/// A head that was told and woken gets this long to run before it is passed over.
const GRACE: u64 = 300_000_000;

/// One that was not found asleep, although it ought to be: it is stopped, or between two
/// instructions.
const CALLED_GRACE: u64 = TICK;

/// One that was called in: it may have nothing to do here.
const ENTERING_GRACE: u64 = 100_000_000;

/// How old one is made that was called in and is not there.
pub(super) const ABSENT: u64 = ENTERING_GRACE - CALLED_GRACE;

/// The next one, after one was passed over: whole jobs are stopped at once.
const NEXT_GRACE: u64 = 1_000_000;

fn ms(ns: u64) -> u32 {
    (ns / 1_000_000) as u32
}

/// Whether that one watches.
fn is_there(watch: Watch, line: Line, now: u64) -> bool {
    line.position(watch.ticket).is_some_and(|p| p > 0)
        && ms(now).wrapping_sub(watch.seen_ms) < STALE_MS
}

/// Until when a waiter that is not the head may sleep, if it wants to sleep until `until`.
pub fn next_look(m: &impl Machine, ticket: &mut Ticket, line: Line, now: u64, until: u64) -> u64 {
    if until < now + TICK {
        // Too short a sleep for a watcher.
        return until;
    }
    let word = m.load(Word::Watch);
    let watch = Watch::from(word);
    let there = is_there(watch, line, now);
    let mine = Watch {
        ticket: ticket.number,
        seen_ms: ms(now),
    };
    if (watch.ticket == ticket.number || !there) && m.replace(Word::Watch, word, mine.into()) {
        crate::inject::kill_point("watching");
        return now + TICK;
    }
    ticket.looks += 1;
    until.min(now + BACKSTOP / 2 + u64::from(m.random()) % (BACKSTOP / 2))
}

/// After a sleep in which nobody told us anything: is the head still `head`?
///
/// Looks no longer than `until`.
pub fn look(m: &impl Machine, ticket: &Ticket, head: u32, until: u64) {
    if Watch::from(m.load(Word::Watch)).ticket == ticket.number {
        blame(m, head, Some(ticket.number), until);
    }
}

/// For one who has no place in the line: it found the line full, or it is sent away and may never come
/// to wait; or it waits for less than a watcher's tick. If nobody watches, the head may be one who will never
/// answer, and everybody would be sent away for ever.
pub fn look_in(m: &impl Machine) {
    let Some(line) = line(m).filter(|line| line.len() > 0) else {
        return;
    };
    let now = m.now();
    let watched = is_there(m.load(Word::Watch).into(), line, now);
    if !watched && age(now, m.load(Word::Stamp(line.head))) >= TICK {
        blame(m, line.head, None, now + TICK);
    }
}

/// Passes over `head` and those behind it, as far as they do not answer and are not `own`.
fn blame(m: &impl Machine, head: u32, own: Option<u32>, until: u64) {
    let mut blamed = head;
    let (mut called_grace, mut entering_grace) = (CALLED_GRACE, ENTERING_GRACE);
    // At most so many: the others find a watcher that is long away stale.
    for _ in 0..super::layout::CAPACITY {
        let Some(line) = line(m).filter(|l| l.head == blamed && Some(l.head) != own) else {
            return;
        };
        let now = m.now();
        if now >= until {
            return;
        }
        let age = age(now, m.load(Word::Stamp(blamed)));
        let to_blame = match place(m, blamed) {
            // Its owner died before it came to its place, or is about to come.
            None => age >= TICK,
            Some(place) => match place.state {
                State::Gone => true,
                // The holder died, or takes its time: the head should know that it is the head.
                State::Parked | State::Outside => {
                    tell_head(m);
                    false
                }
                _ if !m.is_alive(place.member) => true,
                State::Entering => age >= entering_grace,
                State::Called => age >= called_grace,
                // Whoever told it may have died before the wake.
                State::Told => age >= TICK && m.wake(Word::Place(blamed), 1) == 0 && age >= GRACE,
                State::Awake => age >= GRACE,
            },
        };
        if !to_blame {
            return;
        }
        pass_over(m, line);
        blamed = match super::line::line(m) {
            Some(line) if line.len() > 0 => line.head,
            _ => return,
        };
        tell_head(m);
        // Is that one there? A thread that runs has answered by then.
        (called_grace, entering_grace) = (NEXT_GRACE, ABSENT + NEXT_GRACE);
        let is_absent = |place: Place| match place.state {
            State::Called => true,
            State::Entering => self::age(m.now(), m.load(Word::Stamp(blamed))) >= ABSENT,
            _ => false,
        };
        if place(m, blamed).is_some_and(is_absent) {
            m.park(Word::Magic, super::layout::MAGIC, m.now() + NEXT_GRACE);
        }
    }
}

/// How old a stamp is. One from the future is garbage.
fn age(now: u64, stamp: u64) -> u64 {
    if stamp > now + GRACE {
        return u64::MAX;
    }
    now.saturating_sub(stamp)
}

fn pass_over(m: &impl Machine, line: Line) {
    crate::inject::kill_point("blaming");
    if advance(m, line.head) {
        crate::inject::kill_point("lapsed");
        m.add(Word::Lapses, 1);
    }
}

/// Leaving the line: the one who came last watches on.
pub fn resign(m: &impl Machine, ticket: Ticket) {
    let word = m.load(Word::Watch);
    if Watch::from(word).ticket != ticket.number {
        return;
    }
    let Some(line) = line(m) else { return };
    if line.tail.wrapping_sub(1) != ticket.number {
        hand_over(m, word, line);
    }
}

/// After the head has moved: if the watcher is the head now, or was one of those who are gone, the one who
/// came last watches on.
pub fn hand_on(m: &impl Machine, line: Line) {
    let word = m.load(Word::Watch);
    if line.len() >= 2 && !is_there(word.into(), line, m.now()) {
        hand_over(m, word, line);
    }
}

fn hand_over(m: &impl Machine, word: u64, line: Line) {
    let last = line.tail.wrapping_sub(1);
    if line.position(last).is_none() {
        return;
    }
    let next = Watch {
        ticket: last,
        seen_ms: ms(m.now()),
    };
    if m.replace(Word::Watch, word, next.into()) {
        crate::inject::kill_point("resigned");
        // It sleeps; woken, it finds out that it watches.
        m.wake(Word::Place(last), 1);
    }
}
