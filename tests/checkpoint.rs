//! A WAL is checkpointed and begun anew although somebody always waits: or it would grow without end.
#![cfg(feature = "linked")]

use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// SQLite checkpoints once a WAL has a thousand pages (SQLITE_DEFAULT_WAL_AUTOCHECKPOINT). The first try may meet
/// somebody who has just begun to read.
const MOST: u64 = 2 * 1000 * 4096;

const WRITERS: usize = 8;
const LONG: Duration = Duration::from_secs(3);

fn open(path: &Path) -> Connection {
    let flags = OpenFlags::default();
    let db = Connection::open_with_flags_and_vfs(path, flags, "turnstile").unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    db.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
    db
}

/// Writers without a pause. Says how long the WAL was at most, and how many transactions there were.
fn longest_wal(reopens: bool) -> (u64, u64) {
    turnstile::register(turnstile::Options::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = open(&path);
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.execute_batch("CREATE TABLE t(x)").unwrap();
    let ends = AtomicBool::new(false);
    let write = || {
        let mut db = open(&path);
        while !ends.load(Ordering::Relaxed) {
            if reopens {
                db = open(&path);
            }
            db.execute("INSERT INTO t VALUES(zeroblob(9000))", ())
                .unwrap();
        }
    };
    let mut longest = 0;
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(write);
        }
        let start = Instant::now();
        while start.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(5));
            let wal = std::fs::metadata(dir.path().join("a.db-wal")).unwrap();
            longest = longest.max(wal.len());
        }
        ends.store(true, Ordering::Relaxed);
    });
    let count: i64 = db
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    (longest, count as u64)
}

#[test]
fn a_checkpoint_catches_up_with_writers_that_always_wait() {
    for reopens in [true, false] {
        let (longest, transactions) = longest_wal(reopens);
        eprintln!("reopens: {reopens}: {transactions} transactions, a WAL of {longest} bytes");
        // Or there was nothing to catch up with.
        assert!(transactions * 3 * 4096 > 2 * MOST, "{transactions}");
        assert!(
            longest <= MOST,
            "reopens: {reopens}: a WAL of {longest} bytes"
        );
    }
}
