//! `turnstile bench`: its numbers are proven, it can be stopped in any way, and it leaves nothing
//! behind.
#![cfg(feature = "cli")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes nearly so long; it only ends a test that hangs.
const GUARD: Duration = Duration::from_secs(120);

fn bench(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstile"));
    command
        .arg("bench")
        .arg("--dir")
        .arg(dir)
        .args(arguments.split_whitespace());
    command
}

fn json(command: &mut Command) -> Value {
    let output = support::succeed(command.arg("--json"));
    serde_json::from_slice(&output.stdout).expect("nothing but one JSON document on stdout")
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no count"))
}

/// Processes whose command line says that they write in `dir`, by looking at every process there
/// is: nobody gets away by having another parent.
fn writers_in(dir: &Path) -> Vec<u32> {
    let needle = dir.to_string_lossy().into_owned();
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words);
            words.contains("bench-writer") && words.contains(&needle)
        })
        .collect()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < GUARD, "waited too long: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// Until the gate is open. The database is made, and its first WAL gone, before any writer starts;
/// they make the next one.
fn wait_for_writes(dir: &Path) {
    let wrote = |path: PathBuf| fs::metadata(path).is_ok_and(|m| m.len() > 0);
    wait_for("the writers", || !writers_in(dir).is_empty());
    wait_for("the first writes", || {
        let rounds = fs::read_dir(dir).expect("the directory").flatten();
        rounds
            .map(|round| round.path().join("bench.db-wal"))
            .any(wrote)
    });
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).expect("the directory").count()
}

/// A long run, stopped by `stop` as soon as its writers write. What `stop` returns is dropped
/// when the run has ended.
fn stopped<T>(dir: &Path, arguments: &str, stop: impl FnOnce(&Child) -> T) -> Output {
    let child = bench(dir, arguments)
        .process_group(0) // As a shell does it: Ctrl-C goes to the whole group.
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bench starts");
    wait_for_writes(dir);
    let _held = stop(&child);
    let asked = Instant::now();
    let output = child.wait_with_output().expect("bench ends");
    assert!(
        asked.elapsed() < GUARD / 2,
        "it took {:?} to stop",
        asked.elapsed()
    );
    output
}

fn kill(signal: &str, pid: &str) {
    support::succeed(Command::new("kill").args([signal, "--", pid]));
}

#[test]
fn every_round_is_proven_in_every_journal_mode() {
    for journal in ["wal", "delete", "truncate", "persist"] {
        let dir = TempDir::new().expect("a directory");
        let asked = format!("--writers 6 --seconds 0.5 --rounds 2 --journal {journal}");
        let run = json(&mut bench(dir.path(), &asked));

        let rounds = run["rounds"].as_array().expect("rounds");
        let order: Vec<_> = rounds
            .iter()
            .map(|r| r["vfs"].as_str().expect("a name"))
            .collect();
        assert_eq!(order, ["unix", "turnstile", "turnstile", "unix"]);
        for round in rounds {
            let proof = &round["proof"];
            assert!(number(&round["writes"]) >= 6, "{round}");
            assert_eq!(number(&proof["acknowledged"]), number(&round["writes"]));
            let stored = number(&proof["rows"]) - number(&proof["unacknowledged_but_stored"]);
            assert_eq!(stored, number(&round["writes"]));
            assert_eq!(number(&proof["lost"]) + number(&proof["unexplained"]), 0);
            assert_eq!(proof["integrity_check"], serde_json::json!(["ok"]));
            assert_eq!(round["casualties"], serde_json::json!([]));

            let latency = |name: &str| round["latency"][name].as_f64().expect("a figure");
            assert!(latency("p50_us") > 0.0 && latency("p50_us") <= latency("p99_us"));
            assert!(latency("p99_us") <= latency("p999_us"));
            assert!(latency("p999_us") <= latency("max_us"));
            let jain = round["jain"].as_f64().expect("an index");
            assert!((1.0 / 6.0..=1.0).contains(&jain), "{jain}");
            assert!(number(&round["writes_in_window"]) <= number(&round["writes"]));
        }
        for summary in run["summary"].as_array().expect("summaries") {
            let of_rounds = rounds.iter().filter(|r| r["vfs"] == summary["vfs"]);
            let sum: u64 = of_rounds.map(|r| number(&r["writes"])).sum();
            assert_eq!(number(&summary["writes"]), sum);
            assert_eq!(number(&summary["acknowledged"]), sum);
            assert_eq!(summary["proven"], true);
        }
        assert_eq!(entries(dir.path()), 0, "the databases are removed");
    }
}

