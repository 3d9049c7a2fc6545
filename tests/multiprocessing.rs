//! Python's `multiprocessing`, by fork and by spawn: registered in the parent, with other threads
//! alive there, sixteen children write one file.

mod support;

use std::process::Command;

/// A file of its own and not `-c`: a spawned child imports it.
const SCRIPT: &str = r#"
import multiprocessing, sqlite3, sys, threading, time

WRITERS, WRITES = 16, 20

def load(so):
    db = sqlite3.connect(':memory:')
    db.enable_load_extension(True)
    db.load_extension(so)

def connect(path):
    # Sixteen writers and stock waiting: the timeout is not what is tested.
    return sqlite3.connect(f'file:{path}?vfs=turnstile', uri=True, timeout=120)

def write(so, path, how, who):
    if how != 'fork':
        load(so)  # A spawned child begins with nothing.
    for n in range(WRITES):
        db = connect(path)
        with db:
            db.execute('INSERT INTO t VALUES(?, ?)', (who, n))
        db.close()

def busy(stop, pause, path):
    # Threads of the parent that use the VFS, but are not inside SQLite when it forks: SQLite's own
    # mutexes, held by a thread that the child does not have, hang a child on stock unix, too.
    while not stop.is_set():
        with pause:
            db = connect(path)
            db.execute('SELECT count(*) FROM t').fetchall()
            db.close()

if __name__ == '__main__':
    so, path, how, journal = sys.argv[1:]
    load(so)
    db = connect(path)
    db.execute(f'PRAGMA journal_mode={journal}')
    db.execute('CREATE TABLE t(who, n)')
    db.commit()
    db.close()
    stop, pause = threading.Event(), threading.Lock()
    threads = [threading.Thread(target=busy, args=(stop, pause, path + '-other')) for _ in range(4)]
    other = connect(path + '-other')
    other.execute('CREATE TABLE t(x)')
    other.close()
    for t in threads: t.start()
    context = multiprocessing.get_context(how)
    children = [context.Process(target=write, args=(so, path, how, who)) for who in range(WRITERS)]
    for c in children:
        with pause:
            c.start()
    for c in children: c.join()
    stop.set()
    for t in threads: t.join()
    db = connect(path)
    print([c.exitcode for c in children].count(0),
          db.execute('SELECT count(DISTINCT who || "-" || n) FROM t').fetchone()[0],
          db.execute('PRAGMA integrity_check').fetchone()[0])
"#;

fn run(test: &str, how: &str, journal: &str) {
    const PYTHON: &str = "/usr/bin/python3";
    if !support::has_program(test, PYTHON, "python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("writers.py");
    std::fs::write(&script, SCRIPT).unwrap();
    let seen = support::stdout(
        Command::new("timeout")
            .args(["300", PYTHON])
            .arg(script)
            .arg(support::extension())
            .arg(dir.path().join("a.db"))
            .args([how, journal]),
    );
    assert_eq!(seen, "16 320 ok");
}

#[test]
fn fork_wal() {
    run("fork_wal", "fork", "wal");
}

#[test]
fn fork_delete() {
    run("fork_delete", "fork", "delete");
}

#[test]
fn spawn_wal() {
    run("spawn_wal", "spawn", "wal");
}

#[test]
fn spawn_delete() {
    run("spawn_delete", "spawn", "delete");
}
