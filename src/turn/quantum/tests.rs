//! One turn, step by step: nobody else is there, and the clock stands until it is moved.

use super::*;
use crate::turn::layout::{MAGIC, WORDS};
use crate::turn::line;
use std::cell::Cell;

const MS: u64 = 1_000_000;
const QUANTUM: u64 = 10 * MS;

struct Still {
    words: Vec<Cell<u64>>,
    clock: Cell<u64>,
}

impl Still {
    /// A line of so many.
    fn with(waiters: u32) -> Still {
        let m = Still {
            words: vec![Cell::new(0); WORDS],
            clock: Cell::new(1_000 * MS),
        };
        m.store(Word::Magic, MAGIC);
        for member in 0..waiters {
            line::take(&m, member + 1).unwrap();
        }
        m
    }

    fn pass(&self, time: u64) {
        self.clock.set(self.clock.get() + time);
    }
}

impl Machine for Still {
    fn load(&self, word: Word) -> u64 {
        self.words[word.index()].get()
    }

    fn store(&self, word: Word, value: u64) {
        self.words[word.index()].set(value);
    }

    fn replace(&self, word: Word, old: u64, new: u64) -> bool {
        let found = self.load(word) == old;
        if found {
            self.store(word, new);
        }
        found
    }

    fn add(&self, word: Word, value: u64) -> u64 {
        self.store(word, self.load(word) + value);
        self.load(word)
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }

    fn park(&self, _word: Word, _expected: u64, _until: u64) -> bool {
        unreachable!("nobody waits here")
    }

    fn wake(&self, _word: Word, _most: u32) -> u32 {
        0
    }

    fn is_alive(&self, _member: u32) -> bool {
        true
    }

    fn random(&self) -> u32 {
        0
    }
}

/// A turn whose owner closes the database after each transaction: `took` of it, and `away` between two.
fn that_returns(m: &Still, took: u64, away: u64) -> Turn {
    that_returns_to(m, true, took, away)
}

fn that_returns_to(m: &Still, is_wal: bool, took: u64, away: u64) -> Turn {
    let mut turn = Turn::default();
    turn.begin(m, QUANTUM, 0);
    for _ in 0..2 {
        m.pass(took);
        turn.released(m, QUANTUM, is_wal);
        turn = turn.leave(m).unwrap();
        m.pass(away);
        turn.judge(m);
    }
    turn.begin(m, QUANTUM, 0);
    turn
}

/// The same on a rollback journal; its turn lasts and is announced, and it has closed the database.
fn that_left(m: &Still) -> Turn {
    let mut turn = that_returns_to(m, false, 300_000, 700);
    turn.released(m, QUANTUM, false);
    turn.leave(m).unwrap()
}

#[test]
fn the_last_one_of_a_wal_is_not_let_in_while_the_owner_is_away() {
    for (waiters, may_close) in [(1, false), (2, true)] {
        let m = Still::with(waiters);
        let mut turn = that_returns(&m, 300_000, 100_000);
        m.pass(QUANTUM);
        turn.released(&m, QUANTUM, true);
        turn = turn.leave(&m).unwrap();
        assert_eq!(busy_until(&m, m.now()) == 0, may_close, "{waiters}");
        m.pass(100_000);
        assert!(!turn.may_barge(&m, false), "{waiters}: its turn is over");
        assert_eq!(busy_until(&m, m.now()), 0, "{waiters}");
    }
}

#[test]
fn who_does_not_come_back_holds_up_the_last_one_for_a_moment_only() {
    let m = Still::with(1);
    let mut turn = that_returns(&m, 300_000, 100_000);
    m.pass(QUANTUM);
    turn.released(&m, QUANTUM, true);
    turn.leave(&m);
    m.pass(AT_ONCE);
    assert_eq!(busy_until(&m, m.now()), 0);
}

#[test]
fn a_checkpoint_is_no_absence() {
    let m = Still::with(3);
    let mut turn = that_returns(&m, 300_000, 100_000);
    m.pass(300_000);
    turn.released(&m, QUANTUM, true);
    pause(&m);
    m.pass(2 * MS);
    turn.resume(&m);
    turn = turn.leave(&m).unwrap();
    m.pass(100_000);
    assert!(turn.judge(&m) == Pace::Returns);
}

#[test]
fn while_guests_are_about_turns_of_short_transactions_are_short() {
    let m = Still::with(2);
    let mut turn = Turn::default();
    turn.judge(&m);
    m.pass(20_000);
    turn.released(&m, QUANTUM, true);
    turn.judge(&m);
    assert_eq!(turn.length(&m, QUANTUM), QUANTUM);
    knock::tries_in_vain(&m);
    assert_eq!(turn.length(&m, QUANTUM), SHORT_FOR_GUESTS);
    m.pass(MS * 200);
    assert_eq!(turn.length(&m, QUANTUM), QUANTUM);
}

