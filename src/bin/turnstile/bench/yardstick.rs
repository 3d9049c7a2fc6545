//! The yardstick: stock SQLite behind an ideal queue.
//!
//! Each writer takes a strict FIFO lock before it opens the database (kept open: before `BEGIN`)
//! and gives it back after closing (after `COMMIT`). SQLite never sees two writers, so it neither
//! sleeps nor retries, and whoever came first is first. Nothing that waits *inside* SQLite can be
//! much faster or more even; how near it comes is what the yardstick is for.
//!
//! It is not a way to use SQLite. Whoever is killed while holding the lock or standing in line
//! stops everybody behind (the bench kills them when its patience is over), there is no timeout,
//! and who does not know of the lock is not kept out by it.
//!
//! # The lock
//! The classic ticket lock. Taking a ticket is one atomic addition; each ticket has a word of its
//! own to sleep on, and the word holds the ticket's number (from 1) when it is that ticket's turn:
//!
//! | slot of ticket *t* | means |
//! |---|---|
//! | *t + 1* | it is *t*'s turn, or *t* has been served |
//! | anything else | *t* is to wait; left over from the ticket that used the slot before |
//!
//! Giving the lock back writes the next ticket's word and wakes the one process that sleeps on it,
//! if that ticket is out. So a turn costs two system calls and two context switches, however long
//! the line is.
//!
//! # The anchor
//! In WAL mode the last connection to close moves the whole WAL into the database and deletes it,
//! and the next one to open makes a new one. With a thousand writers in stock SQLite's crowd
//! somebody always has the database open and that never happens. Behind the lock only one is open
//! at any time, so it would happen at every single write: the yardstick would measure that, and
//! not the queue. One idle connection, held by the bench itself, keeps the WAL where it is.

use std::sync::atomic::Ordering::SeqCst;

use rusqlite::{Connection, Result};
use rustix::thread::futex;

use super::arguments::Journal;
use super::control::Control;
use super::database;
use super::messages::Orders;

/// Opens the line, and in WAL mode the anchor, which is to be held until the round is over.
pub fn prepare(control: &Control, orders: &Orders) -> Result<Option<Connection>> {
    open(control);
    let wal = orders.journal == Journal::Wal;
    wal.then(|| database::open_idle(orders)).transpose()
}

/// Makes it the turn of ticket 0. Once, before anybody takes it.
fn open(control: &Control) {
    control.slot(0).store(turn(0), SeqCst);
}

/// What the slot of `ticket` holds when it is its turn. Cut off at 32 bits, which the tickets of
/// one slot that follow each other closely cannot confuse.
fn turn(ticket: u64) -> u32 {
    (ticket + 1) as u32
}

/// Waits until everybody who came before has gone.
pub fn take(control: &Control) -> Turn<'_> {
    let ticket = control.tickets().fetch_add(1, SeqCst);
    let slot = control.slot(ticket);
    loop {
        let seen = slot.load(SeqCst);
        if seen == turn(ticket) {
            return Turn { control, ticket };
        }
        // Interrupted, changed meanwhile, woken for a predecessor in this slot: look again.
        let _ = futex::wait(slot, futex::Flags::empty(), seen, None);
    }
}

/// Somebody's turn. It ends when this is dropped.
pub struct Turn<'a> {
    control: &'a Control,
    ticket: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let next = self.ticket + 1;
        let slot = self.control.slot(next);
        slot.store(turn(next), SeqCst);
        // Whoever takes that ticket later than this looks sees the slot and does not sleep.
        if self.control.tickets().load(SeqCst) > next {
            let _ = futex::wake(slot, futex::Flags::empty(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn line(writers: u32) -> Control {
        let control = Control::create(writers).expect("shared memory");
        open(&control);
        control
    }

    #[test]
    fn one_at_a_time() {
        let control = line(4);
        let inside = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let _turn = take(&control);
                        assert!(!inside.swap(true, SeqCst), "two at a time");
                        inside.store(false, SeqCst);
                    }
                });
            }
        });
        assert_eq!(control.tickets().load(SeqCst), 8_000);
    }

    /// As many as there are slots, so that the last one's successor uses the first one's slot.
    #[test]
    fn in_the_order_of_coming() {
        const WRITERS: u64 = 8;
        let control = line(WRITERS as u32);
        for _ in 0..3 {
            let served = Mutex::new(Vec::new());
            let before = control.tickets().load(SeqCst);
            let first = take(&control);
            thread::scope(|scope| {
                for index in 1..WRITERS {
                    let (control, served) = (&control, &served);
                    scope.spawn(move || {
                        let _turn = take(control);
                        served.lock().expect("nobody panicked").push(index);
                    });
                    while control.tickets().load(SeqCst) <= before + index {
                        thread::yield_now();
                    }
                }
                drop(first);
            });
            let served = served.into_inner().expect("nobody panicked");
            assert_eq!(served, (1..WRITERS).collect::<Vec<_>>());
        }
    }
}
