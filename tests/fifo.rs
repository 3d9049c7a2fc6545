//! The order itself: writers that wait are served in the order in which they came, be they processes, threads or
//! both, in each journal mode; and how many overtake within a quantum.
#![cfg(feature = "linked")]

mod support;

use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PYTHON: &str = "/usr/bin/python3";
const WRITERS: usize = 12;

/// What nobody may wait for: a test that hangs fails.
const FAR: Duration = Duration::from_secs(60);

/// A database in a directory of its own.
struct Place {
    dir: tempfile::TempDir,
    journal: &'static str,
    /// `None`: the default.
    quantum_us: Option<u32>,
}

impl Place {
    fn new(journal: &'static str, quantum_us: Option<u32>) -> Place {
        turnstile::register(turnstile::Options::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            dir,
            journal,
            quantum_us,
        };
        place
            .connect("turnstile")
            .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, who)")
            .unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("a.db")
    }

    fn connect(&self, vfs: &str) -> Connection {
        let quantum = match self.quantum_us {
            Some(us) if vfs == "turnstile" => format!("&quantum_us={us}"),
            _ => String::new(),
        };
        let uri = format!("file:{}?vfs={vfs}{quantum}", self.path().display());
        let db = Connection::open_with_flags(uri, OpenFlags::default()).unwrap();
        db.busy_timeout(FAR).unwrap();
        db.pragma_update(None, "journal_mode", self.journal)
            .unwrap();
        db.pragma_update(None, "synchronous", "OFF").unwrap();
        db
    }

    /// Who wrote, in the order in which they did.
    fn order(&self) -> Vec<i64> {
        let db = self.connect("turnstile");
        let mut rows = db.prepare("SELECT who FROM t ORDER BY id").unwrap();
        let rows = rows.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }
}

/// The words that the waiters share, as anybody may read them.
struct Sidecar(File);

impl Sidecar {
    fn of(place: &Place) -> Sidecar {
        let path = format!("{}-turnstile", place.path().display());
        Sidecar(File::open(path).unwrap())
    }

    fn word(&self, index: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, index * 8).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn waiting(&self) -> usize {
        self.word(8) as u32 as usize
    }

    fn overtakes(&self) -> u64 {
        self.word(56)
    }