#[test]
fn a_long_turn_ends_sooner_if_the_next_one_is_a_guests() {
    for (turns, guest, ends) in [(0, 1, true), (1, 1, false), (0, 0, false)] {
        let m = Still::with(3);
        let mut turn = that_returns(&m, 300_000, 700);
        let begun = m.now();
        m.pass(QUANTUM / 2);
        m.store(Word::Turns, turns);
        m.store(Word::Knock(0), guest);
        turn.released(&m, QUANTUM, false);
        assert_eq!(busy_until(&m, m.now()), begun + QUANTUM, "{turns}, {guest}");
        assert!(turn.may_barge(&m, false), "{turns}, {guest}");
        m.pass(QUANTUM / 4);
        turn.released(&m, QUANTUM, false);
        assert_eq!(busy_until(&m, m.now()) == 0, ends, "{turns}, {guest}");
        assert_eq!(turn.may_barge(&m, false), !ends, "{turns}, {guest}");
    }
}

#[test]
fn nobody_else_comes_in_the_middle_of_a_turn() {
    let m = Still::with(3);
    let other = Turn::default();
    assert!(other.is_free(&m));
    let turn = that_left(&m);
    assert!(!other.is_free(&m) && turn.is_free(&m));
    m.pass(QUANTUM);
    assert!(other.is_free(&m));
}

/// A WAL's lock is shared meanwhile.
#[test]
fn the_lock_of_a_journal_is_not_kept_for_one_that_is_away_for_longer_than_it_writes() {
    for (is_wal, took, away, keeps) in [
        (false, 50_000, 100_000, true),
        (false, 50_000, 400_000, false),
        (false, 500_000, 400_000, true),
        (true, 50_000, 400_000, true),
    ] {
        let m = Still::with(3);
        let turn = that_returns_to(&m, is_wal, took, away);
        assert!(
            (turn.pace == Pace::Returns) == keeps,
            "{is_wal}, {took}, {away}"
        );
    }
}

/// And does not keep the lock from the others for long if it does not.
#[test]
fn a_guests_first_turn_goes_on_if_it_comes_back() {
    for (tries, away, ends) in [(1, 100_000, false), (1, AT_ONCE, true), (0, 100_000, true)] {
        let m = Still::with(3);
        let mut turn = Turn::default();
        turn.begin(&m, QUANTUM, tries);
        let begun = m.now();
        m.pass(300_000);
        turn.released(&m, QUANTUM, false);
        turn = turn.leave(&m).unwrap();
        m.pass(away);
        assert_eq!(busy_until(&m, m.now()) == 0, ends, "{tries}, {away}");
        assert_eq!(turn.may_barge(&m, false), !ends, "{tries}, {away}");
        if !ends {
            m.pass(300_000);
            turn.released(&m, QUANTUM, false);
            assert_eq!(busy_until(&m, m.now()), begun + QUANTUM / 4);
        }
    }
}

#[test]
fn who_comes_late_ends_its_turn_itself() {
    let m = Still::with(3);
    let turn = that_left(&m);
    m.pass(MS);
    let mut turn = turn.lapse();
    assert_ne!(busy_until(&m, m.now()), 0);
    assert!(!turn.may_barge(&m, false));
    assert_eq!(busy_until(&m, m.now()), 0);
}

/// Who meets a commit on the way, and comes again, is still who has come back at once.
#[test]
fn the_first_try_says_whether_one_came_back() {
    let m = Still::with(3);
    let mut turn = that_left(&m);
    m.pass(100_000);
    for _ in 0..3 {
        assert!(turn.judge(&m) == Pace::Returns);
        m.pass(20 * MS);
    }
    m.pass(TRIES_AGAIN);
    assert!(turn.judge(&m) == Pace::Leaves);
}

/// But not if the lock is held for longer than it is free: then at the turn's end.
#[test]
fn the_next_one_joins_who_returns_after_a_moment() {
    for (waiters, away, from) in [
        (300, 400_000, JOINS),
        (3, 400_000, JOINS),
        (3, 100_000, QUANTUM),
    ] {
        let m = Still::with(waiters);
        let mut turn = that_returns(&m, 200_000, away);
        let begun = m.now();
        m.pass(100_000);
        turn.released(&m, QUANTUM, true);
        assert_eq!(busy_until(&m, m.now()), begun + from, "{waiters}, {away}");
    }
}

#[test]
fn all_turns_of_a_long_line_together_take_a_second() {
    let m = Still::with(300);
    let turn = that_returns(&m, 300_000, 700);
    assert!(turn.length(&m, QUANTUM) * 300 <= LINE);
}
