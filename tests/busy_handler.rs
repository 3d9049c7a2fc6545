//! Our own busy handler waits exactly as long as it is told, in the line; an interrupt ends a wait.

use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

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

/// However long the line is.
#[test]
fn an_interrupt_ends_the_wait_of_one_in_a_long_line() {
    const WAITERS: usize = 300;
    for journal in ["wal", "delete"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let holder = held(dir.path(), journal);
        let waiters: Vec<_> = (0..WAITERS)
            .map(|_| {
                let db = open(&path);
                db.busy_timeout(Duration::from_secs(30)).unwrap();
                let interrupt = db.get_interrupt_handle();
                let waiter = std::thread::spawn(move || (insert(&db).0, Instant::now()));
                (interrupt, waiter)
            })
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        let called: Vec<_> = (0..WAITERS)
            .step_by(50)
            .map(|nth| (nth, waiters[nth].0.interrupt(), Instant::now()))
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        holder.execute_batch("COMMIT").unwrap();
        for (nth, (_, waiter)) in waiters.into_iter().enumerate() {
            let (result, ended) = waiter.join().unwrap();
            let Some((_, _, called)) = called.iter().find(|called| called.0 == nth) else {
                assert_eq!(result, Ok(1), "{journal} {nth}");
                continue;
            };
            assert!(result.is_err(), "{journal} {nth}");
            let late = ended.duration_since(*called);
            assert!(
                late < Duration::from_millis(150),
                "{journal} {nth}: {late:?}"
            );
        }
    }
}

/// The connection that [`an_alarm_ends_the_wait_of_a_process_of_one_thread`] interrupts.
static ALARMED: AtomicPtr<ffi::sqlite3> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn alarmed(_signal: i32) {
    // SAFETY: the connection is open as long as there may be an alarm.
    unsafe { ffi::sqlite3_interrupt(ALARMED.load(Ordering::SeqCst)) };
}

/// Nobody but a signal's handler can interrupt such a process, so it does not look up for that many times a second.
#[test]
fn an_alarm_ends_the_wait_of_a_process_of_one_thread() {
    const CHILD: &str = "TURNSTILE_ALARM";
    let Some(path) = std::env::var_os(CHILD) else {
        let dir = tempfile::tempdir().unwrap();
        let holder = held(dir.path(), "wal");
        let path = dir.path().join("a.db");
        let first = open(&path);
        first.busy_timeout(Duration::from_secs(30)).unwrap();
        // The head of the line looks at the lock now and then; behind it nobody does.
        let first = std::thread::spawn(move || insert(&first).0);
        std::thread::sleep(Duration::from_millis(100));
        let name = "an_alarm_ends_the_wait_of_a_process_of_one_thread";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, path)
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        holder.execute_batch("COMMIT").unwrap();
        assert_eq!(first.join().unwrap(), Ok(1));
        return;
    };
    // The test's runner has a thread of its own; a fork leaves it behind.
    // SAFETY: in this process no other thread has done anything that a fork could cut in two.
    let child = unsafe { libc::fork() };
    if child != 0 {
        let mut status = 0;
        // SAFETY: our child.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        return;
    }
    let alone = std::fs::read_dir("/proc/self/task").unwrap().count() == 1;
    let (result, waited) = insert_until_an_alarm(Path::new(&path));
    let in_time = waited < Duration::from_millis(400);
    if !alone || result.is_ok() || !in_time {
        eprintln!("alone: {alone}, {result:?} after {waited:?}");
        std::process::abort();
    }
    std::process::exit(0);
}

fn insert_until_an_alarm(path: &Path) -> (Result<usize, Option<ErrorCode>>, Duration) {
    let db = open(path);
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    // SAFETY: the handler only calls sqlite3_interrupt, which may be called at any time.
    unsafe {
        ALARMED.store(db.handle(), Ordering::SeqCst);
        libc::signal(libc::SIGALRM, alarmed as *const () as libc::sighandler_t);
        let mut soon: libc::itimerval = std::mem::zeroed();
        soon.it_value.tv_usec = 300_000;
        libc::setitimer(libc::ITIMER_REAL, &soon, std::ptr::null_mut());
    }
    insert(&db)
}
