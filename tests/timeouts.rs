//! Timeouts mean what they say: whoever cannot get in is told SQLITE_BUSY when the application's own timeout is over,
//! neither earlier nor later, however it was set, for whatever is waited for, and with however many in the line.
#![cfg(feature = "linked")]

mod support;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PYTHON: &str = "/usr/bin/python3";

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What nobody may wait for: a test that hangs fails.
const FAR: Duration = ms(120_000);

/// Those of every test; 5 s is tested once.
const TIMEOUTS: [Duration; 3] = [ms(0), ms(50), ms(1_000)];

/// A database in a directory of its own. Tests of times run one after the other.
struct Place {
    dir: tempfile::TempDir,
    _watchdog: mpsc::Sender<()>,
    _alone: MutexGuard<'static, ()>,
}

impl Place {
    fn new(journal: &str) -> Place {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
        turnstile::register(turnstile::Options::default()).unwrap();
        let place = Place {
            dir: tempfile::tempdir().unwrap(),
            _watchdog: watchdog(),
            _alone: alone,
        };
        let db = place.connect(FAR);
        db.pragma_update(None, "journal_mode", journal).unwrap();
        db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(0)")
            .unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("a.db")
    }

    fn connect(&self, timeout: Duration) -> Connection {
        // Without a quantum, so that the turn goes on with the first commit.
        let uri = format!("file:{}?vfs=turnstile&quantum_us=0", self.path().display());
        let db = Connection::open_with_flags(uri, OpenFlags::default()).unwrap();
        db.busy_timeout(timeout).unwrap();
        db
    }

    /// How many stand in the line and have not given up.
    fn waiting(&self) -> usize {
        let sidecar = File::open(format!("{}-turnstile", self.path().display())).unwrap();
        let word = |index: u64| {
            let mut bytes = [0; 8];
            sidecar.read_exact_at(&mut bytes, index * 8).unwrap();
            u64::from_le_bytes(bytes)
        };
        const GONE: u64 = 5;
        let (head, length) = (word(8) >> 32, word(8) & 0xffff_ffff);
        let state = |ticket: u64| word(512 + ticket % 4096 * 2) & 7;
        (head..head + length)
            .filter(|&ticket| state(ticket) != GONE)
            .count()
    }

    fn wait_for(&self, waiting: usize) {
        let start = Instant::now();
        while self.waiting() != waiting {
            let seen = self.waiting();
            assert!(start.elapsed() < FAR, "{seen} wait instead of {waiting}");
            std::thread::sleep(ms(1));
        }
    }

    /// A connection that has the write lock.
    fn holder(&self) -> Connection {
        let db = self.connect(FAR);
        db.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES(1)")
            .unwrap();
        db
    }

    /// So many more in the line, with all the time of the world.
    fn crowd(&self, size: usize) -> Vec<JoinHandle<()>> {
        let one = |_| {
            let db = self.connect(FAR);
            let wait = move || db.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
            let builder = std::thread::Builder::new().stack_size(256 << 10);
            builder.spawn(wait).unwrap()
        };
        let before = self.waiting();
        let crowd = (0..size).map(one).collect();
        self.wait_for(before + size);
        crowd
    }
}

/// Ends the process unless what it returns is dropped in time: nothing else ends a timeout that never comes.
fn watchdog() -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        if receiver.recv_timeout(FAR) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "a timeout that does not end");
            std::process::abort();
        }
    });
    sender
}

/// How long `sql` takes to be told that the database is busy.
fn busy(db: &Connection, sql: &str) -> Duration {
    let start = Instant::now();
    let answer = db.execute_batch(sql);
    let took = start.elapsed();
    let code = answer.err().and_then(|e| e.sqlite_error_code());
    assert_eq!(code, Some(ErrorCode::DatabaseBusy), "{sql:?}");
    took
}

