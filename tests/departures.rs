//! Somebody leaves who is not killed: a timeout, a closed connection, a thread's end, a fork. The others
//! go on, and whoever waits sleeps.
#![cfg(all(feature = "linked", feature = "inject"))]

#[path = "support/writers.rs"]
mod writers;

use writers::{House, JOURNALS, SOON, Writer, go_on, sleep_ms, within};

#[test]
fn writer_process() {
    writers::serve();
}

#[test]
fn a_timeout_ends() {
    for journal in JOURNALS {
        for at in [1, 2, 4] {
            let house = House::new(journal);
            let mut all = house.writers(4);
            let mut impatient = house.writer_with(200, |_| {});
            all[0].ask("hold IMMEDIATE", "fine");
            for i in 1..=all.len() {
                if i == at {
                    house.queue(&mut impatient);
                }
                if i < all.len() {
                    house.queue(&mut all[i]);
                }
            }
            impatient.expect("error database is locked");
            let start = all[0].ask("commit", "done");
            go_on(&format!("{journal}, {at}"), start, &mut all[1..], SOON);
            impatient.ask("write", "done");
            all.push(impatient);
            house.end(all);
        }
    }
}

/// A timeout costs the place only if the line passes it before the next try.
#[test]
fn one_who_tries_again_keeps_the_place() {
    for journal in JOURNALS {
        for passed in [false, true] {
            let house = House::new(journal);
            let mut all = house.writers(4);
            let mut impatient = house.writer_with(150, |_| {});
            all[0].ask("hold IMMEDIATE", "fine");
            house.queue(&mut all[1]);
            house.queue(&mut impatient);
            house.queue(&mut all[2]);
            house.queue(&mut all[3]);
            impatient.expect("error database is locked");
            if !passed {
                impatient.send("write");
                sleep_ms(30);
            }
            all[0].ask("commit", "done");
            for writer in &mut all[1..] {
                writer.expect("done");
            }
            match passed {
                false => impatient.expect("done"),
                true => impatient.ask("write", "done"),
            };
            let order = if passed {
                [0, 1, 2, 3, 4]
            } else {
                [0, 1, 4, 2, 3]
            };
            assert_eq!(house.last(5), order, "{journal}");
            all.push(impatient);
            house.end(all);
        }
    }
}

/// The holder's connection is closed in the middle of its transaction, and one that was served is
/// closed while others wait.
#[test]
fn a_connection_is_closed() {
    for journal in JOURNALS {
        let house = House::new(journal);
        let mut all = house.writers(5);
        all[4].ask("write", "done");
        house.line_up(&mut all[..4]);
        all[4].ask("close", "fine");
        sleep_ms(30);
        assert_eq!(house.standing(), 3);
        let start = all[0].ask("close", "fine");
        go_on(journal, start, &mut all[1..4], SOON);
        house.end(all);
    }
}

fn start_threads(house: &House, process: &mut Writer) {
    for at in 0..3 {
        process.ask(&format!("thread {at}"), "fine");
        assert!(within(5_000, || house.standing() == at + 1));
    }
}

/// The head, one in the middle and the last of a process's waiting threads die, and their connections
/// stay open.
#[test]
fn a_thread_dies() {
    for journal in JOURNALS {
        for victim in 0..3 {
            let house = House::new(journal);
            let mut all = house.writers(3);
            let mut threads = house.writer();
            all[0].ask("hold IMMEDIATE", "fine");
            start_threads(&house, &mut threads);
            for waiter in &mut all[1..] {
                house.queue(waiter);
            }
            sleep_ms(30);
            threads.ask(&format!("slay {victim}"), "fine");
            sleep_ms(30);
            let start = all[0].ask("commit", "done");
            threads.expect("done");
            threads.expect("done");
            go_on(&format!("{journal}, {victim}"), start, &mut all[1..], SOON);
            threads.ask("write", "done");
            all.push(threads);
            house.end(all);
        }
    }
}

/// The child of a process whose threads wait: it has a connection of its own, and theirs is the
/// parent's business.
#[test]
fn a_process_with_waiting_threads_forks() {
    for journal in JOURNALS {
        let house = House::new(journal);
        let mut all = house.writers(3);
        let mut parent = house.writer();
        all[0].ask("hold IMMEDIATE", "fine");
        start_threads(&house, &mut parent);
        parent.ask("fork", "fine");
        assert!(within(5_000, || house.standing() == 4));
        for waiter in &mut all[1..] {
            house.queue(waiter);
        }
        let start = all[0].ask("commit", "done");
        for _ in 0..4 {
            parent.expect("done");
        }
        go_on(journal, start, &mut all[1..], SOON);
        parent.ask("reap", "fine");
        parent.ask("write", "done");
        all.push(parent);
        house.end(all);
    }
}

/// The head polls, but it does not spin.
#[test]
fn whoever_waits_sleeps() {
    for journal in JOURNALS {
        let house = House::new(journal);
        let mut all = house.lined_up(3);
        let before: Vec<u64> = all.iter().map(ticks).collect();
        sleep_ms(1_000);
        for (waiter, before) in all.iter().zip(before) {
            let spent = ticks(waiter) - before;
            assert!(spent <= 20, "{journal}: {spent} of 100 ticks");
        }
        let start = all[0].ask("commit", "done");
        go_on(journal, start, &mut all[1..], SOON);
        house.end(all);
    }
}

/// The processor time that it has used, in hundredths of a second.
fn ticks(writer: &Writer) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", writer.pid())).unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ');
    let times = fields.skip(11).take(2);
    times.map(|time| time.parse::<u64>().unwrap()).sum()
}
