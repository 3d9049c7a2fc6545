//! SQLite's own test programs (built by `support/sqlite-programs.sh` out of Debian's source
//! package) with `--vfs turnstile`: no errors, and no fewer checks than with `--vfs unix`.

mod support;

use rusqlite::Connection;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// mptest's scripts. crash02.subtest is part of config02 and crash01.
const SCRIPTS: [&str; 4] = ["config01", "config02", "crash01", "multiwrite01"];

/// The parts of speedtest1. Left out is only "trigger": in 3.40.1 it fails on any VFS.
const TEST_SETS: &str = "main,orm,cte,fp,rtree";

#[test]
fn mptest_delete() {
    mptest("mptest_delete", "DELETE");
}

#[test]
fn mptest_persist() {
    mptest("mptest_persist", "PERSIST");
}

#[test]
fn mptest_truncate() {
    mptest("mptest_truncate", "TRUNCATE");
}

#[test]
fn mptest_wal() {
    mptest("mptest_wal", "WAL");
}

/// Six processes, which also crash, on one database.
fn mptest(test: &str, mode: &str) {
    let Some(programs) = programs(test) else {
        return;
    };
    for script in SCRIPTS {
        let stock = checks(programs, "mptest", "unix", script, mode);
        // mptest-timeout waits in SQLite's busy handler. mptest has its own, whose sqlite3_sleep()
        // is the default VFS's: to make that turnstile's is the harder test.
        for program in ["mptest", "mptest-timeout"] {
            let ours = checks(programs, program, "turnstile", script, mode);
            println!("{program} {script} {mode}: {ours} checks, {stock} with unix");
            assert!(
                ours >= stock,
                "{program} {script} {mode}: {ours} of {stock} checks"
            );
        }
    }
}

/// Runs one of mptest's scripts to its end. How many checks it made; none may have failed.
fn checks(programs: &Path, program: &str, vfs: &str, script: &str, mode: &str) -> u32 {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("test.db");
    let scripts = if mode == "WAL" {
        "scripts/wal"
    } else {
        "scripts/rollback"
    };
    let default = if program == "mptest" { "1" } else { "0" };
    let mptest = programs.join(program);
    let mut command = on(vfs, &mptest);
    command
        .arg0(programs.join("mptest-client"))
        .env("MPTEST", &mptest)
        .env("MPTEST_JOURNALMODE", mode)
        .env("TURNSTILE_DEFAULT", default)
        .arg(&db)
        .args([
            "--vfs",
            vfs,
            "--quiet",
            "--journalmode",
            mode,
            "--timeout",
            "10000",
        ])
        .arg(programs.join(scripts).join(format!("{script}.test")));
    let said = support::stdout(&mut command);
    let what = format!("{program} --vfs {vfs} {script} {mode}");
    // A client that dies of an error takes its count of errors with it, but not its words.
    assert!(
        !said.contains(":ERROR:") && !said.contains(":FATAL:"),
        "{what}\n{said}"
    );
    let summary = said
        .lines()
        .find_map(|l| l.strip_prefix("Summary: 0 errors out of "));
    let checks = summary.and_then(|rest| rest.strip_suffix(" tests")?.parse().ok());
    let checks = checks.unwrap_or_else(|| panic!("{what}: no summary\n{said}"));
    assert!(checks > 0, "{what}: no checks\n{said}");
    assert_whole(&db, mode, &what);
    checks
}

#[test]
fn speedtest1() {
    let Some(programs) = programs("speedtest1") else {
        return;
    };
    for mode in ["DELETE", "PERSIST", "TRUNCATE", "WAL"] {
        let stock = results(programs, "unix", mode);
        let ours = results(programs, "turnstile", mode);
        println!("speedtest1 {mode}: {ours}");
        assert_eq!(ours, stock, "speedtest1 {mode}");
    }
}

/// Runs speedtest1. A hash over all that its queries returned.
fn results(programs: &Path, vfs: &str, mode: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("test.db");
    let mut command = on(vfs, &programs.join("speedtest1"));
    command
        .args([
            "--vfs",
            vfs,
            "--journal",
            mode,
            "--testset",
            TEST_SETS,
            "--size",
            "5",
            "--verify",
        ])
        .arg(&db);
    let said = support::stdout(&mut command);
    let what = format!("speedtest1 --vfs {vfs} {mode}");
    let hash = said
        .lines()
        .find_map(|l| l.strip_prefix("Verification Hash: "));
    let hash = hash
        .unwrap_or_else(|| panic!("{what}: no hash\n{said}"))
        .to_owned();
    // What stays of the journal shows that the mode was really on.
    let journal = std::fs::metadata(dir.path().join("test.db-journal")).map(|m| m.len() > 0);
    match mode {
        "PERSIST" => assert!(journal.unwrap(), "{what}"),
        "TRUNCATE" => assert!(!journal.unwrap(), "{what}"),
        _ => assert!(journal.is_err(), "{what}"),
    }
    assert_whole(&db, mode, &what);
    hash
}

/// One process, many threads; threadtest3 knows no `--vfs`, so turnstile is its default.
#[test]
fn threadtest3() {
    let Some(programs) = programs("threadtest3") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let tests = [
        "walthread5",
        "cgt_pager_1",
        "checkpoint_starvation_2",
        "stress1",
        "vacuum1",
    ];
    let mut command = on("turnstile", &programs.join("threadtest3"));
    command
        .env("TURNSTILE_DEFAULT", "1")
        .current_dir(dir.path())
        .args(tests);
    let said = support::stdout(&mut command);
    assert!(said.ends_with("0 errors out of 5 tests"), "{said}");
}

/// `program`, which finds turnstile registered unless the VFS it is to use is stock.
fn on(vfs: &str, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("TURNSTILE_DEFAULT")
        .env_remove("TURNSTILE_EXTENSION");
    if vfs == "turnstile" {
        command.env("TURNSTILE_EXTENSION", support::extension());
    }
    command
}

/// Stock SQLite finds the database whole, and WAL only if it was asked for.
fn assert_whole(db: &Path, mode: &str, what: &str) {
    let db = Connection::open(db).unwrap();
    let ask = |sql| {
        db.query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    assert_eq!(ask("PRAGMA integrity_check"), "ok", "{what}");
    assert_eq!(ask("PRAGMA journal_mode") == "wal", mode == "WAL", "{what}");
}

/// Where the programs are, built once; or nothing if this machine cannot build them.
fn programs(test: &str) -> Option<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sqlite-programs");
        let script = support::root().join("tests/support/sqlite-programs.sh");
        let output = Command::new(script).arg(&dir).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Ok(dir),
            Some(69) => Err(said.into_owned()),
            _ => panic!("sqlite-programs.sh: {}\n{said}", output.status),
        }
    });
    match built {
        Ok(dir) => Some(dir),
        Err(said) => {
            let line = said.lines().last().unwrap_or_default();
            let needs = line
                .strip_prefix("sqlite-programs.sh: needs ")
                .unwrap_or(line);
            let (what, remedy) = needs.split_once("; ").unwrap_or((needs, said));
            support::available(test, what, false, remedy);
            None
        }
    }
}