#[test]
fn kept_open_and_without_sleep() {
    let dir = TempDir::new().expect("a directory");
    for variant in [
        "--keep-open",
        "--no-sleep",
        "--keep-open --no-sleep --sync off",
    ] {
        let asked = format!("--writers 3 --seconds 0.5 --rounds 1 {variant}");
        let run = json(&mut bench(dir.path(), &asked));
        for summary in run["summary"].as_array().expect("summaries") {
            assert!(number(&summary["writes"]) > 0, "{variant}: {summary}");
            assert_eq!(summary["proven"], true);
        }
    }
}

/// Nobody is refused, all get the same, and what they wrote is there.
#[test]
fn the_yardstick_is_strictly_first_come_first_served() {
    for journal in ["wal", "delete"] {
        for variant in ["", "--keep-open", "--no-sleep"] {
            let dir = TempDir::new().expect("a directory");
            let asked = format!(
                "--writers 8 --seconds 1 --rounds 1 --timeout-ms 0 --sync off \
                 --vfs yardstick --journal {journal} {variant}"
            );
            let run = json(&mut bench(dir.path(), &asked));
            let summary = &run["summary"][0];
            assert_eq!(summary["vfs"], "yardstick");
            assert_eq!(summary["failures"], serde_json::json!({}), "{asked}");
            assert_eq!(summary["proven"], true);
            assert_eq!(summary["writers_left_out"], 0.0);
            assert!(summary["waits_per_write"].as_f64().expect("a figure") > 0.0);
            let jain = summary["jain"].as_f64().expect("an index");
            assert!(jain > 0.9, "{asked}: {jain}");
            assert_eq!(entries(dir.path()), 0);
        }
    }
}

