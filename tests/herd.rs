//! At the gate of a rollback journal: one of many that finds the next commit under way each time that it is woken takes a
//! place in the line. Here one is many.
#![cfg(all(feature = "linked", feature = "inject"))]

#[path = "support/writers.rs"]
mod writers;

use writers::{House, SOON, Writer, go_on, sleep_ms, within};

#[test]
fn writer_process() {
    writers::serve();
}

const READ: &str = "run SELECT count(*) FROM t";

/// Three writers that keep the database open, the first of whom commits, and one that starves.
struct Scene {
    house: House,
    all: Vec<Writer>,
    starving: Writer,
}

impl Scene {
    fn new() -> Scene {
        let house = House::new("delete");
        let mut all = house.writers(3);
        let starving = house.writer_with(20_000, |c| {
            c.env("TURNSTILE_INJECT_HERD", "0");
        });
        // So the line's file is there.
        all[0].ask("write", "done");
        Scene {
            house,
            all,
            starving,
        }
    }

    /// It comes for `command`, and is never there when a commit is over. Says whether it then stands in the line.
    fn starve(&mut self, command: &str) -> bool {
        let Scene {
            house,
            all,
            starving,
        } = self;
        all[0].ask("hold EXCLUSIVE", "fine");
        starving.send(command);
        for ring in 0..2 {
            let waits = within(5_000, || house.is_gate_armed());
            assert!(waits && house.standing() == 0, "in vain {ring} times");
            starving.stop();
            all[0].ask("commit", "done");
            all[0].ask("hold EXCLUSIVE", "fine");
            starving.signal(libc::SIGCONT);
        }
        within(500, || house.standing() == 1)
    }

    /// The commit is over, and the others come to write.
    fn commit(&mut self) -> u64 {
        let others = self.all[1..].iter_mut();
        others.for_each(|writer| writer.send("write"));
        sleep_ms(50);
        self.all[0].ask("commit", "done")
    }

    fn end(mut self) {
        self.all.push(self.starving);
        self.house.end(self.all);
    }
}

/// To read the schema does not cost it its place.
#[test]
fn one_that_came_to_write_is_served_in_its_turn() {
    let mut scene = Scene::new();
    assert!(scene.starve("once"));
    scene.commit();
    scene.starving.expect("done");
    scene.all[1].expect("done");
    scene.all[2].expect("done");
    assert_eq!(scene.house.last(3)[0], scene.starving.who);
    scene.end();
}

/// On a connection that has just come, or on one that has long been there.
#[test]
fn one_that_came_to_read_is_soon_out_of_the_way() {
    for (command, age_ms) in [("look", 0), (READ, 0), (READ, 1_100)] {
        let mut scene = Scene::new();
        sleep_ms(age_ms);
        assert!(scene.starve(command));
        let start = scene.commit();
        scene.starving.expect("fine");
        go_on(command, start, &mut scene.all[1..], SOON);
        assert_eq!(scene.house.standing(), 0);
        scene.end();
    }
}

/// Also if it opens the database anew for each read.
#[test]
fn one_that_is_known_to_read_stays_at_the_gate() {
    for (command, stands) in [(READ, [true, true, false]), ("look", [true, false, false])] {
        let mut scene = Scene::new();
        sleep_ms(1_100);
        for stands in stands {
            assert_eq!(scene.starve(command), stands, "{command}");
            scene.all[0].ask("commit", "done");
            scene.starving.expect("fine");
        }
        scene.end();
    }
}

/// On one processor whoever is woken by the end of a commit does not run before the next one is on its way. Hundreds who
/// begin at the same moment got a tenth of what stock SQLite writes, and waited for ten times as long.
#[test]
#[cfg(feature = "cli")]
fn hundreds_on_one_processor_get_through() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;
    let bench = || {
        // Children inherit it.
        let this_thread = Pid::from_raw(0);
        let ours = sched_getaffinity(this_thread).unwrap();
        let first = (0..CpuSet::count()).find(|&cpu| ours.is_set(cpu).unwrap());
        let mut one = CpuSet::new();
        one.set(first.unwrap()).unwrap();
        sched_setaffinity(this_thread, &one).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_turnstile"))
            .args(["bench", "--json", "--writers", "400", "--seconds", "2"])
            .args([
                "--rounds",
                "1",
                "--journal",
                "delete",
                "--timeout-ms",
                "60000",
            ])
            .arg("--dir")
            .arg(env!("CARGO_TARGET_TMPDIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let writes = |at: usize| result["rounds"][at]["writes_per_second"].as_f64().unwrap();
        (writes(0), writes(1))
    };
    let (stock, ours) = std::thread::spawn(bench).join().unwrap();
    eprintln!("writes/s: stock {stock:.0}, turnstile {ours:.0}");
    assert!(ours > stock / 2.0);
}
