//! In a crowd, a process that opens the database for each write waits before it is attached. Here two
//! are a crowd.
#![cfg(all(feature = "linked", feature = "inject"))]

mod support;
#[path = "support/writers.rs"]
mod writers;

use std::os::unix::fs::FileExt;
use writers::{House, SOON, STOPPED_SOON, Writer, go_on, now, sleep_ms, within};

#[test]
fn writer_process() {
    writers::serve();
}

/// What waits attached, whatever is expected of it; see `turn::admission`.
const INSIDE: u32 = 16;

/// A WAL database with four writers that keep it open, the first of whom holds the lock, and one of whom it is
/// expected that it writes.
struct Scene {
    house: House,
    all: Vec<Writer>,
    expected: Writer,
}

impl Scene {
    fn new(timeout: u64, point: &str) -> Scene {
        let house = House::new("wal");
        let all = house.writers(4);
        let mut expected = house.writer_with(timeout, |c| {
            c.env("TURNSTILE_INJECT_CROWD", "2");
            c.env("TURNSTILE_WRITER_KILL", point);
        });
        expected.ask("close", "fine");
        Scene {
            house,
            all,
            expected,
        }
    }

    fn next_ticket(&self) -> u32 {
        let mut word = [0; 8];
        let sidecar = std::fs::File::open(self.house.sidecar()).unwrap();
        sidecar.read_exact_at(&mut word, 64).unwrap();
        let word = u64::from_le_bytes(word);
        (word >> 32) as u32 + word as u32
    }

    /// The first holds the lock, and two wait.
    fn begin(&mut self) {
        self.all[0].ask("hold IMMEDIATE", "fine");
        for waiter in &mut self.all[1..3] {
            self.house.queue(waiter);
        }
    }

    /// The one that is expected comes, and then the last of the others.
    fn come(&mut self) {
        let before = self.house.standing();
        self.expected.send("once");
        let stands = || self.house.standing() > before || self.expected.is_dead();
        assert!(within(5_000, stands), "it does not wait");
        self.house.queue(&mut self.all[3]);
    }

    /// All are served, in the order in which they came.
    fn serve(&mut self) {
        self.all[0].ask("commit", "done");
        for at in [1, 2, 3] {
            self.all[at].expect("done");
        }
        self.expected.expect("done");
        let came = [
            &self.all[0],
            &self.all[1],
            &self.all[2],
            &self.expected,
            &self.all[3],
        ];
        assert_eq!(self.house.last(5), came.map(|writer| writer.who));
    }

    /// It writes as often as makes a habit, and the others stand ready for the next time.
    fn teach(&mut self) {
        for _ in 0..20 {
            self.begin();
            if self.next_ticket().is_multiple_of(INSIDE) {
                // It would go in.
                self.all[0].ask("commit", "done");
                self.all[1].expect("done");
                self.all[2].expect("done");
                continue;
            }
            self.come();
            sleep_ms(20);
            let is_outside = !self.is_attached();
            if is_outside {
                return;
            }
            self.serve();
        }
        panic!("nothing is expected of it");
    }

    /// Whether it holds a lock of SQLite's.
    fn is_attached(&self) -> bool {
        let pid = format!(" {} ", self.expected.pid());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks
            .lines()
            .any(|line| line.contains("POSIX") && line.contains(&pid))
    }

    /// Somebody may have fallen.
    fn end(mut self, fallen: &[u32]) {
        self.house.victims.extend(fallen);
        self.all.push(self.expected);
        self.house.end(self.all);
    }
}

#[test]
fn it_waits_outside_and_is_served_in_its_turn() {
    let mut scene = Scene::new(20_000, "");
    for _ in 0..3 {
        scene.teach();
        scene.serve();
    }
    scene.end(&[]);
}

/// It reads. That it has to wait once, and the next time it need not.
#[test]
fn one_that_strays() {
    let mut scene = Scene::new(20_000, "");
    scene.teach();
    scene.serve();
    scene.begin();
    scene.expected.ask("look", "fine");
    let asked = now();
    let answered = scene.expected.ask("look", "fine");
    assert!((answered - asked) / 1_000_000 < SOON);
    scene.come();
    assert!(within(5_000, || scene.is_attached()), "it is trusted again");
    scene.serve();
    scene.end(&[]);
}

#[test]
fn its_time_is_what_it_was_given() {
    let mut scene = Scene::new(600, "");
    scene.teach();
    scene.serve();
    scene.begin();
    let asked = now();
    let told = scene.expected.ask("once", "error database is locked");
    let ms = (told - asked) / 1_000_000;
    assert!((580..700).contains(&ms), "{ms} ms");
    let asked = now();
    let told = scene.expected.ask("twice", "error database is locked");
    let ms = (told - asked) / 1_000_000;
    assert!((1_180..1_400).contains(&ms), "{ms} ms for two");
    scene.house.queue(&mut scene.all[3]);
    scene.all[0].ask("commit", "done");
    for waiter in &mut scene.all[1..] {
        waiter.expect("done");
    }
    scene.end(&[]);
}

#[test]
fn killed_outside() {
    let mut scene = Scene::new(20_000, "");
    scene.teach();
    scene.expected.kill();
    let start = scene.all[0].ask("commit", "done");
    go_on("outside", start, &mut scene.all[1..], SOON);
    scene.end(&[4]);
}

#[test]
fn killed_on_the_way_in() {
    for point in ["entering", "arrived"] {
        let mut scene = Scene::new(20_000, point);
        scene.teach();
        let start = scene.all[0].ask("commit", "done");
        go_on(point, start, &mut scene.all[1..], SOON);
        assert!(scene.expected.is_dead(), "{point}: not reached");
        scene.end(&[4]);
    }
}

/// Whoever calls it in dies before the wake.
#[test]
fn the_caller_is_killed() {
    let mut scene = Scene::new(20_000, "");
    let victim = scene.house.doomed(20_000, "calling");
    let who = victim.who;
    scene.all[1] = victim;
    scene.teach();
    let start = scene.all[0].ask("commit", "done");
    assert!(within(5_000, || scene.all[1].is_dead()), "not reached");
    let mut others = scene.all.split_off(2);
    go_on("calling", start, &mut others, SOON);
    scene.expected.expect("done");
    scene.all.extend(others);
    scene.end(&[who]);
}

#[test]
fn stopped_outside() {
    let mut scene = Scene::new(20_000, "");
    scene.teach();
    scene.expected.signal(libc::SIGSTOP);
    let start = scene.all[0].ask("commit", "done");
    go_on("stopped", start, &mut scene.all[1..], STOPPED_SOON);
    scene.expected.signal(libc::SIGCONT);
    scene.expected.expect("done");
    scene.end(&[]);
}
