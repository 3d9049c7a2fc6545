//! Somebody is killed, stopped or goes away: the others go on, nothing that was acknowledged is lost,
//! and the line is in order again.
#![cfg(all(feature = "linked", feature = "inject"))]

mod support;
#[path = "support/writers.rs"]
mod writers;

use writers::{House, JOURNALS, SOON, STOPPED_SOON, Writer, go_on, now, sleep_ms, within};

#[test]
fn writer_process() {
    writers::serve();
}

/// One holds the lock and four wait. What `fault` does to the one at `at` (0 is the holder) the
/// others survive; the holder commits after it.
fn kill_one(at: usize, reaped: bool) {
    for journal in JOURNALS {
        let mut house = House::new(journal);
        let mut all = house.lined_up(5);
        // All of them sleep.
        sleep_ms(50);
        let mut victim = all.remove(at);
        house.victims.push(victim.who);
        let mut start = victim.kill();
        if reaped {
            victim.reap();
        }
        let first = if at == 0 {
            0
        } else {
            sleep_ms(50);
            start = all[0].ask("commit", "done");
            1
        };
        let what = format!("{journal}, {at} killed, reaped: {reaped}");
        go_on(&what, start, &mut all[first..], SOON);
        all.push(victim);
        house.end(all);
    }
}

#[test]
fn the_holder_is_killed() {
    kill_one(0, true);
    kill_one(0, false);
}

#[test]
fn the_head_is_killed() {
    kill_one(1, true);
    kill_one(1, false);
}

#[test]
fn one_in_the_middle_is_killed() {
    kill_one(2, true);
    kill_one(2, false);
    kill_one(3, false);
}

#[test]
fn the_last_is_killed() {
    kill_one(4, true);
    kill_one(4, false);
}

/// `point` kills one that waits at `at` in the line, or that was served there.
fn kill_at(point: &str, journal: &str, at: usize, timeout: u64) {
    let what = format!("{point}, {journal}, at {at}");
    let mut house = House::new(journal);
    let mut all = house.writers(4);
    let mut victim = house.doomed(timeout, point);
    all[0].ask("hold IMMEDIATE", "fine");
    for i in 1..=all.len() {
        if i == at {
            let before = house.standing();
            victim.send("write");
            within(1_000, || house.standing() > before || victim.is_dead());
        }
        if i < all.len() {
            house.try_queue(&mut all[i], 50);
        }
    }
    if timeout < 5_000 {
        assert!(within(5_000, || victim.is_dead()), "{what}: not reached");
    } else {
        sleep_ms(40);
    }
    let start = all[0].ask("commit", "done");
    go_on(&what, start, &mut all[1..], SOON);
    assert!(within(5_000, || victim.is_dead()), "{what}: not reached");
    all.push(victim);
    house.end(all);
}

fn kill_at_each(points: &[&str], timeout: u64) {
    for point in points {
        for journal in JOURNALS {
            for at in [1, 2] {
                kill_at(point, journal, at, timeout);
            }
        }
    }
}

#[test]
fn killed_while_entering_the_line() {
    kill_at_each(&["taken", "placed", "parked"], 20_000);
    for journal in JOURNALS {
        kill_at("watching", journal, 2, 20_000);
    }
}

#[test]
fn killed_while_its_turn_comes() {
    kill_at_each(&["unparked", "trying"], 20_000);
    for journal in JOURNALS {
        kill_at("told", journal, 2, 20_000);
    }
}

/// The watcher, told that it is its turn, dies on the way: somebody else watches by then.
#[test]
fn the_watcher_is_killed_as_the_head() {
    let test = "the_watcher_is_killed_as_the_head";
    if !support::has_program(test, "/usr/bin/python3", "python3") {
        return;
    }
    let extension = support::extension();
    for point in ["unparked", "told", "trying"] {
        let mut house = House::new("wal");
        let kills = ["", "", point, "", ""];
        let mut all: Vec<_> = kills
            .iter()
            .map(|kill| house.python(&extension, kill))
            .collect();
        house.line_up(&mut all);
        house.victims.push(all[2].who);
        sleep_ms(30);
        let start = all[0].ask("commit", "done");
        let victim = all.remove(2);
        go_on(point, start, &mut all[1..], SOON);
        assert!(victim.is_dead(), "{point}: not reached");
        all.push(victim);
        house.end(all);
    }
}

#[test]
fn killed_while_leaving_the_line() {
    kill_at_each(&["served", "gone", "advanced"], 20_000);
    for journal in JOURNALS {
        for at in [1, 2, 3] {
            kill_at("releasing", journal, at, 20_000);
            kill_at("telling", journal, at, 20_000);
        }
        kill_at("resigned", journal, 2, 150);
    }
    kill_at_each(&["giving up", "gone"], 150);
}

