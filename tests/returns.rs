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
const WRITES: u64 = 2_000;

/// It is a thousand on an idle machine, fewer on one where the line is often empty; and a handful where no turn is kept,
/// of those whose turn began in a line that is gone.
const FEW: u64 = 50;

/// How often one of them passed the line.
fn overtakes(journal: &str, quantum_us: u32) -> u64 {
    let house = House::new(journal);
    let start = |_| {
        let mut writer = house.writer_with(20_000, |c| {
            c.env("TURNSTILE_QUANTUM_US", quantum_us.to_string());
        });
        writer.ask("close", "fine");
        writer
    };
    let mut all: Vec<Writer> = (0..WRITERS).map(start).collect();
    for writer in &mut all {
        writer.send(&format!("anew {WRITES}"));
    }
    for writer in &mut all {
        writer.expect(&format!("stored {WRITES}"));
    }
    let mut word = [0; 8];
    let sidecar = std::fs::File::open(house.sidecar()).unwrap();
    sidecar.read_exact_at(&mut word, 56 * 8).unwrap();
    house.end(all);
    u64::from_le_bytes(word)
}

#[test]
fn a_turn_lasts() {
    assert!(overtakes("wal", 3_000) > FEW);
}

#[test]
fn without_a_quantum_it_is_one_write() {
    assert_eq!(overtakes("wal", 0), 0);
}

/// Nobody could join it.
#[test]
fn with_a_rollback_journal_it_is_one_write() {
    assert!(overtakes("delete", 3_000) < FEW);
}