/// Each of the durations that `attempt` measures is what `timeout` says.
///
/// What comes too late is measured anew, up to twice: the machine may have been busy. Nothing may ever come early.
fn means_what_it_says(what: &str, timeout: Duration, mut attempt: impl FnMut() -> Vec<Duration>) {
    let latest = timeout + ms(20).max(timeout / 50);
    let mut late = Vec::new();
    for _ in 0..3 {
        let took = attempt();
        let early = took.iter().any(|took| *took + ms(20) < timeout);
        assert!(
            !early && !took.is_empty(),
            "{what}: {took:?} instead of {timeout:?}"
        );
        if took.iter().all(|took| *took <= latest) {
            return;
        }
        late.push(took);
    }
    panic!("{what}: three times late: {late:?} instead of {timeout:?}");
}

/// `sql` twice on one connection: after a timeout the next statement has all its time again.
fn twice(db: &Connection, sql: &str) -> Vec<Duration> {
    vec![busy(db, sql), busy(db, sql)]
}

fn with_pragma(place: &Place, timeout: Duration, sql: &str) -> Vec<Duration> {
    let db = place.connect(FAR);
    let pragma = format!("PRAGMA busy_timeout={}", timeout.as_millis());
    db.execute_batch(&pragma).unwrap();
    twice(&db, sql)
}

/// Prints how many nanoseconds it took to be refused, twice.
const SCRIPT: &str = "
import sqlite3, sys, time
so, path, timeout, sql = sys.argv[1:]
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension(so)
uri = f'file:{path}?vfs=turnstile'
db = sqlite3.connect(uri, uri=True, timeout=float(timeout), isolation_level=None)
print(sqlite3.sqlite_version)
for _ in range(2):
    start = time.monotonic_ns()
    try:
        db.execute(sql).fetchall()
        print('not refused')
    except sqlite3.OperationalError as e:
        took = time.monotonic_ns() - start
        assert str(e) == 'database is locked', e
        print(took)
";

/// `libraries`: where a libsqlite3.so.0 lies that is to be used instead of the machine's.
fn python(
    place: &Place,
    timeout: Duration,
    sql: &str,
    libraries: Option<&Path>,
) -> (String, Vec<Duration>) {
    let mut command = Command::new(PYTHON);
    command.args(["-c", SCRIPT]).arg(support::extension());
    command.arg(place.path());
    command.arg(timeout.as_secs_f64().to_string()).arg(sql);
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let said = support::stdout(&mut command);
    let mut lines = said.lines();
    let version = lines.next().unwrap().to_owned();
    let took = lines.map(|line| Duration::from_nanos(line.parse().expect(line)));
    (version, took.collect())
}

/// A writer against a holder, behind a line of `crowd` others; the timeout set in three ways.
fn a_writer(test: &str, journal: &str, crowd: usize) {
    let has_python = support::has_program(test, PYTHON, "python3");
    let place = Place::new(journal);
    let holder = place.holder();
    let crowd = place.crowd(crowd);
    let others = crowd.len();
    for timeout in TIMEOUTS {
        for sql in ["BEGIN IMMEDIATE", "INSERT INTO t VALUES(2)"] {
            if timeout > ms(500) && sql.starts_with("INSERT") {
                continue;
            }
            let what = |way| format!("{way}, {sql}, {journal}, {others} wait");
            means_what_it_says(&what("busy_timeout"), timeout, || {
                twice(&place.connect(timeout), sql)
            });
            means_what_it_says(&what("PRAGMA"), timeout, || {
                with_pragma(&place, timeout, sql)
            });
            if has_python {
                means_what_it_says(&what("Python"), timeout, || {
                    python(&place, timeout, sql, None).1
                });
            }
            assert_eq!(place.waiting(), others, "nobody stays in the line");
        }
    }
    holder.execute_batch("COMMIT").unwrap();
    crowd.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(place.waiting(), 0);
}

#[test]
fn a_writer_in_an_empty_line_wal() {
    a_writer("a_writer_in_an_empty_line_wal", "wal", 0);
}

#[test]
fn a_writer_in_an_empty_line_delete() {
    a_writer("a_writer_in_an_empty_line_delete", "delete", 0);
}

#[test]
fn a_writer_behind_two_hundred_wal() {
    a_writer("a_writer_behind_two_hundred_wal", "wal", 200);
}