/// `act` leaves the first of four writers with the lock and others in the line, and `victim` on the way to
/// `point`, where it falls. They go on.
fn kill_after(
    point: &str,
    journal: &str,
    timeout: u64,
    act: impl Fn(&House, &mut [Writer], &mut Writer),
) {
    let mut house = House::new(journal);
    let mut all = house.writers(4);
    let mut victim = house.doomed(timeout, point);
    act(&house, &mut all, &mut victim);
    let what = format!("{point}, {journal}");
    assert!(within(5_000, || victim.is_dead()), "{what}: not reached");
    let start = all[0].ask("commit", "done");
    go_on(&what, start, &mut all[1..], SOON);
    all.push(victim);
    house.end(all);
}

#[test]
fn killed_while_coming_back_to_the_line() {
    for journal in JOURNALS {
        kill_after("back", journal, 100, |house, all, victim| {
            all[0].ask("hold IMMEDIATE", "fine");
            house.queue(&mut all[1]);
            house.queue(victim);
            house.queue(&mut all[2]);
            house.queue(&mut all[3]);
            victim.expect("error database is locked");
            victim.send("write");
        });
    }
}

/// One without a busy timeout, whose turn has passed, comes again.
#[test]
fn killed_at_the_door() {
    for journal in JOURNALS {
        kill_after("knocking", journal, 0, |house, all, victim| {
            all[1].ask("hold IMMEDIATE", "fine");
            all[0].send("hold IMMEDIATE");
            within(5_000, || house.standing() > 0);
            victim.ask("write", "error database is locked");
            house.queue(&mut all[2]);
            house.queue(&mut all[3]);
            all[1].ask("commit", "done");
            all[0].expect("fine");
            house.queue(&mut all[1]);
            victim.send("write");
        });
    }
}

/// It takes a connection that asks again within 50 µs, while others wait.
#[test]
fn killed_in_a_turn_of_many_transactions() {
    let mut house = House::new("wal");
    let mut all = house.writers(3);
    let mut victim = house.doomed(20_000, "announced");
    for writer in &mut all[1..] {
        writer.send("burst 3000");
    }
    victim.send("burst 100000");
    assert!(within(10_000, || victim.is_dead()), "not reached");
    let start = now();
    all[0].send("write");
    go_on("announced", start, &mut all[..1], SOON);
    for writer in &mut all[1..] {
        writer.expect("stored 3000");
    }
    all.push(victim);
    house.end(all);
}

#[test]
fn killed_while_blaming_the_head() {
    for point in ["called", "blaming", "lapsed"] {
        for journal in JOURNALS {
            let mut house = House::new(journal);
            let mut all = house.writers(5);
            let mut watcher = house.doomed(20_000, point);
            all[0].ask("hold IMMEDIATE", "fine");
            house.queue(&mut all[1]);
            house.queue(&mut watcher);
            house.queue(&mut all[2]);
            house.queue(&mut all[3]);
            let mut stopped = all.remove(1);
            stopped.stop();
            sleep_ms(30);
            let start = all[0].ask("commit", "done");
            go_on(point, start, &mut all[1..3], STOPPED_SOON);
            stopped.signal(libc::SIGCONT);
            stopped.expect("done");
            // It may not have come to blame: then it is served.
            if !within(100, || watcher.is_dead()) {
                assert_eq!(point, "called");
                watcher.expect("done");
                watcher.kill();
            }
            all.extend([stopped, watcher]);
            house.end(all);
        }
    }
}

#[test]
fn killed_at_a_checkpoint() {
    for point in ["pausing", "resuming"] {
        kill_after(point, "wal", 20_000, |house, all, victim| {
            // It has seen the line, and there is something to check in.
            victim.ask("write", "done");
            house.line_up(all);
            victim.send("run PRAGMA wal_checkpoint(PASSIVE)");
        });
    }
}

#[test]
fn killed_while_readers_wait() {
    for point in ["arming", "ringing"] {
        let mut house = House::new("delete");
        let mut all = house.writers(4);
        let mut victim = house.doomed(20_000, point);
        let (holder, reader) = match point {
            "ringing" => (&mut victim, &mut all[1]),
            _ => (&mut all[0], &mut victim),
        };
        holder.ask("hold EXCLUSIVE", "fine");
        reader.send("run SELECT count(*) FROM t");
        all[2].send("write");
        all[3].send("write");
        sleep_ms(100);
        let start = now();
        if point == "ringing" {
            victim.send("commit");
            all[1].expect("fine");
            // Nobody holds the lock: it fell when its transaction had been stored.
        } else {
            all[0].ask("commit", "done");
        }
        go_on(point, start, &mut all[2..], SOON);
        assert!(within(5_000, || victim.is_dead()), "{point}: not reached");
        all.push(victim);
        house.end(all);
    }
}

#[test]
fn killed_while_closing() {
    for journal in JOURNALS {
        kill_after("closing", journal, 20_000, |house, all, victim| {
            victim.ask("write", "done");
            house.line_up(all);
            victim.send("close");
        });
    }
}