/// One at a time means that each is the last to close; the anchor keeps the WAL for the next.
#[test]
fn the_yardstick_keeps_its_wal_and_can_be_interrupted() {
    let dir = TempDir::new().expect("a directory");
    let asked = "--writers 8 --seconds 100 --rounds 1 --vfs yardstick";
    let output = stopped(dir.path(), asked, |child| {
        let round = fs::read_dir(dir.path()).expect("it").flatten().next();
        let wal = round.expect("a round").path().join("bench.db-wal");
        for _ in 0..30 {
            sleep(Duration::from_millis(10));
            assert!(wal.exists());
        }
        kill("-INT", &child.id().to_string());
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert_eq!(writers_in(dir.path()), [0; 0]);
    assert_eq!(entries(dir.path()), 0);
}

/// The picture, the table, and nothing on standard output but the table.
#[test]
fn table_and_plot_name_both() {
    let dir = TempDir::new().expect("a directory");
    let out = TempDir::new().expect("a directory");
    let svg = out.path().join("latency.svg");
    fs::write(&svg, "something longer than nothing that is to be replaced").expect("a file");
    let mut command = bench(dir.path(), "--writers 4 --seconds 0.5 --rounds 1");
    let table = support::stdout(command.arg("--plot").arg(&svg));
    for word in [
        "unix",
        "turnstile",
        "writes/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "p99.9 / p50",
        "failures",
        "Jain",
        "CPU per write",
        "waits per write",
        "acknowledged",
        "integrity_check ok",
    ] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    let picture = fs::read_to_string(&svg).expect("the picture");
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    for word in ["\nunix\n", "\nturnstile\n", "p50 ", "p99.9 ", " writes/s"] {
        assert!(picture.contains(word), "{word} is not in\n{picture}");
    }
    if support::has_program("table_and_plot_name_both", "xmllint", "libxml2-utils") {
        support::succeed(Command::new("xmllint").arg("--noout").arg(&svg));
    }
}

#[test]
fn ctrl_c_and_sigterm_stop_it_cleanly() {
    for signal in ["-INT", "-TERM"] {
        let dir = TempDir::new().expect("a directory");
        let asked = "--writers 20 --seconds 100 --rounds 1";
        let output = stopped(dir.path(), asked, |child| {
            kill(signal, &format!("-{}", child.id()))
        });
        let table = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{table}\n{said}");
        assert!(
            table.contains("interrupted") && table.contains("integrity_check ok"),
            "{table}"
        );
        assert_eq!(writers_in(dir.path()), [0; 0], "no process is left");
        assert_eq!(entries(dir.path()), 0, "the database is removed");
    }
}

/// Writers that wait for minutes are not waited for, and what they had acknowledged is proven.
#[test]
fn ctrl_c_does_not_wait_for_those_who_wait() {
    let dir = TempDir::new().expect("a directory");
    let asked = "--writers 4 --seconds 100 --timeout-ms 600000 --rounds 1 --vfs unix --no-sleep";
    let output = stopped(dir.path(), asked, |child| {
        let round = fs::read_dir(dir.path())
            .expect("it")
            .flatten()
            .next()
            .expect("a round");
        let holder = rusqlite::Connection::open(round.path().join("bench.db")).expect("open");
        holder.busy_timeout(GUARD).expect("set");
        holder
            .execute_batch("BEGIN IMMEDIATE")
            .expect("the write lock");
        sleep(Duration::from_millis(300)); // By now everybody waits for it.
        kill("-INT", &child.id().to_string());
        holder // And keeps it until they are dead.
    });
    let table = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{table}\n{said}");
    assert!(table.contains("were killed"), "{table}");
    assert!(table.contains("integrity_check ok"), "{table}");
    assert_eq!(writers_in(dir.path()), [0; 0]);
    assert_eq!(entries(dir.path()), 0);
}

#[test]
fn a_killed_parent_takes_its_writers_along() {
    let dir = TempDir::new().expect("a directory");
    stopped(dir.path(), "--writers 20 --seconds 100", |child| {
        assert!(!writers_in(dir.path()).is_empty());
        kill("-KILL", &child.id().to_string());
    });
    wait_for("the writers to die", || writers_in(dir.path()).is_empty());
}

/// One writer dies in the middle; the others go on, and the report says so.
#[test]
fn a_killed_writer_is_reported_and_its_commits_are_proven() {
    let dir = TempDir::new().expect("a directory");
    let asked = "--writers 5 --seconds 3 --rounds 1 --vfs turnstile --no-sleep --json";
    let output = stopped(dir.path(), asked, |_| {
        let victim = writers_in(dir.path())[0];
        kill("-KILL", &victim.to_string());
    });
    assert_eq!(output.status.code(), Some(1));
    let run: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let round = &run["rounds"][0];
    let casualties = round["casualties"].to_string();
    assert!(casualties.contains("was killed by SIGKILL"), "{casualties}");
    assert_eq!(number(&round["proof"]["lost"]), 0);
    assert_eq!(round["proof"]["integrity_check"], serde_json::json!(["ok"]));
}

/// The promise of 1,000: they all start, they all write, and together they need less than 4 GiB.
#[test]
fn a_thousand_writers_fit_in_4_gib() {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() {
        TempDir::new_in(shm)
    } else {
        TempDir::new()
    };
    let dir = dir.expect("a directory");
    // Long enough a timeout that even the unluckiest gets in: this is about memory.
    let asked = "--writers 1000 --seconds 3 --rounds 1 --vfs turnstile --sync off --timeout-ms 60000 --json";
    let output = stopped(dir.path(), asked, |_| {
        let all = writers_in(dir.path());
        assert_eq!(all.len(), 1000, "all of them live at the same time");
        let kib: u64 = all.iter().filter_map(|&pid| proportional_kib(pid)).sum();
        assert!(kib > 0 && kib < 4 << 20, "{kib} KiB");
    });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let run: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        number(&run["rounds"][0]["writers_left_out"]),
        0,
        "every one of them wrote"
    );
}

/// A process's own memory, and its share of what it shares.
fn proportional_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn bad_input_is_refused_before_anything_runs() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    let missing = dir.path().join("missing");
    let plot = missing.join("x.svg");
    let (file, missing, plot) = (file.display(), missing.display(), plot.display());
    for (arguments, expected) in [
        (format!("--dir {missing}"), "name an existing directory"),
        (format!("--dir {file}"), "not a directory"),
        (
            "--dir /proc".to_owned(),
            "name an existing directory that you may write to",
        ),
        (
            format!("--plot {plot}"),
            "name a file in an existing directory",
        ),
        ("--writers 0".to_owned(), "'--writers"),
        ("--seconds 0".to_owned(), "number of seconds"),
        ("--seconds soon".to_owned(), "number of seconds"),
        ("--rounds 0".to_owned(), "'--rounds"),
        (
            "--journal wall".to_owned(),
            "wal, delete, truncate, persist",
        ),
        ("--vfs unix,turnpike".to_owned(), "no such vfs: turnpike"),
        ("--vfs unix,unix".to_owned(), "twice"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_turnstile"))
            .arg("bench")
            .args(arguments.split_whitespace())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{arguments}"
        );
        assert!(said.contains(expected), "{arguments}: {said}");
    }
    assert_eq!(entries(dir.path()), 1, "no picture was begun");
}

/// Root has no such limit, so root becomes somebody else first.
#[test]
fn too_many_processes_is_said_and_nobody_stays() {
    let dir = TempDir::new().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let program = dir.path().join("turnstile");
    fs::copy(env!("CARGO_BIN_EXE_turnstile"), &program).expect("a copy that anybody may run");
    let mut command = Command::new("prlimit");
    command.arg("--nproc=40");
    if support::stdout(Command::new("id").arg("-u")) == "0" {
        command.args([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ]);
    }
    command
        .arg(&program)
        .args(["bench", "--writers", "5000", "--dir"])
        .arg(dir.path());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("of 5000 writers could be started"), "{said}");
    assert!(
        said.contains("ulimit -u") && said.contains("fewer --writers"),
        "{said}"
    );
    assert_eq!(writers_in(dir.path()), [0; 0]);
    assert_eq!(entries(dir.path()), 1, "only the program itself");
}
