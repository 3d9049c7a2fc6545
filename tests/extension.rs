//! The first door: `libturnstile.so` in the programs that people have.

mod support;

use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::process::Command;
use support::{extension, has_program, root, stdout, succeed};

/// Debian's, not the first on the PATH: this is the SQLite 3.40.1 that most users have.
const PYTHON: &str = "/usr/bin/python3";

/// Runs `script`, after the prelude.
fn python(script: &str, dir: &Path) -> Command {
    let mut command = Command::new(PYTHON);
    let script = [PRELUDE, script].concat();
    command.args(["-c", &script]).arg(extension()).arg(dir);
    command
}

/// What every script begins with: `load()`, and `connect(name)` through the VFS.
const PRELUDE: &str = "
import os, sqlite3, sys, threading
so, dir = sys.argv[1:]
def load():
    db = sqlite3.connect(':memory:')
    db.enable_load_extension(True)
    db.load_extension(so)
    return db
def connect(name, parameters=''):
    return sqlite3.connect(f'file:{dir}/{name}?vfs=turnstile{parameters}', uri=True)
";

#[test]
fn loads_into_the_sqlite3_shell() {
    if !has_program("loads_into_the_sqlite3_shell", "sqlite3", "sqlite3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sqlite3");
    shell.current_dir(&dir).args([
        ":memory:",
        format!(".load {}", extension().display()).as_str(),
        ".open file:a.db?vfs=turnstile",
        ".vfsname",
        "CREATE TABLE t(x); INSERT INTO t VALUES(7); PRAGMA journal_mode=wal; SELECT x FROM t;",
    ]);
    // The shell asks for the VFS's name with a file control and prints no newline behind it.
    assert_eq!(stdout(&mut shell), "turnstile/unix\nwal\n7");
}

#[test]
fn loads_into_python_twice_from_threads_and_on_both_sides_of_a_fork() {
    let test = "loads_into_python_twice_from_threads_and_on_both_sides_of_a_fork";
    if !has_program(test, PYTHON, "python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "
kept = [load(), load()]
threads = [threading.Thread(target=lambda: kept.append(load())) for _ in range(16)]
for t in threads: t.start()
for t in threads: t.join()
assert len(kept) == 18
db = connect('a.db')
db.execute('CREATE TABLE t(who)')
db.close()
children = []
for n in range(4):
    pid = os.fork()
    if pid == 0:
        load()
        db = connect('a.db')
        with db: db.execute('INSERT INTO t VALUES(?)', (n,))
        os._exit(0)
    children.append(pid)
load()
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
del kept
print(connect('a.db').execute('SELECT count(*) FROM t').fetchone()[0])
";
    assert_eq!(stdout(&mut python(script, dir.path())), "4");
}

/// Two threads that load first, at the same moment: the registration itself is raced, fifty times.
#[test]
fn the_first_load_may_be_raced() {
    if !has_program("the_first_load_may_be_raced", PYTHON, "python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "
def race():
    gate, results = threading.Barrier(8), []
    def one():
        gate.wait()
        load()
        results.append(connect('a.db').execute('PRAGMA user_version').fetchone())
    threads = [threading.Thread(target=one) for _ in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    return len(results) == 8
for _ in range(50):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if race() else 1)
    assert os.waitpid(pid, 0)[1] == 0
print('ok')
";
    assert_eq!(stdout(&mut python(script, dir.path())), "ok");
}

#[test]
fn the_loading_connection_may_go() {
    if !has_program("the_loading_connection_may_go", PYTHON, "python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "
load().close()
db = connect('a.db')
db.execute('CREATE TABLE t(x)')
print(db.execute('SELECT count(*) FROM t').fetchone()[0])
";
    assert_eq!(stdout(&mut python(script, dir.path())), "0");
}

#[test]
fn can_be_the_default_vfs() {
    if !has_program("can_be_the_default_vfs", PYTHON, "python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A VFS shows itself by its option: the stock one would pass over fs=lokal.
    let script = "
load()
try:
    sqlite3.connect(f'file:{dir}/a.db?fs=lokal', uri=True)
    print('unix')
except sqlite3.OperationalError:
    print('turnstile')
";
    assert_eq!(stdout(&mut python(script, dir.path())), "unix");
    let default = stdout(python(script, dir.path()).env("TURNSTILE_DEFAULT", "1"));
    assert_eq!(default, "turnstile");
    let not = stdout(python(script, dir.path()).env("TURNSTILE_DEFAULT", "0"));
    assert_eq!(not, "unix");
}

#[test]
fn a_load_that_fails_says_why() {
    if !has_program("a_load_that_fails_says_why", PYTHON, "python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "load()";
    let cases = [
        (
            "TURNSTILE_FS",
            "nfs",
            "environment variable TURNSTILE_FS has the value \"nfs\"; use auto, local or network",
        ),
        (
            "TURNSTILE_DEFAULT",
            "2",
            "environment variable TURNSTILE_DEFAULT has the value \"2\"; use on or off",
        ),
        (
            "TURNSTILE_BASE",
            "nope",
            "option base names the VFS \"nope\", which is not registered",
        ),
        (
            "TURNSTILE_BASE",
            "turnstile",
            "option base names the VFS \"turnstile\", which cannot lie on itself",
        ),
        (
            "TURNSTILE_QUANTUM",
            "5",
            "environment variable TURNSTILE_QUANTUM is unknown; the options are default, fs,",
        ),
    ];
    for (variable, value, text) in cases {
        let output = python(script, dir.path())
            .env(variable, value)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(text),
            "{variable}={value}: {error}"
        );
    }
    // A variable of somebody else's with our prefix.
    succeed(python(script, dir.path()).env("TURNSTILE_SECRET_KEY", "x"));
}

#[test]
fn loads_into_the_newest_sqlite() -> rusqlite::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let loader = Connection::open_in_memory()?;
    // SAFETY: it is the extension under test.
    unsafe {
        loader.load_extension_enable()?;
        loader.load_extension(extension(), None::<&str>)?;
        loader.load_extension(extension(), None::<&str>)?;
    }
    drop(loader);
    let path = dir.path().join("a.db");
    let db = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), "turnstile")?;
    db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(1)")?;
    db.query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0))?;
    Ok(())
}

