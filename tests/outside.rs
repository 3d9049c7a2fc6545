//! In a crowd, a process that opens the database for each write waits before it is attached. Here two
//! are a crowd.
#![cfg(all(feature = "linked", feature = "inject"))]

mod support;
#[path = "support/writers.rs"]
mod writers;

use std::os::unix::fs::FileExt;
use writers::{House, SOON, Writer, go_on, now, sleep_ms, within};

#[test]
fn writer_process() {
    writers::serve();
}

/// What waits attached, whatever is expected of it; see `turn::admission`.
const INSIDE: u32 = 16;

/// A database with four writers that keep it open, the first of whom holds the lock, and some of whom it is
/// expected that they write.
struct Scene {
    house: House,
    all: Vec<Writer>,
    expected: Vec<Writer>,
    /// How they write.
    command: &'static str,
}

impl Scene {
    /// One that will be expected, and its timeout.
    fn new(timeout: u64) -> Scene {
        Scene::with(1, timeout, "")
    }

    /// So many of them, that are killed at `point`.
    fn with(expected: usize, timeout: u64, point: &str) -> Scene {
        Scene::of("wal", expected, timeout, point)
    }

    fn of(journal: &str, expected: usize, timeout: u64, point: &str) -> Scene {
        let house = House::new(journal);
        let all = house.writers(4);
        let expect = |_| {
            let mut writer = house.writer_with(timeout, |c| {
                c.env("TURNSTILE_INJECT_CROWD", "2");
                c.env("TURNSTILE_WRITER_KILL", point);
            });
            writer.ask("close", "fine");
            writer
        };
        let expected = (0..expected).map(expect).collect();
        Scene {
            house,
            all,
            expected,
            command: "once",
        }
    }

    /// The first holds the lock, and two wait. The tickets of the expected ones are none with which one waits
    /// attached.
    fn begin(&mut self) {
        loop {
            self.all[0].ask("hold IMMEDIATE", "fine");
            for waiter in &mut self.all[1..3] {
                self.house.queue(waiter);
            }
            let (first, count) = (self.next_ticket() % INSIDE, self.expected.len() as u32);
            if first > 0 && first + count <= INSIDE {
                return;
            }
            self.all[0].ask("commit", "done");
            self.all[1].expect("done");
            self.all[2].expect("done");
            // With two at a time it might never come to a number that is odd.
            self.all[0].ask("hold IMMEDIATE", "fine");
            self.house.queue(&mut self.all[1]);
            self.all[0].ask("commit", "done");
            self.all[1].expect("done");
        }
    }

    fn next_ticket(&self) -> u32 {
        let mut word = [0; 8];
        let sidecar = std::fs::File::open(self.house.sidecar()).unwrap();
        sidecar.read_exact_at(&mut word, 64).unwrap();
        let word = u64::from_le_bytes(word);
        (word >> 32) as u32 + word as u32
    }

    /// Those that are expected come, and then the last of the others. Says whether they wait outside.
    fn come(&mut self) -> bool {
        for writer in &mut self.expected {
            let before = self.house.standing();
            writer.send(self.command);
            let stands = || self.house.standing() > before || writer.is_dead();
            assert!(within(5_000, stands), "it does not wait");
        }
        self.house.queue(&mut self.all[3]);
        sleep_ms(20);
        self.expected.iter().all(|writer| !is_attached(writer))
    }

    /// All are served, in the order in which they came.
    fn serve(&mut self) {
        self.all[0].ask("commit", "done");
        let (last, others) = self.all.split_last_mut().unwrap();
        let waiting = others[1..].iter_mut().chain(&mut self.expected);
        for writer in waiting.chain([last]) {
            writer.expect("done");
        }
        let (last, others) = self.all.split_last().unwrap();
        let came = others.iter().chain(&self.expected).chain([last]);
        let came: Vec<u32> = came.map(|writer| writer.who).collect();
        assert_eq!(self.house.last(came.len() as u32), came);
    }

    /// They write as often as makes a habit, and wait outside.
    fn teach(&mut self) {
        sooner_or_later(|attempt| {
            if attempt > 0 {
                self.serve();
            }
            self.begin();
            self.come()
        });
    }

    /// Somebody may have fallen.
    fn end(mut self, fallen: &[u32]) {
        self.house.victims.extend(fallen);
        self.all.extend(self.expected);
        self.house.end(self.all);
    }
}

/// Whether it holds a lock of SQLite's.
fn is_attached(writer: &Writer) -> bool {
    let pid = format!(" {} ", writer.pid());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks
        .lines()
        .any(|line| line.contains("POSIX") && line.contains(&pid))
}

#[test]
fn it_waits_outside_and_is_served_in_its_turn() {
    let mut scene = Scene::new(20_000);
    for _ in 0..3 {
        scene.teach();
        scene.serve();
    }
    scene.end(&[]);
}