#[test]
fn a_writer_behind_two_hundred_delete() {
    a_writer("a_writer_behind_two_hundred_delete", "delete", 200);
}

/// Five seconds, once.
#[test]
fn a_writer_with_a_long_timeout() {
    const LONG: Duration = ms(5_000);
    let place = Place::new("wal");
    let holder = place.holder();
    let crowd = place.crowd(20);
    means_what_it_says("busy_timeout and PRAGMA", LONG, || {
        let (one, other) = (place.connect(LONG), place.connect(FAR));
        other.execute_batch("PRAGMA busy_timeout=5000").unwrap();
        let one = std::thread::spawn(move || busy(&one, "BEGIN IMMEDIATE"));
        let other = std::thread::spawn(move || busy(&other, "BEGIN IMMEDIATE"));
        vec![one.join().unwrap(), other.join().unwrap()]
    });
    holder.execute_batch("COMMIT").unwrap();
    crowd.into_iter().for_each(|t| t.join().unwrap());
}

/// SHARED is waited for, and not the line.
#[test]
fn a_reader_against_a_committing_writer() {
    let has_python =
        support::has_program("a_reader_against_a_committing_writer", PYTHON, "python3");
    let place = Place::new("delete");
    let holder = place.connect(FAR);
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for timeout in TIMEOUTS {
        for sql in ["SELECT count(*) FROM t", "BEGIN IMMEDIATE"] {
            means_what_it_says(&format!("busy_timeout, {sql}"), timeout, || {
                twice(&place.connect(timeout), sql)
            });
        }
        if has_python {
            means_what_it_says("Python", timeout, || {
                python(&place, timeout, "SELECT * FROM t", None).1
            });
        }
    }
}

/// EXCLUSIVE is waited for: readers are still there.
#[test]
fn a_commit_against_a_reader() {
    for others in [0, 50] {
        let place = Place::new("delete");
        let reader = place.connect(FAR);
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        for timeout in TIMEOUTS {
            let writer = place.connect(FAR);
            writer
                .execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES(1)")
                .unwrap();
            let crowd = place.crowd(others);
            writer.busy_timeout(timeout).unwrap();
            means_what_it_says(&format!("{others} wait"), timeout, || {
                twice(&writer, "COMMIT")
            });
            assert!(!writer.is_autocommit(), "the transaction is still there");
            writer.execute_batch("ROLLBACK").unwrap();
            // They roll back: no EXCLUSIVE.
            crowd.into_iter().for_each(|t| t.join().unwrap());
        }
    }
}

/// The one who waits for its turn has to wait for SHARED as well, from the middle on: it is one timeout.
#[test]
fn a_writer_whose_holder_goes_on_to_write_the_file() {
    const T: Duration = ms(1_000);
    let place = Place::new("delete");
    means_what_it_says("first the turn, then SHARED", T, || {
        let holder = place.holder();
        holder.execute_batch("PRAGMA cache_size=1").unwrap();
        let db = place.connect(T);
        let waiter = std::thread::spawn(move || busy(&db, "BEGIN IMMEDIATE"));
        place.wait_for(1);
        std::thread::sleep(ms(400));
        let much = "INSERT INTO t SELECT zeroblob(9000) FROM \
            (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50) SELECT i FROM n)";
        holder.execute_batch(much).unwrap();
        let probe = place.connect(ms(0));
        busy(&probe, "SELECT * FROM t");
        let took = waiter.join().unwrap();
        assert_eq!(place.waiting(), 0, "it has left the line");
        holder.execute_batch("ROLLBACK").unwrap();
        vec![took]
    });
}

const LONG: Duration = ms(2_000);
const HALF: Duration = ms(1_000);

/// `db`, whose timeout is `LONG`, waits for half of it, and so many stand in the line, until `other` commits.
fn waits(place: &Place, db: &Connection, sql: &str, line: usize, other: Connection) -> Connection {
    std::thread::scope(|scope| {
        let start = Instant::now();
        let other = scope.spawn(|| {
            std::thread::sleep(HALF);
            place.wait_for(line);
            other.execute_batch("COMMIT").unwrap();
            other
        });
        db.execute_batch(sql).unwrap();
        let took = start.elapsed();
        assert!(took > HALF - ms(20) && took < LONG, "{took:?}");
        other.join().unwrap()
    })
}

