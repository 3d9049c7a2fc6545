//! Under a lock one sees what the last owner wrote, though the file system caches pages, attributes and
//! names, and believes all of them for a second.

use crate::support::within;
use crate::{cluster, rows, worker};
use cluster::{Cluster, Fault, Mount, Op};
use rows::{ROWS, State, VERSIONS, all, create, rewrite};
use rusqlite::{Connection, ffi};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use worker::{Answer, Failure, LONG, STOCK, Worker, tested};

const BELIEVED: Duration = Duration::from_secs(1);

fn caching() -> Cluster {
    Cluster::new(&[Mount::cached(BELIEVED); 2])
}

fn on(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.path(node).join("a.db")
}

/// What went wrong in one run.
#[derive(Debug, Default)]
struct Toll {
    /// Reads that did not see what was acknowledged so far, and nothing else.
    wrong: u32,
    errors: BTreeMap<String, u32>,
    /// Acknowledged commits that are not there in the end.
    lost: i64,
    integrity: String,
}

impl Toll {
    fn failed(&mut self, error: &Failure) {
        *self.errors.entry(error.to_string()).or_default() += 1;
    }

    fn is_nothing(&self) -> bool {
        (self.wrong, self.lost) == (0, 0) && self.errors.is_empty() && self.integrity == "ok"
    }

    /// Takes stock of what is there in the end, when so many commits were acknowledged.
    fn end(&mut self, cluster: &Cluster, acknowledged: i64) {
        let db = Connection::open(cluster.backing().join("a.db")).unwrap();
        let check = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        self.integrity = check.unwrap_or_else(|error| error.to_string());
        let count = db.query_row("SELECT n FROM counter", [], |row| row.get::<_, i64>(0));
        self.lost = acknowledged - count.unwrap_or(0);
    }

    fn print(&self, what: &str) {
        let Toll {
            wrong,
            errors,
            lost,
            integrity,
        } = self;
        println!("{what}: {wrong} wrong reads, {lost} lost, {integrity}, errors: {errors:?}");
    }
}

const TABLES: &str = "PRAGMA auto_vacuum=FULL; CREATE TABLE t(x);
    CREATE TABLE counter(n); INSERT INTO counter VALUES(0)";

/// One node after the other reads and writes, in turn. Nobody ever waits.
fn alternate(vfs: &str, mode: &str, turns: i64) -> Toll {
    let cluster = caching();
    Worker::at(&on(&cluster, 0), vfs, "").run(TABLES);
    let mut workers = [0, 1].map(|node| Worker::at(&on(&cluster, node), vfs, ""));
    for worker in &mut workers {
        worker.run(&format!(
            "SELECT n FROM counter; PRAGMA journal_mode={mode}"
        ));
    }
    let (mut toll, mut commits, mut rows) = (Toll::default(), 0, 0);
    for turn in 0..turns {
        let worker = &mut workers[turn as usize % 2];
        match worker.sql("SELECT n, (SELECT count(*)||'|'||total(length(x)) FROM t) FROM counter") {
            Err(error) => toll.failed(&error),
            Ok(seen) if seen == format!("{commits}|{rows}|{}.0", 600 * rows) => {}
            Ok(_) => toll.wrong += 1,
        }
        // It grows and it shrinks.
        let grows = turn % 20 < 11;
        let change = match grows {
            true => {
                "WITH RECURSIVE i(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM i WHERE n<40)
                     INSERT INTO t SELECT hex(zeroblob(300)) FROM i"
            }
            false => {
                "DELETE FROM t WHERE rowid IN (SELECT rowid FROM t ORDER BY rowid DESC LIMIT 50)"
            }
        };
        let sql = format!("BEGIN IMMEDIATE; UPDATE counter SET n=n+1; {change}; COMMIT");
        match worker.sql(&sql) {
            Err(error) => {
                toll.failed(&error);
                let _ = worker.sql("ROLLBACK");
            }
            Ok(_) => {
                commits += 1;
                rows = if grows {
                    rows + 40
                } else {
                    i64::max(rows - 50, 0)
                };
            }
        }
    }
    drop(workers);
    toll.end(&cluster, commits);
    toll
}