#[test]
fn loads_into_the_oldest_sqlite() {
    let fixture = root().join("tests/fixtures/oldest-sqlite");
    let target = root().join("target/oldest-sqlite");
    succeed(
        Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(fixture.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
    );
    let dir = tempfile::tempdir().unwrap();
    let seen = stdout(
        Command::new(target.join("debug/oldest-sqlite"))
            .arg(extension())
            .arg(dir.path()),
    );
    let lines: Vec<&str> = seen.lines().collect();
    let expected = [
        "version 3.26.0",
        "delete 6 ok",
        "truncate 6 ok",
        "persist 6 ok",
        "wal 6 ok",
    ];
    assert_eq!(lines[..5], expected, "{seen}");
    assert!(
        lines[5].contains("log 1 turnstile: URI parameter fs has the value \"lokal\""),
        "{seen}"
    );
    assert_eq!(lines[6], "bad value: Err(1)");
}

/// Never two SQLites in one process: the file needs no `sqlite3_*` symbol, and defines only the entry
/// point. Checked in the dynamic symbols and, for what is hidden, in all of them.
#[test]
fn brings_and_needs_no_sqlite() {
    if !has_program("brings_and_needs_no_sqlite", "nm", "binutils") {
        return;
    }
    for arguments in [&["-D"][..], &[][..]] {
        let symbols = stdout(Command::new("nm").args(arguments).arg(extension()));
        let sqlite: Vec<&str> = symbols
            .lines()
            .filter(|line| {
                line.rsplit(' ')
                    .next()
                    .is_some_and(|name| name.starts_with("sqlite3"))
            })
            .filter(|line| !line.ends_with(" T sqlite3_turnstile_init"))
            .collect();
        assert!(sqlite.is_empty(), "nm {arguments:?}: {sqlite:?}");
        assert!(symbols.contains(" T sqlite3_turnstile_init"));
    }
}

/// Two SQLites in one process, each loading the same file: Debian's in Python, and the newest one in
/// an extension module's stead, opened by its own name. Each gets a VFS of its own.
#[test]
fn serves_two_sqlites_in_one_process() {
    let test = "serves_two_sqlites_in_one_process";
    let other = "/usr/lib/x86_64-linux-gnu/libsqlite3.so.0";
    let there = Path::new(other).exists();
    if !support::available(test, other, there, "apt-get install libsqlite3-0") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let here = Connection::open_in_memory().unwrap();
    // SAFETY: it is the extension under test.
    unsafe {
        here.load_extension_enable().unwrap();
        here.load_extension(extension(), None::<&str>).unwrap();
    }
    let guest = support::guest::Sqlite::open(other);
    guest.load(&extension());
    for (n, name) in ["a.db", "b.db"].iter().enumerate() {
        let uri = format!("file:{}?vfs=turnstile", dir.path().join(name).display());
        guest.exec(&uri, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
        let db = Connection::open(&uri).unwrap();
        db.execute("INSERT INTO t VALUES(2)", []).unwrap();
        let count: i64 = db
            .query_row("SELECT count(*) FROM t", [], |r| r.get(0))
            .unwrap();
        assert_eq!(count, 2, "round {n}");
    }
}