/// What counts is how soon after it has begun to read, not to open the database.
#[test]
fn it_may_take_its_time_before_it_reads() {
    let mut scene = Scene::new(20_000);
    scene.command = "later";
    scene.teach();
    scene.serve();
    scene.end(&[]);
}

#[test]
fn so_it_is_with_a_journal() {
    let mut scene = Scene::of("delete", 3, 20_000, "");
    for _ in 0..10 {
        scene.begin();
        scene.come();
        scene.serve();
    }
    scene.end(&[]);
}

/// What is expected of a process it soon forgets, and this machine may have too much to do meanwhile: then it is tried again.
fn sooner_or_later(attempt: impl FnMut(u32) -> bool) {
    assert!((0..20).any(attempt), "nothing is expected");
}

/// One that is expected comes for `command` while somebody commits to a rollback journal, and waits for its turn to write.
/// One of which nothing is known is there, too.
fn it_meets_a_commit(command: &str) -> Scene {
    let mut scene = Scene::of("delete", 1, 20_000, "");
    scene.begin();
    scene.come();
    scene.serve();
    let mut stranger = scene.house.writer();
    stranger.ask("close", "fine");
    scene.all.push(stranger);
    scene.all[0].ask("hold EXCLUSIVE", "fine");
    scene.expected[0].send(command);
    let stands = || scene.house.standing() == 1;
    assert!(within(5_000, stands), "it does not wait in line");
    scene
}

/// The other waits for the end of the commit.
#[test]
fn it_meets_a_commit_and_writes() {
    let mut scene = it_meets_a_commit("once");
    scene.all[4].send("once");
    sleep_ms(50);
    assert_eq!(scene.house.standing(), 1);
    let start = scene.all[0].ask("commit", "done");
    go_on("commit", start, &mut scene.all[4..], SOON);
    scene.expected[0].expect("done");
    scene.end(&[]);
}

/// Then it is not in the way.
#[test]
fn it_meets_a_commit_and_reads() {
    let mut scene = it_meets_a_commit("look");
    scene.all[1].send("write");
    scene.all[2].send("write");
    sleep_ms(50);
    let start = scene.all[0].ask("commit", "done");
    go_on("reads", start, &mut scene.all[1..3], SOON);
    scene.expected[0].expect("fine");
    scene.end(&[]);
}

/// One that has waited for the end of a commit and then wrote is expected to write from then on, also after a write that met
/// nobody. It waits in the line, and is told there.
#[test]
fn who_met_a_commit_is_expected_next_time() {
    let mut scene = it_meets_a_commit("once");
    scene.all[4].send("once");
    sleep_ms(50);
    scene.all[0].ask("commit", "done");
    scene.expected[0].expect("done");
    scene.all[4].expect("done");
    sooner_or_later(|_| {
        scene.all[4].ask("once", "done");
        scene.all[0].ask("hold EXCLUSIVE", "fine");
        scene.all[4].send("once");
        let stands = within(500, || scene.house.standing() == 1);
        if stands {
            sleep_ms(50);
            assert!(!scene.house.is_gate_armed());
        }
        let start = scene.all[0].ask("commit", "done");
        go_on("commit", start, &mut scene.all[4..], SOON);
        stands
    });
    scene.end(&[]);
}

/// A WAL's last close takes EXCLUSIVE, as who writes to a rollback journal does. It is none: its process waits attached.
#[test]
fn the_last_close_of_a_wal_is_no_write_to_a_journal() {
    let house = House::new("wal");
    let mut all = house.writers(3);
    for other in &mut all[1..] {
        other.ask("close", "fine");
    }
    all[0].ask("hold IMMEDIATE", "fine");
    all[1].send("reopen");
    assert!(within(5_000, || house.standing() == 1));
    all[0].ask("commit", "done");
    all[1].expect("done");
    all[0].ask("close", "fine");
    all[1].ask("close", "fine");
    assert!(!house.dir.join("a.db-wal").exists(), "it is not the last");
    all[0].ask("reopen", "done");
    all[0].ask("hold IMMEDIATE", "fine");
    for (at, standing) in [(2, 1), (1, 2)] {
        all[at].send("once");
        assert!(within(5_000, || house.standing() == standing));
    }
    assert!(is_attached(&all[1]));
    let start = all[0].ask("commit", "done");
    go_on("last close", start, &mut all[1..], SOON);
    house.end(all);
}

/// With a rollback journal it waits before it reads even if one stands there: that one is about to commit. If all that it
/// does is to read, it does not have to wait the next time.
#[test]
fn with_a_journal_two_are_a_crowd() {
    let mut scene = Scene::of("delete", 1, 20_000, "");
    sooner_or_later(|_| {
        scene.begin();
        scene.come();
        scene.serve();
        scene.all[0].ask("hold IMMEDIATE", "fine");
        scene.house.queue(&mut scene.all[1]);
        let [first, second] = [(); 2].map(|()| {
            let before = scene.house.standing();
            scene.expected[0].send("look");
            let waits = within(100, || scene.house.standing() > before);
            scene.expected[0].expect("fine");
            waits
        });
        assert!(!second);
        scene.all[0].ask("commit", "done");
        scene.all[1].expect("done");
        first
    });
    scene.end(&[]);
}