#[test]
fn killed_while_making_or_mending_the_sidecar() {
    for point in ["making", "made", "allocating", "mending", "mended"] {
        for journal in JOURNALS {
            let mut house = House::new(journal);
            if point.starts_with("mend") {
                std::fs::write(house.sidecar(), vec![0xA5; 69_632]).unwrap();
            }
            let mut victim = house.doomed(20_000, point);
            victim.send("write");
            assert!(within(5_000, || victim.is_dead()), "{point}: not reached");
            let mut all = house.lined_up(4);
            let start = all[0].ask("commit", "done");
            go_on(point, start, &mut all[1..], SOON);
            all.push(victim);
            house.end(all);
        }
    }
}

fn stop_one(at: usize) {
    for journal in JOURNALS {
        let house = House::new(journal);
        let mut all = house.lined_up(5);
        sleep_ms(50);
        let mut stopped = all.remove(at);
        stopped.stop();
        let what = format!("{journal}, {at} stopped");
        if at == 0 {
            // It has SQLite's lock: the others can only wait, for as long as it takes.
            sleep_ms(400);
            let start = now();
            stopped.signal(libc::SIGCONT);
            stopped.ask("commit", "done");
            go_on(&what, start, &mut all, SOON);
        } else {
            let start = all[0].ask("commit", "done");
            go_on(&what, start, &mut all[1..], STOPPED_SOON);
            stopped.signal(libc::SIGCONT);
            stopped.expect("done");
        }
        all.push(stopped);
        house.end(all);
    }
}

#[test]
fn the_holder_is_stopped() {
    stop_one(0);
}

#[test]
fn the_head_is_stopped() {
    stop_one(1);
}

/// The head looks now and then whether the lock is free. It does so without SHARED: stopped with that in hand, it would
/// keep the holder from its commit.
#[test]
fn a_head_that_looks_holds_no_lock() {
    let house = House::new("delete");
    let mut all = house.lined_up(2);
    sleep_ms(20);
    let head = format!(" {} ", all[1].pid());
    let until = now() + 400_000_000;
    let mut looks = 0;
    while now() < until {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let its: Vec<_> = locks.lines().filter(|lock| lock.contains(&head)).collect();
        assert!(its.is_empty(), "after {looks} looks: {its:?}");
        looks += 1;
    }
    assert!(looks > 100);
    all[0].ask("commit", "done");
    all[1].expect("done");
    house.end(all);
}

#[test]
fn one_in_the_middle_is_stopped() {
    stop_one(2);
    stop_one(3);
}

/// The head looks whether the lock is free just when the holder commits: `walTryBeginRead` begins anew, and may take its
/// time for that.
#[test]
fn one_that_meets_a_commit_keeps_its_place() {
    let house = House::new("wal");
    let mut all = house.writers(4);
    let mut head = house.writer_with(20_000, |c| {
        c.env("TURNSTILE_WRITER_KILL", "stop reading, stop anew");
    });
    all[0].ask("hold IMMEDIATE", "fine");
    head.send("write");
    let stat = format!("/proc/{}/stat", head.pid());
    let is_stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
    assert!(within(5_000, is_stopped), "does not read");
    for waiter in &mut all[1..] {
        house.queue(waiter);
    }
    all[0].ask("commit", "done");
    head.signal(libc::SIGCONT);
    sleep_ms(20);
    assert!(within(5_000, is_stopped), "does not begin anew");
    head.signal(libc::SIGCONT);
    head.expect("done");
    for waiter in &mut all[1..] {
        waiter.expect("done");
    }
    let came = [0, head.who, 1, 2, 3];
    assert_eq!(house.last(5), came);
    all.push(head);
    house.end(all);
}

/// A holder that is killed while the head is stopped.
#[test]
fn two_faults_at_once() {
    for journal in JOURNALS {
        let mut house = House::new(journal);
        let mut all = house.lined_up(5);
        let mut stopped = all.remove(1);
        stopped.stop();
        sleep_ms(50);
        let mut holder = all.remove(0);
        house.victims.push(holder.who);
        let start = holder.kill();
        go_on(journal, start, &mut all, STOPPED_SOON);
        stopped.signal(libc::SIGCONT);
        stopped.expect("done");
        all.extend([stopped, holder]);
        house.end(all);
    }
}

/// Every point that there is has its turn above.
#[test]
fn no_point_is_forgotten() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let this = ["crash", "outside"].map(|test| read(&format!("{root}/tests/{test}.rs")));
    let mut points = 0;
    for folder in ["turn", "wait"] {
        for file in std::fs::read_dir(format!("{root}/src/{folder}")).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let source = read(path.to_str().unwrap());
            for rest in source.split("kill_point(\"").skip(1) {
                let point = rest.split('"').next().unwrap();
                assert!(
                    this.iter()
                        .any(|test| test.contains(&format!("\"{point}\""))),
                    "{point} kills nobody"
                );
                points += 1;
            }
        }
    }
    assert!(points >= 15);
}