/// Two on each node, each as fast as it can.
fn race(vfs: &str, each: u32) -> Toll {
    let cluster = caching();
    Worker::at(&on(&cluster, 0), vfs, "").run(TABLES);
    let worker = |who: usize| Worker::at(&on(&cluster, who % 2), vfs, "");
    let mut workers: Vec<Worker> = (0..4).map(worker).collect();
    for worker in &mut workers {
        worker.run("SELECT n FROM counter; PRAGMA busy_timeout=60000; PRAGMA synchronous=OFF");
    }
    for worker in &mut workers {
        for _ in 0..each {
            worker.tell("sql BEGIN IMMEDIATE; UPDATE counter SET n=n+1; COMMIT");
            worker.tell("sql ROLLBACK");
        }
    }
    let (mut toll, mut commits) = (Toll::default(), 0);
    for worker in &mut workers {
        for _ in 0..each {
            match worker.hear() {
                Ok(_) => commits += 1,
                Err(error) => toll.failed(&error),
            }
            // There is something to roll back only if it failed.
            let _ = worker.hear();
        }
    }
    drop(workers);
    toll.end(&cluster, commits);
    toll
}

#[test]
fn writers_in_turn_see_each_other() {
    if !Cluster::available("writers_in_turn_see_each_other") {
        return;
    }
    let mut tolls = Vec::new();
    for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
        let stock = alternate(STOCK, mode, 200);
        stock.print(&format!("{mode}, stock"));
        assert!(
            !stock.is_nothing(),
            "stock does well: this file system does not cache"
        );
        let toll = alternate(&tested(), mode, 200);
        toll.print(mode);
        tolls.push(toll);
    }
    assert!(tolls.iter().all(Toll::is_nothing), "{tolls:#?}");
}

#[test]
fn writers_that_race_lose_nothing() {
    if !Cluster::available("writers_that_race_lose_nothing") {
        return;
    }
    let stock = race(STOCK, 100);
    stock.print("stock");
    assert!(
        !stock.is_nothing(),
        "stock does well: this file system does not cache"
    );
    let toll = race(&tested(), 100);
    toll.print("race");
    assert!(toll.is_nothing(), "{toll:#?}");
}

/// A process of node 0 is killed in the middle of a commit, right after node 1 has been told that there is
/// no journal: what node 1 reads, and whether it may still believe that.
fn killed_elsewhere(vfs: &str, new_connection: bool) -> (Answer, bool, State) {
    let cluster = caching();
    let mut writer = Worker::at(&on(&cluster, 0), vfs, "");
    writer.run(&create());
    let mut reader = Worker::at(&on(&cluster, 1), vfs, "");
    assert_eq!(reader.run(VERSIONS), all(0));
    // Asked again, so that it has just been answered.
    std::thread::sleep(BELIEVED + Duration::from_millis(100));
    let half = Fault::at(&[Op::Write]).of("a.db").on(0).nth(30).times(1);
    let half = cluster.inject(half.late(Duration::from_millis(50)));
    let start = Instant::now();
    assert_eq!(reader.run(VERSIONS), all(0));
    writer.tell(&format!("sql {}", rewrite(1, "half")));
    assert!(within(LONG, || cluster.fired(half) == 1));
    writer.kill();
    if new_connection {
        reader.open(&on(&cluster, 1), vfs, "").unwrap();
    }
    let read = reader.sql(VERSIONS);
    let believed = start.elapsed() < BELIEVED;
    // And it writes.
    let _ = reader.sql(&format!("UPDATE t SET v=v+10 WHERE id<={}", ROWS / 2));
    drop(reader);
    (read, believed, State::of(&cluster.backing().join("a.db")))
}

