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
        let sidecar = std::fs::read(dir.path().join("a.db-turnstile")).unwrap();
        assert_eq!(sidecar[58 * 8], 1, "{journal}: one upgrade is counted");
    }
    let log = LOG.lock().unwrap();
    let explained = log.iter().filter(|line| line.contains("BEGIN IMMEDIATE"));
    assert_eq!(explained.count(), 1, "{log:?}");
}
