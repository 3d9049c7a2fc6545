//! A process that closes the database after each write and opens it anew at once keeps its turn from one connection to
//! the next, for a quantum.
#![cfg(all(feature = "linked", feature = "inject"))]

mod support;
#[path = "support/writers.rs"]
mod writers;

use std::os::unix::fs::FileExt;
use writers::{House, Writer};

#[test]
fn writer_process() {
    writers::serve();
}

const WRITERS: usize = 3;

/// Of so many writes of each, with turns that are kept, a thousand are overtakes; fewer on a machine where the line is often
/// empty.
const WRITES: u64 = 2_000;
const FEW: u64 = 50;

/// The database with nothing in it; in memory, where a write takes less time than to open the database.
struct Place(tempfile::TempDir, House);

impl Place {
    fn new(journal: &str) -> Place {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let house = House::at(dir.path(), journal);
        Place(dir, house)
    }

    /// How often one of them passed the line.
    fn overtakes(self, writes: u64, quantum_us: u32) -> u64 {
        let Place(_dir, house) = self;
        let start = |_| {
            let mut writer = house.writer_with(20_000, |c| {
                c.env("TURNSTILE_QUANTUM_US", quantum_us.to_string());
            });
            writer.ask("close", "fine");
            writer
        };
        let mut all: Vec<Writer> = (0..WRITERS).map(start).collect();
        for writer in &mut all {
            writer.send(&format!("anew {writes}"));
        }
        for writer in &mut all {
            writer.expect(&format!("stored {writes}"));
        }
        let mut word = [0; 8];
        let sidecar = std::fs::File::open(house.sidecar()).unwrap();
        sidecar.read_exact_at(&mut word, 56 * 8).unwrap();
        house.end(all);
        u64::from_le_bytes(word)
    }
}

#[test]
fn a_turn_lasts() {
    for journal in ["wal", "delete"] {
        let overtakes = Place::new(journal).overtakes(WRITES, 3_000);
        assert!(overtakes > FEW, "{journal}: {overtakes}");
    }
}

#[test]
fn without_a_quantum_it_is_one_write() {
    assert_eq!(Place::new("wal").overtakes(WRITES, 0), 0);
}