/// It reads. That it has to wait once, and the next time it need not; nor after that, until it has written much
/// more often than at first.
#[test]
fn one_that_strays() {
    let mut scene = Scene::new(20_000);
    sooner_or_later(|attempt| {
        if attempt > 0 {
            scene.all[0].ask("commit", "done");
            scene.all[1].expect("done");
            scene.all[2].expect("done");
        }
        scene.teach();
        scene.serve();
        scene.begin();
        let before = scene.house.standing();
        scene.expected[0].send("look");
        let waits = within(100, || scene.house.standing() > before);
        scene.expected[0].expect("fine");
        waits
    });
    let asked = now();
    let answered = scene.expected[0].ask("look", "fine");
    assert!((answered - asked) / 1_000_000 < SOON);
    for round in 0..8 {
        scene.come();
        let attached = || is_attached(&scene.expected[0]);
        assert!(
            within(300, attached),
            "it is trusted again in round {round}"
        );
        scene.serve();
        scene.begin();
    }
    scene.come();
    scene.serve();
    scene.end(&[]);
}

#[test]
fn its_time_is_what_it_was_given() {
    for (command, times) in [("once", 1), ("twice", 2)] {
        let mut scene = Scene::new(600);
        scene.teach();
        scene.serve();
        scene.begin();
        let asked = now();
        scene.expected[0].send(command);
        sleep_ms(50);
        assert!(!is_attached(&scene.expected[0]), "nothing is expected");
        let told = scene.expected[0].expect("error database is locked");
        let ms = (told - asked) / 1_000_000;
        let range = 590 * times..600 * times + 100;
        assert!(range.contains(&ms), "{command}: {ms} ms");
        scene.house.queue(&mut scene.all[3]);
        scene.all[0].ask("commit", "done");
        for waiter in &mut scene.all[1..] {
            waiter.expect("done");
        }
        scene.end(&[]);
    }
}

/// Also that of the second statement, while somebody commits to a rollback journal.
#[test]
fn its_time_is_the_same_at_the_gate() {
    sooner_or_later(|_| {
        let mut scene = Scene::of("delete", 1, 600, "");
        scene.begin();
        scene.come();
        scene.serve();
        scene.all[0].ask("hold EXCLUSIVE", "fine");
        let asked = now();
        scene.expected[0].send("twice");
        let stands = within(200, || scene.house.standing() == 1);
        let told = scene.expected[0].expect("error database is locked");
        let ms = (told - asked) / 1_000_000;
        assert!((1_180..1_300).contains(&ms), "{ms} ms");
        scene.all[0].ask("commit", "done");
        scene.end(&[]);
        stands
    });
}

#[test]
fn killed_outside() {
    let mut scene = Scene::new(20_000);
    scene.teach();
    scene.expected[0].kill();
    let start = scene.all[0].ask("commit", "done");
    go_on("outside", start, &mut scene.all[1..], SOON);
    scene.end(&[4]);
}

/// It comes to that point only if its turn comes before it asks: if it is quicker, it is served.
#[test]
fn killed_on_the_way_in() {
    for point in ["entering", "arrived"] {
        let mut scene = Scene::with(1, 20_000, point);
        let mut is_served = || {
            scene.teach();
            let start = scene.all[0].ask("commit", "done");
            go_on(point, start, &mut scene.all[1..], SOON);
            scene.expected[0].hear().is_some()
        };
        assert!((0..50).any(|_| !is_served()), "{point}: not reached");
        scene.end(&[4]);
    }
}

/// Whoever calls it in dies before the wake.
#[test]
fn the_caller_is_killed() {
    let mut scene = Scene::new(20_000);
    let victim = scene.house.doomed(20_000, "calling");
    let who = victim.who;
    scene.all[1] = victim;
    scene.teach();
    let start = scene.all[0].ask("commit", "done");
    assert!(within(5_000, || scene.all[1].is_dead()), "not reached");
    let mut others = scene.all.split_off(2);
    go_on("calling", start, &mut others, SOON);
    scene.expected[0].expect("done");
    scene.all.extend(others);
    scene.end(&[who]);
}

/// A whole job: the first costs the others a moment, and those behind it nearly nothing.
#[test]
fn stopped_outside() {
    let mut scene = Scene::with(15, 20_000, "");
    scene.teach();
    for writer in &scene.expected {
        writer.stop();
    }
    let start = scene.all[0].ask("commit", "done");
    go_on("stopped", start, &mut scene.all[1..], 200);
    for writer in &mut scene.expected {
        writer.signal(libc::SIGCONT);
        writer.expect("done");
    }
    scene.end(&[]);
}