    /// Waits until so many stand in the line.
    fn wait_for(&self, waiting: usize) {
        let start = Instant::now();
        while self.waiting() != waiting {
            let seen = self.waiting();
            assert!(start.elapsed() < FAR, "{seen} wait instead of {waiting}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One that writes one row, once it may.
enum Writer {
    Process(Child),
    Thread(JoinHandle<()>),
}

const SCRIPT: &str = "
import sqlite3, sys
so, path, journal, who = sys.argv[1:]
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension(so)
db = sqlite3.connect(f'file:{path}?vfs=turnstile', uri=True, timeout=60, isolation_level=None)
db.execute(f'PRAGMA journal_mode={journal}')
db.execute('PRAGMA synchronous=OFF')
db.execute('INSERT INTO t(who) VALUES(?)', (int(who),))
";

impl Writer {
    fn process(place: &Place, who: usize) -> Writer {
        let mut command = Command::new(PYTHON);
        command.args(["-c", SCRIPT]).arg(support::extension());
        command.arg(place.path()).arg(place.journal);
        command.arg(who.to_string()).stderr(Stdio::piped());
        if let Some(us) = place.quantum_us {
            command.env("TURNSTILE_QUANTUM_US", us.to_string());
        }
        Writer::Process(command.spawn().unwrap())
    }

    fn thread(place: &Place, who: usize) -> Writer {
        let db = place.connect("turnstile");
        Writer::Thread(std::thread::spawn(move || {
            db.execute("INSERT INTO t(who) VALUES(?)", [who as i64])
                .unwrap();
        }))
    }

    fn join(self) {
        match self {
            Writer::Thread(thread) => thread.join().unwrap(),
            Writer::Process(child) => {
                let output = child.wait_with_output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{error}");
            }
        }
    }
}

/// Which kind the writer of a number is.
type Kind = fn(&Place, usize) -> Writer;

fn mixed(place: &Place, who: usize) -> Writer {
    match who % 2 {
        0 => Writer::process(place, who),
        _ => Writer::thread(place, who),
    }
}

const BOTH: [Option<u32>; 2] = [Some(0), None];

/// A holder on `vfs`; writers that arrive one by one; then the holder commits.
fn arrive(kind: Kind, journal: &'static str, quantum_us: Option<u32>, vfs: &str) {
    let place = Place::new(journal, quantum_us);
    let holder = place.connect(vfs);
    holder
        .execute_batch("BEGIN IMMEDIATE; INSERT INTO t(who) VALUES(-1)")
        .unwrap();
    let sidecar = Sidecar::of(&place);
    let start = |who: usize| {
        let writer = kind(&place, who);
        sidecar.wait_for(who + 1);
        writer
    };
    let writers: Vec<Writer> = (0..WRITERS).map(start).collect();
    // Nobody's own clock has changed the order meanwhile, neither the backstop's nor the watcher's.
    std::thread::sleep(Duration::from_millis(50));
    holder.execute_batch("COMMIT").unwrap();
    writers.into_iter().for_each(Writer::join);
    let arrived: Vec<i64> = (-1..WRITERS as i64).collect();
    assert_eq!(place.order(), arrived, "{journal}, quantum {quantum_us:?}");
    assert_eq!(sidecar.waiting(), 0);
    assert_eq!(sidecar.overtakes(), 0, "each wrote once, and in turn");
}

fn processes(test: &str, kind: Kind, journal: &'static str) {
    if support::has_program(test, PYTHON, "python3") {
        for quantum_us in BOTH {
            arrive(kind, journal, quantum_us, "turnstile");
        }
    }
}

fn threads(journal: &'static str) {
    for quantum_us in BOTH {
        arrive(Writer::thread, journal, quantum_us, "turnstile");
    }
}

#[test]
fn processes_wal() {
    processes("processes_wal", Writer::process, "wal");
}

#[test]
fn processes_delete() {
    processes("processes_delete", Writer::process, "delete");
}

#[test]
fn processes_truncate() {
    processes("processes_truncate", Writer::process, "truncate");
}

#[test]
fn processes_persist() {
    processes("processes_persist", Writer::process, "persist");
}

#[test]
fn mixed_wal() {
    processes("mixed_wal", mixed, "wal");
}

#[test]
fn mixed_delete() {
    processes("mixed_delete", mixed, "delete");
}

#[test]
fn mixed_truncate() {
    processes("mixed_truncate", mixed, "truncate");
}

#[test]
fn mixed_persist() {
    processes("mixed_persist", mixed, "persist");
}

#[test]
fn threads_in_every_journal_mode() {
    for journal in ["wal", "delete", "truncate", "persist"] {
        threads(journal);
    }
}

/// It tells nobody when it is done: the first in the line finds out.
#[test]
fn a_holder_on_the_stock_vfs() {
    for journal in ["wal", "delete"] {
        arrive(Writer::thread, journal, None, "unix");
    }
}

/// The same order again and again: everybody writes, goes to the end of the line and waits until the others have.
#[test]
fn rounds() {
    const ROUNDS: usize = 25;
    for journal in ["wal", "delete"] {
        let place = Place::new(journal, Some(0));
        let sidecar = Sidecar::of(&place);
        let holder = place.connect("turnstile");
        let mut writers: Vec<_> = (0..WRITERS).map(|_| place.connect("turnstile")).collect();
        for _ in 0..ROUNDS {
            holder.execute_batch("BEGIN IMMEDIATE").unwrap();
            let mut threads = Vec::new();
            for (who, db) in writers.into_iter().enumerate() {
                threads.push(std::thread::spawn(move || {
                    let insert = "INSERT INTO t(who) VALUES(?)";
                    db.execute(insert, [who as i64]).unwrap();
                    db
                }));
                sidecar.wait_for(who + 1);
            }
            holder.execute_batch("COMMIT").unwrap();
            writers = threads.into_iter().map(|t| t.join().unwrap()).collect();
        }
        let once = 0..WRITERS as i64;
        let expected: Vec<i64> = (0..ROUNDS).flat_map(|_| once.clone()).collect();
        assert_eq!(place.order(), expected, "{journal}");
        assert_eq!(sidecar.overtakes(), 0);
    }
}

/// How many overtook while connections that stay open wrote in a loop.
fn overtakes(journal: &'static str, quantum_us: Option<u32>) -> u64 {
    const WRITERS: usize = 4;
    const WRITES: usize = 200;
    let place = Place::new(journal, quantum_us);
    let sidecar = Sidecar::of(&place);
    let writers: Vec<_> = (0..WRITERS).map(|_| place.connect("turnstile")).collect();
    let holder = place.connect("turnstile");
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let write = |(who, db): (usize, Connection)| {
        std::thread::spawn(move || {
            let mut insert = db.prepare("INSERT INTO t(who) VALUES(?)").unwrap();
            for _ in 0..WRITES {
                insert.execute([who as i64]).unwrap();
            }
        })
    };
    let threads: Vec<_> = writers.into_iter().enumerate().map(write).collect();
    sidecar.wait_for(WRITERS);
    holder.execute_batch("COMMIT").unwrap();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(place.order().len(), WRITERS * WRITES);
    assert_eq!(sidecar.waiting(), 0);
    sidecar.overtakes()
}

#[test]
fn without_a_quantum_nobody_overtakes() {
    for journal in ["wal", "delete", "truncate", "persist"] {
        assert_eq!(overtakes(journal, Some(0)), 0, "{journal}");
    }
}

#[test]
fn within_the_quantum_some_do() {
    assert!(overtakes("wal", None) > 0);
}

/// A connection writes in an endless loop, with a quantum that is long enough to be seen. Who waits behind it
/// gets in when the quantum is over.
#[test]
fn overtakes_are_bounded_by_the_quantum() {
    const QUANTUM: Duration = Duration::from_millis(20);
    let place = Place::new("wal", Some(QUANTUM.as_micros() as u32));
    let sidecar = Sidecar::of(&place);
    let stop = Arc::new(AtomicBool::new(false));
    let (looping, stopped) = (place.connect("turnstile"), stop.clone());
    let looping = std::thread::spawn(move || {
        let mut update = looping.prepare("UPDATE t SET who = who + 1").unwrap();
        while !stopped.load(Ordering::Relaxed) {
            update.execute([]).unwrap();
        }
    });
    let patient = place.connect("turnstile");
    let mut waits = Vec::new();
    // On a busy machine the other one does not always come back at once, and then it has no turn to keep.
    while waits.len() < 15 || sidecar.overtakes() == 0 && waits.len() < 500 {
        // It has the lock to itself for a while.
        std::thread::sleep(Duration::from_millis(5));
        let start = Instant::now();
        patient.execute("INSERT INTO t(who) VALUES(0)", []).unwrap();
        waits.push(start.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    looping.join().unwrap();
    waits.sort();
    assert!(sidecar.overtakes() > 0);
    // Its quantum, a transaction, and a busy machine.
    assert!(waits[waits.len() / 2] < 3 * QUANTUM, "{waits:?}");
    assert!(waits[waits.len() - 1] < 30 * QUANTUM, "{waits:?}");
}

/// One that was told BUSY has left its place; those behind it keep their order.
#[test]
fn who_gives_up_leaves_no_gap() {
    for journal in ["wal", "delete"] {
        let place = Place::new(journal, Some(0));
        let sidecar = Sidecar::of(&place);
        let holder = place.connect("turnstile");
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut writers = Vec::new();
        let mut impatient = Vec::new();
        for who in 0..WRITERS {
            let db = place.connect("turnstile");
            if who % 3 == 0 {
                db.busy_timeout(Duration::from_millis(1_500)).unwrap();
                impatient.push(std::thread::spawn(move || {
                    db.execute_batch("BEGIN IMMEDIATE").unwrap_err();
                }));
            } else {
                writers.push(std::thread::spawn(move || {
                    db.execute("INSERT INTO t(who) VALUES(?)", [who as i64])
                        .unwrap();
                }));
            }
            sidecar.wait_for(who + 1);
        }
        impatient.into_iter().for_each(|t| t.join().unwrap());
        holder.execute_batch("COMMIT").unwrap();
        writers.into_iter().for_each(|t| t.join().unwrap());
        let expected: Vec<i64> = (0..WRITERS as i64).filter(|who| who % 3 != 0).collect();
        assert_eq!(place.order(), expected, "{journal}");
        assert_eq!(sidecar.waiting(), 0);
    }
}

/// One that does not wait and was refused has to come back in its turn; but it may have come to read.
#[test]
fn who_may_not_write_yet_may_read() {
    let place = Place::new("delete", None);
    let sidecar = Sidecar::of(&place);
    let holder = place.connect("turnstile");
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiter = place.connect("turnstile");
    let waiter = std::thread::spawn(move || waiter.execute_batch("BEGIN IMMEDIATE; COMMIT"));
    sidecar.wait_for(1);
    let guest = place.connect("turnstile");
    guest.busy_timeout(Duration::ZERO).unwrap();
    for _ in 0..3 {
        guest.execute_batch("BEGIN IMMEDIATE").unwrap_err();
        let mut tries = 0..4;
        assert!(tries.any(|_| guest.execute_batch("SELECT count(*) FROM t").is_ok()));
    }
    // One that has waited is not turned away at all.
    let patient = place.connect("turnstile");
    patient.busy_timeout(Duration::from_millis(100)).unwrap();
    patient.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    patient.busy_timeout(Duration::ZERO).unwrap();
    for _ in 0..4 {
        patient.execute_batch("SELECT count(*) FROM t").unwrap();
    }
    holder.execute_batch("COMMIT").unwrap();
    waiter.join().unwrap().unwrap();
}
