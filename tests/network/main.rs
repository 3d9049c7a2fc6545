//! A database that other machines can reach: one file for each promise, in one program, since each needs the
//! cluster file system of `support/cluster`.

#[path = "../support/cluster/mod.rs"]
mod cluster;
#[path = "../support/naive.rs"]
mod naive;
#[path = "../support/rows.rs"]
mod rows;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/worker.rs"]
mod worker;

mod coherence;
mod fence;
mod ground;
mod hot_journal;
mod no_mapping;
mod unsynced;
mod wal_conversion;

#[test]
fn worker_process() {
    worker::serve_with(naive::begin);
}