#[test]
fn a_hot_journal_from_elsewhere_is_seen_at_once() {
    if !Cluster::available("a_hot_journal_from_elsewhere_is_seen_at_once") {
        return;
    }
    let (mut tries, mut overlooked) = (0, 0);
    for new_connection in [false, true, false, true] {
        let (read, believed, state) = killed_elsewhere(STOCK, new_connection);
        println!("stock: {read:?}, then {state:?}");
        tries += u32::from(believed);
        overlooked += u32::from(read != Ok(all(0)) || state.has("half"));
    }
    println!("stock has overlooked {overlooked} of 4 hot journals");
    assert!(
        overlooked > 0 || tries == 0,
        "this file system does not cache absence"
    );
    for new_connection in [false, true, false, true] {
        let (read, believed, state) = killed_elsewhere(&tested(), new_connection);
        println!("{read:?}, then {state:?}, in time: {believed}");
        assert_eq!(read, Ok(all(0)));
        assert_eq!(state.integrity, "ok");
        assert!(!state.has("half"), "{state:?}");
        let mut versions: Vec<&str> = state.versions.split(['|', ',']).collect();
        versions.sort_unstable();
        assert_eq!(versions, ["0", "10", "300"], "{state:?}");
    }
}

/// Requests of one transaction, on average: a write, a read.
fn cost(vfs: &str) -> [f64; 2] {
    const TIMES: u64 = 50;
    let cluster = caching();
    let mut worker = Worker::at(&on(&cluster, 0), vfs, "");
    worker.run(TABLES);
    let transactions = ["UPDATE counter SET n=n+1", "SELECT n FROM counter"];
    transactions.map(|sql| {
        worker.run(sql);
        cluster.reset_counts();
        (0..TIMES).for_each(|_| drop(worker.run(sql)));
        let counts = cluster.counts(0);
        println!("{vfs}, {TIMES} times {sql:?}: {counts:?}");
        counts.total() as f64 / TIMES as f64
    })
}

#[test]
fn what_it_costs() {
    if !Cluster::available("what_it_costs") {
        return;
    }
    let ([write, read], [our_write, our_read]) = (cost(STOCK), cost(&tested()));
    println!("requests of a write transaction: {our_write}, stock: {write}");
    println!("requests of a read transaction: {our_read}, stock: {read}");
    assert!(our_write <= write + 4.0, "{our_write}, stock: {write}");
    assert!(our_read <= read + 2.0, "{our_read}, stock: {read}");
}

/// What is read while no lock is held: `sqlite3BtreeOpen` is told that there is nothing yet, others (SQLCipher, which wants
/// its salt) what is there.
#[test]
fn what_is_read_without_a_lock() {
    turnstile::register(turnstile::Options::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let uri = format!(
        "file:{}?vfs=turnstile&fs=network",
        dir.path().join("a.db").display()
    );
    let maker = Connection::open(&uri).unwrap();
    maker.execute_batch("CREATE TABLE t(x)").unwrap();
    let db = Connection::open(&uri).unwrap();
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    let (op, out) = (ffi::SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast());
    // SAFETY: an open connection, and what this file control wants.
    let code = unsafe { ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), op, out) };
    assert_eq!(code, ffi::SQLITE_OK);
    let read = |size: usize, at: i64| {
        let mut into = vec![1_u8; size];
        // SAFETY: an open file, and a buffer of that size.
        let code = unsafe {
            let read = (*(*file).pMethods).xRead.unwrap();
            read(file, into.as_mut_ptr().cast(), size as i32, at)
        };
        (code, into)
    };
    assert_eq!(read(100, 0), (ffi::SQLITE_IOERR_SHORT_READ, vec![0; 100]));
    let magic = b"SQLite format 3\0";
    assert_eq!(read(16, 0), (ffi::SQLITE_OK, magic.to_vec()));
    // While another one keeps everybody out, too.
    maker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(read(16, 0), (ffi::SQLITE_OK, magic.to_vec()));
    maker.execute_batch("ROLLBACK").unwrap();
    // And nothing of it is left.
    maker.execute_batch("INSERT INTO t VALUES(1)").unwrap();
    let count = |db: &Connection| db.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    assert_eq!(count(&db), Ok(1));
}
