//! Our own busy handler waits exactly as long as it is told, in the line; an interrupt ends a wait.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

fn open(path: &Path) -> Connection {
    open_with(path, "")
}

fn open_with(path: &Path, options: &str) -> Connection {
    turnstile::register(turnstile::Options::default()).unwrap();
    let uri = format!("file:{}?vfs=turnstile{options}", path.display());
    let db = Connection::open_with_flags(uri, OpenFlags::default()).unwrap();
    db.busy_timeout(Duration::ZERO).unwrap();
    db
}

/// A database of one table, and a connection that holds its write lock.
fn held(dir: &Path, journal: &str) -> Connection {
    let db = open(&dir.join("a.db"));
    db.pragma_update(None, "journal_mode", journal).unwrap();
    db.execute_batch("CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES(0)")
        .unwrap();
    db
}

fn insert(db: &Connection) -> (Result<usize, Option<ErrorCode>>, Duration) {
    let began = Instant::now();
    let result = db.execute("INSERT INTO t VALUES(1)", ());
    (result.map_err(|e| e.sqlite_error_code()), began.elapsed())
}

#[test]
fn it_waits_as_long_as_it_is_told() {
    for journal in ["wal", "delete"] {
        let dir = tempfile::tempdir().unwrap();
        let _holder = held(dir.path(), journal);
        let db = open(&dir.path().join("a.db"));
        for ms in [0, 50, 1000, 50] {
            let timeout = Duration::from_millis(ms);
            turnstile::busy_handler(&db, timeout).unwrap();
            let (result, waited) = insert(&db);
            assert_eq!(result, Err(Some(ErrorCode::DatabaseBusy)));
            let late = waited.checked_sub(timeout).expect("not too early");
            assert!(
                late < timeout.mul_f64(0.02).max(Duration::from_millis(20)),
                "{journal} {ms}: {waited:?}"
            );
        }
    }
}

#[test]
fn it_is_served_when_the_lock_is_free() {
    for journal in ["wal", "delete"] {
        let dir = tempfile::tempdir().unwrap();
        let holder = held(dir.path(), journal);
        // A look of the waiter's may hold SHARED just then.
        holder.busy_timeout(Duration::from_secs(5)).unwrap();
        let path = dir.path().join("a.db");
        let waiter = std::thread::spawn(move || {
            let db = open(&path);
            turnstile::busy_handler(&db, Duration::from_secs(30)).unwrap();
            insert(&db)
        });
        std::thread::sleep(Duration::from_millis(300));
        holder.execute_batch("COMMIT").unwrap();
        let (result, waited) = waiter.join().unwrap();
        assert_eq!(result, Ok(1));
        assert!(waited < Duration::from_secs(2), "{journal}: {waited:?}");
    }
}

/// A connection on another VFS gets the timeout, too.
#[test]
fn it_serves_other_vfss() {
    let dir = tempfile::tempdir().unwrap();
    let _holder = held(dir.path(), "delete");
    let db = Connection::open(dir.path().join("a.db")).unwrap();
    turnstile::busy_handler(&db, Duration::from_millis(200)).unwrap();
    let (result, waited) = insert(&db);
    assert_eq!(result, Err(Some(ErrorCode::DatabaseBusy)));
    assert!((200..300).contains(&waited.as_millis()), "{waited:?}");
}

/// This SQLite (3.41 or newer) can be asked: the wait ends, with SQLITE_BUSY.
#[test]
fn an_interrupt_ends_the_wait() {
    let long_backoff = "&fair=off&backoff_us=1000000&backoff_cap_us=1000000";
    for (handler, options) in [
        ("ours", ""),
        ("sqlite3_busy_timeout", ""),
        ("sqlite3_busy_timeout", long_backoff),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let _holder = held(dir.path(), "wal");
        let db = open_with(&dir.path().join("a.db"), options);
        let timeout = Duration::from_secs(30);
        match handler {
            "ours" => turnstile::busy_handler(&db, timeout).unwrap(),
            _ => db.busy_timeout(timeout).unwrap(),
        }
        let interrupt = db.get_interrupt_handle();
        let interrupter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            interrupt.interrupt();
            Instant::now()
        });
        let (result, _) = insert(&db);
        let late = interrupter.join().unwrap().elapsed();
        assert!(result.is_err());
        assert!(
            late < Duration::from_millis(150),
            "{handler}{options}: {late:?}"
        );
        // The next wait is a whole one.
        db.busy_timeout(Duration::from_millis(200)).unwrap();
        let (result, waited) = insert(&db);
        assert_eq!(result, Err(Some(ErrorCode::DatabaseBusy)));
        assert!(
            waited >= Duration::from_millis(199),
            "{handler}{options}: {waited:?}"
        );
    }
}