/// A wait of two seconds that succeeded after one leaves nothing behind: the next one has its two seconds.
fn a_success_then_a_timeout(journal: &str) {
    let place = Place::new(journal);
    means_what_it_says(&format!("again, {journal}"), LONG, || {
        let db = place.connect(LONG);
        waits(&place, &db, "BEGIN IMMEDIATE", 1, place.holder());
        // The next one stands in the line already when the first is done.
        let next = place.connect(FAR);
        let next = std::thread::spawn(move || {
            next.execute_batch("BEGIN IMMEDIATE").unwrap();
            next
        });
        place.wait_for(1);
        db.execute_batch("INSERT INTO t VALUES(3); COMMIT").unwrap();
        let took = busy(&db, "BEGIN IMMEDIATE");
        next.join().unwrap().execute_batch("COMMIT").unwrap();
        vec![took]
    });
}

#[test]
fn a_success_then_a_timeout_wal() {
    a_success_then_a_timeout("wal");
}

#[test]
fn a_success_then_a_timeout_delete() {
    a_success_then_a_timeout("delete");
}

/// Likewise for readers.
#[test]
fn a_read_that_waited_then_a_timeout() {
    let place = Place::new("delete");
    means_what_it_says("SHARED, then SHARED", LONG, || {
        let (db, holder) = (place.connect(LONG), place.connect(FAR));
        holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let holder = waits(&place, &db, "SELECT * FROM t", 0, holder);
        holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let took = busy(&db, "SELECT * FROM t");
        holder.execute_batch("COMMIT").unwrap();
        vec![took]
    });
}

/// Likewise for a commit that waited for a reader.
#[test]
fn a_commit_that_waited_then_a_timeout() {
    let place = Place::new("delete");
    means_what_it_says("EXCLUSIVE, then RESERVED", LONG, || {
        let (db, reader) = (place.connect(LONG), place.connect(FAR));
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        let other = waits(&place, &db, "INSERT INTO t VALUES(4)", 0, reader);
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let took = busy(&db, "BEGIN IMMEDIATE");
        other.execute_batch("COMMIT").unwrap();
        vec![took]
    });
}

/// Python with SQLite 3.26.0, the oldest: the fixture's, as a shared library.
#[test]
fn the_oldest_sqlite() {
    if !support::has_program("the_oldest_sqlite", PYTHON, "python3") {
        return;
    }
    let fixture = support::root().join("tests/fixtures/oldest-sqlite");
    let target = support::root().join("target/oldest-sqlite");
    support::succeed(
        Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(fixture.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
    );
    let builds = std::fs::read_dir(target.join("debug/build")).unwrap();
    let archive = builds
        .map(|build| build.unwrap().path().join("out/libsqlite3.a"))
        .find(|archive| archive.exists())
        .unwrap();
    let place = Place::new("delete");
    let dir = place.dir.path();
    // Python's module asks for these two, which 3.26 has only on request.
    let rest = dir.join("rest.c");
    let text =
        "void *sqlite3_serialize(void) { return 0; } int sqlite3_deserialize(void) { return 1; }";
    std::fs::write(&rest, text).unwrap();
    support::succeed(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&dir.join("libsqlite3.so.0"), &rest])
            .arg("-Wl,--whole-archive")
            .arg(archive)
            .args(["-Wl,--no-whole-archive", "-lpthread", "-ldl", "-lm"]),
    );
    for journal in ["delete", "wal"] {
        let holder = place.connect(FAR);
        holder.pragma_update(None, "journal_mode", journal).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        for timeout in TIMEOUTS {
            means_what_it_says(&format!("3.26.0, {journal}"), timeout, || {
                let (version, took) = python(&place, timeout, "BEGIN IMMEDIATE", Some(dir));
                assert_eq!(version, "3.26.0");
                took
            });
        }
        holder.execute_batch("COMMIT").unwrap();
    }
}
