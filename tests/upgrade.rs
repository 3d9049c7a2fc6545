//! A write that SQLite cannot wait for: counted, and explained. Alone in its process, because it restarts SQLite
//! to listen to its log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, trace};

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A deferred transaction that began by reading cannot wait to write: counted, and explained once.
#[test]
fn an_upgrade_is_explained() {
    // SAFETY: this process has no connection yet; the callback only takes a mutex.
    unsafe {
        ffi::sqlite3_shutdown();
        trace::config_log(Some(|_, line| LOG.lock().unwrap().push(line.to_owned()))).unwrap();
    }
    turnstile::register(turnstile::Options::default()).unwrap();
    for journal in ["delete", "wal"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let open = || {
            let flags = OpenFlags::default();
            Connection::open_with_flags_and_vfs(&path, flags, "turnstile").unwrap()
        };
        let holder = open();
        holder.pragma_update(None, "journal_mode", journal).unwrap();
        holder
            .execute_batch("CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES(0)")
            .unwrap();
        let db = open();
        db.busy_timeout(Duration::from_secs(30)).unwrap();
        db.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        let began = Instant::now();
        let refused = db.execute("INSERT INTO t VALUES(1)", ()).unwrap_err();
        assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        assert!(began.elapsed() < Duration::from_secs(1));
        let upgrades = || std::fs::read(dir.path().join("a.db-turnstile")).unwrap()[58 * 8];
        assert_eq!(upgrades(), 1, "{journal}: one upgrade is counted");
        if journal == "wal" {
            // The holder is gone, but what was read is old: SQLITE_BUSY_SNAPSHOT.
            holder.execute_batch("COMMIT").unwrap();
            db.execute("INSERT INTO t VALUES(1)", ()).unwrap_err();
            assert_eq!(upgrades(), 2, "an old snapshot is counted");
        }
        db.execute_batch("ROLLBACK").unwrap();
        waits_for_an_attached_database(&db, dir.path(), journal);
        if journal == "delete" {
            holder.execute_batch("COMMIT").unwrap();
        }
        for nothing in ["", "SELECT * FROM t;", "UPDATE t SET x=1 WHERE x=7;"] {
            let (begin, commit) = ("BEGIN IMMEDIATE", "COMMIT");
            db.execute_batch(&format!("{begin}; {nothing} {commit}"))
                .unwrap();
        }
        db.execute_batch("BEGIN; SELECT * FROM t; UPDATE t SET x=1 WHERE x=7; COMMIT")
            .unwrap();
        let counted = 1 + u8::from(journal == "wal");
        assert_eq!(upgrades(), counted, "nothing to write is no refusal");
    }
    let log = LOG.lock().unwrap();
    let explained = log.iter().filter(|line| line.contains("BEGIN IMMEDIATE"));
    assert_eq!(explained.count(), 1, "{log:?}");
}

/// A transaction on another database of the same connection is no upgrade: SQLite waits.
fn waits_for_an_attached_database(db: &Connection, dir: &std::path::Path, journal: &str) {
    let path = dir.join("attached.db");
    let flags = OpenFlags::default();
    let holder = Connection::open_with_flags_and_vfs(&path, flags, "turnstile").unwrap();
    holder.pragma_update(None, "journal_mode", journal).unwrap();
    holder
        .execute_batch("CREATE TABLE other(x); BEGIN IMMEDIATE; INSERT INTO other VALUES(0)")
        .unwrap();
    db.busy_timeout(Duration::from_millis(200)).unwrap();
    let attach = format!("ATTACH '{}' AS b; BEGIN", path.display());
    db.execute_batch(&attach).unwrap();
    db.execute_batch("CREATE TEMP TABLE mine AS SELECT 1")
        .unwrap();
    let began = Instant::now();
    db.execute("INSERT INTO other VALUES(1)", ()).unwrap_err();
    let waited = began.elapsed();
    assert!(waited > Duration::from_millis(180), "{journal}: {waited:?}");
    holder.execute_batch("COMMIT").unwrap();
    db.execute_batch("INSERT INTO other VALUES(1); COMMIT; DETACH b; DROP TABLE mine")
        .unwrap();
    let sidecar = std::fs::read(dir.join("attached.db-turnstile")).unwrap();
    assert_eq!(sidecar[58 * 8], 0, "{journal}: no upgrade is counted");
}
